"""Every op of `minidl.ops` as naive loops, straight from its formula: the oracle for all fast code.

Each function has the name and the arguments of the op, takes NumPy arrays (images (N, H, W, C), weights (KH,
KW, C/groups, F)) and returns one new float64 array; nothing is written in place. The one decision behind it:
nothing here may share an idea with the engine. No engine code is imported, padding and window rules are
spelled out again, and sums go through `math.fsum`, which rounds once however many terms there are. So what is
left of a difference is the engine's own rounding (see agree.py).
"""

import math
from builtins import max as larger  # this file defines ops named max, sum, abs and pow
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Span = tuple[int, int]  # (before, after), or a pair (rows, columns)


# --- element by element -------------------------------------------------------------------------------------


def _elementwise(formula: Callable[..., float], *arrays: Any) -> Array:
    """formula(a, b, ...) for every element of the arrays, broadcast against each other."""
    together = np.broadcast(*(np.asarray(array, np.float64) for array in arrays))
    return np.array([formula(*map(float, values)) for values in together], np.float64).reshape(together.shape)


def add(a: Any, b: Any) -> Array:
    """a + b"""
    return _elementwise(lambda p, q: p + q, a, b)


def sub(a: Any, b: Any) -> Array:
    """a - b"""
    return _elementwise(lambda p, q: p - q, a, b)


def mul(a: Any, b: Any) -> Array:
    """a * b"""
    return _elementwise(lambda p, q: p * q, a, b)


def div(a: Any, b: Any) -> Array:
    """a / b"""
    return _elementwise(lambda p, q: p / q, a, b)


def neg(x: Any) -> Array:
    """-x"""
    return _elementwise(lambda p: -p, x)


def pow(a: Any, b: Any) -> Array:
    """a ** b"""
    return _elementwise(lambda p, q: p**q, a, b)


def abs(x: Any) -> Array:
    """x without its sign"""
    return _elementwise(math.fabs, x)


def exp(x: Any) -> Array:
    """e ** x"""
    return _elementwise(math.exp, x)


def log(x: Any) -> Array:
    """The natural logarithm."""
    return _elementwise(math.log, x)


def sqrt(x: Any) -> Array:
    """The square root."""
    return _elementwise(math.sqrt, x)


def maximum(a: Any, b: Any) -> Array:
    """The larger of a and b."""
    return _elementwise(lambda p, q: p if p >= q else q, a, b)


def minimum(a: Any, b: Any) -> Array:
    """The smaller of a and b."""
    return _elementwise(lambda p, q: p if p <= q else q, a, b)


def where(condition: Any, a: Any, b: Any) -> Array:
    """a where the condition holds, else b."""
    return _elementwise(lambda c, p, q: p if c else q, condition, a, b)


def clip(x: Any, low: float | None = None, high: float | None = None) -> Array:
    """x, but at least `low` and at most `high`."""
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    return _elementwise(lambda p: least if p < least else most if p > most else p, x)


def relu(x: Any) -> Array:
    """x where it is positive, else 0."""
    return _elementwise(lambda p: p if p > 0 else 0.0, x)


def sigmoid(x: Any) -> Array:
    """1 / (1 + exp(-x)), written so that exp never overflows."""
    return _elementwise(lambda p: 1 / (1 + math.exp(-p)) if p >= 0 else math.exp(p) / (1 + math.exp(p)), x)


def tanh(x: Any) -> Array:
    """The hyperbolic tangent."""
    return _elementwise(math.tanh, x)


# --- shapes -------------------------------------------------------------------------------------------------


def reshape(x: Any, shape: Sequence[int]) -> Array:
    """The same elements, in memory order, in another shape."""
    return np.array(list(np.asarray(x, np.float64).flat)).reshape(shape)


def flatten(x: Any) -> Array:
    """(N, ...) -> (N, D), in memory order."""
    return reshape(x, (len(x), int(np.prod(np.shape(x)[1:]))))


def transpose(x: Any, axes: Sequence[int] | None = None) -> Array:
    """y[k[axes[0]], k[axes[1]], ...] = x[k]; without axes their order is reversed."""
    x = np.asarray(x, np.float64)
    order = [axis % x.ndim for axis in (range(x.ndim)[::-1] if axes is None else axes)]
    y = np.empty([x.shape[axis] for axis in order])
    for place in np.ndindex(x.shape):
        y[tuple(place[axis] for axis in order)] = x[place]
    return y


def concat(arrays: Sequence[Any], axis: int = -1) -> Array:
    """The arrays behind one another along `axis`."""
    swapped = [np.moveaxis(np.asarray(array, np.float64), axis, 0) for array in arrays]
    return np.moveaxis(np.array([row for array in swapped for row in array]), 0, axis)


def pad(x: Any, widths: Sequence[Span], *, value: float = 0.0) -> Array:
    """`value` around x: widths[axis] = (before, after)."""
    x = np.asarray(x, np.float64)
    y = np.full(
        [size + before + after for size, (before, after) in zip(x.shape, widths, strict=True)], float(value)
    )
    for place in np.ndindex(x.shape):
        y[tuple(k + before for k, (before, _) in zip(place, widths, strict=True))] = x[place]
    return y


def getitem(x: Any, index: Any) -> Array:
    """NumPy's own indexing is the definition."""
    return np.array(np.asarray(x, np.float64)[index])


# --- sums and products --------------------------------------------------------------------------------------


def _reduce(
    formula: Callable[[Iterable[float]], float], x: Any, axis: int | Sequence[int] | None, keepdims: bool
) -> Array:
    """formula(the elements that differ only in the reduced axes), for every place in the other axes."""
    x = np.asarray(x, np.float64)
    chosen = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    reduced = {a % x.ndim for a in chosen}
    y = np.empty([1 if a in reduced else size for a, size in enumerate(x.shape)])
    for place in np.ndindex(y.shape):
        y[place] = formula(
            x[tuple(slice(None) if a in reduced else k for a, k in enumerate(place))].ravel().tolist()
        )
    return y if keepdims else y.reshape([size for a, size in enumerate(x.shape) if a not in reduced])


def sum(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Array:
    """The sum over `axis`, or over everything."""
    return _reduce(math.fsum, x, axis, keepdims)


def mean(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Array:
    """The mean over `axis`, or over everything."""
    return _reduce(_mean, x, axis, keepdims)


def max(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Array:
    """The largest element over `axis`, or over everything."""
    return _reduce(larger, x, axis, keepdims)


def matmul(a: Any, b: Any) -> Array:
    """y[..., i, j] = sum over k of a[..., i, k] * b[..., k, j]; leading axes broadcast."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    left, right = np.atleast_2d(a), b if b.ndim > 1 else b[:, None]
    lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, lead + left.shape[-2:])
    right = np.broadcast_to(right, lead + right.shape[-2:])
    y = np.empty((*lead, left.shape[-2], right.shape[-1]))
    for *place, i, j in np.ndindex(y.shape):
        y[(*place, i, j)] = _dot(left[(*place, i)], right[(*place, slice(None), j)])
    y = y if b.ndim > 1 else y[..., 0]
    return y if a.ndim > 1 else y[..., 0, :] if b.ndim > 1 else y[..., 0]


def linear(x: Any, weight: Any, bias: Any = None) -> Array:
    """y[..., f] = bias[f] + sum over d of x[..., d] * weight[d, f].  (N, D), (D, F), (F,) -> (N, F)"""
    y = matmul(x, weight)
    return y if bias is None else add(y, bias)


def _dot(a: Array, b: Array) -> float:
    return math.fsum((a * b).ravel().tolist())


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


# --- windows ------------------------------------------------------------------------------------------------


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
            lacking = larger(0, (math.ceil(length / s) - 1) * s + (k - 1) * d + 1 - length)
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
        y[image, i, j, filter_] = _dot(taps, weight[:, :, :, filter_])
    return _activate(y if bias is None else add(y, bias), activation)


def _activate(x: Array, activation: str | None) -> Array:
    return x if activation is None else {"relu": relu, "sigmoid": sigmoid, "tanh": tanh}[activation](x)


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
        inside = x[
            image, larger(tops[i], 0) : larger(bottom, 0), larger(lefts[j], 0) : larger(right, 0), channel
        ]
        y[image, i, j, channel] = formula(inside.ravel().tolist(), (bottom - tops[i]) * (right - lefts[j]))
    return y


def max_pool2d(
    x: Any, kernel_size: Any, *, stride: Any = None, padding: Any = 0, ceil_mode: bool = False
) -> Array:
    """The largest element of each window; padding never wins.  (N, H, W, C) -> (N, OH, OW, C)"""
    return _pool(lambda inside, _: larger(inside), x, kernel_size, stride, padding, ceil_mode)


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
        y[image, i, j, channel] = _mean(x[image, rows, columns, channel].ravel().tolist())
    return y


def global_avg_pool(x: Any) -> Array:
    """(N, H, W, C) -> (N, C)"""
    return mean(x, axis=(1, 2))


# --- normalisation ------------------------------------------------------------------------------------------


def batch_norm(
    x: Any,
    gamma: Any,
    beta: Any,
    running_mean: Any = None,
    running_var: Any = None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Any = None,
) -> Array:
    """Normalise each channel.  (N, ..., C), (C,), (C,), (C,), (C,) -> (N, ..., C)

    y = gamma * (x - mean) / sqrt(var + eps) + beta + residual, then the activation.
    mean and var are the batch's own per channel (var divided by the count) in training, the running ones
    otherwise. What training makes of the running statistics is `running_statistics`.
    """
    x = np.asarray(x, np.float64)
    y = np.empty_like(x)
    for channel in range(x.shape[-1]):
        values = x[..., channel].ravel().tolist()
        centre = _mean(values) if training else float(running_mean[channel])
        var = _mean((v - centre) ** 2 for v in values) if training else float(running_var[channel])
        y[..., channel] = float(gamma[channel]) * (x[..., channel] - centre) / math.sqrt(var + eps) + float(
            beta[channel]
        )
    return _activate(y if residual is None else add(y, residual), activation)


def running_statistics(
    x: Any, running_mean: Any, running_var: Any, *, momentum: float = 0.1
) -> tuple[Array, Array]:
    """The running mean and variance after one batch.  (N, ..., C), (C,), (C,) -> (C,), (C,)

    new = (1 - momentum) * old + momentum * batch's. The batch's variance is divided by its count - 1.
    """
    x = np.asarray(x, np.float64)
    new_mean, new_var = np.array(running_mean, np.float64), np.array(running_var, np.float64)
    for channel in range(x.shape[-1]):
        values = x[..., channel].ravel().tolist()
        centre = _mean(values)
        unbiased = math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1)
        new_mean[channel] = (1 - momentum) * new_mean[channel] + momentum * centre
        new_var[channel] = (1 - momentum) * new_var[channel] + momentum * unbiased
    return new_mean, new_var


def local_response_norm(
    x: Any, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, divide_alpha: bool = True
) -> Array:
    """Divide by a power of the energy in the neighbouring channels.  (N, ..., C) -> (N, ..., C)

    y[..., c] = x[..., c] / (k + a * sum of squares over the `size` channels around c) ** beta
    a is alpha / size (Caffe, PyTorch) or alpha itself (the AlexNet paper, TensorFlow); channels outside count
    as 0.
    """
    x = np.asarray(x, np.float64)
    y = np.empty_like(x)
    for place in np.ndindex(x.shape):
        *lead, c = place
        around = x[(*lead, slice(larger(0, c - size // 2), c + size // 2 + 1))].tolist()
        squares = math.fsum(v * v for v in around)
        y[place] = x[place] / (k + (alpha / size if divide_alpha else alpha) * squares) ** beta
    return y


# --- classification -----------------------------------------------------------------------------------------


def softmax(x: Any, axis: int = -1) -> Array:
    """exp(x) / sum of exp(x) along `axis`."""
    powers = exp(_below_largest(x, axis))
    return div(powers, sum(powers, axis, keepdims=True))


def log_softmax(x: Any, axis: int = -1) -> Array:
    """x - log(sum of exp(x)) along `axis`."""
    below = _below_largest(x, axis)
    return sub(below, log(sum(exp(below), axis, keepdims=True)))


def _below_largest(x: Any, axis: int) -> Array:
    """x less its largest element along `axis`: the softmax is the same, and exp cannot overflow."""
    return sub(x, max(x, axis, keepdims=True))


def cross_entropy(
    logits: Any,
    labels: Any,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    ignore_index: int | None = None,
    class_weight: Any = None,
) -> Array:
    """The loss per image, their sum, or their mean.  (N, K), (N,) -> (N,) or ()

    For image n with label t, s = label_smoothing, w = class_weight, p = softmax(logits):
        -(1 - s) * w[t] * log(p[n, t]) - s / K * sum over k of w[k] * log(p[n, k])

    It is 0 where the label is ignore_index. The mean is PyTorch's: the sum of the losses by the sum of w[t]
    over the labels that count. With every label ignored it is nan.
    """
    log_p, labels = log_softmax(logits), np.asarray(labels)
    k = log_p.shape[-1]
    w = np.ones(k) if class_weight is None else np.asarray(class_weight, np.float64)
    losses, weights = np.zeros(len(labels)), np.zeros(len(labels))
    for n, t in enumerate(labels.tolist()):
        if t != ignore_index:
            losses[n] = -(1 - label_smoothing) * w[t] * log_p[n, t] - label_smoothing / k * _dot(w, log_p[n])
            weights[n] = w[t]
    if reduction == "none":
        return losses
    total, weight = math.fsum(losses), math.fsum(weights)
    return np.array(total if reduction == "sum" else total / weight if weight else math.nan)


# --- dropout ------------------------------------------------------------------------------------------------


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10: four random 32-bit words from four words of counter and two of key.

    Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    mask = 2**32 - 1
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product2 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = product2 >> 32 ^ c1 ^ k0, product2 & mask, product0 >> 32 ^ c3 ^ k1, product0 & mask
        k0, k1 = k0 + 0x9E3779B9 & mask, k1 + 0xBB67AE85 & mask
    return [c0, c1, c2, c3]


def dropout_mask(shape: Sequence[int], p: float, *, seed: int, stream: int, call: int) -> Array:
    """Which elements are kept: those whose word is at least floor(p * 2**32).  -> bool, of that shape

    Element e takes word e % 4 of Philox with key (seed, stream) and counter (e // 4, call), both as (low,
    high) words.
    """

    def word(element: int) -> int:
        block = element // 4
        counter = (block % 2**32, block >> 32, call % 2**32, call >> 32)
        return philox(counter, (seed, stream))[element % 4]

    return np.array(
        [word(element) >= math.floor(p * 2**32) for element in range(math.prod(shape))], bool
    ).reshape(shape)


def dropout(x: Any, p: float, *, training: bool, seed: int, stream: int, call: int) -> Array:
    """x / (1 - p) where the mask keeps it, else 0; x itself outside training."""
    x = np.asarray(x, np.float64)
    return (
        where(dropout_mask(x.shape, p, seed=seed, stream=stream, call=call), x / (1 - p), 0.0)
        if training
        else x.copy()
    )
