"""Bounds for convolution and pooling."""

from typing import Any

import numpy as np

from minidl.testing import reference
from minidl.testing.bounds.common import LIBRARY, gamma

Array = np.ndarray


def conv2d(
    u: float,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    activation: str | None = None,
    **geometry: Any,
) -> Array:
    """An activation has slopes of at most 1: it does not enlarge the error that arrives, and adds its own."""
    terms = int(np.prod(weight.shape[:3])) + 1
    sizes = reference.conv2d(np.abs(x), np.abs(weight), None if bias is None else np.abs(bias), **geometry)
    return gamma(terms, u) * sizes + (gamma(LIBRARY, u) if activation in ("sigmoid", "tanh") else 0.0)


def avg_pool2d(u: float, x: Array, kernel_size: Any, **geometry: Any) -> Array:
    """One rounding per element of the window, and the division."""
    kh, kw = np.broadcast_to(kernel_size, 2)
    return gamma(int(kh * kw) + 1, u) * reference.avg_pool2d(np.abs(x), kernel_size, **geometry)


def adaptive_avg_pool2d(u: float, x: Array, output_size: Any) -> Array:
    """One rounding per element of the largest bin, and the division."""
    oh, ow = np.broadcast_to(output_size, 2)
    largest_bin = int((x.shape[1] // oh + 2) * (x.shape[2] // ow + 2))
    return gamma(largest_bin + 1, u) * reference.adaptive_avg_pool2d(np.abs(x), output_size)


def global_avg_pool(u: float, x: Array) -> Array:
    """One rounding per pixel, and the division."""
    return gamma(x.shape[1] * x.shape[2] + 1, u) * reference.global_avg_pool(np.abs(x))
