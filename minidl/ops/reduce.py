"""Reductions over axes: sum, mean, max.  `axis` is None (all), an integer or several."""

from math import prod
from typing import Any

from minidl import backend
from minidl.backend import Array
from minidl.errors import ShapeError
from minidl.ops._shapes import axes_of, check_float
from minidl.recording import op


@op
def sum(x: Array, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Sum over axes."""
    axes = axes_of("sum", x.ndim, axis)
    xp, shape, kept = backend.of(x), x.shape, _kept_shape(x.shape, axes)

    def grad_x(g: Array) -> Array:
        return xp.broadcast(xp.reshape(g, kept), shape)

    return xp.sum(x, axis=axes, keepdims=keepdims), (grad_x,)


@op
def mean(x: Array, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Mean over axes.  ShapeError over nothing."""
    check_float("mean", x)
    axes = axes_of("mean", x.ndim, axis)
    count = prod(x.shape[a] for a in axes)
    if count == 0:
        raise ShapeError(f"mean: x of shape {x.shape} has no elements along axis {axis}")
    xp, shape, kept = backend.of(x), x.shape, _kept_shape(x.shape, axes)

    def grad_x(g: Array) -> Array:
        return xp.broadcast(xp.div(xp.reshape(g, kept), count), shape)

    return xp.div(xp.sum(x, axis=axes, keepdims=keepdims), count), (grad_x,)


@op
def max(x: Array, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Maximum over axes.  Of equal maxima the first one in row-major order receives the gradient.

    ShapeError over nothing.
    """
    axes = tuple(sorted(axes_of("max", x.ndim, axis)))
    if prod(x.shape[a] for a in axes) == 0:
        raise ShapeError(f"max: x of shape {x.shape} has no elements along axis {axis}")
    xp, shape = backend.of(x), x.shape
    y, place = xp.max_first(x, axes)

    def grad_x(g: Array) -> Array:
        return xp.max_first_grad(g, place, shape, axes)

    return (xp.reshape(y, _kept_shape(shape, axes)) if keepdims else y), (grad_x,)


def _kept_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with the reduced axes as 1."""
    return tuple(1 if a in axes else n for a, n in enumerate(shape))
