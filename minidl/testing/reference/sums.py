"""Reductions and products of matrices."""

import math
from builtins import max as larger  # this file defines ops named max and sum
from builtins import min as smaller
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minidl.testing.reference.elementwise import add, add_gradients, collected, mul_gradients, numbered

Array = np.ndarray


def _reduce(
    formula: Callable[[Iterable[float]], float], x: Any, axis: int | Sequence[int] | None, keepdims: bool
) -> Array:
    """formula(the elements that differ only in the reduced axes), for every place in the other axes."""
    x = np.asarray(x, np.float64)
    chosen = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    reduced = {a % x.ndim for a in chosen}
    y = np.empty([1 if a in reduced else size for a, size in enumerate(x.shape)])
    for place in np.ndindex(y.shape):
        y[place] = formula(
            x[tuple(slice(None) if a in reduced else k for a, k in enumerate(place))].ravel().tolist()
        )
    return y if keepdims else y.reshape([size for a, size in enumerate(x.shape) if a not in reduced])


def sum(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Array:
    """The sum over `axis`, or over everything."""
    return _reduce(math.fsum, x, axis, keepdims)


def sum_gradients(
    g: Any, x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False
) -> tuple[Array]:
    """g, to every element of its sum."""
    kept = sum(x, axis, keepdims=True).shape
    return (np.array(np.broadcast_to(np.reshape(np.asarray(g, np.float64), kept), np.shape(x))),)


def mean(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Array:
    """The mean over `axis`, or over everything."""
    return _reduce(average, x, axis, keepdims)


def mean_gradients(
    g: Any, x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False
) -> tuple[Array]:
    """g / count, to every element of its mean."""
    (grad_sum,) = sum_gradients(g, x, axis, keepdims)
    return (grad_sum / (np.size(x) // np.size(g)),)


def max(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Array:
    """The largest element over `axis`, or over everything."""
    return _reduce(larger, x, axis, keepdims)


def max_gradients(
    g: Any, x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False
) -> tuple[Array]:
    """g, to the largest element; of equal ones to the first in row-major order."""
    largest = x == max(x, axis, keepdims=True)
    first = _reduce(smaller, np.where(largest, numbered(np.shape(x)), np.inf), axis, keepdims)
    return (collected(g, first, np.shape(x)),)


def matmul(a: Any, b: Any) -> Array:
    """y[..., i, j] = sum over k of a[..., i, k] * b[..., k, j]; leading axes broadcast."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    left, right = np.atleast_2d(a), b if b.ndim > 1 else b[:, None]
    lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, lead + left.shape[-2:])
    right = np.broadcast_to(right, lead + right.shape[-2:])
    y = np.empty((*lead, left.shape[-2], right.shape[-1]))
    for *place, i, j in np.ndindex(y.shape):
        y[(*place, i, j)] = dot(left[(*place, i)], right[(*place, slice(None), j)])
    y = y if b.ndim > 1 else y[..., 0]
    return y if a.ndim > 1 else y[..., 0, :] if b.ndim > 1 else y[..., 0]


def matmul_gradients(g: Any, a: Any, b: Any) -> tuple[Array, ...]:
    """Of matrices: y[..., i, j] is the sum over k of a product, and g[..., i, j] arrives at each of them."""
    a, b = np.asarray(a, np.float64)[..., None], np.asarray(b, np.float64)[..., None, :, :]
    g = np.broadcast_to(np.asarray(g)[..., None, :], np.broadcast_shapes(a.shape, b.shape))  # (..., i, k, j)
    grad_a, grad_b = mul_gradients(g, a, b)
    return grad_a[..., 0], grad_b[..., 0, :, :]


def linear(x: Any, weight: Any, bias: Any = None) -> Array:
    """y[..., f] = bias[f] + sum over d of x[..., d] * weight[d, f].  (N, D), (D, F), (F,) -> (N, F)"""
    y = matmul(x, weight)
    return y if bias is None else add(y, bias)


def linear_gradients(g: Any, x: Any, weight: Any, bias: Any = None) -> tuple[Array | None, ...]:
    """Those of the product, and g summed over the rows for the bias."""
    return *matmul_gradients(g, x, weight), None if bias is None else add_gradients(g, g, bias)[1]


def dot(a: Array, b: Array) -> float:
    """The sum of a * b, rounded once after the products."""
    return math.fsum((a * b).ravel().tolist())


def average(values: Iterable[float]) -> float:
    """The mean of some numbers."""
    values = list(values)
    return math.fsum(values) / len(values)
