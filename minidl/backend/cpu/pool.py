"""Pooling on the CPU: windows over channels-last images, one image per thread at a time.

The inner loop always runs over the channels of one pixel, which are contiguous, and where it can over three
neighbouring taps at once: what the loop keeps is then read and written a third as often. Gradients are added
into an image by the one thread that owns it, window by window in row-major order, so the sum has one order.
Bound by: memory, and the caches where windows overlap.
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
    _max_pool(_rows(x), x.shape[3], window.kernel, window.stride, _corner(window), y, taps)
    return y, taps


def max_pool2d_grad(g: np.ndarray, taps: np.ndarray, window: Window) -> np.ndarray:
    """g added to the input pixel that won each window.  (N, OH, OW, C) -> (N, H, W, C)"""
    g = memory.contiguous(g)
    grad_x = memory.empty((g.shape[0], *window.size, g.shape[3]), g.dtype)
    _max_pool_grad(g, taps, g.shape[3], window.kernel, window.stride, _corner(window), _rows(grad_x))
    return grad_x


def avg_pool2d(x: np.ndarray, window: Window, count_include_pad: bool) -> np.ndarray:
    """Mean of each window, padding counted as zeros or left out.  (N, H, W, C) -> (N, OH, OW, C)"""
    x = memory.contiguous(x)
    y = memory.empty((x.shape[0], *window.output, x.shape[3]), x.dtype)
    shares = _shares(window, count_include_pad, x.dtype)
    _avg_pool(_rows(x), x.shape[3], window.kernel, window.stride, _corner(window), shares, y)
    return y


def avg_pool2d_grad(g: np.ndarray, window: Window, count_include_pad: bool) -> np.ndarray:
    """g shared out over each window.  (N, OH, OW, C) -> (N, H, W, C)"""
    g = memory.contiguous(g)
    grad_x = memory.empty((g.shape[0], *window.size, g.shape[3]), g.dtype)
    shares = _shares(window, count_include_pad, g.dtype)
    _avg_pool_grad(g, g.shape[3], window.kernel, window.stride, _corner(window), shares, _rows(grad_x))
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


def _rows(images: np.ndarray) -> np.ndarray:
    """The pixels of a row with their channels as one run of numbers.  (N, H, W, C) -> (N, H, W * C)"""
    return images.reshape(*images.shape[:2], -1)


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


@compiled
def _clear(image, first, end):  # type: ignore[no-untyped-def]
    """image[first:end] = 0, -> the first row after: just before a row is added to, that it is in a cache."""
    for i in range(first, end):
        for j in range(image.shape[1]):
            image[i, j] = 0
    return max(first, end)


@compiled(parallel=True)
def _max_pool(x, c, kernel, stride, corner, y, taps):  # type: ignore[no-untyped-def]
    n, h, width = x.shape
    number = taps.dtype.type  # beside a wider integer the loops would run over fewer at a time
    for image in prange(n):
        for i in range(y.shape[1]):
            top, a0, a1 = _clipped(i, kernel[0], stride[0], corner[0], h)
            for j in range(y.shape[2]):
                left, b0, b1 = _clipped(j, kernel[1], stride[1], corner[1], width // c)
                best, where = y[image, i, j], taps[image, i, j]
                first = x[image, top + a0, (left + b0) * c :]
                for f in range(c):
                    best[f] = first[f]
                    where[f] = a0 * kernel[1] + b0
                for a in range(a0, a1):
                    b = b0
                    while b < b1:
                        values = x[image, top + a, (left + b) * c :]
                        tap = number(a * kernel[1] + b)
                        if b + 3 <= b1:
                            second, third = number(tap + 1), number(tap + 2)
                            for f in range(c):
                                most, at = _larger(best[f], where[f], values[f], tap)
                                most, at = _larger(most, at, values[c + f], second)
                                best[f], where[f] = _larger(most, at, values[2 * c + f], third)
                            b += 3
                        else:
                            for f in range(c):
                                best[f], where[f] = _larger(best[f], where[f], values[f], tap)
                            b += 1


@compiled
def _larger(best, where, value, tap):  # type: ignore[no-untyped-def]
    """The best value so far, and the next where that is larger, or the first NaN; and the tap of either."""
    if (not (value <= best)) & (best == best):  # "and" would branch: one number at a time
        return value, tap
    return best, where


@compiled(parallel=True)
def _max_pool_grad(g, taps, c, kernel, stride, corner, grad_x):  # type: ignore[no-untyped-def]
    n, h, width = grad_x.shape
    zero = g.dtype.type(0)  # of g's type: beside an integer's numba would add in float64
    for image in prange(n):
        clean = 0
        for i in range(g.shape[1]):
            top, a0, a1 = _clipped(i, kernel[0], stride[0], corner[0], h)
            clean = _clear(grad_x[image], clean, top + a1)
            for j in range(g.shape[2]):
                left, b0, b1 = _clipped(j, kernel[1], stride[1], corner[1], width // c)
                arriving, where = g[image, i, j], taps[image, i, j]
                # every tap is visited, so that the inner loops run over whole vectors
                for a in range(a0, a1):
                    b = b0
                    while b < b1:
                        target, tap = grad_x[image, top + a, (left + b) * c :], a * kernel[1] + b
                        if b + 3 <= b1:
                            for f in range(c):
                                value, at = arriving[f], where[f]
                                target[f] += value if at == tap else zero
                                target[c + f] += value if at == tap + 1 else zero
                                target[2 * c + f] += value if at == tap + 2 else zero
                            b += 3
                        else:
                            for f in range(c):
                                target[f] += arriving[f] if where[f] == tap else zero
                            b += 1
        _clear(grad_x[image], clean, h)


@compiled(parallel=True)
def _avg_pool(x, c, kernel, stride, corner, shares, y):  # type: ignore[no-untyped-def]
    n, h, width = x.shape
    for image in prange(n):
        for i in range(y.shape[1]):
            top, a0, a1 = _clipped(i, kernel[0], stride[0], corner[0], h)
            for j in range(y.shape[2]):
                left, b0, b1 = _clipped(j, kernel[1], stride[1], corner[1], width // c)
                total = y[image, i, j]
                total[:] = 0
                for a in range(a0, a1):
                    b = b0
                    while b < b1:
                        values = x[image, top + a, (left + b) * c :]
                        if b + 3 <= b1:
                            for f in range(c):
                                total[f] = total[f] + values[f] + values[c + f] + values[2 * c + f]
                            b += 3
                        else:
                            for f in range(c):
                                total[f] += values[f]
                            b += 1
                for f in range(c):
                    total[f] *= shares[i, j]


@compiled(parallel=True)
def _avg_pool_grad(g, c, kernel, stride, corner, shares, grad_x):  # type: ignore[no-untyped-def]
    n, h, width = grad_x.shape
    for image in prange(n):
        clean = 0
        for i in range(g.shape[1]):
            top, a0, a1 = _clipped(i, kernel[0], stride[0], corner[0], h)
            clean = _clear(grad_x[image], clean, top + a1)
            for j in range(g.shape[2]):
                left, b0, b1 = _clipped(j, kernel[1], stride[1], corner[1], width // c)
                arriving, share = g[image, i, j], shares[i, j]
                for a in range(a0, a1):
                    b = b0
                    while b < b1:
                        target = grad_x[image, top + a, (left + b) * c :]
                        if b + 3 <= b1:
                            for f in range(c):
                                value = arriving[f] * share
                                target[f] += value
                                target[c + f] += value
                                target[2 * c + f] += value
                            b += 3
                        else:
                            for f in range(c):
                                target[f] += arriving[f] * share
                            b += 1
        _clear(grad_x[image], clean, h)
