"""2-D convolution and its two gradients on the CPU: GEMMs on views (1x1) or on tiles of gathered columns (all
else).

All three passes are one idea. Output pixel (i, j) needs the pixels under its window, a row of KH*KW*C
numbers; with those rows below one another as `cols`, convolution is a matrix product:

    forward      y           = cols(x) @ weight          (pixels, KH*KW*C) @ (KH*KW*C, F)
    grad_weight  grad_weight = cols(x)^T @ g             (KH*KW*C, pixels) @ (pixels, F)
    grad_x       grad_x      = cols(g) @ weight^T        (pixels, KH*KW*F) @ (KH*KW*F, C)

The third gathers, for every input pixel, the output pixels that read it: nothing is scattered, so no two
threads ever add to one place and the sum has one order. With a stride s those output pixels differ by the
remainder of the input pixel's place modulo s; each remainder ("phase") is a small dense convolution with the
taps that hit it.

`cols` never exists as a whole: each thread gathers a tile of about `TILE_BYTES`, small enough to stay in its
cache, multiplies it and goes on. Bias and ReLU are applied while the tile's result is warm. For a 1x1 window
at stride 1, x *is* cols, and nothing is gathered.

Bound by: arithmetic (the GEMMs), and for few filters by the gathering, which writes KH*KW times the input
once.
"""

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from numba import njit, prange

from minidl.backend.cpu import blas, memory
from minidl.backend.cpu.threads import get_num_threads
from minidl.backend.plans import Plan, forced
from minidl.window import Window

TILE_BYTES = (
    1 << 21
)  # columns a thread gathers at a time: enough rows for BLAS, and still in its outer caches
# pixels a thread multiplies at a time: long enough for BLAS, short enough for bias and ReLU in cache
_POINTWISE_ROWS = 1024


def choose_plan(window: Window, dtype: np.dtype, groups: int = 1) -> Plan:
    """The algorithm that `conv2d` and its gradients run for this geometry."""
    valid = ("im2col", "pointwise") if window.pointwise else ("im2col",)
    plan = forced(valid)
    if plan is not None:
        return plan
    if window.pointwise:
        return Plan("pointwise", "a 1x1 window at stride 1: the image already is the matrix of columns")
    return Plan(
        "im2col", f"a {window.kernel[0]}x{window.kernel[1]} window: tiles of gathered columns, one GEMM each"
    )


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    window: Window,
    groups: int,
    activation: str | None,
) -> np.ndarray:
    """(N, H, W, C), (KH, KW, C/groups, F), (F,) -> (N, OH, OW, F)"""
    filters = weight.shape[3]
    y = memory.empty((x.shape[0], *window.output, filters), x.dtype)
    bias = np.zeros(filters, x.dtype) if bias is None else memory.contiguous(bias)
    relu = activation == "relu"
    pointwise = choose_plan(window, x.dtype, groups).name == "pointwise"
    for x_j, weight_j, features in _groups(x, weight, groups):
        y_j = y if groups == 1 else memory.empty((*y.shape[:3], weight_j.shape[3]), y.dtype)
        _correlate(x_j, *_taps(window), window.stride, weight_j, bias[features], relu, y_j, pointwise)
        if groups > 1:
            y[..., features] = y_j
    return y


def conv2d_grad_x(g: np.ndarray, weight: np.ndarray, window: Window, groups: int) -> np.ndarray:
    """(N, OH, OW, F), (KH, KW, C/groups, F) -> (N, H, W, C)"""
    channels = weight.shape[2] * groups
    grad_x = memory.empty((g.shape[0], *window.size, channels), g.dtype)
    pointwise = choose_plan(window, g.dtype, groups).name == "pointwise"
    whole = groups == 1 and window.stride == (1, 1)
    for g_j, weight_j, made in _groups(g, _exchanged(weight, groups), groups):
        no_bias = np.zeros(weight_j.shape[3], g.dtype)
        for (top, tap_rows, rows), (left, tap_columns, columns) in _phases(window):
            place = grad_x[:, top :: window.stride[0], left :: window.stride[1], made]
            if not tap_rows or not tap_columns:
                place[...] = 0  # no window reads these pixels
                continue
            part = grad_x if whole else memory.empty(place.shape, g.dtype)
            taps = memory.contiguous(weight_j[np.ix_(tap_rows, tap_columns)])
            _correlate(g_j, np.array(rows), np.array(columns), (1, 1), taps, no_bias, False, part, pointwise)
            if not whole:
                place[...] = part
    return grad_x


def conv2d_grad_weight(g: np.ndarray, x: np.ndarray, window: Window, groups: int) -> np.ndarray:
    """(N, OH, OW, F), (N, H, W, C) -> (KH, KW, C/groups, F)"""
    channels, filters = x.shape[3] // groups, g.shape[3]
    grad_weight = memory.empty((*window.kernel, channels, filters), g.dtype)
    pointwise = choose_plan(window, g.dtype, groups).name == "pointwise"
    for j in range(groups):
        features = slice(j * (filters // groups), (j + 1) * (filters // groups))
        x_j = memory.contiguous(x[..., j * channels : (j + 1) * channels])
        g_j = memory.contiguous(g[..., features])
        grad_weight[..., features] = _correlate_weight(
            x_j, *_taps(window), window.stride, g_j, pointwise
        ).reshape(*window.kernel, channels, filters // groups)
    return grad_weight


def _groups(x: np.ndarray, weight: np.ndarray, groups: int) -> Iterator[tuple[np.ndarray, np.ndarray, slice]]:
    """Per group: its channels of x, its weights, and the slice of output channels they make, all contiguous.

    x (N, H, W, groups * A), weight (KH, KW, A, groups * B)
    """
    a, b = weight.shape[2], weight.shape[3] // groups
    for j in range(groups):
        made = slice(j * b, (j + 1) * b)
        yield memory.contiguous(x[..., j * a : (j + 1) * a]), memory.contiguous(weight[..., made]), made


def _exchanged(weight: np.ndarray, groups: int) -> np.ndarray:
    """The weights that carry gradients back: input and output channels exchanged within each group.

    (KH, KW, C/groups, F) -> (KH, KW, F/groups, C)
    """
    kh, kw, c, f = weight.shape
    split = weight.reshape(kh, kw, c, groups, f // groups)
    return split.transpose(0, 1, 4, 3, 2).reshape(kh, kw, f // groups, groups * c)


def _taps(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Where the window's taps read, relative to stride * output index: rows (KH,), columns (KW,)."""
    rows, columns = (
        np.arange(k) * d - p[0] for k, d, p in zip(window.kernel, window.dilation, window.padding)
    )
    return rows, columns


def _phases(window: Window) -> Any:
    """Per remainder of (row, column) modulo the stride: (remainder, the taps that read such pixels, where
    those output pixels lie).

    Input row r = remainder + i * stride is read through tap a by output row (r + padding - a * dilation) /
    stride = i + offset. Taps come in falling order, so that offsets rise.
    """
    axes = []
    for axis in (0, 1):
        kernel, stride, dilation, before = (
            window.kernel[axis],
            window.stride[axis],
            window.dilation[axis],
            window.padding[axis][0],
        )
        axis_phases = []
        for remainder in range(min(stride, window.size[axis])):
            taps = [a for a in reversed(range(kernel)) if (remainder + before - a * dilation) % stride == 0]
            axis_phases.append(
                (remainder, taps, [(remainder + before - a * dilation) // stride for a in taps])
            )
        axes.append(axis_phases)
    return [(rows, columns) for rows in axes[0] for columns in axes[1]]


def _correlate(
    src: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    stride: tuple[int, int],
    weight: np.ndarray,
    bias: np.ndarray,
    relu: bool,
    out: np.ndarray,
    pointwise: bool,
) -> None:
    """out[n, i, j] = act(sum over taps a, b of src[n, i*stride + rows[a], j*stride + columns[b]] @ weight[a,
    b] + bias)

    src (N, H, W, C), weight (taps, taps, C, F), out (N, OH, OW, F), all C-contiguous; reads outside src are
    zeros.
    """
    n, oh, ow, f = out.shape
    depth = weight.size // f
    matrix = weight.reshape(depth, f)
    with blas.single_threaded():
        if pointwise:
            _multiply_tiles(src.reshape(-1, depth), matrix, bias, relu, out.reshape(-1, f), _POINTWISE_ROWS)
        else:
            lines = _tile_lines(n * oh, ow, depth, out.dtype)
            cols = memory.empty((get_num_threads(), lines * ow, depth), out.dtype)
            _gather_multiply(src, rows, columns, stride[0], stride[1], matrix, bias, relu, out, lines, cols)


def _correlate_weight(
    src: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    stride: tuple[int, int],
    g: np.ndarray,
    pointwise: bool,
) -> np.ndarray:
    """cols(src)^T @ g, one sum per thread, then added in thread order.  -> (taps*taps*C, F)"""
    n, oh, ow, f = g.shape
    depth = len(rows) * len(columns) * src.shape[3]
    threads = get_num_threads()
    sums = memory.empty((threads, depth, f), g.dtype)
    with blas.single_threaded():
        if pointwise:
            _multiply_transposed(src.reshape(-1, depth), g.reshape(-1, f), sums, _POINTWISE_ROWS)
        else:
            lines = _tile_lines(-(-n * oh // threads), ow, depth, g.dtype)
            cols = memory.empty((threads, lines * ow, depth), g.dtype)
            _gather_multiply_transposed(src, rows, columns, stride[0], stride[1], g, sums, lines, cols)
    return sums[0] if threads == 1 else np.add.reduce(sums, axis=0, out=memory.empty((depth, f), g.dtype))


def _tile_lines(lines: int, width: int, depth: int, dtype: np.dtype) -> int:
    """Lines of output pixels per tile: about TILE_BYTES of columns."""
    return max(1, min(lines, TILE_BYTES // (width * depth * dtype.itemsize)))


@njit(nogil=True, cache=True)
def _copy(target, source):  # type: ignore[no-untyped-def]
    for q in range(target.size):
        target[q] = source[q]


@njit(nogil=True, cache=True)
def _clear(target):  # type: ignore[no-untyped-def]
    for q in range(target.size):
        target[q] = 0


@njit(nogil=True, cache=True)
def _gather(src, first_line, last_line, oh, ow, rows, columns, stride_h, stride_w, cols):  # type: ignore[no-untyped-def]
    """cols[pixel] = what the window sees at each output pixel of lines first_line .. last_line.

    A line is a row of an image, counted over all images: line = image * OH + row.
    """
    _, h, w, c = src.shape
    kw = len(columns)
    run = kw * c
    together = (
        columns[kw - 1] - columns[0] == kw - 1
    )  # no dilation: one window row is one contiguous run of src
    flat = src.reshape(-1)
    for line in range(first_line, last_line):
        image, row = line // oh, line % oh
        for a in range(len(rows)):
            ih = row * stride_h + rows[a]
            base = (image * h + ih) * w
            for j in range(ow):
                pixel = (line - first_line) * ow + j
                target = cols[pixel, a * run : (a + 1) * run]
                left = j * stride_w + columns[0]
                if ih < 0 or ih >= h:
                    _clear(target)
                elif together:
                    low, high = max(0, min(kw, -left)), max(0, min(kw, w - left))
                    if low > 0:
                        _clear(target[: low * c])
                    if low < high:
                        _copy(
                            target[low * c : high * c],
                            flat[(base + left + low) * c : (base + left + high) * c],
                        )
                    if high < kw:
                        _clear(target[max(low, high) * c :])
                else:
                    for b in range(kw):
                        iw = j * stride_w + columns[b]
                        if iw < 0 or iw >= w:
                            _clear(target[b * c : (b + 1) * c])
                        else:
                            _copy(target[b * c : (b + 1) * c], flat[(base + iw) * c : (base + iw + 1) * c])


@njit(nogil=True, cache=True)
def _finish(out, bias, relu):  # type: ignore[no-untyped-def]
    """out = act(out + bias) over rows of pixels; NaN stays NaN."""
    for i in range(out.shape[0]):
        row = out[i]
        for f in range(row.shape[0]):
            value = row[f] + bias[f]
            row[f] = 0 if relu and value < 0 else value


@njit(parallel=True, nogil=True, cache=True)
def _gather_multiply(src, rows, columns, stride_h, stride_w, matrix, bias, relu, out, lines, cols):  # type: ignore[no-untyped-def]
    n, oh, ow, f = out.shape
    depth = matrix.shape[0]
    pixels = out.reshape(n * oh * ow, f)
    for tile in prange((n * oh + lines - 1) // lines):
        mine = cols[numba.get_thread_id()]
        first, last = tile * lines, min(n * oh, (tile + 1) * lines)
        _gather(src, first, last, oh, ow, rows, columns, stride_h, stride_w, mine)
        result = pixels[first * ow : last * ow]
        blas.gemm(0, 0, (last - first) * ow, f, depth, mine, depth, matrix, f, 0.0, result, f)
        _finish(result, bias, relu)


@njit(parallel=True, nogil=True, cache=True)
def _multiply_tiles(x, matrix, bias, relu, out, rows):  # type: ignore[no-untyped-def]
    m, depth = x.shape
    f = matrix.shape[1]
    for tile in prange((m + rows - 1) // rows):
        first, last = tile * rows, min(m, (tile + 1) * rows)
        result = out[first:last]
        blas.gemm(0, 0, last - first, f, depth, x[first:last], depth, matrix, f, 0.0, result, f)
        _finish(result, bias, relu)


@njit(parallel=True, nogil=True, cache=True)
def _gather_multiply_transposed(src, rows, columns, stride_h, stride_w, g, sums, lines, cols):  # type: ignore[no-untyped-def]
    n, oh, ow, f = g.shape
    threads, depth = sums.shape[:2]
    pixels = g.reshape(n * oh * ow, f)
    share = (n * oh + threads - 1) // threads
    for thread in prange(threads):
        mine, total = cols[thread], sums[thread]
        end = min(n * oh, (thread + 1) * share)
        keep = 0.0
        for first in range(thread * share, end, lines):
            last = min(end, first + lines)
            _gather(src, first, last, oh, ow, rows, columns, stride_h, stride_w, mine)
            blas.gemm(
                1,
                0,
                depth,
                f,
                (last - first) * ow,
                mine,
                depth,
                pixels[first * ow : last * ow],
                f,
                keep,
                total,
                f,
            )
            keep = 1.0
        if keep == 0.0:
            total[:] = 0


@njit(parallel=True, nogil=True, cache=True)
def _multiply_transposed(x, g, sums, rows):  # type: ignore[no-untyped-def]
    m, f = g.shape
    threads, depth = sums.shape[:2]
    share = (m + threads - 1) // threads
    for thread in prange(threads):
        end = min(m, (thread + 1) * share)
        keep = 0.0
        for first in range(thread * share, end, rows):
            last = min(end, first + rows)
            blas.gemm(
                1, 0, depth, f, last - first, x[first:last], depth, g[first:last], f, keep, sums[thread], f
            )
            keep = 1.0
        if keep == 0.0:
            sums[thread, :, :] = 0
