"""Sliding windows, and cases for convolution and pooling.

Kernel, stride, dilation, outputs and padding are drawn, the image's size follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minidl.testing.strategies.arrays import VECTOR_WIDTHS, ArrayCase, Case, arrays, layouts, sides

Array = np.ndarray
Draw = st.DrawFn
Pair = tuple[int, int]


@dataclass(frozen=True)
class WindowDraw:
    """A window as an op takes it, on images of (H, W) = `size`; without ceil_mode it gives `output`."""

    size: Pair
    kernel_size: Pair
    stride: Pair
    padding: Any
    dilation: Pair
    output: Pair


def kernels(max_kernel: int = 3, *, long: bool = True) -> st.SearchStrategy[Pair]:
    """Kernel sizes up to `max_kernel` on either side, and the `long` ones of the Inceptions (1x7 and 7x1)."""
    lengths = range(1, max_kernel + 1)
    square = [(kh, kw) for kh in lengths for kw in lengths]
    return st.sampled_from([*square, (1, 7), (7, 1)] if long else square)


@st.composite
def windows(
    draw: Draw,
    *,
    max_kernel: int = 3,
    max_stride: int = 3,
    max_dilation: int = 2,
    max_output: int = 3,
    spare: int = 2,
    long: bool = True,
) -> WindowDraw:
    """Windows of every kind: strides below and above the kernel, dilation, rows left over, all paddings.

    Drawn are the kernel, the steps, the outputs and the rows left over; the image's size follows. Some window
    reads the image with some tap. Padding exceeds what a window can hang over the edge by up to `spare`, so
    others may read nothing but padding; with 0 every window touches the image, as pools need it.
    """
    kernel = draw(kernels(max_kernel, long=long))
    stride = draw(st.tuples(*[st.integers(1, max_stride)] * 2))
    dilation = draw(st.tuples(*[st.integers(1, max_dilation)] * 2))
    form = draw(st.sampled_from((0, "valid", "same", "int", "pair", "sides")))
    if form == "same":
        axes = [
            draw(_same_axis(k, s, d, max_output)) for k, s, d in zip(kernel, stride, dilation, strict=True)
        ]
        (h, oh), (w, ow) = axes
        return WindowDraw((h, w), kernel, stride, "same", dilation, (oh, ow))
    output = draw(st.tuples(*[st.integers(1, max_output)] * 2))
    padded, read = [], []  # per axis: the length with padding, and a row that a tap reads
    for k, s, d, o in zip(kernel, stride, dilation, output, strict=True):
        padded.append((o - 1) * s + (k - 1) * d + 1 + draw(st.integers(0, s - 1)))
        read.append(draw(st.integers(0, o - 1)) * s + draw(st.integers(0, k - 1)) * d)
    limits = [(k - 1) * d + spare for k, d in zip(kernel, dilation, strict=True)]
    padding, ends = draw(_paddings(form, padded, read, limits))
    h, w = (rows - sum(end) for rows, end in zip(padded, ends, strict=True))
    return WindowDraw((h, w), kernel, stride, padding, dilation, output)


@st.composite
def _same_axis(draw: Draw, k: int, s: int, d: int, max_output: int) -> Pair:
    """(length of the image, ceil(length / stride) outputs) along one axis.

    An even number of taps lies around the middle of its window, not on it: it reads images of `d` rows or
    more, where an odd one reads a single row too.
    """
    least = 1 if k % 2 else d
    fewest = -(-least // s)
    o = draw(st.integers(fewest, max(fewest, max_output)))
    return o * s - draw(st.integers(0, min(s - 1, o * s - least))), o


@st.composite
def _paddings(
    draw: Draw, form: Any, padded: list[int], read: list[int], limits: list[int]
) -> tuple[Any, list[Pair]]:
    """Padding in the given form, and its sides: at most `limits`, and never over the row that is `read`."""
    if form in (0, "valid"):
        return form, [(0, 0), (0, 0)]
    most = [
        (min(limit, row), min(limit, rows - 1 - row))
        for limit, row, rows in zip(limits, read, padded, strict=True)
    ]
    if form == "int":
        p = draw(st.integers(0, min(map(min, most))))
        return p, [(p, p), (p, p)]
    if form == "pair":
        ph, pw = (draw(st.integers(0, min(ends))) for ends in most)
        return (ph, pw), [(ph, ph), (pw, pw)]
    ends = [(draw(st.integers(0, before)), draw(st.integers(0, after))) for before, after in most]
    return tuple(ends), ends


@dataclass(frozen=True, repr=False)
class Conv2dCase(Case):
    """x (N, H, W, C), weight (KH, KW, C/groups, F), bias (F,) or None; stride, padding, dilation, groups."""

    x: Array
    weight: Array
    bias: Array | None


@st.composite
def conv2d_cases(
    draw: Draw,
    *,
    dtype: Any = np.float64,
    max_channels: int = 3,
    max_batch: int = 2,
    activations: Sequence[str | None] = (None,),
) -> Conv2dCase:
    """Convolutions of every geometry, plain, grouped and depthwise (with multiplier), with and without bias.

    Now and then one at the border of a fast path: 1x1, at a stride or padded too; channel counts around the
    width of a vector register; more than a thousand pixels. With an activation, two filters are each other's
    negative, so that one of them passes it.
    """
    channels = st.integers(1, max_channels)
    groups, c, f, n = draw(channels), draw(channels), draw(channels), draw(st.integers(1, max_batch))
    wide = st.sampled_from((1, *VECTOR_WIDTHS))
    kind = draw(st.sampled_from(("small",) * 6 + ("pointwise", "pointwise", "wide", "depthwise", "long")))
    if kind == "small":
        window = draw(windows())
    elif kind == "pointwise":
        window = draw(windows(max_kernel=1, max_stride=2, spare=1, long=False))
    elif kind == "wide":  # and few pixels, so that naive loops stay quick
        window = draw(windows(max_output=2, long=False))
        groups, c, f, n = 1, draw(wide), draw(wide), 1
    elif kind == "depthwise":
        window = draw(windows(max_output=2, long=False))
        groups, c, n = draw(wide), 1, 1
    else:
        window = WindowDraw((33, 33), (1, 1), (1, 1), 0, (1, 1), (33, 33))
        groups, c, f, n = 1, 1, min(f, 2), 1
    activation = draw(st.sampled_from(activations))
    f = max(f, 2) if activation else f
    weight = draw(arrays((*window.kernel_size, c, groups * f), dtype=dtype))
    bias = draw(st.none() | arrays((groups * f,), dtype=dtype))
    if activation:
        weight[..., 1] = -weight[..., 0]
        if bias is not None:
            bias[:2] = np.abs(bias[:2])
    options = {
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
        "groups": groups,
    }
    return Conv2dCase(
        x=draw(arrays((n, *window.size, groups * c), dtype=dtype)),
        weight=weight,
        bias=bias,
        options=options | ({"activation": activation} if activation else {}),
        layout=draw(layouts()),
    )


@st.composite
def image_cases(
    draw: Draw, *, dtype: Any = np.float64, values: Sequence[str] = ("normal", "ties")
) -> ArrayCase:
    """A batch of images x (N, H, W, C), down to a single pixel."""
    n, h, w, c = draw(st.integers(1, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(sides(3))
    return ArrayCase(x=draw(arrays((n, h, w, c), dtype=dtype, values=values)), layout=draw(layouts()))


@st.composite
def pool_cases(
    draw: Draw, *, dtype: Any = np.float64, average: bool = False, values: Sequence[str] = ("normal", "ties")
) -> ArrayCase:
    """x (N, H, W, C) for max_pool2d, or with `average` for avg_pool2d.

    Windows overlap or leave gaps, read padding, and in ceil mode may hang over the edge.
    """
    window = draw(windows(max_dilation=1, spare=0))
    shape = (draw(st.integers(1, 2)), *window.size, draw(sides(3)))
    options = {
        "kernel_size": window.kernel_size,
        "stride": window.stride,
        "padding": window.padding,
        "ceil_mode": draw(st.booleans()),
    }
    options |= {"count_include_pad": draw(st.booleans())} if average else {}
    return ArrayCase(
        x=draw(arrays(shape, dtype=dtype, values=values)), options=options, layout=draw(layouts())
    )


@st.composite
def adaptive_pool_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """x (N, H, W, C) and output_size, a pair or a number: dividing the image, overlapping, or larger."""
    n, h, w, c = draw(st.integers(1, 2)), draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(sides(3))
    output = st.integers(1, 4)
    options = {"output_size": draw(output | st.tuples(output, output))}
    return ArrayCase(x=draw(arrays((n, h, w, c), dtype=dtype)), options=options, layout=draw(layouts()))
