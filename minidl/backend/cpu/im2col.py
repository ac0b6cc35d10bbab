"""2-D convolution as matrix products of gathered columns: the plain version, which computes in any dtype.

Output pixel (i, j) needs the pixels under its window, a row of KH*KW*C numbers; with those rows below one
another as `cols`, convolution is a matrix product:

    correlate          out = cols(src) @ weight      (pixels, KH*KW*C) @ (KH*KW*C, F)
    correlate_weight   cols(src)^T @ g               (KH*KW*C, pixels) @ (pixels, F)

`cols` never exists as a whole: each thread gathers a tile of about `TILE_BYTES`, small enough to stay in its
cache, multiplies it with BLAS and goes on. Bias and ReLU are applied while the tile's result is warm. For a
1x1 window at stride 1, src *is* cols, and nothing is gathered (`multiply`, `multiply_weight`).

Bound by: arithmetic (the GEMMs), and for few filters by the gathering, which writes KH*KW times the input
once.
"""

import numba
import numpy as np
from numba import prange

from minidl.backend.blas_threads import scipy_on_one_thread
from minidl.backend.cpu import blas, memory
from minidl.backend.cpu.compile import compiled
from minidl.backend.cpu.threads import get_num_threads, use_threads

TILE_BYTES = (
    1 << 21
)  # columns a thread gathers at a time: enough rows for BLAS, and still in its outer caches
# pixels a thread multiplies at a time: long enough for BLAS, short enough for bias and ReLU in cache
_POINTWISE_ROWS = 1024


def correlate(
    src: np.ndarray,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    stride: tuple[int, int],
    weight: np.ndarray,
    bias: np.ndarray | None,
    relu: bool,
    out: np.ndarray,
) -> None:
    """out[n, i, j] = act(sum over taps a, b of src[n, i*stride + rows[a], j*stride + columns[b]] @ weight[a,
    b] + bias)

    src (N, H, W, C), weight (taps, taps, C, F), out (N, OH, OW, F); reads outside src are zeros.
    """
    n, oh, ow, f = out.shape
    depth = weight.size // f
    lines = _tile_lines(n * oh, ow, depth, out.dtype)
    cols = memory.empty((get_num_threads(), lines * ow, depth), out.dtype)
    y = out if out.flags.c_contiguous else memory.empty(out.shape, out.dtype)
    with scipy_on_one_thread:
        _gather_multiply(
            memory.contiguous(src),
            np.array(rows),
            np.array(columns),
            stride[0],
            stride[1],
            memory.contiguous(weight).reshape(depth, f),
            _full(bias, f, out.dtype),
            relu,
            y,
            lines,
            cols,
        )
    if y is not out:
        out[...] = y


def multiply(
    src: np.ndarray,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    stride: tuple[int, int],
    weight: np.ndarray,
    bias: np.ndarray | None,
    relu: bool,
    out: np.ndarray,
) -> None:
    """`correlate` for one tap that reads the pixel itself."""
    c, f = weight.shape[2:]
    y = out if out.flags.c_contiguous else memory.empty(out.shape, out.dtype)
    matrix = memory.contiguous(weight).reshape(c, f)
    with scipy_on_one_thread:
        _multiply_tiles(
            memory.contiguous(src).reshape(-1, c),
            matrix,
            _full(bias, f, out.dtype),
            relu,
            y.reshape(-1, f),
            _POINTWISE_ROWS,
        )
    if y is not out:
        out[...] = y


def correlate_weight(
    src: np.ndarray,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    stride: tuple[int, int],
    g: np.ndarray,
) -> np.ndarray:
    """sum over n, i, j of src[n, i*stride + rows[a], j*stride + columns[b]]^T @ g[n, i, j]

    -> (taps, taps, C, F). One sum per thread, then added in thread order.
    """
    n, oh, ow, f = g.shape
    c, threads = src.shape[3], get_num_threads()
    depth = len(rows) * len(columns) * c
    sums = memory.empty((threads, depth, f), g.dtype)
    lines = _tile_lines(-(-n * oh // threads), ow, depth, g.dtype)
    cols = memory.empty((threads, lines * ow, depth), g.dtype)
    src, g = memory.contiguous(src), memory.contiguous(g)
    with scipy_on_one_thread:
        taps = np.array(rows), np.array(columns)
        _gather_multiply_transposed(src, *taps, *stride, g, sums, lines, cols)
    return memory.added(sums).reshape(len(rows), len(columns), c, f)


def multiply_weight(
    src: np.ndarray,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    stride: tuple[int, int],
    g: np.ndarray,
) -> np.ndarray:
    """`correlate_weight` for one tap that reads the pixel itself."""
    c, f = src.shape[3], g.shape[3]
    sums = memory.empty((get_num_threads(), c, f), g.dtype)
    src, g = memory.contiguous(src), memory.contiguous(g)
    with scipy_on_one_thread:
        _multiply_transposed(src.reshape(-1, c), g.reshape(-1, f), sums, _POINTWISE_ROWS)
    return memory.added(sums).reshape(1, 1, c, f)


def _full(bias: np.ndarray | None, filters: int, dtype: np.dtype) -> np.ndarray:
    return np.zeros(filters, dtype) if bias is None else memory.contiguous(bias)


def _tile_lines(lines: int, width: int, depth: int, dtype: np.dtype) -> int:
    """Lines of output pixels per tile: about TILE_BYTES of columns."""
    return max(1, min(lines, TILE_BYTES // (width * depth * dtype.itemsize)))


@compiled
def _copy(target, source):  # type: ignore[no-untyped-def]
    for q in range(target.size):
        target[q] = source[q]


@compiled
def _clear(target):  # type: ignore[no-untyped-def]
    for q in range(target.size):
        target[q] = 0


@compiled
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


@compiled
def _finish(out, bias, relu):  # type: ignore[no-untyped-def]
    """out = act(out + bias) over rows of pixels; NaN stays NaN."""
    for i in range(out.shape[0]):
        row = out[i]
        for f in range(row.shape[0]):
            value = row[f] + bias[f]
            row[f] = 0 if relu and value < 0 else value


@compiled(parallel=True)
def _gather_multiply(src, rows, columns, stride_h, stride_w, matrix, bias, relu, out, lines, cols):  # type: ignore[no-untyped-def]
    use_threads(cols.shape[0])
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


@compiled(parallel=True)
def _multiply_tiles(x, matrix, bias, relu, out, rows):  # type: ignore[no-untyped-def]
    m, depth = x.shape
    f = matrix.shape[1]
    for tile in prange((m + rows - 1) // rows):
        first, last = tile * rows, min(m, (tile + 1) * rows)
        result = out[first:last]
        blas.gemm(0, 0, last - first, f, depth, x[first:last], depth, matrix, f, 0.0, result, f)
        _finish(result, bias, relu)


@compiled(parallel=True)
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


@compiled(parallel=True)
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
