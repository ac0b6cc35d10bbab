"""Ops that move elements and compute nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Span = tuple[int, int]  # (before, after)


def reshape(x: Any, shape: Sequence[int]) -> Array:
    """The same elements, in memory order, in another shape."""
    return np.array(list(np.asarray(x, np.float64).flat)).reshape(shape)


def flatten(x: Any) -> Array:
    """(N, ...) -> (N, D), in memory order."""
    return reshape(x, (len(x), int(np.prod(np.shape(x)[1:]))))


def transpose(x: Any, axes: Sequence[int] | None = None) -> Array:
    """y[k[axes[0]], k[axes[1]], ...] = x[k]; without axes their order is reversed."""
    x = np.asarray(x, np.float64)
    order = [axis % x.ndim for axis in (range(x.ndim)[::-1] if axes is None else axes)]
    y = np.empty([x.shape[axis] for axis in order])
    for place in np.ndindex(x.shape):
        y[tuple(place[axis] for axis in order)] = x[place]
    return y


def concat(arrays: Sequence[Any], axis: int = -1) -> Array:
    """The arrays behind one another along `axis`."""
    swapped = [np.moveaxis(np.asarray(array, np.float64), axis, 0) for array in arrays]
    return np.moveaxis(np.array([row for array in swapped for row in array]), 0, axis)


def pad(x: Any, widths: Sequence[Span], *, value: float = 0.0) -> Array:
    """`value` around x: widths[axis] = (before, after)."""
    x = np.asarray(x, np.float64)
    y = np.full(
        [size + before + after for size, (before, after) in zip(x.shape, widths, strict=True)], float(value)
    )
    for place in np.ndindex(x.shape):
        y[tuple(k + before for k, (before, _) in zip(place, widths, strict=True))] = x[place]
    return y


def getitem(x: Any, index: Any) -> Array:
    """NumPy's own indexing is the definition."""
    return np.array(np.asarray(x, np.float64)[index])
