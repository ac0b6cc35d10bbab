"""Arithmetic, reductions and rearrangements on the CPU: NumPy into pooled memory, numba where a second thread
pays.

Every function returns a new array (or a view, where it says so) of its inputs' dtype. Python numbers among
the arguments take the dtype of the arrays. Bound by: memory, all of them.
"""

import builtins
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import prange

from minidl.backend.cpu import memory
from minidl.backend.cpu.compile import compiled
from minidl.backend.cpu.instructions import copy_numbers
from minidl.backend.cpu.norm import column_sums
from minidl.backend.cpu.threads import PARALLEL_SIZE

Number = np.ndarray | float


def _unary(ufunc: np.ufunc) -> Callable[[np.ndarray], np.ndarray]:
    def apply(x: np.ndarray) -> np.ndarray:
        return np.asarray(ufunc(x, out=memory.empty(x.shape, x.dtype)))

    apply.__name__ = ufunc.__name__
    return apply


def _binary(
    ufunc: np.ufunc, threaded: Callable[..., None] | None = None
) -> Callable[[Number, Number], np.ndarray]:
    """threaded: the same on large flat arrays of one size (or a number, for b), for several threads."""

    def apply(a: Number, b: Number) -> np.ndarray:
        if threaded and isinstance(a, np.ndarray) and a.size >= PARALLEL_SIZE and a.flags.c_contiguous:
            same = np.shape(b) == a.shape and b.flags.c_contiguous  # type: ignore[union-attr]
            if a.dtype.kind == "f" and (np.ndim(b) == 0 or same):
                y = memory.empty(a.shape, a.dtype)
                threaded(a.reshape(-1), np.asarray(b, a.dtype).reshape(-1), y.reshape(-1))
                return y
        like = a if isinstance(a, np.ndarray) else b
        shape = np.broadcast_shapes(np.shape(a), np.shape(b))
        return np.asarray(ufunc(a, b, out=memory.empty(shape, like.dtype)))  # type: ignore[union-attr]

    apply.__name__ = ufunc.__name__
    return apply


@compiled(parallel=True)
def _add(a, b, y):  # type: ignore[no-untyped-def]
    if b.size == 1:
        for i in prange(a.size):
            y[i] = a[i] + b[0]
    else:
        for i in prange(a.size):
            y[i] = a[i] + b[i]


@compiled(parallel=True)
def _mul(a, b, y):  # type: ignore[no-untyped-def]
    if b.size == 1:
        for i in prange(a.size):
            y[i] = a[i] * b[0]
    else:
        for i in prange(a.size):
            y[i] = a[i] * b[i]


add, mul = _binary(np.add, _add), _binary(np.multiply, _mul)
sub, div = _binary(np.subtract), _binary(np.true_divide)
pow, maximum, minimum = _binary(np.power), _binary(np.maximum), _binary(np.minimum)
neg, abs, sign = _unary(np.negative), _unary(np.absolute), _unary(np.sign)
exp, log, sqrt, tanh = _unary(np.exp), _unary(np.log), _unary(np.sqrt), _unary(np.tanh)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)).

    Computed for x < 0 as e / (1 + e) with e = exp(x), so that nothing overflows and no digit is lost.
    """
    e = abs(x)
    np.exp(np.negative(e, out=e), out=e)
    return div(where(x >= 0, 1.0, e), add(e, 1.0))


def where(condition: np.ndarray, a: Number, b: Number) -> np.ndarray:
    """a where the condition holds, else b."""
    like = a if isinstance(a, np.ndarray) else b
    y = memory.empty(np.broadcast_shapes(condition.shape, np.shape(a), np.shape(b)), like.dtype)  # type: ignore[union-attr]
    y[...] = b
    np.copyto(y, a, where=condition)
    return y


def clip(x: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    """x kept within low .. high."""
    return np.clip(x, low, high, out=memory.empty(x.shape, x.dtype))


def compare(a: Number, relation: str, b: Number) -> np.ndarray:
    """A boolean mask; relation is "<", "<=", ">" or "=="."""
    return {"<": np.less, "<=": np.less_equal, ">": np.greater, "==": np.equal}[relation](a, b)


def cast(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """x in another dtype."""
    y = memory.empty(x.shape, dtype)
    y[...] = x
    return y


def copy(x: np.ndarray) -> np.ndarray:
    """A contiguous copy."""
    return memory.copy(x)


def zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of zeros."""
    return memory.zeros(shape, dtype)


def add_into(total: np.ndarray, more: np.ndarray) -> np.ndarray:
    """total += more, in place; returns total."""
    if total.size < PARALLEL_SIZE or not (total.flags.c_contiguous and more.flags.c_contiguous):
        return np.add(total, more, out=total)
    _add(total.reshape(-1), more.reshape(-1), total.reshape(-1))
    return total


def sum(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    """Sum over axes.

    NumPy adds pairwise along the last axis, but one by one along others, where many small numbers get lost;
    over leading axes the chunked sum of norm.py is taken.
    """
    axes = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if x.ndim > 1 and x.shape[-1] and x.dtype.kind == "f" and sorted(axes) == [*range(x.ndim - 1)]:
        total = column_sums(x)
        return total.reshape((1,) * (x.ndim - 1) + total.shape) if keepdims else total
    return np.asarray(np.sum(x, axis=axis, keepdims=keepdims, dtype=x.dtype))


def max_first(x: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(the maximum over `axes`, which are left out; the place of the first one that attains it).

    The place is a row-major number among the elements of those axes.
    """
    kept = [a for a in range(x.ndim) if a not in axes]
    rows = x.transpose(*kept, *axes).reshape(*(x.shape[a] for a in kept), -1)
    place = np.asarray(rows.argmax(-1))
    return np.take_along_axis(rows, place[..., None], -1)[..., 0], place


def max_first_grad(
    g: np.ndarray, place: np.ndarray, shape: tuple[int, ...], axes: tuple[int, ...]
) -> np.ndarray:
    """g at the place of each maximum, zeros elsewhere: the gradient of `max_first`."""
    kept = [a for a in range(len(shape)) if a not in axes]
    count = int(np.prod([shape[a] for a in axes]))
    rows = memory.zeros((*place.shape, count), g.dtype)
    np.put_along_axis(rows, place[..., None], g.reshape(place.shape)[..., None], -1)
    moved = rows.reshape([shape[a] for a in (*kept, *axes)])
    return memory.contiguous(moved.transpose(np.argsort([*kept, *axes])))


def reshape(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A view in another shape; a copy where x is not contiguous."""
    return x.reshape(shape)


def transpose(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """A view with the axes in another order."""
    return x.transpose(axes)


def broadcast(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """x repeated to a larger shape, in memory of its own."""
    y = memory.empty(shape, x.dtype)
    y[...] = x
    return y


def concat(arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """The arrays behind one another along an axis."""
    shape = list(arrays[0].shape)
    shape[axis] = builtins.sum(a.shape[axis] for a in arrays)
    y = memory.empty(tuple(shape), arrays[0].dtype)
    if y.dtype != np.float32 or y.size < PARALLEL_SIZE or axis not in (-1, y.ndim - 1):
        return np.concatenate(arrays, axis, out=y)
    rows, at = y.size // shape[-1], 0
    for array in arrays:
        _place(memory.contiguous(array).reshape(rows, array.shape[-1]), y.reshape(rows, -1), at)
        at += array.shape[-1]
    return y


@compiled(parallel=True)
def _place(part, y, at):  # type: ignore[no-untyped-def]
    """y[:, at : at + columns of part] = part"""
    rows, count = part.shape
    for i in prange(rows):
        target = y.ctypes.data + 4 * (i * y.shape[1] + at)
        copy_numbers(target, part.ctypes.data + 4 * i * count, count)


def pad(x: np.ndarray, widths: Sequence[tuple[int, int]], value: float) -> np.ndarray:
    """x inside a frame of `value`."""
    y = memory.empty(tuple(n + before + after for n, (before, after) in zip(x.shape, widths)), x.dtype)
    y.fill(value)
    y[tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths))] = x
    return y


def getitem(x: np.ndarray, index: Any) -> np.ndarray:
    """x[index]: a view for slices and integers, a copy for index arrays."""
    return np.asarray(x[index])


def setitem(x: np.ndarray, index: Any, value: Any) -> None:
    """x[index] = value, in place, with NumPy's rules."""
    x[index] = value


def getitem_grad(g: np.ndarray, index: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros with g added at `index`; an element taken twice receives both gradients."""
    grad_x = memory.zeros(shape, g.dtype)
    if any(isinstance(part, np.ndarray) for part in index):
        np.add.at(grad_x, index, g)
    else:
        grad_x[index] = g
    return grad_x


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0); NaN stays NaN."""
    if x.size < PARALLEL_SIZE:
        return maximum(x, 0)
    x = memory.contiguous(x)
    y = memory.empty(x.shape, x.dtype)
    _relu(x.reshape(-1), y.reshape(-1))
    return y


def relu_grad(g: np.ndarray, y: np.ndarray) -> np.ndarray:
    """g where relu's result y is positive, else 0."""
    if g.size < PARALLEL_SIZE:
        return where(y > 0, g, 0.0)
    g, y = memory.contiguous(g), memory.contiguous(y)
    grad_x = memory.empty(g.shape, g.dtype)
    _relu_grad(g.reshape(-1), y.reshape(-1), grad_x.reshape(-1))
    return grad_x


@compiled(parallel=True)
def _relu(x, y):  # type: ignore[no-untyped-def]
    for i in prange(x.size):
        y[i] = 0 if x[i] < 0 else x[i]


@compiled(parallel=True)
def _relu_grad(g, y, grad_x):  # type: ignore[no-untyped-def]
    for i in prange(g.size):
        grad_x[i] = g[i] if y[i] > 0 else 0


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """exp(x) / sum(exp(x)) along an axis; the maximum is subtracted first, so nothing overflows."""
    y = sub(x, x.max(axis, keepdims=True))
    np.exp(y, out=y)
    return np.divide(y, y.sum(axis, keepdims=True), out=y)


def log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """log(softmax(x)) along an axis, without the detour through tiny numbers."""
    y = sub(x, x.max(axis, keepdims=True))
    return np.subtract(y, np.log(np.exp(y).sum(axis, keepdims=True)), out=y)
