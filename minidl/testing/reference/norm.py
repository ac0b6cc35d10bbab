"""Normalisation: over the batch, and over neighbouring channels."""

import math
from typing import Any

import numpy as np

from minidl.testing.reference.elementwise import activate, add
from minidl.testing.reference.sums import average, dot
from minidl.testing.reference.windows import activation_gradient

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
        centre, std = _centre_and_std(x, channel, running_mean, running_var, training, eps)
        y[..., channel] = float(gamma[channel]) * (x[..., channel] - centre) / std + float(beta[channel])
    return activate(y if residual is None else add(y, residual), activation)


def _centre_and_std(
    x: Array, channel: int, running_mean: Any, running_var: Any, training: bool, eps: float
) -> tuple[float, float]:
    """mean and sqrt(var + eps) of a channel: of the batch in training, the running ones otherwise."""
    values = x[..., channel].ravel().tolist()
    centre = average(values) if training else float(running_mean[channel])
    var = average((v - centre) ** 2 for v in values) if training else float(running_var[channel])
    return centre, math.sqrt(var + eps)


def batch_norm_gradients(
    g: Any,
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
) -> tuple[Array, Array, Array, Array | None]:
    """Of x, gamma, beta and residual.  With x_hat = (x - mean) / std, per channel:

    grad_beta = sum of g, grad_gamma = sum of g * x_hat, grad_residual = g, and
    grad_x = gamma / std * (g - average of g - x_hat * average of g * x_hat)
    where the averages are the paths through the batch's mean and variance; the running ones are constants.
    """
    x = np.asarray(x, np.float64)
    if activation is not None:
        options: dict[str, Any] = {"training": training, "eps": eps, "residual": residual}
        z = batch_norm(x, gamma, beta, running_mean, running_var, **options)
        g = activation_gradient(g, z, activation)
    g = np.array(g, np.float64)
    grad_x, grad_gamma, grad_beta = np.empty_like(x), np.empty(x.shape[-1]), np.empty(x.shape[-1])
    for channel in range(x.shape[-1]):
        centre, std = _centre_and_std(x, channel, running_mean, running_var, training, eps)
        x_hat, arriving = (x[..., channel] - centre) / std, g[..., channel]
        grad_beta[channel] = math.fsum(arriving.ravel().tolist())
        grad_gamma[channel] = dot(arriving, x_hat)
        if training:
            arriving = arriving - (grad_beta[channel] + x_hat * grad_gamma[channel]) / x_hat.size
        grad_x[..., channel] = float(gamma[channel]) / std * arriving
    return grad_x, grad_gamma, grad_beta, None if residual is None else g


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
        squares = math.fsum(v * v for v in x[_around(place, size)].tolist())
        y[place] = x[place] / (k + (alpha / size if divide_alpha else alpha) * squares) ** beta
    return y


def _around(place: tuple[int, ...], size: int) -> tuple[int | slice, ...]:
    """The `size` channels around a place, as far as they exist."""
    *lead, c = place
    return (*lead, slice(max(0, c - size // 2), c + size // 2 + 1))


def local_response_norm_gradients(
    g: Any,
    x: Any,
    size: int,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    divide_alpha: bool = True,
) -> tuple[Array]:
    """Of x.  With s[c] = k + a * sum of squares around c, x[c] is the numerator of y[c] and in s around c:

    grad_x[c] = g[c] / s[c] ** beta
                - 2 * a * beta * x[c] * sum over j around c of g[j] * x[j] / s[j] ** (beta + 1)
    """
    g, x = np.asarray(g, np.float64), np.asarray(x, np.float64)
    a = alpha / size if divide_alpha else alpha
    s, passed_on, grad_x = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    for place in np.ndindex(x.shape):
        s[place] = k + a * math.fsum(v * v for v in x[_around(place, size)].tolist())
        passed_on[place] = g[place] * x[place] / s[place] ** (beta + 1)
    for place in np.ndindex(x.shape):
        others = math.fsum(passed_on[_around(place, size)].tolist())
        grad_x[place] = g[place] / s[place] ** beta - 2 * a * beta * x[place] * others
    return (grad_x,)
