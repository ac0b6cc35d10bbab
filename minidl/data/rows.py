"""Images that are read when they are asked for, so that a data set may be larger than memory.

What a `Split` asks of its images is little: shape (N, H, W, C), dtype, len(), images[i], images[a:b] and
take(indices, axis=0). Arrays have all that, in memory or mapped from a file. So has every `Lazy`, which
computes or reads its images: `Rows`, a choice of another's images, and `folder.ImageFiles`, pictures on disk.
"""

import mmap
import operator
from typing import Any

import numpy as np


class Lazy:
    """Images of which only those asked for are in memory; a subclass sets shape and dtype and has `_read`.

    They are indexed as an array is, along the first axis alone: images[3] is one of them, images[[1, 5]] or
    images[mask] a new array of several, and images[:100] a view that reads nothing. np.asarray(images)
    reads all. IndexError beyond the end, or for more axes than one.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """The images at `rows`, which may count from the end.  (M,) integers -> (M, H, W, C)"""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Rows(self, np.arange(len(self))[index])
        if isinstance(index, tuple):
            raise IndexError(
                f"{type(self).__name__}: index has {len(index)} axes, only the first can be indexed before "
                "images are read; read them first, as in images[:8].take(range(8))[:, ::2]"
            )
        if np.ndim(index) == 0:
            return self._read(np.array([operator.index(index)]))[0]
        rows = np.asarray(index)
        if rows.dtype == bool:
            rows = np.arange(len(self))[rows]
        return self.take(rows)

    def take(self, indices: Any, axis: int = 0) -> np.ndarray:
        """A new array of the images at `indices`.  (M,) -> (M, H, W, C)"""
        if axis != 0:
            raise ValueError(f"{type(self).__name__}: axis is {axis}, images are taken along axis 0 alone")
        rows = np.asarray(indices)
        return self._read(rows if rows.size else rows.astype(np.intp))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"{type(self).__name__}: copy is False, but images that are read are new arrays")
        images = self.take(np.arange(len(self)))
        return images if dtype is None else images.astype(dtype, copy=False)

    def __repr__(self) -> str:
        n, *shape = self.shape
        return f"{type(self).__name__}({n} images of {'x'.join(map(str, shape))} {self.dtype})"


class Rows(Lazy):
    """The images at `indices` of an array or a `Lazy`, none of them copied before it is read.

    dtype: what they become when they are read; without one they stay what they are.
    """

    def __init__(self, images: Any, indices: np.ndarray, dtype: Any = None) -> None:
        nested = isinstance(images, Rows)  # then one list of indices is kept, however often rows are chosen
        self.images: Any = images.images if nested else images
        self.indices: np.ndarray = images.indices[indices] if nested else indices
        self.dtype = np.dtype(images.dtype if dtype is None else dtype)
        self.shape = (len(self.indices), *images.shape[1:])

    def _read(self, rows: np.ndarray) -> np.ndarray:
        return take(self.images, self.indices[rows]).astype(self.dtype, copy=False)


def take(images: Any, indices: np.ndarray) -> np.ndarray:
    """A new array of the images at `indices`, which alone are read.  (M,) -> (M, H, W, C)"""
    if isinstance(images, np.ndarray) and not (images.flags.c_contiguous and images.flags.aligned):
        return np.ascontiguousarray(images[indices])  # take() would copy the whole array first
    return np.asarray(images.take(indices, axis=0))


def as_images(images: Any) -> Any:
    """`images`, if they are an array-like that a Split can hold without reading it; an array otherwise."""
    if isinstance(images, np.memmap):
        return images
    like_array = isinstance(getattr(images, "dtype", None), np.dtype) and hasattr(images, "take")
    return images if like_array and not isinstance(images, np.ndarray) else np.asarray(images)


def in_memory(images: Any) -> bool:
    """Whether images are an array that holds its values itself, rather than maps a file."""
    if not isinstance(images, np.ndarray):
        return False
    owner: Any = images
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return not isinstance(owner.obj if isinstance(owner, memoryview) else owner, mmap.mmap)
