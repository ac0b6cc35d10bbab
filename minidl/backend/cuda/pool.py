"""Pooling on the GPU: kernels/pool.cu. Windows over channels-last images, bins, and whole images."""

import functools

import numpy as np

from minidl.backend import Array
from minidl.backend.cuda.channels import WIDTHS, channels_at_once, columns
from minidl.backend.cuda.device import runtime_of
from minidl.backend.cuda.elementwise import FLOATS, Instances, instance, instances
from minidl.backend.cuda.launch import Kernel, launch
from minidl.backend.cuda.move import contiguous
from minidl.window import Window

# The structs of an axis in pool.cu.
_SLIDING = np.dtype([(name, "i4") for name in "length windows kernel stride before reach low high".split()])
_BINS = np.dtype([("length", "i4"), ("windows", "i4")])

_TAPS = {np.dtype(np.uint8): "unsigned char", np.dtype(np.int32): "int"}

Axes = tuple[np.ndarray, np.ndarray]  # rows, columns: each a struct of one axis


def _instances(name: str) -> dict[int, Instances]:
    """For each number of channels that a thread takes; {} in the name stands for it."""
    return {wide: instances("pool.cu", name.format(wide), FLOATS) for wide in WIDTHS}


_MAX, _MAX_GRAD = (
    {dtype: _instances(f"{name}<{tap}, {{}}>") for dtype, tap in _TAPS.items()}
    for name in ("max_pool", "max_pool_grad")
)
_AVG, _AVG_GRAD = (
    {dtype: _instances(f"{name}<{axis}, {{}}>") for dtype, axis in ((_SLIDING, "Sliding"), (_BINS, "Bins"))}
    for name in ("avg_pool", "avg_pool_grad")
)
_GLOBAL = _instances("global_avg_pool<{}>")


def max_pool2d(x: Array, window: Window) -> tuple[Array, Array]:
    """(N, H, W, C) -> the maxima (N, OH, OW, C), and the tap (row-major number in the window) of each: the
    first one that attains it.

    Padding never wins. A NaN in the window does.
    """
    x, runtime = contiguous(x), runtime_of(x)
    shape = (x.shape[0], *window.output, x.shape[3])
    y, taps = (
        runtime.empty(shape, x.dtype),
        runtime.empty(shape, np.uint8 if window.taps <= 256 else np.int32),
    )
    wide = channels_at_once(x.shape[3], x)
    found = instance(_MAX[taps.dtype][wide], x.dtype, "max_pool2d")
    _launch(found, wide, shape, x, y, taps, *_sliding(window, False))
    return y, taps


def max_pool2d_grad(g: Array, taps: Array, window: Window) -> Array:
    """g added to the input pixel that won each window.  (N, OH, OW, C) -> (N, H, W, C)"""
    g, taps = contiguous(g), contiguous(taps)
    grad_x = runtime_of(g).empty((g.shape[0], *window.size, g.shape[3]), g.dtype)
    wide = channels_at_once(g.shape[3], g, taps)
    found = instance(_MAX_GRAD[taps.dtype][wide], g.dtype, "max_pool2d's gradient")
    _launch(found, wide, grad_x.shape, g, taps, grad_x, *_sliding(window, False))
    return grad_x


def avg_pool2d(x: Array, window: Window, count_include_pad: bool) -> Array:
    """Mean of each window, padding counted as zeros or left out.  (N, H, W, C) -> (N, OH, OW, C)"""
    return _avg_pool("avg_pool2d", x, window.output, _sliding(window, count_include_pad))


def avg_pool2d_grad(g: Array, window: Window, count_include_pad: bool) -> Array:
    """g shared out over each window.  (N, OH, OW, C) -> (N, H, W, C)"""
    return _avg_pool_grad("avg_pool2d", g, window.size, _sliding(window, count_include_pad))


def adaptive_avg_pool2d(x: Array, output: tuple[int, int]) -> Array:
    """Means over evenly spread bins, possibly overlapping.  (N, H, W, C) -> (N, OH, OW, C)

    Bin i is floor(i * H / OH) up to ceil((i + 1) * H / OH).
    """
    return _avg_pool("adaptive_avg_pool2d", x, output, _bins(x.shape[1:3], output))


def adaptive_avg_pool2d_grad(g: Array, size: tuple[int, int]) -> Array:
    """g shared out over each bin.  (N, OH, OW, C) -> (N, H, W, C)"""
    return _avg_pool_grad("adaptive_avg_pool2d", g, size, _bins(size, g.shape[1:3]))


def global_avg_pool(x: Array) -> Array:
    """Mean over rows and columns.  (N, H, W, C) -> (N, C)"""
    x, runtime, (n, h, w, c) = contiguous(x), runtime_of(x), x.shape
    laid = columns(c, channels_at_once(c, x))
    found = instance(_GLOBAL[laid.wide], x.dtype, "global_avg_pool")
    y = runtime.empty((n, c), x.dtype)
    if y.size:
        block = laid.width, laid.lanes
        launch(found, runtime, (n, laid.blocks), x, y, h * w, c // laid.wide, block=block)
    return y


def global_avg_pool_grad(g: Array, size: tuple[int, int]) -> Array:
    """g shared out evenly.  (N, C) -> (N, H, W, C)"""
    bins = contiguous(g).reshape(g.shape[0], 1, 1, g.shape[1])
    return _avg_pool_grad("global_avg_pool", bins, size, _bins(size, (1, 1)))


def _avg_pool(name: str, x: Array, output: tuple[int, int], axes: Axes) -> Array:
    """The mean of each window.  (N, H, W, C) -> (N, OH, OW, C)"""
    x = contiguous(x)
    y = runtime_of(x).empty((x.shape[0], *output, x.shape[3]), x.dtype)
    wide = channels_at_once(x.shape[3], x)
    found = instance(_AVG[axes[0].dtype][wide], x.dtype, name)
    _launch(found, wide, y.shape, x, y, *axes)
    return y


def _avg_pool_grad(name: str, g: Array, size: tuple[int, int], axes: Axes) -> Array:
    """g shared out over each window.  (N, OH, OW, C) -> (N, H, W, C)"""
    g = contiguous(g)
    grad_x = runtime_of(g).empty((g.shape[0], *size, g.shape[3]), g.dtype)
    wide = channels_at_once(g.shape[3], g)
    found = instance(_AVG_GRAD[axes[0].dtype][wide], g.dtype, f"{name}'s gradient")
    _launch(found, wide, grad_x.shape, g, grad_x, *axes)
    return grad_x


def _launch(found: Kernel, wide: int, shape: tuple[int, ...], *arguments: Array) -> None:
    """One thread for `wide` channels of a pixel of a result of this shape, each block in one row of it."""
    n, h, w, c = shape
    if n * h * w * c:
        laid = columns(c, wide)
        parts = -(-w // laid.lanes)
        grid, block = (n * h, parts, laid.blocks), (laid.width, -(-w // parts))
        launch(found, runtime_of(arguments[0]), grid, *arguments, c // wide, block=block)


@functools.lru_cache(maxsize=1024)  # the layers of a network ask the same in every step
def _sliding(window: Window, count_include_pad: bool) -> Axes:
    """Of each axis, a struct Sliding. Nothing beyond the padding counts in a mean (ceil_mode)."""
    axes = []
    for n, k, s, (before, after), out in zip(
        window.size, window.kernel, window.stride, window.padding, window.output
    ):
        counted = (-before, n + after) if count_include_pad else (0, n)
        axes.append(np.array([(n, out, k, s, before, -(-k // s), *counted)], _SLIDING))
    return axes[0], axes[1]


@functools.lru_cache(maxsize=1024)
def _bins(size: tuple[int, int], output: tuple[int, int]) -> Axes:
    """Of each axis, a struct Bins."""
    rows, columns = (np.array([pair], _BINS) for pair in zip(size, output))
    return rows, columns
