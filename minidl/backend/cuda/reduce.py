"""Reductions on the GPU: kernels/reduce.cu. Sums and maxima over axes, softmax along one.

Sums are made where the numbers lie: axes that follow one another are one to the kernel, and if others stand
between them there is a launch for each such run of axes, the innermost first. Maxima and softmax run along
rows, for which other axes are moved last by a copy.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from minidl.backend import Array
from minidl.backend.cuda.channels import lines
from minidl.backend.cuda.device import runtime_of
from minidl.backend.cuda.elementwise import TYPES, instance, instances
from minidl.backend.cuda.launch import THREADS, Kernel, Strided, blocks_for, kernel, launch
from minidl.backend.cuda.move import contiguous, copy, fill

_WARP = 32
_DEEPEST = 64  # the last axis of a block has no more threads
_BLOCKS = 512  # enough for the largest GPUs, each block having eight loads under way in every thread
_LEAST, _MOST = 64, 1024  # numbers that one thread adds up where a sum is made of parts
_PART = 4096  # numbers of a part of a maximum

# Sums of integers wrap around, as on the CPU: in C++ only unsigned ones do.
_UNSIGNED: dict[np.dtype, str] = {np.dtype(np.int32): "unsigned", np.dtype(np.int64): "unsigned long long"}
_SUMS = instances("reduce.cu", "sums<{}>", TYPES | _UNSIGNED)
_MAX = instances("reduce.cu", "max_first<{}>", TYPES)
_MAX_GRAD = {np.dtype(np.float32): kernel("reduce.cu", "max_first_grad")}
_SOFTMAX = {np.dtype(np.float32): kernel("reduce.cu", "softmax")}
_LOG_SOFTMAX = {np.dtype(np.float32): kernel("reduce.cu", "log_softmax")}

Shape = tuple[int, ...]


def sum(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """Sum over axes."""
    found, axes = instance(_SUMS, x.dtype, "sum"), _axes(x.ndim, axis)
    kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    shape = kept if keepdims else tuple(n for a, n in enumerate(x.shape) if a not in axes)
    if x.size == 0:
        return fill(runtime_of(x).empty(shape, x.dtype), 0)
    if kept == x.shape:
        return copy(x).reshape(shape)
    return _sum_runs(found, x, axes).reshape(shape)


def column_sums(x: Array) -> Array:
    """Sum over all axes but the last.  (..., C) -> (C,)"""
    return sum(x, tuple(range(x.ndim - 1)))


def _sum_runs(found: Kernel, x: Array, axes: Sequence[int]) -> Array:
    """The sum over axes, the shape left open: neighbouring axes that are summed, or are not, as one."""
    alike = groupby(((a in axes, n) for a, n in enumerate(x.shape) if n > 1), key=lambda axis: axis[0])
    runs = [(summed, math.prod(n for _, n in run)) for summed, run in alike]
    pitch = 0  # of rows with gaps between them: they can be read where the last axis is a run that is kept
    if runs[-1] == (False, x.shape[-1]):
        x, pitch = lines(x)
    else:
        x = contiguous(x)
    columns, y = 1, x.view(f"u{x.itemsize}") if x.dtype.kind == "i" else x
    for i, (summed, n) in reversed([*enumerate(runs)]):
        if summed:
            y = _add_rows(found, y, math.prod(n for _, n in runs[:i]), n, columns, pitch or columns)
            pitch = 0
        else:
            columns *= n
    return y.view(x.dtype)


class _Block(NamedTuple):
    """How the threads of a block are laid out for a sum, and how many rows it adds up."""

    columns: int
    rows: int
    groups: int
    chunk: int


def _block(groups: int, rows: int, columns: int) -> _Block:
    """Neighbouring columns side by side, a warp of them if there are as many; then rows, so that each thread
    adds eight at least; what is left over for more columns, or for more groups."""
    wide = min(_power(columns), _WARP)
    high = min(max(_power(-(-rows // 8)), _WARP // wide), _power(rows), THREADS // wide)
    wide = min(_power(columns), THREADS // high)
    deep = min(_power(groups), THREADS // (wide * high), _DEEPEST)
    each = groups * rows * columns // (_BLOCKS * THREADS)
    return _Block(wide, high, deep, high * min(max(each, _LEAST), _MOST))


def _add_rows(found: Kernel, x: Array, groups: int, rows: int, columns: int, pitch: int) -> Array:
    """The sum over rows that lie `pitch` apart.  (groups, rows, columns) -> (groups, columns)"""
    runtime = runtime_of(x)
    while True:
        block = _block(groups, rows, columns)
        parts = -(-rows // block.chunk)
        y = runtime.empty((groups, parts, columns), x.dtype)
        blocks = -(-columns // block.columns) * parts * -(-groups // block.groups)
        sizes = groups, rows, columns, pitch, block.chunk
        launch(found, runtime, blocks, Strided(x), y, *sizes, block=(block.columns, block.rows, block.groups))
        if parts == 1:
            return y
        x, rows, pitch = y, parts, columns


def max_first(x: Array, axes: Shape) -> tuple[Array, Array]:
    """(the maximum over `axes`, which are left out; the place of the first one that attains it).

    The place is a row-major number among the elements of those axes.
    """
    kept = [a for a in range(x.ndim) if a not in axes]
    shape, k = tuple(x.shape[a] for a in kept), math.prod(x.shape[a] for a in axes)
    found, runtime, rows = instance(_MAX, x.dtype, "max"), runtime_of(x), math.prod(shape)
    x, places = contiguous(x.transpose(*kept, *axes)), None
    while True:
        chunk = min(k, _PART)
        parts = -(-k // chunk)
        y, place = runtime.empty((rows, parts), x.dtype), runtime.empty((rows, parts), np.int32)
        if rows:
            width = lanes(chunk)
            blocks = blocks_for(rows * parts, THREADS // width)
            launch(found, runtime, blocks, x, places, y, place, rows, k, chunk, width)
        if parts == 1:
            return y.reshape(shape), place.reshape(shape)
        x, places, k = y, place, parts


def max_first_grad(g: Array, place: Array, shape: Shape, axes: Shape) -> Array:
    """g at the place of each maximum, zeros elsewhere: the gradient of `max_first`."""
    order = [*(a for a in range(len(shape)) if a not in axes), *axes]
    found, runtime = instance(_MAX_GRAD, g.dtype, "max's gradient"), runtime_of(g)
    y = runtime.empty(tuple(shape[a] for a in order), g.dtype)
    if y.size:
        k = math.prod(shape[a] for a in axes)
        launch(found, runtime, blocks_for(y.size), contiguous(g), contiguous(place), y, k, y.size)
    return _moved_back(y, order)


def softmax(x: Array, axis: int) -> Array:
    """exp(x) / sum(exp(x)) along an axis; the maximum is subtracted first, so nothing overflows."""
    return _along(instance(_SOFTMAX, x.dtype, "softmax"), x, axis)


def log_softmax(x: Array, axis: int) -> Array:
    """log(softmax(x)) along an axis, without the detour through tiny numbers."""
    return _along(instance(_LOG_SOFTMAX, x.dtype, "log_softmax"), x, axis)


def _along(found: Kernel, x: Array, axis: int) -> Array:
    """What a kernel makes of the rows along an axis, in x's shape."""
    order = [a for a in range(x.ndim) if a != axis % x.ndim] + [axis % x.ndim]
    runtime, x = runtime_of(x), contiguous(x.transpose(*order))
    y, k = runtime.empty(x.shape, x.dtype), x.shape[-1]
    if y.size:
        rows, width = y.size // k, lanes(k)
        launch(found, runtime, blocks_for(rows, THREADS // width), x, y, rows, k, width)
    return _moved_back(y, order)


def lanes(k: int) -> int:
    """How many lanes of a warp share a row of k numbers: a power of two."""
    return min(_power(k), _WARP)


def _power(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << (max(n, 1) - 1).bit_length()


def _axes(ndim: int, axis: Any) -> Sequence[int]:
    """The axes that `axis` (None, an integer or several) names."""
    given = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return [a % ndim for a in given]


def _moved_back(y: Array, order: Sequence[int]) -> Array:
    """y, whose axes are those of another array in this order, with its axes as they are there."""
    return contiguous(y.transpose([order.index(a) for a in range(len(order))]))
