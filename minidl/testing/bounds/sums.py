"""Bounds for reductions and products of matrices."""

from typing import Any

import numpy as np

from minidl.testing import reference
from minidl.testing.bounds.common import gamma

Array = np.ndarray


def sum(u: float, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """One rounding per term."""
    sizes = reference.sum(np.abs(x), axis, keepdims)
    return gamma(x.size // sizes.size, u) * sizes


def mean(u: float, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """One rounding per term and one of the division."""
    sizes = reference.mean(np.abs(x), axis, keepdims)
    return gamma(x.size // sizes.size + 1, u) * sizes


def matmul(u: float, a: Array, b: Array) -> Array:
    """One rounding per product and per addition."""
    return gamma(a.shape[-1] + 1, u) * reference.matmul(np.abs(a), np.abs(b))


def linear(u: float, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """As `matmul`, and one addition."""
    return gamma(weight.shape[0] + 1, u) * reference.linear(
        np.abs(x), np.abs(weight), None if bias is None else np.abs(bias)
    )
