"""Pooling on the CPU: windows over channels-last images, one image per thread at a time.

The inner loop always runs over the channels of one pixel, which are contiguous. Gradients are added into an
image by the one thread that owns it, window by window in row-major order, so the sum has one order. Bound by:
memory.
"""

import functools
from collections.abc import Iterator

import numpy as np
from numba import prange

from minidl.backend.cpu import memory
from minidl.backend.cpu.compile import compiled
from minidl.window import Window


def max_pool2d(x: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, C) -> the maxima (N, OH, OW, C), and the tap (row-major number in the window) of each: the
    first one that attains it.

    Padding never wins. A NaN in the window does.
    """
    x = memory.contiguous(x)
    shape = (x.shape[0], *window.output, x.shape[3])
    y = memory.empty(shape, x.dtype)
    taps = memory.empty(shape, np.uint8 if window.taps <= 256 else np.int32)
    _max_pool(x, window.kernel, window.stride, _corner(window), y, taps)
    return y, taps


def max_pool2d_grad(g: np.ndarray, taps: np.ndarray, window: Window) -> np.ndarray:
    """g added to the input pixel that won each window.  (N, OH, OW, C) -> (N, H, W, C)"""
    g = memory.contiguous(g)
    grad_x = memory.empty((g.shape[0], *window.size, g.shape[3]), g.dtype)
    _max_pool_grad(g, taps, window.kernel, window.stride, _corner(window), grad_x)
    return grad_x


def avg_pool2d(x: np.ndarray, window: Window, count_include_pad: bool) -> np.ndarray:
    """Mean of each window, padding counted as zeros or left out.  (N, H, W, C) -> (N, OH, OW, C)"""
    x = memory.contiguous(x)
    y = memory.empty((x.shape[0], *window.output, x.shape[3]), x.dtype)
    _avg_pool(
        x, window.kernel, window.stride, _corner(window), _shares(window, count_include_pad, x.dtype), y
    )
    return y


def avg_pool2d_grad(g: np.ndarray, window: Window, count_include_pad: bool) -> np.ndarray:
    """g shared out over each window.  (N, OH, OW, C) -> (N, H, W, C)"""
    g = memory.contiguous(g)
    grad_x = memory.empty((g.shape[0], *window.size, g.shape[3]), g.dtype)
    _avg_pool_grad(
        g, window.kernel, window.stride, _corner(window), _shares(window, count_include_pad, g.dtype), grad_x
    )
    return grad_x


def adaptive_avg_pool2d(x: np.ndarray, output: tuple[int, int]) -> np.ndarray:
    """Means over the bins of `adaptive_bins`.  (N, H, W, C) -> (N, OH, OW, C)"""
    y = memory.empty((x.shape[0], *output, x.shape[3]), x.dtype)
    for i, rows in enumerate(_bins(x.shape[1], output[0])):
        for j, columns in enumerate(_bins(x.shape[2], output[1])):
            np.mean(x[:, rows, columns], axis=(1, 2), out=y[:, i, j])
    return y


def adaptive_avg_pool2d_grad(g: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """g shared out over each bin.  (N, OH, OW, C) -> (N, H, W, C)"""
    grad_x = memory.zeros((g.shape[0], *size, g.shape[3]), g.dtype)
    for i, rows in enumerate(_bins(size[0], g.shape[1])):
        for j, columns in enumerate(_bins(size[1], g.shape[2])):
            part = grad_x[:, rows, columns]
            part += g[:, i : i + 1, j : j + 1] / (part.shape[1] * part.shape[2])
    return grad_x


def global_avg_pool(x: np.ndarray) -> np.ndarray:
    """Mean over rows and columns.  (N, H, W, C) -> (N, C)"""
    return np.mean(x, axis=(1, 2), dtype=x.dtype)


def global_avg_pool_grad(g: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """g shared out evenly.  (N, C) -> (N, H, W, C)"""
    grad_x = memory.empty((g.shape[0], *size, g.shape[1]), g.dtype)
    grad_x[...] = (g / (size[0] * size[1]))[:, None, None, :]
    return grad_x


def _bins(length: int, count: int) -> Iterator[slice]:
    """`count` bins that cover `length`, possibly overlapping.

    Bin i is floor(i * length / count) up to ceil((i + 1) * length / count).
    """
    return (slice(i * length // count, -(-(i + 1) * length // count)) for i in range(count))


def _corner(window: Window) -> tuple[int, int]:
    """Where the first window starts: minus the padding at the top and left."""
    return -window.padding[0][0], -window.padding[1][0]


@functools.lru_cache(maxsize=1024)  # the layers of a network ask the same in every step
def _shares(window: Window, count_include_pad: bool, dtype: np.dtype) -> np.ndarray:
    """1 / (number of elements each window averages)  (OH, OW).

    Nothing beyond the padding counts (ceil_mode). Not to be written.
    """
    counts = []
    for n, k, s, (before, after), out in zip(
        window.size, window.kernel, window.stride, window.padding, window.output
    ):
        start = np.arange(out) * s - before
        stop = np.minimum(start + k, n + after if count_include_pad else n)
        start = start if count_include_pad else np.maximum(start, 0)
        counts.append(np.maximum(stop - start, 1))  # a window wholly in the padding averages nothing: 0 / 1
    return (1 / np.outer(*counts)).astype(dtype)


@compiled
def _clipped(index, kernel, stride, start, length):  # type: ignore[no-untyped-def]
    """(where window `index` starts, the range of its taps that lie inside the image)"""
    first = index * stride + start
    return first, max(0, -first), min(kernel, length - first)


@compiled(parallel=True)
def _max_pool(x, kernel, stride, corner, y, taps):  # type: ignore[no-untyped-def]
    n, h, w, c = x.shape
    oh, ow = y.shape[1:3]
    for image in prange(n):
        for i in range(oh):
            top, a0, a1 = _clipped(i, kernel[0], stride[0], corner[0], h)
            for j in range(ow):
                left, b0, b1 = _clipped(j, kernel[1], stride[1], corner[1], w)
                best, where = y[image, i, j], taps[image, i, j]
                for f in range(c):
                    best[f] = x[image, top + a0, left + b0, f]
                    where[f] = a0 * kernel[1] + b0
                for a in range(a0, a1):
                    for b in range(b0, b1):
                        values = x[image, top + a, left + b]
                        tap = a * kernel[1] + b
                        for f in range(c):
                            if values[f] > best[f] or (values[f] != values[f] and best[f] == best[f]):
                                best[f] = values[f]
                                where[f] = tap


@compiled(parallel=True)
def _max_pool_grad(g, taps, kernel, stride, corner, grad_x):  # type: ignore[no-untyped-def]
    n, h, w, c = grad_x.shape
    oh, ow = g.shape[1:3]
    zero = g.dtype.type(0)  # of g's type: beside an integer's numba would add in float64
    for image in prange(n):
        grad_x[image, :, :, :] = 0
        for i in range(oh):
            top, a0, a1 = _clipped(i, kernel[0], stride[0], corner[0], h)
            for j in range(ow):
                left, b0, b1 = _clipped(j, kernel[1], stride[1], corner[1], w)
                arriving, where = g[image, i, j], taps[image, i, j]
                for a in range(a0, a1):
                    for b in range(b0, b1):
                        tap = a * kernel[1] + b
                        target = grad_x[image, top + a, left + b]
                        for f in range(c):  # every tap is visited, so that this loop runs over whole vectors
                            target[f] += arriving[f] if where[f] == tap else zero


@compiled(parallel=True)
def _avg_pool(x, kernel, stride, corner, shares, y):  # type: ignore[no-untyped-def]
    n, h, w, c = x.shape
    oh, ow = y.shape[1:3]
    for image in prange(n):
        for i in range(oh):
            top, a0, a1 = _clipped(i, kernel[0], stride[0], corner[0], h)
            for j in range(ow):
                left, b0, b1 = _clipped(j, kernel[1], stride[1], corner[1], w)
                total = y[image, i, j]
                total[:] = 0
                for a in range(a0, a1):
                    for b in range(b0, b1):
                        values = x[image, top + a, left + b]
                        for f in range(c):
                            total[f] += values[f]
                for f in range(c):
                    total[f] *= shares[i, j]


@compiled(parallel=True)
def _avg_pool_grad(g, kernel, stride, corner, shares, grad_x):  # type: ignore[no-untyped-def]
    n, h, w, c = grad_x.shape
    oh, ow = g.shape[1:3]
    for image in prange(n):
        grad_x[image, :, :, :] = 0
        for i in range(oh):
            top, a0, a1 = _clipped(i, kernel[0], stride[0], corner[0], h)
            for j in range(ow):
                left, b0, b1 = _clipped(j, kernel[1], stride[1], corner[1], w)
                arriving = g[image, i, j]
                for a in range(a0, a1):
                    for b in range(b0, b1):
                        target = grad_x[image, top + a, left + b]
                        for f in range(c):
                            target[f] += arriving[f] * shares[i, j]
