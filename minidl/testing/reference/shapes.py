"""Ops that move elements and compute nothing.

So their gradients need no formula: an array that holds the number of each element is moved in x's place, and
every element of g is sent back to the number that arrived where it is.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from minidl.testing.reference.elementwise import collected, numbered

Array = np.ndarray
Span = tuple[int, int]  # (before, after)


def _sent_back(g: Any, x: Any, move: Callable[[Array], Array]) -> tuple[Array]:
    """g back where `move` took its elements from; an element that was taken twice receives the sum."""
    return (collected(g, move(numbered(np.shape(x))), np.shape(x)),)


def reshape(x: Any, shape: Sequence[int]) -> Array:
    """The same elements, in memory order, in another shape."""
    return np.array(list(np.asarray(x, np.float64).flat)).reshape(shape)


def reshape_gradients(g: Any, x: Any, shape: Sequence[int]) -> tuple[Array]:
    """g in x's shape."""
    return _sent_back(g, x, lambda numbers: reshape(numbers, shape))


def flatten(x: Any) -> Array:
    """(N, ...) -> (N, D), in memory order."""
    return reshape(x, (len(x), int(np.prod(np.shape(x)[1:]))))


def flatten_gradients(g: Any, x: Any) -> tuple[Array]:
    """g in x's shape."""
    return _sent_back(g, x, flatten)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Array:
    """y[k[axes[0]], k[axes[1]], ...] = x[k]; without axes their order is reversed."""
    x = np.asarray(x, np.float64)
    order = [axis % x.ndim for axis in (range(x.ndim)[::-1] if axes is None else axes)]
    y = np.empty([x.shape[axis] for axis in order])
    for place in np.ndindex(x.shape):
        y[tuple(place[axis] for axis in order)] = x[place]
    return y


def transpose_gradients(g: Any, x: Any, axes: Sequence[int] | None = None) -> tuple[Array]:
    """g with the axes in x's order."""
    return _sent_back(g, x, lambda numbers: transpose(numbers, axes))


def concat(arrays: Sequence[Any], axis: int = -1) -> Array:
    """The arrays behind one another along `axis`."""
    swapped = [np.moveaxis(np.asarray(array, np.float64), axis, 0) for array in arrays]
    return np.moveaxis(np.array([row for array in swapped for row in array]), 0, axis)


def concat_gradients(g: Any, arrays: Sequence[Any], axis: int = -1) -> tuple[Array, ...]:
    """The part of g that each of the arrays became."""
    shapes = [np.shape(array) for array in arrays]
    ends = [0, *accumulate(map(math.prod, shapes))]  # the numbers go on from one array to the next
    origin = concat([numbered(shape) + start for shape, start in zip(shapes, ends)], axis)
    whole = collected(g, origin, (ends[-1],))
    return tuple(whole[a:b].reshape(shape) for shape, (a, b) in zip(shapes, pairwise(ends), strict=True))


def pad(x: Any, widths: Sequence[Span], *, value: float = 0.0) -> Array:
    """`value`, rounded to x's dtype as all numbers are, around x: widths[axis] = (before, after)."""
    value, x = np.asarray(x).dtype.type(value), np.asarray(x, np.float64)
    y = np.full(
        [size + before + after for size, (before, after) in zip(x.shape, widths, strict=True)], float(value)
    )
    for place in np.ndindex(x.shape):
        y[tuple(k + before for k, (before, _) in zip(place, widths, strict=True))] = x[place]
    return y


def pad_gradients(g: Any, x: Any, widths: Sequence[Span], *, value: float = 0.0) -> tuple[Array]:
    """The part of g within the frame."""
    return _sent_back(g, x, lambda numbers: pad(numbers, widths, value=-1))


def getitem(x: Any, index: Any) -> Array:
    """NumPy's own indexing is the definition."""
    return np.array(np.asarray(x, np.float64)[index])


def getitem_gradients(g: Any, x: Any, index: Any) -> tuple[Array]:
    """Zeros with g added at `index`."""
    return _sent_back(g, x, lambda numbers: getitem(numbers, index))
