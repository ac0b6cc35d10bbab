"""Rearrangements: reshape, transpose, flatten, concat, pad, getitem.  Views where the memory allows."""

import itertools
import operator
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from minidl import backend
from minidl.autograd import Tensor
from minidl.backend import Array
from minidl.errors import ShapeError
from minidl.ops._shapes import axes_of, one_axis
from minidl.recording import op


@op
def reshape(x: Array, shape: Any) -> Any:
    """x in another shape of as many elements; one axis may be -1.  A view if x is contiguous."""
    wanted = tuple(map(operator.index, shape if isinstance(shape, (tuple, list)) else (shape,)))
    known = prod(n for n in wanted if n != -1)
    if wanted.count(-1) > 1 or (x.size % known if -1 in wanted and known else known != x.size):
        raise ShapeError(
            f"reshape: x of shape {x.shape} has {x.size} elements, they do not fit shape {wanted}"
        )
    xp, before = backend.of(x), x.shape

    def grad_x(g: Array) -> Array:
        return xp.reshape(g, before)

    return xp.reshape(x, wanted), (grad_x,)


@op
def flatten(x: Array) -> Any:
    """Everything but the batch axis in one, in memory order.  (N, H, W, C) -> (N, H*W*C)"""
    if x.ndim < 1:
        raise ShapeError(f"flatten: x has shape {x.shape}, it needs a batch axis")
    xp, before = backend.of(x), x.shape

    def grad_x(g: Array) -> Array:
        return xp.reshape(g, before)

    return xp.reshape(x, (before[0], prod(before[1:]))), (grad_x,)


@op
def transpose(x: Array, axes: Any = None) -> Any:
    """The axes in another order (reversed by default).  A view."""
    order = tuple(reversed(range(x.ndim))) if axes is None else axes_of("transpose", x.ndim, tuple(axes))
    if len(order) != x.ndim:
        raise ShapeError(f"transpose: axes {tuple(axes)} must name all {x.ndim} axes of x, shape {x.shape}")
    xp = backend.of(x)
    inverse = tuple(sorted(range(x.ndim), key=lambda a: order[a]))

    def grad_x(g: Array) -> Array:
        return xp.transpose(g, inverse)

    return xp.transpose(x, order), (grad_x,)


def concat(tensors: Sequence[Any], axis: int = -1) -> Tensor:
    """Tensors behind one another along an axis, the channels by default.

    ShapeError unless all other axes agree.
    """
    if len(tensors) == 0:
        raise ShapeError("concat: no tensors given")
    return _concat(*tensors, axis=axis)


@op
def _concat(*arrays: Array, axis: int) -> Any:
    first = arrays[0]
    axis = one_axis("concat", first.ndim, axis)
    for i, a in enumerate(arrays):
        if a.ndim != first.ndim or any(
            a.shape[side] != first.shape[side] for side in (slice(axis), slice(axis + 1, None))
        ):
            raise ShapeError(
                f"concat: tensor {i} has shape {a.shape}, tensor 0 has {first.shape}; they must agree on "
                f"every axis but axis {axis}"
            )
    ends = list(itertools.accumulate(a.shape[axis] for a in arrays))
    xp, lead = backend.of(first), (slice(None),) * axis

    def part(start: int, end: int) -> Any:
        return lambda g: xp.getitem(g, (*lead, slice(start, end)))

    return xp.concat(arrays, axis), tuple(part(start, end) for start, end in zip([0, *ends], ends))


@op
def pad(x: Array, widths: Any, *, value: float = 0.0) -> Any:
    """x inside a frame of `value`; `widths` is ((before, after), ...), one pair per axis, as in np.pad."""
    pairs = tuple(tuple(int(n) for n in pair) for pair in widths)
    if len(pairs) != x.ndim or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise ShapeError(
            f"pad: widths {widths} must hold a pair (before, after) >= 0 for each axis of x, shape {x.shape}"
        )
    xp = backend.of(x)
    inside = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, pairs))

    def grad_x(g: Array) -> Array:
        return xp.getitem(g, inside)

    return xp.pad(x, pairs, value), (grad_x,)


@op
def getitem(x: Array, index: Any) -> Any:
    """x[index], with NumPy's rules: slices and integers give a view, index arrays and masks a copy.

    An index array is anything of integers or booleans: an array, a Tensor, a list, a range. An element taken
    several times receives all of its gradients.  IndexError outside x, or for any other index.
    """
    xp, shape = backend.of(x), x.shape
    try:
        fixed = tuple(map(_fixed, index if isinstance(index, tuple) else (index,)))
        y = xp.getitem(x, fixed)
    except (IndexError, ValueError) as error:  # ValueError: lists of uneven length
        raise IndexError(f"getitem: x has shape {shape}: {error}") from None

    def grad_x(g: Array) -> Array:
        return xp.getitem_grad(g, fixed, shape)

    return y, (grad_x,)


def _fixed(part: Any) -> Any:
    """One part of an index: an integer, slice, None or Ellipsis as it is, all else as an array of its own."""
    if part is None or part is Ellipsis or isinstance(part, (slice, int, np.integer)):
        return part
    part = part.data if isinstance(part, Tensor) else part
    numbers = np.array(backend.to_host(part) if backend.is_array(part) else part)
    empty = isinstance(part, (list, tuple)) and not part  # which NumPy takes for floats
    return numbers.astype(np.intp) if empty else numbers
