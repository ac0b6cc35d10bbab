"""2-D convolution and its two gradients on the GPU: the three passes, and the choice of what computes them.

    pointwise  a 1x1 window at stride 1: a matrix product of pixels and weights (products.py)
    direct     an implicit GEMM (kernels/correlate.cu): columns are read from the image in place
    im2col     the plain version: the columns are written down first, then multiplied

The passes are those of backend/cpu/conv.py: grad_x is the correlation of g with the weights turned round,
once for each remainder modulo the stride (backend/taps.py), so nothing is scattered and every sum has one
order.
"""

import functools
import itertools
import math

import numpy as np

from minidl.backend import Array
from minidl.backend.cuda import precision
from minidl.backend.cuda.channels import lines, pitch_of
from minidl.backend.cuda.device import runtime_of
from minidl.backend.cuda.elementwise import add
from minidl.backend.cuda.launch import Strided, blocks_for, kernel, launch
from minidl.backend.cuda.move import clear, contiguous, write
from minidl.backend.cuda.products import (
    SHAPES,
    SMALL,
    choose_tile,
    in_fours,
    multiply,
    split,
    sum_parts,
    tile_kernel,
)
from minidl.backend.plans import Pass, Plan, forced, settle
from minidl.backend.taps import phases, taps
from minidl.window import Window

_FIELDS = (
    "images out_h out_w filters in_h in_w channels taps_h taps_w "
    "stride_h stride_w first_h first_w step_h step_w "
    "x_image x_row x_column x_group y_image y_row y_column y_group w_tap_h w_tap_w w_channel w_filter w_group"
)
_CORRELATION = np.dtype([(name, "i4") for name in _FIELDS.split()])

# (tile, length of the chunks of x, of the weights or g)
_VECS = [*((tile, 4, 4) for tile, vec in SHAPES if vec == 4), (SMALL, 1, 4), (SMALL, 1, 1)]
_CORRELATE = {
    (math_, tile, vec_x, vec_w, turned): tile_kernel(
        "correlate.cu", f"correlate<{{}}, {vec_x}, {vec_w}, {str(turned).lower()}>", math_, tile, True, turned
    )
    for math_, (tile, vec_x, vec_w), turned in itertools.product(precision.MATHS, _VECS, (False, True))
    if vec_x == vec_w or not turned
}
_CORRELATE_WEIGHT = {
    (math_, tile, vec_x, vec_g): tile_kernel(
        "correlate.cu", f"correlate_weight<{{}}, {vec_x}, {vec_g}>", math_, tile, False, False
    )
    for math_, (tile, vec_x, vec_g) in itertools.product(precision.MATHS, _VECS)
}
_IM2COL = kernel("correlate.cu", "im2col")


def choose_plan(
    window: Window, dtype: np.dtype, groups: int = 1, channels: int = 64, filters: int = 64, images: int = 16
) -> Plan:
    """The algorithm that `conv2d` and its gradients run for this geometry."""
    valid, usual = _choice(window)
    return forced(valid) or usual


@functools.lru_cache(maxsize=4096)
def _choice(window: Window) -> tuple[tuple[str, ...], Plan]:
    """(the plans that compute this, the one to take)"""
    if window.pointwise:
        reason = "a 1x1 window at stride 1: the image already is the matrix of columns"
        return ("pointwise", "direct", "im2col"), Plan("pointwise", reason)
    kernel_ = "x".join(map(str, window.kernel))
    reason = f"a {kernel_} window: an implicit GEMM reads the image in place"
    return ("direct", "im2col"), Plan("direct", reason)


def conv2d(
    x: Array, weight: Array, bias: Array | None, window: Window, groups: int, activation: str | None
) -> Array:
    """(N, H, W, C), (KH, KW, C/groups, F), (F,) -> (N, OH, OW, F)"""
    x, weight = _with_channels_together(x), contiguous(weight)
    y = runtime_of(x).empty((x.shape[0], *window.output, weight.shape[3]), x.dtype)
    if y.size:
        work = _Correlation(x, *taps(window), window.stride, weight, groups, y, turned=False)
        run = _RUN[_plan("forward", window, groups, x, y)]
        run(work, bias=None if bias is None else contiguous(bias), relu=activation == "relu")
    return y


def conv2d_grad_x(g: Array, weight: Array, window: Window, groups: int, into: Array | None = None) -> Array:
    """(N, OH, OW, F), (KH, KW, C/groups, F) -> (N, H, W, C), a new array; or `into`, to which it is added."""
    g, weight = _with_channels_together(g), contiguous(weight)
    shape = (g.shape[0], *window.size, weight.shape[2] * groups)
    grad_x = runtime_of(g).empty(shape, g.dtype) if into is None else into
    run = _RUN[_plan("grad_x", window, groups, grad_x, g)]
    for pixels, hits, rows, columns in phases(window):
        place = grad_x[pixels]
        if rows and columns:
            work = _Correlation(g, rows, columns, (1, 1), weight[hits], groups, place, turned=True)
            run(work, adding=into is not None)
        elif into is None:
            clear(place)  # no window reads these pixels
    return grad_x


def conv2d_grad_weight(g: Array, x: Array, window: Window, groups: int) -> Array:
    """(N, OH, OW, F), (N, H, W, C) -> (KH, KW, C/groups, F)"""
    g, x = lines(g)[0], _with_channels_together(x)
    filters, channels = g.shape[3], x.shape[3] // groups
    runtime = runtime_of(x)
    grad_weight = runtime.empty((*window.kernel, channels, filters), g.dtype)
    work = _Correlation(x, *taps(window), window.stride, grad_weight, groups, g, turned=False)
    if _plan("grad_weight", window, groups, x, g) == "direct":
        _correlate_weight(work, grad_weight)
        return grad_weight
    each, matrix = filters // groups, grad_weight.reshape(-1, filters)
    for j in range(groups):
        part, arriving = slice(j * each, (j + 1) * each), _matrix(g)
        product = runtime.empty((1, matrix.shape[0], each), g.dtype)
        multiply(work.columns(j).transpose(1, 0)[None], arriving[:, part][None], product)
        write(product[0], matrix[:, part])
    return grad_weight


class _Correlation:
    """One correlation: y[n, i, j] = the sum over taps (a, b) of x[n, i * stride + rows[a], j * stride +
    columns[b]] @ weight[a, b], for each group.

    weight (KH, KW, C/groups, F), or a part of its taps. `turned`: x has F channels and y C, as for grad_x.
    """

    def __init__(
        self,
        x: Array,
        rows: tuple[int, ...],
        columns: tuple[int, ...],
        stride: tuple[int, int],
        weight: Array,
        groups: int,
        y: Array,
        *,
        turned: bool,
    ) -> None:
        self.x, self.weight, self.groups, self.y, self.turned = x, weight, groups, y, turned
        self.channels, self.filters = x.shape[3] // groups, y.shape[3] // groups
        along_h, along_w, along_c, along_f = _steps(weight)
        numbers = (
            *(*y.shape[:3], self.filters, *x.shape[1:3], self.channels, len(rows), len(columns), *stride),
            *(rows[0], columns[0], _distance(rows), _distance(columns)),
            *(*_steps(x)[:3], self.channels, *_steps(y)[:3], self.filters),
            *(along_h, along_w, *((along_f, along_c) if turned else (along_c, along_f))),
            weight.shape[3] // groups,
        )
        self.struct = np.array([numbers], _CORRELATION)
        # whether every output pixel reads the pixel of its own place, and that alone
        self.in_place = rows == columns == (0,) and stride == (1, 1) and x.shape[:3] == y.shape[:3]

    @property
    def depth(self) -> int:
        """Numbers in a window: taps times channels of a group."""
        return self.weight.shape[0] * self.weight.shape[1] * self.channels

    @property
    def pixels(self) -> int:
        """Output pixels."""
        return math.prod(self.y.shape[:3])

    def vec_x(self) -> int:
        """How many channels of x can be read at once."""
        return 4 if in_fours(self.x, self.channels, *_steps(self.x)[:3]) else 1

    def vec_w(self) -> int:
        """How many weights can be read at once: those of neighbouring filters, turned those of channels."""
        along = self.channels if self.turned else self.filters
        return 4 if in_fours(self.weight, along, *_steps(self.weight)[:3]) else 1

    def columns(self, j: int) -> Array:
        """What im2col writes down for group j.  -> (N*OH*OW, taps * channels)"""
        if self.in_place:
            return _matrix(self.x)[:, j * self.channels : (j + 1) * self.channels]
        columns = runtime_of(self.x).empty((self.pixels, self.depth), self.x.dtype)
        start = Strided(self.x[..., j * self.channels :])
        launch(
            _IM2COL, runtime_of(self.x), blocks_for(columns.size), start, columns, self.struct, columns.size
        )
        return columns

    def matrix(self, j: int) -> Array:
        """The weights of group j.  -> (taps * channels, filters)"""
        each = self.weight.shape[3] // self.groups
        part = self.weight[..., j * each : (j + 1) * each]
        part = part.transpose(0, 1, 3, 2) if self.turned else part
        return contiguous(part).reshape(self.depth, self.filters)


def _correlate(
    work: _Correlation, *, bias: Array | None = None, relu: bool = False, adding: bool = False
) -> None:
    """The implicit GEMM."""
    vec_x, vec_w = work.vec_x(), work.vec_w()
    if vec_w == 1 or work.turned:  # for which there are kernels: both, neither, or forward the weights alone
        vec_x = vec_w = min(vec_x, vec_w)
    tile = choose_tile(work.pixels, work.filters, work.groups, min(vec_x, vec_w), splits=False)
    grid = -(-work.pixels // tile[0]) * -(-work.filters // tile[1]), 1, work.groups
    runtime = runtime_of(work.x)
    chosen = _CORRELATE[precision.current(runtime), tile, vec_x, vec_w, work.turned]
    arrays = Strided(work.x), Strided(work.weight), bias, Strided(work.y)
    launch(chosen, runtime, grid, *arrays, work.struct, relu, adding)


def _correlate_weight(work: _Correlation, grad_weight: Array) -> None:
    """grad_weight by an implicit GEMM over parts of the pixels, which are added in their order."""
    runtime, g = runtime_of(work.x), work.y
    vec_g = 4 if in_fours(g, work.filters, *_steps(g)[:3]) else 1
    vec_x = work.vec_x() if vec_g == 4 else 1
    tile = choose_tile(work.depth, work.filters, work.groups, min(vec_x, vec_g), splits=True)
    work.struct["y_column"] = pitch_of(g)
    blocks = -(-work.depth // tile[0]) * -(-work.filters // tile[1])
    parts, part_pixels = split(blocks * work.groups, work.pixels)
    target = runtime.empty((parts, *grad_weight.shape), g.dtype) if parts > 1 else grad_weight
    chosen = _CORRELATE_WEIGHT[precision.current(runtime), tile, vec_x, vec_g]
    counts = work.groups, parts, part_pixels
    grid = blocks, 1, work.groups * parts
    launch(chosen, runtime, grid, Strided(work.x), Strided(g), target, work.struct, *counts)
    if parts > 1:
        sum_parts(target, grad_weight)


def _multiply_columns(
    work: _Correlation, *, bias: Array | None = None, relu: bool = False, adding: bool = False
) -> None:
    """The columns times the weights, group by group."""
    direct = work.groups == 1 and pitch_of(work.y) is not None
    for j in range(work.groups):
        part = slice(j * work.filters, (j + 1) * work.filters)
        own = None if bias is None else bias[part]
        columns, weights = work.columns(j)[None], work.matrix(j)[None]
        if direct:
            multiply(columns, weights, _matrix(work.y)[None], bias=own, relu=relu, adding=adding)
            continue
        product = runtime_of(work.y).empty((1, work.pixels, work.filters), work.y.dtype)
        multiply(columns, weights, product, bias=own, relu=relu)
        place = work.y[..., part]
        product = product.reshape(place.shape)
        write(add(place, product) if adding else product, place)


_RUN = {"pointwise": _multiply_columns, "direct": _correlate, "im2col": _multiply_columns}


def _plan(which: str, window: Window, groups: int, x: Array, y: Array) -> str:
    """What pass `which` runs between images x and outputs y."""
    work = Pass(which, window, x.dtype, groups, x.shape[3], y.shape[3], x.shape[0])
    return settle(work, *_choice(window)).name


def _steps(array: Array) -> tuple[int, ...]:
    """How far apart neighbours lie along each axis, in elements."""
    return tuple(stride // array.itemsize for stride in array.strides)


def _distance(offsets: tuple[int, ...]) -> int:
    """How far apart equally spaced offsets are."""
    return offsets[1] - offsets[0] if len(offsets) > 1 else 0


def _with_channels_together(x: Array) -> Array:
    """x, or a copy of it whose channels are neighbours in memory."""
    return x if x.strides[3] == x.itemsize or x.shape[3] == 1 else contiguous(x)


def _matrix(x: Array) -> Array:
    """x by its pixels, a view where these lie evenly.  (N, H, W, C) -> (N*H*W, C)"""
    return lines(x)[0].reshape(-1, x.shape[3])
