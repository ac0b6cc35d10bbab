"""Matrix products: BLAS in each of our threads, on a share of the rows or columns.

BLAS could share them out itself. But its threads, when done, wait for the next product at full speed for
some 40 ms, and meanwhile the kernels that follow run at half theirs: a step of ResNet-18 takes an eighth
longer so, for its one fully connected layer.
"""

import math

import numpy as np
from numba import prange

from minidl.backend.blas_threads import scipy_on_one_thread
from minidl.backend.cpu import blas, memory
from minidl.backend.cpu.compile import compiled
from minidl.backend.cpu.instructions import numbers_at
from minidl.backend.cpu.threads import get_num_threads

_SMALL = 1 << 13  # multiply-adds, up to which no BLAS wakes its threads and a kernel costs more than it saves
_SHARE = 16  # rows or columns: shares are multiples of so many


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b, leading axes broadcast.  (..., M, D), (..., D, K) -> (..., M, K)"""
    (m, depth), k = a.shape[-2:], b.shape[-1]
    leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = memory.empty((*leading, m, k), a.dtype)
    count = math.prod(leading)
    if count * m * depth * k <= _SMALL or a.dtype not in (np.float32, np.float64):
        return np.matmul(a, b, out=c)
    shares = 1 if count >= get_num_threads() else get_num_threads()
    a, b = _readable(a), _readable(b)
    with scipy_on_one_thread:
        _multiply(*_places(a, leading), *_places(b, leading), depth, c.reshape(count, m, k), shares)
    return c


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """(N, D_in), (D_in, D_out), (D_out,) -> (N, D_out)"""
    y = matmul(x, weight)
    return y if bias is None else np.add(y, bias, out=y)


def _readable(array: np.ndarray) -> np.ndarray:
    """The array, or a copy if BLAS cannot read its matrices in place."""
    return array if _in_rows(array) or _in_rows(array.swapaxes(-1, -2)) else memory.copy(array)


def _in_rows(array: np.ndarray) -> bool:
    """Whether the rows of its matrices are runs of memory one after another."""
    row, column = memory.distances(array)[-2:]
    return column == 1 and (row >= array.shape[-1] or array.shape[-2] == 1)


def _places(array: np.ndarray, leading: tuple[int, ...]) -> tuple[int, np.ndarray, int, int]:
    """(address, how far from it each matrix starts, in bytes, 1 if it lies transposed, elements from row to
    row, or from column to column if so)"""
    starts = np.zeros(1, np.int64)
    for size, step in zip(leading, np.broadcast_to(array, leading + array.shape[-2:]).strides):
        starts = np.add.outer(starts, np.arange(size) * step).reshape(-1)
    swapped = not _in_rows(array)
    lying = array.swapaxes(-1, -2) if swapped else array
    return memory.address(array), starts, int(swapped), max(memory.distances(lying)[-2], lying.shape[-1])


@compiled(parallel=True)
def _multiply(a, a_starts, a_swapped, a_row, b, b_starts, b_swapped, b_row, depth, c, shares):  # type: ignore[no-untyped-def]
    """A share of a matrix to each unit: of its columns, or of its rows if it has more of them."""
    count, m, k = c.shape
    size = c.itemsize
    for unit in prange(count * shares):
        matrix, share = unit // shares, unit % shares
        first, last = _bounds(share, shares, max(m, k))
        rows, columns = (m, last - first) if k >= m else (last - first, k)
        if first < last:
            a_here, b_here = a + a_starts[matrix], b + b_starts[matrix]
            to = c.ctypes.data + size * matrix * m * k
            if k >= m:
                b_here += size * first * (b_row if b_swapped else 1)
                to += size * first
            else:
                a_here += size * first * (1 if a_swapped else a_row)
                to += size * first * k
            blas.gemm(
                a_swapped, b_swapped, rows, columns, depth, numbers_at(a_here, 1, c), a_row,
                numbers_at(b_here, 1, c), b_row, 0.0, numbers_at(to, 1, c), k,
            )  # fmt: skip


@compiled
def _bounds(share, shares, count):  # type: ignore[no-untyped-def]
    """The first and the last + 1 of a share's rows or columns."""
    pieces = (count + _SHARE - 1) // _SHARE
    return share * pieces // shares * _SHARE, min(count, (share + 1) * pieces // shares * _SHARE)
