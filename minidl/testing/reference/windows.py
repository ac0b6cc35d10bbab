"""Convolution and pooling: a window slid over images (N, H, W, C)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.testing.reference.elementwise import activate, add
from minidl.testing.reference.shapes import pad
from minidl.testing.reference.sums import average, dot, mean

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
    n, h, w, _ = x.shape
    kh, kw, c, f = weight.shape
    (sh, sw), (dh, dw) = _pair(stride), _pair(dilation)
    rows, columns = _sides((h, w), (kh, kw), (sh, sw), (dh, dw), padding)
    padded = pad(x, ((0, 0), rows, columns, (0, 0)))
    down = [slice(s + rows[0], s + rows[0] + kh * dh, dh) for s in _starts(h, rows, kh, sh, dh, False)]
    along = [
        slice(s + columns[0], s + columns[0] + kw * dw, dw) for s in _starts(w, columns, kw, sw, dw, False)
    ]
    y = np.empty((n, len(down), len(along), f))
    for image, i, j, filter_ in np.ndindex(y.shape):
        first = filter_ // (f // groups) * c
        taps = padded[image, down[i], along[j], first : first + c]  # (KH, KW, C/groups)
        y[image, i, j, filter_] = dot(taps, weight[:, :, :, filter_])
    return activate(y if bias is None else add(y, bias), activation)


def _pool(
    formula: Callable[[list[float], int], float],
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
) -> Array:
    """formula(elements inside the image, how many the window covers with padding), per window and channel."""
    x = np.asarray(x, np.float64)
    n, h, w, c = x.shape
    kh, kw = _pair(kernel_size)
    sh, sw = (kh, kw) if stride is None else _pair(stride)
    rows, columns = _sides((h, w), (kh, kw), (sh, sw), (1, 1), padding)
    tops, lefts = _starts(h, rows, kh, sh, 1, ceil_mode), _starts(w, columns, kw, sw, 1, ceil_mode)
    y = np.empty((n, len(tops), len(lefts), c))
    for image, i, j, channel in np.ndindex(y.shape):
        bottom = min(tops[i] + kh, h + rows[1])  # in ceil mode the last window may hang over the padding too
        right = min(lefts[j] + kw, w + columns[1])
        inside = x[image, max(tops[i], 0) : max(bottom, 0), max(lefts[j], 0) : max(right, 0), channel]
        y[image, i, j, channel] = formula(inside.ravel().tolist(), (bottom - tops[i]) * (right - lefts[j]))
    return y


def max_pool2d(
    x: Any, kernel_size: Any, *, stride: Any = None, padding: Any = 0, ceil_mode: bool = False
) -> Array:
    """The largest element of each window; padding never wins.  (N, H, W, C) -> (N, OH, OW, C)"""
    return _pool(lambda inside, _: max(inside), x, kernel_size, stride, padding, ceil_mode)


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


def adaptive_avg_pool2d(x: Any, output_size: Any) -> Array:
    """Means over OH by OW bins.  (N, H, W, C) -> (N, OH, OW, C)

    Bin i covers rows floor(i * H / OH) up to ceil((i + 1) * H / OH), and so for the columns.
    """
    x = np.asarray(x, np.float64)
    n, h, w, c = x.shape
    oh, ow = _pair(output_size)
    y = np.empty((n, oh, ow, c))
    for image, i, j, channel in np.ndindex(y.shape):
        rows = slice(i * h // oh, -(-(i + 1) * h // oh))
        columns = slice(j * w // ow, -(-(j + 1) * w // ow))
        y[image, i, j, channel] = average(x[image, rows, columns, channel].ravel().tolist())
    return y


def global_avg_pool(x: Any) -> Array:
    """(N, H, W, C) -> (N, C)"""
    return mean(x, axis=(1, 2))
