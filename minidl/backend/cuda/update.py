"""Optimiser updates on the GPU: kernels/update.cu. One launch does all that one step does to one parameter.

Numbers are cast to float32 before they are sent, as the CPU backend does.
"""

import builtins
import math
from collections.abc import Sequence

import numpy as np

from minidl.backend import Array
from minidl.backend.cuda.device import runtime_of
from minidl.backend.cuda.elementwise import cast, instance
from minidl.backend.cuda.launch import THREADS, Kernel, blocks_for, kernel, launch
from minidl.backend.cuda.move import contiguous, write

_PARTS = 512  # at most so many parts make up a sum of squares, one by each block
_LEAST = 16  # numbers that a thread takes at least

_SGD, _SGD_MOMENTUM, _ADAM, _RMSPROP, _RMSPROP_MOMENTUM, _EMA, _SCALE, _LIMIT, _SQUARES = (
    {np.dtype(np.float32): kernel("update.cu", name)}
    for name in (
        "sgd",
        "sgd_momentum",
        "adam",
        "rmsprop",
        "rmsprop_momentum",
        "ema",
        "scale",
        "limit",
        "sum_of_squares",
    )
)


def sgd_update(
    p: Array,
    g: Array,
    velocity: Array | None,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """One step of stochastic gradient descent, in place.  All arrays of one shape; velocity None: no momentum

    slope = g + weight_decay * p;  velocity = momentum * velocity + slope;  p -= lr * velocity
    Nesterov: p -= lr * (slope + momentum * velocity).
    """
    if velocity is None:
        _run(_SGD, (p,), (g,), lr, weight_decay)
    else:
        _run(_SGD_MOMENTUM, (p, velocity), (g,), lr, momentum, weight_decay, nesterov)


def adam_update(
    p: Array,
    g: Array,
    mean: Array,
    mean_square: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """One step of Adam, in place, as the step-th (from 1) of this parameter.  All arrays of one shape

    slope = g + weight_decay * p
    mean, mean_square: running averages of slope and slope**2, with rates 1 - beta1 and 1 - beta2
    p -= lr * mean / (1 - beta1**step) / (sqrt(mean_square / (1 - beta2**step)) + eps)
    """
    numbers = _adam_numbers(lr, beta1, beta2, eps, step)
    _run(_ADAM, (p, mean, mean_square), (g,), *numbers, weight_decay, 1.0)


def adamw_update(
    p: Array,
    g: Array,
    mean: Array,
    mean_square: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """One step of AdamW: p *= 1 - lr * weight_decay, then `adam_update` with slope = g."""
    numbers = _adam_numbers(lr, beta1, beta2, eps, step)
    _run(_ADAM, (p, mean, mean_square), (g,), *numbers, 0.0, 1.0 - lr * weight_decay)


def _adam_numbers(lr: float, beta1: float, beta2: float, eps: float, step: int) -> tuple[float, ...]:
    """Both rates, then the two bias corrections as factors, then eps."""
    return 1.0 - beta1, 1.0 - beta2, lr / (1.0 - beta1**step), 1.0 / math.sqrt(1.0 - beta2**step), eps


def rmsprop_update(
    p: Array,
    g: Array,
    mean_square: Array,
    velocity: Array | None,
    *,
    lr: float,
    decay: float,
    momentum: float,
    eps: float,
    weight_decay: float,
) -> None:
    """One step of RMSprop, TensorFlow's form, in place.  All arrays of one shape; velocity None: no momentum

    slope = g + weight_decay * p;  mean_square = decay * mean_square + (1 - decay) * slope**2
    velocity = momentum * velocity + lr * slope / sqrt(mean_square + eps);  p -= velocity
    """
    if velocity is None:
        _run(_RMSPROP, (p, mean_square), (g,), lr, 1.0 - decay, eps, weight_decay)
    else:
        numbers = lr, 1.0 - decay, momentum, eps, weight_decay
        _run(_RMSPROP_MOMENTUM, (p, mean_square, velocity), (g,), *numbers)


def ema_update(average: Array, p: Array, *, decay: float) -> None:
    """average = decay * average + (1 - decay) * p, in place."""
    _run(_EMA, (average,), (p,), 1.0 - decay)


def scale_into(x: Array, factor: float) -> None:
    """x *= factor, in place."""
    _run(_SCALE, (x,), (), factor)


def clip_into(x: Array, low: float, high: float) -> None:
    """Move every value of x into [low, high], in place; a NaN stays."""
    _run(_LIMIT, (x,), (), low, high)


def copy_into(x: Array, source: Array) -> None:
    """Overwrite x with the values of `source`, an array of its shape."""
    write(source if source.dtype == x.dtype else cast(source, x.dtype), x)


def sums_of_squares(arrays: Sequence[Array]) -> list[float]:
    """The sum of x**2 of each array, in float64, in an order that depends on nothing but the size of x.

    All of one device; waits for it, once.
    """
    chunks = [THREADS * max(_LEAST, -(-x.size // (_PARTS * THREADS))) for x in arrays]
    parts = [-(-x.size // chunk) for x, chunk in zip(arrays, chunks)]
    if not any(parts):
        return [0.0] * len(parts)
    runtime = runtime_of(arrays[0])
    sums, ends = runtime.empty((builtins.sum(parts),), np.float64), np.cumsum(parts)
    for x, chunk, count, end in zip(arrays, chunks, parts, ends.tolist()):
        if count:
            found = instance(_SQUARES, x.dtype, "sums_of_squares")
            launch(found, runtime, count, contiguous(x), sums[end - count : end], chunk, x.size)
    return [builtins.sum(own.tolist()) for own in np.split(runtime.download(sums), ends[:-1])]


def _run(
    of: dict[np.dtype, Kernel], written: tuple[Array, ...], read: tuple[Array, ...], *numbers: float
) -> None:
    """Launch an update on arrays of one shape and any strides."""
    first = written[0]
    found = instance(of, first.dtype, "optimiser update")
    if first.size == 0:
        return
    flat = [contiguous(array) for array in written]
    others = [contiguous(array) for array in read]
    launch(found, runtime_of(first), blocks_for(first.size), *flat, *others, *numbers, first.size)
    for values, array in zip(flat, written):
        if values is not array:
            write(values, array)
