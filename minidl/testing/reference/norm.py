"""Normalisation: over the batch, and over neighbouring channels."""

import math
from typing import Any

import numpy as np

from minidl.testing.reference.elementwise import activate, add
from minidl.testing.reference.sums import average

Array = np.ndarray


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
        centre = average(values) if training else float(running_mean[channel])
        var = average((v - centre) ** 2 for v in values) if training else float(running_var[channel])
        y[..., channel] = float(gamma[channel]) * (x[..., channel] - centre) / math.sqrt(var + eps) + float(
            beta[channel]
        )
    return activate(y if residual is None else add(y, residual), activation)


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
        centre = average(values)
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
        around = x[(*lead, slice(max(0, c - size // 2), c + size // 2 + 1))].tolist()
        squares = math.fsum(v * v for v in around)
        y[place] = x[place] / (k + (alpha / size if divide_alpha else alpha) * squares) ** beta
    return y
