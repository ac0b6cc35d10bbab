"""Synthetic images: a data set of any size and shape, made in memory, that a network can learn.

Each class is one blocky random picture; an image is its class's picture under noise. What a data set for
tests needs: no file, the same bits for the same arguments, and a task that is neither trivial nor hopeless.
"""

import os

import numpy as np

from minidl.data.dataset import Dataset, Split
from minidl.errors import DataError, ShapeError

_BLOCK = 4  # pixels; a picture is smooth enough for a convolution and a pool to keep
_NOISE = 48.0  # standard deviation, in units of 0..255


def synthetic(
    n_train: int = 2000,
    n_test: int = 400,
    *,
    shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    seed: int = 0,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Dataset:
    """Noisy pictures of `num_classes` kinds.  train (n_train, H, W, C), test (n_test, H, W, C), uint8

    shape is (H, W, C). The classes are equally frequent, to within one image. The named random streams are
    not touched. `root` and `download` are not used. ShapeError for a bad shape, DataError for a split or a
    set of classes that would be empty.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ShapeError(f"synthetic: shape is {shape}, expected (H, W, C), each at least 1")
    if min(n_train, n_test, num_classes) < 1:
        raise DataError(
            f"synthetic: n_train is {n_train}, n_test {n_test}, num_classes {num_classes}; "
            "each must be at least 1"
        )
    rng = np.random.default_rng(seed)
    h, w, c = shape
    blocks = rng.uniform(0, 255, (num_classes, -(-h // _BLOCK), -(-w // _BLOCK), c)).astype(np.float32)
    pictures = blocks.repeat(_BLOCK, axis=1).repeat(_BLOCK, axis=2)[:, :h, :w]  # (K, H, W, C)
    train, test = (_noisy(pictures, n, rng) for n in (n_train, n_test))
    return Dataset("synthetic", [f"class {k}" for k in range(num_classes)], train, test)


def _noisy(pictures: np.ndarray, n: int, rng: np.random.Generator) -> Split:
    labels = rng.permutation(np.arange(n) % len(pictures))
    images = rng.standard_normal((n, *pictures.shape[1:]), dtype=np.float32)
    images *= _NOISE
    images += pictures[labels]
    return Split(images.clip(0, 255).astype(np.uint8), labels)
