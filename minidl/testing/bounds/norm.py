"""Bounds for normalisation."""

from typing import Any

import numpy as np

from minidl.testing import reference
from minidl.testing.bounds.common import LIBRARY, gamma

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
    **rest: Any,
) -> Array:
    """The mean is off by `shift`, and the variance is taken from deviations d, not as E[x^2] - mean^2.

    The shift moves every d alike; in the variance it enters squared, because the d sum to zero.
    """
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    centre = x.mean(axes) if training else running_mean
    var = x.var(axes) if training else running_var
    shift = gamma(count + 1, u) * np.abs(x).mean(axes) if training else 0.0
    var_error = gamma(count + 4, u) * var + shift**2 if training else 0.0
    inv_std = 1 / np.sqrt(var + eps)
    relative = var_error * inv_std**2 / 2 + gamma(LIBRARY, u)  # of inv_std and the few products that follow
    d = np.abs(x - centre)
    scale = np.abs(gamma_) * inv_std
    extra = np.abs(beta) + (0.0 if residual is None else np.abs(residual))
    return scale * (shift + d * relative) + gamma(3, u) * (scale * d + extra)


def local_response_norm(u: float, x: Array, size: int, *, beta: float = 0.75, **options: Any) -> Array:
    """The sum of squares rounds, and its power carries `beta` of that."""
    y = reference.local_response_norm(x, size, beta=beta, **options)
    return (beta * gamma(size + 4, u) + gamma(LIBRARY + 2, u)) * np.abs(y)
