"""What happens to images between data set and model: random augmentation, and the fixed way to float32.

augment.py      random changes, for training alone: objects called with (images, generator)
colour.py       those of them that change colours
preprocess.py   from uint8 to what the model takes, as plain data: `Model.preprocess`
fitted.py       preprocessing that is fitted on training images, such as ZCA whitening
contrast.py     contrast normalisation and whitening, as formulas on float images
resize.py       other sizes and channels
words.py        both kinds as text, "pad_crop(4)+flip": how recipes and the command line name them
"""

from minidl.data.transforms.augment import (
    Augmentation,
    compose,
    cutout,
    flip,
    pad_crop,
    parse,
    random_crop,
    random_resized_crop,
    translate,
)
from minidl.data.transforms.colour import colour_jitter, fit_lighting, lighting
from minidl.data.transforms.contrast import ZCA, fit_zca, global_contrast_normalise, local_contrast_normalise
from minidl.data.transforms.fitted import check_preprocess, fit_preprocess, join_arrays, split_arrays
from minidl.data.transforms.preprocess import check_config, on_host, preprocess
from minidl.data.transforms.resize import centre_crop, fit_images

__all__ = [
    "Augmentation",
    "ZCA",
    "centre_crop",
    "colour_jitter",
    "check_config",
    "check_preprocess",
    "compose",
    "cutout",
    "fit_images",
    "fit_lighting",
    "fit_preprocess",
    "fit_zca",
    "flip",
    "global_contrast_normalise",
    "join_arrays",
    "lighting",
    "local_contrast_normalise",
    "on_host",
    "pad_crop",
    "parse",
    "preprocess",
    "random_crop",
    "random_resized_crop",
    "split_arrays",
    "translate",
]
