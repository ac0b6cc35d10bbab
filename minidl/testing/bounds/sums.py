"""Bounds for reductions and products of matrices, and for their gradients."""

from typing import Any

import numpy as np

from minidl.testing import reference
from minidl.testing.bounds.common import gamma, gradient_roundings

Array = np.ndarray


def sum(u: float, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """One rounding per term."""
    sizes = reference.sum(np.abs(x), axis, keepdims)
    return gamma(x.size // sizes.size, u) * sizes


def mean(u: float, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """One rounding per term and one of the division."""
    sizes = reference.mean(np.abs(x), axis, keepdims)
    return gamma(x.size // sizes.size + 1, u) * sizes


mean_gradients = gradient_roundings(reference.mean_gradients, 2)  # 1 / count, and the product with it


def matmul(u: float, a: Array, b: Array) -> Array:
    """One rounding per product and per addition."""
    return gamma(a.shape[-1] + 1, u) * reference.matmul(np.abs(a), np.abs(b))


def linear(u: float, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """As `matmul`, and one addition."""
    return gamma(weight.shape[0] + 1, u) * reference.linear(
        np.abs(x), np.abs(weight), None if bias is None else np.abs(bias)
    )


def matmul_gradients(u: float, g: Array, a: Array, b: Array) -> tuple[Array, ...]:
    """An element of a meets every column of b, and one of b every row of a, in every product it is used
    in."""
    products = g.size * a.shape[-1]
    sizes = reference.matmul_gradients(np.abs(g), np.abs(a), np.abs(b))
    return tuple(gamma(products // x.size, u) * size for x, size in zip((a, b), sizes, strict=True))


def linear_gradients(
    u: float, g: Array, x: Array, weight: Array, bias: Array | None = None
) -> tuple[Array | None, ...]:
    """As `matmul_gradients`, and the additions of a column of g."""
    grad_bias = None if bias is None else gamma(len(g) - 1, u) * np.abs(g).sum(0)
    return *matmul_gradients(u, g, x, weight), grad_bias
