"""Convolution and pooling: a window slid over images (N, H, W, C)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.testing.reference.elementwise import (
    activate,
    add,
    relu_gradients,
    sigmoid_gradients,
    tanh_gradients,
)
from minidl.testing.reference.shapes import pad
from minidl.testing.reference.sums import average, dot, mean
from minidl.testing.reference.sums import sum as total

Array = np.ndarray
Span = tuple[int, int]  # (before, after), or a pair (rows, columns)


def _pair(value: Any) -> Span:
    """p or (rows, columns) as (rows, columns)."""
    return (value, value) if np.ndim(value) == 0 else tuple(value)


def _sides(size: Span, kernel: Span, stride: Span, dilation: Span, padding: Any) -> tuple[Span, Span]:
    """The padding as ((top, bottom), (left, right)), from any of the forms that the ops take.

    "same" is TensorFlow's rule: ceil(size / stride) windows, with what they lack shared out evenly and the
    odd one last.
    """
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        sides = []
        for length, k, s, d in zip(size, kernel, stride, dilation, strict=True):
            lacking = max(0, (math.ceil(length / s) - 1) * s + (k - 1) * d + 1 - length)
            sides.append((lacking // 2, lacking - lacking // 2))
        return sides[0], sides[1]
    rows, columns = _pair(padding)
    return _pair(rows), _pair(columns)


def _starts(length: int, side: Span, kernel: int, stride: int, dilation: int, ceil_mode: bool) -> list[int]:
    """Where along one axis the windows start, counted from the image's first row (negative: in the padding).

    Every window that ends within the padded image counts. In ceil mode one more follows if rows are left
    over, unless it would start in the padding behind the image (PyTorch's rule).
    """
    before, after = side
    starts = [-before]
    while starts[-1] + stride + (kernel - 1) * dilation < length + after:
        starts.append(starts[-1] + stride)
    rows_left_over = starts[-1] + (kernel - 1) * dilation + 1 < length + after
    if ceil_mode and rows_left_over and starts[-1] + stride < length:
        starts.append(starts[-1] + stride)
    return starts


def _slide(
    x: Array, weight: Array, stride: Any, padding: Any, dilation: Any
) -> tuple[Array, Span, list[slice], list[slice]]:
    """The padded images, where x starts in them, and which rows [i] and columns [j] output (i, j) reads."""
    h, w = x.shape[1:3]
    kh, kw = weight.shape[:2]
    (sh, sw), (dh, dw) = _pair(stride), _pair(dilation)
    rows, columns = _sides((h, w), (kh, kw), (sh, sw), (dh, dw), padding)
    padded = pad(x, ((0, 0), rows, columns, (0, 0)))
    down = [slice(s + rows[0], s + rows[0] + kh * dh, dh) for s in _starts(h, rows, kh, sh, dh, False)]
    along = [
        slice(s + columns[0], s + columns[0] + kw * dw, dw) for s in _starts(w, columns, kw, sw, dw, False)
    ]
    return padded, (rows[0], columns[0]), down, along


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Array:
    """Cross-correlation.  (N, H, W, C), (KH, KW, C/groups, F), (F,) -> (N, OH, OW, F)

    y[n, i, j, f] = bias[f] + sum over a, b, c of x[n, i*SH - top + a*DH, j*SW - left + b*DW, first + c] *
    weight[a, b, c, f] where x is 0 outside the image and first is the first channel of the group that filter
    f belongs to.
    """
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    c, f = weight.shape[2:]
    padded, _, down, along = _slide(x, weight, stride, padding, dilation)
    y = np.empty((len(x), len(down), len(along), f))
    for image, i, j, filter_ in np.ndindex(y.shape):
        first = filter_ // (f // groups) * c
        taps = padded[image, down[i], along[j], first : first + c]  # (KH, KW, C/groups)
        y[image, i, j, filter_] = dot(taps, weight[:, :, :, filter_])
    return activate(y if bias is None else add(y, bias), activation)


def conv2d_gradients(
    g: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: str | None = None,
) -> tuple[Array, Array, Array | None]:
    """Of x, weight and bias.  Each product of an x with a weight in the sum for y hands g * weight to that x
    and g * x to that weight; what the padding receives is dropped. The bias receives g.
    """
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    if activation is not None:
        g = activation_gradient(g, conv2d(x, weight, bias, groups=groups, **geometry), activation)
    g = np.asarray(g, np.float64)
    c, f = weight.shape[2:]
    padded, (top, left), down, along = _slide(x, weight, **geometry)
    grad_padded, grad_weight = np.zeros_like(padded), np.zeros_like(weight)
    for image, i, j, filter_ in np.ndindex(g.shape):
        first = filter_ // (f // groups) * c
        place = (image, down[i], along[j], slice(first, first + c))
        grad_padded[place] += g[image, i, j, filter_] * weight[:, :, :, filter_]
        grad_weight[:, :, :, filter_] += g[image, i, j, filter_] * padded[place]
    grad_x = grad_padded[:, top : top + x.shape[1], left : left + x.shape[2]]
    return grad_x, grad_weight, None if bias is None else total(g, axis=(0, 1, 2))


def activation_gradient(g: Any, x: Any, activation: str) -> Array:
    """What arrives before the activation that a fused op ends with, when g arrives behind it."""
    gradients = {"relu": relu_gradients, "sigmoid": sigmoid_gradients, "tanh": tanh_gradients}
    return gradients[activation](g, x)[0]


def _pool_windows(
    size: Span, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool
) -> list[list[tuple[slice, slice, int]]]:
    """[i][j]: the rows and columns inside the image that output (i, j) reads, and how many elements its
    window covers with the padding."""
    (h, w), (kh, kw) = size, _pair(kernel_size)
    sh, sw = (kh, kw) if stride is None else _pair(stride)
    (above, below), (left, right) = _sides((h, w), (kh, kw), (sh, sw), (1, 1), padding)

    def spans(starts: list[int], k: int, length: int, after: int) -> list[tuple[slice, int]]:
        ends = [min(s + k, length + after) for s in starts]  # in ceil mode the last may hang over the padding
        return [(slice(max(s, 0), max(min(end, length), 0)), end - s) for s, end in zip(starts, ends)]

    down = spans(_starts(h, (above, below), kh, sh, 1, ceil_mode), kh, h, below)
    along = spans(_starts(w, (left, right), kw, sw, 1, ceil_mode), kw, w, right)
    return [[(rows, columns, high * wide) for columns, wide in along] for rows, high in down]


def _pool(formula: Callable[[list[float], int], float], x: Any, *window: Any) -> Array:
    """formula(elements inside the image, how many the window covers with padding), per window and channel."""
    x = np.asarray(x, np.float64)
    windows = _pool_windows(x.shape[1:3], *window)
    y = np.empty((len(x), len(windows), len(windows[0]), x.shape[3]))
    for image, i, j, channel in np.ndindex(y.shape):
        rows, columns, covered = windows[i][j]
        y[image, i, j, channel] = formula(x[image, rows, columns, channel].ravel().tolist(), covered)
    return y


def max_pool2d(
    x: Any, kernel_size: Any, *, stride: Any = None, padding: Any = 0, ceil_mode: bool = False
) -> Array:
    """The largest element of each window; padding never wins.  (N, H, W, C) -> (N, OH, OW, C)"""
    return _pool(lambda inside, _: max(inside), x, kernel_size, stride, padding, ceil_mode)


def max_pool2d_gradients(
    g: Any, x: Any, kernel_size: Any, *, stride: Any = None, padding: Any = 0, ceil_mode: bool = False
) -> tuple[Array]:
    """Of x.  The first of a window's largest elements, row by row, receives all of its g."""
    g, x = np.asarray(g, np.float64), np.asarray(x, np.float64)
    windows = _pool_windows(x.shape[1:3], kernel_size, stride, padding, ceil_mode)
    grad_x = np.zeros_like(x)
    for image, i, j, channel in np.ndindex(g.shape):
        rows, columns, _ = windows[i][j]
        inside = x[image, rows, columns, channel]
        first = np.argwhere(inside == inside.max())[0]  # argwhere goes row by row
        grad_x[image, rows.start + first[0], columns.start + first[1], channel] += g[image, i, j, channel]
    return (grad_x,)


def avg_pool2d(
    x: Any,
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """The sum of each window by what it covers, with or without padding.  (N, H, W, C) -> (N, OH, OW, C)"""
    return _pool(
        lambda inside, covered: math.fsum(inside) / (covered if count_include_pad else len(inside)),
        x,
        kernel_size,
        stride,
        padding,
        ceil_mode,
    )


def avg_pool2d_gradients(
    g: Any,
    x: Any,
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> tuple[Array]:
    """Of x.  Every element of a window receives g by what the window covers."""
    g, grad_x = np.asarray(g, np.float64), np.zeros(np.shape(x))
    windows = _pool_windows(np.shape(x)[1:3], kernel_size, stride, padding, ceil_mode)
    for image, i, j, channel in np.ndindex(g.shape):
        rows, columns, covered = windows[i][j]
        inside = grad_x[image, rows, columns, channel]
        inside += g[image, i, j, channel] / (covered if count_include_pad else inside.size)
    return (grad_x,)


def _bins(length: int, count: int) -> list[slice]:
    """Bin i covers floor(i * length / count) up to ceil((i + 1) * length / count)."""
    return [slice(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def adaptive_avg_pool2d(x: Any, output_size: Any) -> Array:
    """Means over OH by OW bins, which overlap where they do not divide the image.  (N, H, W, C) -> (N, OH,
    OW, C)"""
    x = np.asarray(x, np.float64)
    n, h, w, c = x.shape
    oh, ow = _pair(output_size)
    y = np.empty((n, oh, ow, c))
    for image, i, j, channel in np.ndindex(y.shape):
        y[image, i, j, channel] = average(
            x[image, _bins(h, oh)[i], _bins(w, ow)[j], channel].ravel().tolist()
        )
    return y


def adaptive_avg_pool2d_gradients(g: Any, x: Any, output_size: Any) -> tuple[Array]:
    """Of x.  Every element of a bin receives g by the bin's size."""
    g, grad_x = np.asarray(g, np.float64), np.zeros(np.shape(x))
    (h, w), (oh, ow) = grad_x.shape[1:3], _pair(output_size)
    for image, i, j, channel in np.ndindex(g.shape):
        inside = grad_x[image, _bins(h, oh)[i], _bins(w, ow)[j], channel]
        inside += g[image, i, j, channel] / inside.size
    return (grad_x,)


def global_avg_pool(x: Any) -> Array:
    """(N, H, W, C) -> (N, C)"""
    return mean(x, axis=(1, 2))


def global_avg_pool_gradients(g: Any, x: Any) -> tuple[Array]:
    """Of x.  Every pixel receives g / (H * W)."""
    _, h, w, _ = np.shape(x)
    return (np.array(np.broadcast_to(np.asarray(g, np.float64)[:, None, None] / (h * w), np.shape(x))),)
