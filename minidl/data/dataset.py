"""What a data set is: two splits of images and labels, checked once when they are made.

Everything behind this door (loader, transforms, fit) trusts what a `Split` holds: images (N, H, W, C) of
uint8 or float32 and as many int64 class numbers. So a wrong label is reported with its index here and not as
a crash in a kernel.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.data.rows import Rows, as_images, in_memory, take
from minidl.errors import DataError, ShapeError


class Split:
    """Images with their class numbers.  images (N, H, W, C) uint8 or float32, labels (N,) int64

    uint8 images hold 0..255; floats of another width become float32. Images may be more than memory holds: an
    array that is mapped from a file (np.memmap) stays one, as does an object with shape, dtype, len(),
    images[i], images[a:b] and take(indices, axis=0), and each image is read, and made float32, when it is
    asked for. ShapeError unless images have four axes, none of length zero, and labels one entry per image.
    DataError for no images at all, images or labels of another type, or a label outside 0..num_classes-1
    (when `num_classes` is given; below 0 always).
    """

    def __init__(self, images: Any, labels: Any, *, num_classes: int | None = None) -> None:
        self.images: Any = _check_images(as_images(images))  # an array, or what is read like one
        self.labels: np.ndarray = _check_labels(np.asarray(labels), len(self.images))
        if num_classes is not None or self.labels.min() < 0:
            _check_range(self.labels, num_classes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """One image (H, W, C), not copied, and its class number."""
        index = operator.index(index)
        return self.images[index], int(self.labels[index])

    def __repr__(self) -> str:
        n, h, w, c = self.images.shape
        return f"Split({n} images of {h}x{w}x{c} {self.images.dtype})"

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Copies of the images and labels at `indices`.  (M,) -> (M, H, W, C), (M,)"""
        return take(self.images, indices), self.labels.take(indices)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set: class k is called `classes[k]`; `test` is for the final evaluation alone.

    ShapeError unless both splits hold images of one shape, DataError for a label without a class.
    """

    name: str
    classes: Sequence[str]
    train: Split
    test: Split

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise ShapeError(
                f"{self.name}: train has images of shape {self.train.images.shape[1:]}, test of "
                f"{self.test.images.shape[1:]}"
            )
        for split, part in (("train", self.train), ("test", self.test)):
            _check_range(part.labels, self.num_classes, f"{self.name} {split}: ")

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)"""
        h, w, c = self.train.images.shape[1:]
        return h, w, c


def _check_images(images: Any) -> Any:
    axes = len(images.shape)
    if axes > 0 and images.shape[0] == 0:
        raise DataError(f"images: shape {images.shape} holds no images; at least one is needed")
    if axes != 4 or 0 in images.shape:
        cure = "; for grey images pass images[..., None]" if axes == 3 else ""
        raise ShapeError(f"images: shape is {images.shape}, expected (N, H, W, C), none of length 0{cure}")
    if np.issubdtype(images.dtype, np.floating):
        if images.dtype == np.float32:
            return images
        whole = in_memory(images)
        return images.astype(np.float32) if whole else Rows(images, np.arange(len(images)), np.float32)
    if images.dtype != np.uint8:
        raise DataError(
            f"images: dtype is {images.dtype}, expected uint8 (0..255) or float32; convert with "
            "images.astype(np.uint8)"
        )
    return images


def _check_labels(labels: np.ndarray, n: int) -> np.ndarray:
    if labels.shape != (n,):
        cure = "; turn one-hot rows into class numbers with labels.argmax(axis=1)" if labels.ndim == 2 else ""
        raise ShapeError(f"labels: shape is {labels.shape}, expected ({n},), one per image{cure}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels: dtype is {labels.dtype}, expected integer class numbers; convert with "
            "labels.astype(np.int64)"
        )
    return labels.astype(np.int64, copy=False)


def _check_range(labels: np.ndarray, num_classes: int | None, where: str = "") -> None:
    """DataError naming the first label below 0 or, if `num_classes` is known, above num_classes - 1."""
    wrong = labels < 0 if num_classes is None else (labels < 0) | (labels >= num_classes)
    if wrong.any():
        index = int(wrong.argmax())
        allowed = "0 or more" if num_classes is None else f"0..{num_classes - 1}"
        raise DataError(f"{where}labels[{index}] is {labels[index]}, out of range: expected {allowed}")
