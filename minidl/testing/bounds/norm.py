"""Bounds for normalisation."""

from typing import Any

import numpy as np

from minidl.testing import reference
from minidl.testing.bounds.common import LIBRARY, gamma
from minidl.testing.bounds.windows import behind_activation

Array = np.ndarray


def batch_norm(
    u: float,
    x: Array,
    gamma_: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    eps: float = 1e-5,
    residual: Array | None = None,
    activation: str | None = None,
    **rest: Any,
) -> Array:
    """An error of the mean moves every x - mean alike, one of the deviation scales it; see `_statistics`.

    The last term holds for (x - mean) * scale + beta and for x * scale + (beta - mean * scale).
    """
    centre, inv_std, shift, relative = _statistics(u, x, running_mean, running_var, training, eps)
    scale = np.abs(gamma_) * inv_std
    extra = np.abs(beta) + (0.0 if residual is None else np.abs(residual))
    error = scale * (shift + (np.abs(x - centre) + shift) * relative)
    error += gamma(4, u) * (scale * (np.abs(x) + np.abs(centre)) + extra)
    return error + (gamma(LIBRARY, u) if activation in ("sigmoid", "tanh") else 0.0)


def _statistics(
    u: float, x: Array, running_mean: Array, running_var: Array, training: bool, eps: float
) -> tuple[Array, Array, Any, Any]:
    """Per channel mean, r = 1 / sqrt(var + eps), the error of the mean, and the relative error of r * gamma.

    A mean of M values is off by shift = gamma(M + 1) * sqrt(mean of x^2). The variance is the mean of (x -
    mean)^2, in which an error of the mean enters squared, for the deviations sum to 0; or it is merged from
    parts, each about its own mean m_k + e_k: then the mean of (m_k - mean + e_k - e)^2 + e_k^2 adds at most
    2 * std * shift + 5 * shift^2 (Cauchy-Schwarz). E[x^2] - mean^2 is not allowed. var + eps stays above eps,
    and r = (var + eps)^(-1/2) grows by the factor (1 - t)^(-1/2) when var + eps shrinks by the share t.
    """
    if not training:
        return running_mean, 1 / np.sqrt(running_var + eps), 0.0, gamma(LIBRARY, u)
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    var = x.var(axes)
    shift = gamma(count + 1, u) * np.sqrt((x * x).mean(axes))
    from_mean = 2 * np.sqrt(var) * shift + 5 * shift**2
    var_error = from_mean + gamma(count + 6, u) * (var + from_mean)
    growth = np.expm1(-np.log1p(-np.minimum(var_error, var) / (var + eps)) / 2)
    growth = np.maximum(growth, var_error / (var + eps) / 2)  # r shrinks by no more than this
    return x.mean(axes), 1 / np.sqrt(var + eps), shift, growth + gamma(LIBRARY, u) * (1 + growth)


def batch_norm_gradients(
    u: float,
    g: Array,
    x: Array,
    gamma_: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Array | None = None,
    **rest: Any,
) -> tuple[Any, ...]:
    """The formulas of the reference, with every factor at its largest and its error beside it.

    With r and its relative error from `_statistics`, x_hat = (x - mean) * r is off by e_hat = r * shift +
    (|x_hat| + r * shift) * relative. In a product each factor's error counts times the other's size: the sum
    grad_gamma of g * x_hat gets e_g * |x_hat| + |g| * e_hat, and gamma(M + 2) of its sizes. And grad_x =
    gamma * r * (g - grad_beta / M - x_hat * grad_gamma / M) gets the errors of its three terms, and (relative
    + a few roundings) of their sizes. e_g is not 0 where the activation's slope is in doubt.
    """
    statistics = (running_mean, running_var)
    options: dict[str, Any] = {"training": training, "eps": eps, "residual": residual}
    z = reference.batch_norm(x, gamma_, beta, *statistics, **options) if activation else g
    z_error = batch_norm(u, x, gamma_, beta, *statistics, **options)
    g, g_error = behind_activation(u, g, z, z_error, activation)
    centre, inv_std, shift, relative = _statistics(u, x, *statistics, training, eps)
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    x_hat = np.abs(x - centre) * inv_std
    hat_error = inv_std * shift + (x_hat + inv_std * shift) * relative
    beta_size, gamma_size = g.sum(axes), (g * (x_hat + hat_error)).sum(axes)
    beta_error = g_error.sum(axes) + gamma(count, u) * beta_size
    gamma_error = (g_error * x_hat + g * hat_error).sum(axes) + gamma(count + 2, u) * gamma_size
    size, error = g, g_error
    if training:
        size = g + (beta_size + (x_hat + hat_error) * gamma_size) / count
        error = g_error + (beta_error + x_hat * gamma_error + hat_error * gamma_size) / count
    x_error = np.abs(gamma_) * inv_std * ((1 + relative) * error + (relative + gamma(LIBRARY, u)) * size)
    return x_error, gamma_error, beta_error, None if residual is None else g_error


def local_response_norm(u: float, x: Array, size: int, *, beta: float = 0.75, **options: Any) -> Array:
    """x by a power of the energy s."""
    y = reference.local_response_norm(x, size, beta=beta, **options)
    s, _ = _energy(x, size, **options)
    return (_power_error(u, size, beta, s) + gamma(LIBRARY + 2, u)) * np.abs(y)


def _energy(
    x: Array, size: int, *, alpha: float = 1e-4, k: float = 1.0, divide_alpha: bool = True
) -> tuple[Array, float]:
    """s = k + a * sum of squares around each channel, and a."""
    a = alpha / size if divide_alpha else alpha
    return k + a * _around(x * x, size), a


def _around(values: Array, size: int) -> Array:
    """The sum over the `size` channels around each."""
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(size // 2, size // 2)])
    return np.lib.stride_tricks.sliding_window_view(padded, size, axis=-1).sum(-1)


def _power_error(u: float, size: int, power: float, s: Array) -> Array:
    """The relative error of s ** power, whose s and power have rounded.

    No term of s is negative, so it is off by gamma(size + 6) of itself.
    """
    return abs(power) * (gamma(size + 6, u) + u * np.abs(np.log(s)))


def local_response_norm_gradients(
    u: float, g: Array, x: Array, size: int, *, beta: float = 0.75, **options: Any
) -> tuple[Array]:
    """The sizes of both terms of the reference's formula, each with the error of its power of s.

    Differentiated step by step a term takes up to three powers; the other term is a sum of `size` products.
    """
    s, a = _energy(x, size, **options)
    g, x = np.abs(g), np.abs(x)
    few = gamma(3 * LIBRARY + size + 8, u)
    own = g / s**beta * (_power_error(u, size, beta, s) + few)
    passed_on = g * x / s ** (beta + 1) * (_power_error(u, size, beta + 1, s) + few)
    return (own + 2 * a * abs(beta) * x * _around(passed_on, size),)
