"""What users hand to fit, evaluate and predict, made into splits of images that fit the model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.data import Dataset, Split, load
from minidl.data.rows import Rows
from minidl.errors import DataError, ShapeError
from minidl.nn import Module

_HELD_OUT_KEY = 20131216  # any constant: the same images are held out in every run, whatever its seed


@dataclass(frozen=True)
class Kind:
    """What images there are: their (H, W, C), whether uint8 (then the model preprocesses them), and how many
    classes, if the data says.
    """

    shape: tuple[int, ...]
    is_uint8: bool
    num_classes: int | None = None


def as_data(data: Any, labels: Any, where: str) -> Any:
    """A Dataset, a Split, or an object with __len__ and __getitem__.

    `data` may also be a data set's name, its loader function, or images with labels.  DataError for anything
    else; `where` names the caller.
    """
    if isinstance(data, str):
        return load(data)
    if labels is not None:
        return Split(data, labels)
    if isinstance(data, tuple) and len(data) == 2:
        return Split(*data)
    if isinstance(data, Callable) and not hasattr(data, "__len__"):  # type: ignore[arg-type]
        return as_data(data(), None, where)
    items = hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, np.ndarray)
    if items or isinstance(data, Dataset):
        return data
    raise DataError(
        f"{where}: data is a {type(data).__name__}; give a Dataset, its name, (images, labels), or an object "
        "with __len__ and __getitem__(i) -> (image, label)"
    )


def hold_out(split: Any, share: float) -> tuple[Any, Any]:
    """(the rest, the validation part) of a training split: `share` of it, the same images in every run."""
    if not 0 < share < 1:
        raise ValueError(
            f"fit: validation is {share}; give a share of the training images between 0 and 1, a split, or "
            "None"
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


def kind_of(data: Any, where: str) -> Kind:
    """What images the data holds.  DataError when it holds none."""
    if isinstance(data, Dataset):
        return Kind(data.image_shape, data.train.images.dtype == np.uint8, data.num_classes)
    if isinstance(data, Split):
        return Kind(data.images.shape[1:], data.images.dtype == np.uint8)
    if len(data) == 0:
        raise DataError(f"{where}: data holds no images")
    image = np.asarray(data[0][0])
    return Kind(image.shape, image.dtype == np.uint8)


def check_fit(model: Module, kind: Kind, where: str) -> None:
    """ShapeError for images in (C, H, W), DataError unless images and classes fit the model."""
    expected, known = getattr(model, "input_shape", None), getattr(model, "num_classes", None)
    if expected is not None:
        _check_shape(model, kind, tuple(expected), where)
    if kind.num_classes is not None and known is not None and kind.num_classes != known:
        raise DataError(
            f"{where}: the data has {kind.num_classes} classes, but the model's num_classes is {known}; "
            f"build the model with num_classes={kind.num_classes}"
        )


def check_labels(model: Module, split: Any, where: str) -> None:
    """DataError when a label has no class in the model; looked at only where all labels are at hand."""
    known = getattr(model, "num_classes", None)
    if known is not None and isinstance(split, Split) and split.labels.max() >= known:
        raise DataError(
            f"{where}: labels reach {split.labels.max()}, but the model's num_classes is {known} (labels 0 "
            f".. {known - 1}); build the model with num_classes={split.labels.max() + 1} or more"
        )


def preprocessed_shape(model: Module, kind: Kind) -> tuple[int, ...]:
    """The (H, W, C) that reach the model."""
    config = (getattr(model, "preprocess", None) or {}) if kind.is_uint8 else {}
    size = config.get("crop") or config.get("resize")
    return (*size, kind.shape[2]) if size and len(kind.shape) == 3 else tuple(kind.shape)


def _check_shape(model: Module, kind: Kind, expected: tuple[int, ...], where: str) -> None:
    seen = preprocessed_shape(model, kind)
    smallest = getattr(model, "smallest", None)
    any_size = smallest is not None and len(seen) == 3 and min(seen[:2]) >= smallest
    if seen == expected or (any_size and seen[2] == expected[2]):
        return
    c, h, w = kind.shape
    if (h, w, c) == expected:
        raise ShapeError(
            f"{where}: the images have shape {kind.shape}, which looks like (C, H, W): minidl's images are "
            "channels-last, use images.transpose(0, 2, 3, 1)"
        )
    raise DataError(
        f"{where}: the images are (H, W, C) = {tuple(kind.shape)}, but the model takes {expected}"
        f"{'' if smallest is None else f' or any size from {smallest}x{smallest} on'}. Resize "
        f"them with minidl.data.transforms.fit_images(images, {expected}), on the command line with "
        "--fit-images; or build the model for these images"
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
    """The items at `indices`, none of them copied or read."""
    if isinstance(split, Split):
        return Split(Rows(split.images, indices), split.labels[indices])
    return _Picked(split, indices)
