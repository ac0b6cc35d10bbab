"""Optimiser updates: everything one step does to one parameter, in one pass over memory.

An update is bound by memory, so each kernel reads every array once and writes it once. A kernel is a plain
loop over flat arrays, written once and compiled twice: small arrays run in the calling thread, because waking
the others costs more than the loop. The elements are independent, so both give the same bits with any number
of threads. Numbers are cast to the array's dtype before the loop: float32 arithmetic stays float32.
"""

import math
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import prange

from minidl.backend import Array
from minidl.backend.cpu.compile import compiled
from minidl.backend.cpu.threads import PARALLEL_SIZE

CHUNK_SIZE = 8192  # elements per partial sum: fixed, so the order of summation does not depend on the threads


def _kernel(loop: Callable[..., None]) -> Callable[..., None]:
    """Compile `loop` for one thread and for many; the size of its first array chooses."""
    # numba names its cache files after the function, whatever the options: the twin needs a name of its own.
    twin = types.FunctionType(loop.__code__, loop.__globals__, loop.__name__)
    twin.__qualname__ = loop.__qualname__ + "_parallel"
    twin.__module__ = loop.__module__
    serial = compiled(loop)
    parallel = compiled(twin, parallel=True)

    def run(first: Array, *rest: Any) -> None:
        (parallel if first.size >= PARALLEL_SIZE else serial)(first, *rest)

    return run


def _run(
    kernel: Callable[..., None],
    written: tuple[Array, ...],
    read: tuple[Array, ...] = (),
    numbers: tuple[float, ...] = (),
    *flags: bool,
) -> None:
    """Run a kernel on arrays of one shape and any strides; `numbers` are cast to their dtype."""
    cast = written[0].dtype.type
    flat = [array.ravel() for array in (*written, *read)]  # views of contiguous arrays, copies of others
    kernel(*flat, *[cast(number) for number in numbers], *flags)
    for array, values in zip(written, flat, strict=False):
        if not array.flags.c_contiguous:
            array[...] = values.reshape(array.shape)


@_kernel
def _sgd(p: Array, g: Array, lr: float, weight_decay: float) -> None:
    for i in prange(p.size):
        p[i] -= lr * (g[i] + weight_decay * p[i])


@_kernel
def _sgd_momentum(
    p: Array, velocity: Array, g: Array, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    for i in prange(p.size):
        slope = g[i] + weight_decay * p[i]
        v = momentum * velocity[i] + slope
        velocity[i] = v
        p[i] -= lr * (slope + momentum * v if nesterov else v)


@_kernel
def _adam(
    p: Array,
    mean: Array,
    mean_square: Array,
    g: Array,
    rate1: float,
    rate2: float,
    step_size: float,
    inv_root: float,
    eps: float,
    weight_decay: float,
    keep: float,
) -> None:
    for i in prange(p.size):
        slope = g[i] + weight_decay * p[i]
        m = mean[i] + rate1 * (slope - mean[i])
        s = mean_square[i] + rate2 * (slope * slope - mean_square[i])
        mean[i] = m
        mean_square[i] = s
        p[i] = keep * p[i] - step_size * m / (np.sqrt(s) * inv_root + eps)


@_kernel
def _rmsprop(
    p: Array, mean_square: Array, g: Array, lr: float, rate: float, eps: float, weight_decay: float
) -> None:
    for i in prange(p.size):
        slope = g[i] + weight_decay * p[i]
        s = mean_square[i] + rate * (slope * slope - mean_square[i])
        mean_square[i] = s
        p[i] -= lr * slope / np.sqrt(s + eps)


@_kernel
def _rmsprop_momentum(
    p: Array,
    mean_square: Array,
    velocity: Array,
    g: Array,
    lr: float,
    rate: float,
    momentum: float,
    eps: float,
    weight_decay: float,
) -> None:
    for i in prange(p.size):
        slope = g[i] + weight_decay * p[i]
        s = mean_square[i] + rate * (slope * slope - mean_square[i])
        v = momentum * velocity[i] + lr * slope / np.sqrt(s + eps)
        mean_square[i] = s
        velocity[i] = v
        p[i] -= v


@_kernel
def _ema(average: Array, p: Array, rate: float) -> None:
    for i in prange(average.size):
        average[i] += rate * (p[i] - average[i])


@_kernel
def _scale(x: Array, factor: float) -> None:
    for i in prange(x.size):
        x[i] *= factor


@_kernel
def _clip(x: Array, low: float, high: float) -> None:
    for i in prange(x.size):
        x[i] = low if x[i] < low else high if x[i] > high else x[i]  # a NaN stays


@_kernel
def _sums_of_squares(x: Array, sums: Array) -> None:
    for chunk in prange(sums.size):
        part = x[chunk * CHUNK_SIZE : (chunk + 1) * CHUNK_SIZE]
        a = b = c = d = 0.0  # four chains of additions: one would make each wait for the one before it
        for i in range(part.size // 4):
            a += np.float64(part[4 * i]) ** 2
            b += np.float64(part[4 * i + 1]) ** 2
            c += np.float64(part[4 * i + 2]) ** 2
            d += np.float64(part[4 * i + 3]) ** 2
        for i in range(part.size // 4 * 4, part.size):
            a += np.float64(part[i]) ** 2
        sums[chunk] = (a + b) + (c + d)


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
        _run(_sgd, (p,), (g,), (lr, weight_decay))
    else:
        _run(_sgd_momentum, (p, velocity), (g,), (lr, momentum, weight_decay), nesterov)


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
    _run(_adam, (p, mean, mean_square), (g,), (*numbers, weight_decay, 1.0))


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
    _run(_adam, (p, mean, mean_square), (g,), (*numbers, 0.0, 1.0 - lr * weight_decay))


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
        _run(_rmsprop, (p, mean_square), (g,), (lr, 1.0 - decay, eps, weight_decay))
    else:
        numbers = (lr, 1.0 - decay, momentum, eps, weight_decay)
        _run(_rmsprop_momentum, (p, mean_square, velocity), (g,), numbers)


def ema_update(average: Array, p: Array, *, decay: float) -> None:
    """average = decay * average + (1 - decay) * p, in place."""
    _run(_ema, (average,), (p,), (1.0 - decay,))


def scale_into(x: Array, factor: float) -> None:
    """x *= factor, in place."""
    _run(_scale, (x,), (), (factor,))


def clip_into(x: Array, low: float, high: float) -> None:
    """Move every value of x into [low, high], in place; a NaN stays."""
    _run(_clip, (x,), (), (low, high))


def copy_into(x: Array, source: Array) -> None:
    """Overwrite x with the values of `source`, an array of its shape."""
    np.copyto(x, source)


def sums_of_squares(arrays: Sequence[Array]) -> list[float]:
    """The sum of x**2 of each array, in float64, in an order that depends on nothing but the size of x."""
    return [_sum_of_squares(x) for x in arrays]


def _sum_of_squares(x: Array) -> float:
    sums = np.empty(-(-x.size // CHUNK_SIZE), np.float64)
    _sums_of_squares(x.ravel(), sums)
    return sum(sums.tolist())
