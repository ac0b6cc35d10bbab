"""What users hand to fit, evaluate and predict, made into splits of images that fit the model."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.data import Dataset, Split, load
from minidl.errors import DataError
from minidl.nn import Module

_HELD_OUT_KEY = 20131216  # any constant: the same images are held out in every run, whatever its seed


def as_data(data: Any, labels: Any = None) -> Any:
    """A Dataset, a Split, or an object with __len__ and __getitem__.  `data` may also be a data set's name,
    its loader function, or images with labels."""
    if isinstance(data, str):
        return load(data)
    if labels is not None:
        return Split(data, labels)
    if isinstance(data, tuple) and len(data) == 2:
        return Split(*data)
    if isinstance(data, Callable) and not hasattr(data, "__len__"):  # type: ignore[arg-type]
        return as_data(data())
    items = hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, np.ndarray)
    if items or isinstance(data, Dataset):
        return data
    raise DataError(
        f"fit: data is a {type(data).__name__}; give a Dataset, its name, (images, labels), or an object "
        "with __len__ and __getitem__(i) -> (image, label)"
    )


def hold_out(split: Any, share: float) -> tuple[Any, Any]:
    """(the rest, the validation part) of a training split: `share` of it, the same images in every run."""
    if not 0 < share < 1:
        raise ValueError(
            f"fit: validation is {share}; give a share of the training images between 0 and 1, a split, or "
            f"None"
        )
    n = len(split)
    held = round(n * share)
    if not 0 < held < n:
        raise DataError(
            f"fit: validation={share} of {n} training images leaves {held} to validate and {n - held} to "
            "train; both need one at least. Give more images, another share, or validation=None"
        )
    order = np.random.default_rng(_HELD_OUT_KEY).permutation(n)
    return _subset(split, np.sort(order[held:])), _subset(split, np.sort(order[:held]))


def check_fit(model: Module, image_shape: tuple[int, ...], num_classes: int | None, where: str) -> None:
    """DataError unless images of (H, W, C) and that many classes fit the model."""
    expected, preprocess = getattr(model, "input_shape", None), getattr(model, "preprocess", None) or {}
    seen = (*preprocess["resize"], image_shape[2]) if "resize" in preprocess else tuple(image_shape)
    if expected is not None and tuple(seen) != tuple(expected):
        raise DataError(
            f"{where}: the images are (H, W, C) = {tuple(image_shape)}, but the model takes "
            f"{tuple(expected)}. Resize them with minidl.data.transforms.fit_images(images, "
            f"{tuple(expected)}), on the command line with --fit-images; or build the model for these images"
        )
    known = getattr(model, "num_classes", None)
    if num_classes is not None and known is not None and num_classes != known:
        raise DataError(
            f"{where}: the data has {num_classes} classes, but the model's num_classes is {known}; build the "
            f"model with num_classes={num_classes}"
        )


def shape_and_classes(data: Any) -> tuple[tuple[int, ...], int | None]:
    """((H, W, C), number of classes if the data says)."""
    if isinstance(data, Dataset):
        return data.image_shape, data.num_classes
    if isinstance(data, Split):
        return data.images.shape[1:], None
    if len(data) == 0:
        raise DataError("fit: data holds no images")
    return np.shape(data[0][0]), None


def check_labels(model: Module, split: Any, where: str) -> None:
    """DataError when a label has no class in the model; looked at only where labels are at hand."""
    known = getattr(model, "num_classes", None)
    if known is not None and isinstance(split, Split) and split.labels.max() >= known:
        raise DataError(
            f"{where}: labels reach {split.labels.max()}, but the model's num_classes is {known} (labels 0 "
            f".. {known - 1}); build the model with num_classes={split.labels.max() + 1} or more"
        )


class _Picked:
    """Some items of an object with __getitem__."""

    def __init__(self, items: Any, indices: np.ndarray) -> None:
        self.items, self.indices = items, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Any:
        return self.items[int(self.indices[i])]


def _subset(split: Any, indices: np.ndarray) -> Any:
    return Split(*split.take(indices)) if isinstance(split, Split) else _Picked(split, indices)
