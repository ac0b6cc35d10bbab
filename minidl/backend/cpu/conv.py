"""2-D convolution and its two gradients on the CPU: the three passes, and the choice of what computes them.

All three are one computation, `correlate`: output pixel (i, j) is a sum over the window's taps of the pixel
there times the tap's weights.

    forward      y       = correlate(x, weight)
    grad_x       grad_x  = correlate(g, weight turned round, its input and output channels exchanged)
    grad_weight  a sum over output pixels of x^T g for each tap, `correlate_weight`

The second gathers, for every input pixel, the output pixels that read it: nothing is scattered, so no two
threads ever add to one place and the sum has one order. With a stride it is done for each remainder by itself
(backend/taps.py).

Three files compute the same: im2col.py (any dtype, BLAS), direct.py and winograd.py (float32, on the
micro-kernel). `choose_plan` says which one runs, unless a measured table does (plans.py).
"""

import functools
import math
import time
from typing import Any

import numpy as np

from minidl.backend.cpu import direct, filtering, im2col, memory, winograd
from minidl.backend.cpu.elementwise import add_into
from minidl.backend.cpu.microkernel import lanes
from minidl.backend.cpu.threads import get_num_threads
from minidl.backend.plans import Pass, Plan, force_plan, forced, settle
from minidl.backend.taps import phases, taps
from minidl.window import Window

_CORRELATE = {
    "im2col": im2col.correlate,
    "pointwise": im2col.multiply,
    "direct": direct.correlate,
    "winograd": winograd.correlate,
}
_CORRELATE_WEIGHT = {
    "im2col": im2col.correlate_weight,
    "pointwise": im2col.multiply_weight,
    "direct": direct.correlate_weight,
    "winograd": winograd.correlate_weight,
}

# Costs of Winograd's transforms in multiply-adds, measured: for each number of a tile before and after the
# products, and for each number of the transformed filters.
_TILE_COST = 12
_FILTER_COST = 40


def choose_plan(
    window: Window, dtype: np.dtype, groups: int = 1, channels: int = 64, filters: int = 64, images: int = 16
) -> Plan:
    """The algorithm that `conv2d` and its gradients run for this geometry, channels, filters and batch."""
    valid, usual = _choice(window, np.dtype(dtype), channels // groups, filters // groups, images)
    return forced(valid) or usual


@functools.lru_cache(maxsize=4096)  # the layers of a network ask the same in every step
def _choice(
    window: Window, dtype: np.dtype, channels: int, filters: int, images: int
) -> tuple[tuple[str, ...], Plan]:
    """(the plans that compute this, the one to take)"""
    kernel = "x".join(map(str, window.kernel))
    if dtype != np.float32:
        if window.pointwise:
            reason = "a 1x1 window at stride 1: the image already is the matrix of columns"
            return ("im2col", "pointwise"), Plan("pointwise", reason)
        return ("im2col",), Plan(
            "im2col", f"a {kernel} window in {dtype}: tiles of gathered columns, a GEMM each"
        )
    valid: tuple[str, ...] = ("im2col", "pointwise", "direct") if window.pointwise else ("im2col", "direct")
    if window.kernel not in winograd.WINDOWS or not window.stride == window.dilation == (1, 1):
        return valid, Plan("direct", f"a {kernel} window: the micro-kernel reads the image in place")
    valid += ("winograd",)
    plain, minimal = _multiply_adds(window, channels, filters, images)
    if minimal >= plain:
        reason = f"a {kernel} window: too few channels or pixels for Winograd's transforms to pay"
        return valid, Plan("direct", reason)
    reason = f"a {kernel} window at stride 1: {plain / minimal:.1f} times fewer multiplications"
    return valid, Plan("winograd", reason)


def _multiply_adds(window: Window, channels: int, filters: int, images: int) -> tuple[int, int]:
    """What a direct convolution takes, and Winograd's with its transforms."""
    elements, tiles = 1, images
    for size, length in zip(window.output, window.kernel):
        pixels = filtering.tile(length)
        elements, tiles = elements * pixels, tiles * -(-size // (pixels + 1 - length))
    products = elements * channels * filters
    transforms = elements * (channels + filters) * _TILE_COST
    plain = images * math.prod(window.output) * window.taps * channels * filters
    return plain, tiles * (products + transforms) + products * _FILTER_COST


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    window: Window,
    groups: int,
    activation: str | None,
) -> np.ndarray:
    """(N, H, W, C), (KH, KW, C/groups, F), (F,) -> (N, OH, OW, F)"""
    x = _with_channels_together(x)
    y = memory.empty((x.shape[0], *window.output, weight.shape[3]), x.dtype)
    correlate = _CORRELATE[_plan("forward", window, x.dtype, groups, x.shape, y.shape).name]
    biases = [None] * groups if bias is None else _grouped(bias, groups)
    for images, filters, part, place in zip(
        _grouped(x, groups), _grouped(weight, groups), biases, _grouped(y, groups)
    ):
        correlate(images, *taps(window), window.stride, filters, part, activation == "relu", place)
    return y


def conv2d_grad_x(
    g: np.ndarray, weight: np.ndarray, window: Window, groups: int, into: np.ndarray | None = None
) -> np.ndarray:
    """(N, OH, OW, F), (KH, KW, C/groups, F) -> (N, H, W, C), a new array; or `into`, to which it is added."""
    g = _with_channels_together(g)
    shape = (g.shape[0], *window.size, weight.shape[2] * groups)
    name = _plan("grad_x", window, g.dtype, groups, shape, g.shape).name
    back = weight.transpose(0, 1, 3, 2)
    if into is not None:
        if name == "direct" and groups == 1 and window.stride == (1, 1) and into.flags.c_contiguous:
            _, hits, rows, columns = phases(window)[0]
            direct.correlate(g, rows, columns, (1, 1), back[hits], None, False, into, adding=True)
            return into
        return add_into(into, conv2d_grad_x(g, weight, window, groups))
    grad_x = memory.empty(shape, g.dtype)
    correlate = _CORRELATE[name]
    for j, (arriving, leaving) in enumerate(zip(_grouped(g, groups), _grouped(grad_x, groups))):
        filters = arriving.shape[3]
        for pixels, hits, rows, columns in phases(window):
            place = leaving[pixels]
            if rows and columns:
                turned = back[(*hits, slice(j * filters, (j + 1) * filters))]
                correlate(arriving, rows, columns, (1, 1), turned, None, False, place)
            else:
                place[...] = 0  # no window reads these pixels
    return grad_x


def conv2d_grad_weight(g: np.ndarray, x: np.ndarray, window: Window, groups: int) -> np.ndarray:
    """(N, OH, OW, F), (N, H, W, C) -> (KH, KW, C/groups, F)"""
    g, x = _with_channels_together(g), _with_channels_together(x)
    correlate_weight = _CORRELATE_WEIGHT[_plan("grad_weight", window, x.dtype, groups, x.shape, g.shape).name]
    reads = (*taps(window), window.stride)
    if groups == 1:
        return correlate_weight(x, *reads, g)
    grad_weight = memory.empty((*window.kernel, x.shape[3] // groups, g.shape[3]), g.dtype)
    for place, images, arriving in zip(*(_grouped(array, groups) for array in (grad_weight, x, g))):
        place[...] = correlate_weight(images, *reads, arriving)
    return grad_weight


def measure_plans(work: Pass, runs: int = 5) -> dict[str, float]:
    """Seconds that a pass takes on noise by each plan that is valid for it: the least of some runs."""
    rng = np.random.default_rng(0)
    shapes = (
        (work.images, *work.window.size, work.channels),
        (*work.window.kernel, work.channels // work.groups, work.filters),
        (work.images, *work.window.output, work.filters),
    )
    x, weight, g = (rng.standard_normal(shape).astype(work.dtype) for shape in shapes)
    compute = {
        "forward": lambda: conv2d(x, weight, None, work.window, work.groups, None),
        "grad_x": lambda: conv2d_grad_x(g, weight, work.window, work.groups),
        "grad_weight": lambda: conv2d_grad_weight(g, x, work.window, work.groups),
    }[work.which]

    def seconds() -> float:
        start = time.perf_counter()
        compute()
        return time.perf_counter() - start

    found = {}
    for name in _choice(*_shape_of(work))[0]:
        with force_plan(name):
            seconds()  # compiles
            found[name] = min(seconds() for _ in range(runs))
    return found


def plan_conditions() -> dict[str, Any]:
    """What the fastest plans depend on besides the passes."""
    return {"device": "cpu", "threads": get_num_threads(), "lanes": lanes()}


def _shape_of(work: Pass) -> tuple[Window, np.dtype, int, int, int]:
    """What `_choice` looks at."""
    return work.window, work.dtype, work.channels // work.groups, work.filters // work.groups, work.images


def _plan(
    which: str, window: Window, dtype: np.dtype, groups: int, x: tuple[int, ...], y: tuple[int, ...]
) -> Plan:
    """What pass `which` runs between images of shape x and outputs of shape y."""
    return settle(*_pass(which, window, dtype, groups, x[3], y[3], x[0]))


@functools.lru_cache(maxsize=4096)
def _pass(*fields: Any) -> tuple[Pass, tuple[str, ...], Plan]:
    """(the `Pass` of these fields, the plans that compute it, the one to take)"""
    work = Pass(*fields)
    return work, *_choice(*_shape_of(work))


def _with_channels_together(x: np.ndarray) -> np.ndarray:
    """x, or a copy of it whose channels are neighbours in memory and whose pixels come in order."""
    in_order = x.strides[3] == x.itemsize and min(x.strides) >= 0
    return x if in_order else memory.contiguous(x)


def _grouped(array: np.ndarray, groups: int) -> list[np.ndarray]:
    """The part of the last axis that belongs to each group."""
    if groups == 1:
        return [array]
    each = array.shape[-1] // groups
    return [array[..., j * each : (j + 1) * each] for j in range(groups)]
