"""Bounds for convolution and pooling."""

from typing import Any

import numpy as np

from minidl.testing import reference
from minidl.testing.bounds.common import LIBRARY, gamma
from minidl.testing.reference.windows import activation_gradient

Array = np.ndarray


# How many times the rounding of a direct sum Winograd's may be, in numbers as large as the largest under a
# tile. The transforms' factors could add up to 860 (sums of |A| |G| |B| in both directions, 29.3 in each), if
# all errors had the worst sign; what occurs is below 10.
WINOGRAD = 32


def conv2d(
    u: float,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    activation: str | None = None,
    algorithm: str = "direct",
    **geometry: Any,
) -> Array:
    """An activation has slopes of at most 1: it does not enlarge the error that arrives, and adds its own.

    algorithm: "winograd" mixes neighbouring pixels, whose sizes it then depends on, not on a pixel's own.
    """
    terms = int(np.prod(weight.shape[:3])) + 1
    x, weight, bias = np.abs(x), np.abs(weight), None if bias is None else np.abs(bias)
    sizes = reference.conv2d(x, weight, bias, **geometry)
    if algorithm == "winograd":
        sizes = sizes + WINOGRAD * x.max() * weight.sum((0, 1, 2))
    return gamma(terms, u) * sizes + (gamma(LIBRARY, u) if activation in ("sigmoid", "tanh") else 0.0)


def conv2d_gradients(
    u: float,
    g: Array,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    activation: str | None = None,
    algorithm: str = "direct",
    **geometry: Any,
) -> tuple[Any, ...]:
    """All three are linear in what arrives at z, the sum before the activation: its sizes round, its errors
    pass through. An x meets at most KH * KW * F/groups values of g, a weight and a bias N * OH * OW.
    """
    sizes, errors = np.abs(g), np.zeros_like(g)
    if activation:
        z = reference.conv2d(x, weight, bias, **geometry)
        z_error = conv2d(u, x, weight, bias, algorithm=algorithm, **geometry)
        sizes, errors = behind_activation(u, g, z, z_error, activation)
    x, weight = np.abs(x), np.abs(weight)
    rounding = reference.conv2d_gradients(sizes, x, weight, bias, **geometry)
    passed_on = reference.conv2d_gradients(errors, x, weight, bias, **geometry) if activation else (0.0,) * 3
    if algorithm == "winograd":
        grad_x, grad_weight, grad_bias = rounding
        largest = weight.sum((0, 1, 3)).max()
        grad_x = grad_x + WINOGRAD * sizes.max() * largest
        grad_weight = grad_weight + WINOGRAD * x.max() * sizes.sum((0, 1, 2))
        rounding = grad_x, grad_weight, grad_bias
    kh, kw, _, f = weight.shape
    pixels = g.size // f
    terms = (kh * kw * f // geometry.get("groups", 1), pixels, pixels)
    return tuple(
        None if size is None else gamma(count, u) * size + error
        for count, size, error in zip(terms, rounding, passed_on)
    )


def behind_activation(
    u: float, g: Array, z: Array, z_error: Array, activation: str | None
) -> tuple[Array, Array]:
    """g times the slope at z, where z is off by up to `z_error`: (the largest size, the largest error).

    Where relu's z may lie on either side of 0, the slope may be 0 or 1; the reference's z has rounded too,
    hence twice the error. The others' slopes, y * (1 - y) and 1 - y * y, change by at most 2 * e + e * e when
    y is off by e, and round four times with g.
    """
    g = np.abs(g)
    if activation is None:
        return g, np.zeros_like(g)
    if activation == "relu":
        either = (z_error > 0) & (np.abs(z) <= 2 * z_error)
        return np.where((z > 0) | either, g, 0.0), np.where(either, g, 0.0)
    y_error = z_error + gamma(LIBRARY + 2, u)  # neither is steeper than 1
    error = g * (y_error * (2 + y_error) + gamma(4, u))
    return activation_gradient(g, z, activation) + error, error


def max_pool2d_gradients(
    u: float, g: Array, x: Array, kernel_size: Any, *, stride: Any = None, **geometry: Any
) -> tuple[Array]:
    """Which element wins is exact; it adds up what its windows hand it."""
    sizes = reference.max_pool2d_gradients(np.abs(g), x, kernel_size, stride=stride, **geometry)[0]
    return (gamma(_windows_per_pixel(kernel_size, stride), u) * sizes,)


def _windows_per_pixel(kernel_size: Any, stride: Any) -> int:
    """How many windows may read one pixel."""
    kernel = np.broadcast_to(kernel_size, 2)
    steps = np.broadcast_to(kernel_size if stride is None else stride, 2)
    return int(np.prod(-(-kernel // steps)))


def avg_pool2d(u: float, x: Array, kernel_size: Any, **geometry: Any) -> Array:
    """One rounding per element of the window, and the division."""
    kh, kw = np.broadcast_to(kernel_size, 2)
    return gamma(int(kh * kw) + 1, u) * reference.avg_pool2d(np.abs(x), kernel_size, **geometry)


def avg_pool2d_gradients(
    u: float, g: Array, x: Array, kernel_size: Any, *, stride: Any = None, **geometry: Any
) -> tuple[Array]:
    """A pixel adds up a share of its windows; the share is a division, or a reciprocal and a product."""
    sizes = reference.avg_pool2d_gradients(np.abs(g), x, kernel_size, stride=stride, **geometry)[0]
    return (gamma(_windows_per_pixel(kernel_size, stride) + 2, u) * sizes,)


def adaptive_avg_pool2d(u: float, x: Array, output_size: Any) -> Array:
    """One rounding per element of the largest bin, and the division."""
    oh, ow = np.broadcast_to(output_size, 2)
    largest_bin = int((x.shape[1] // oh + 2) * (x.shape[2] // ow + 2))
    return gamma(largest_bin + 1, u) * reference.adaptive_avg_pool2d(np.abs(x), output_size)


def adaptive_avg_pool2d_gradients(u: float, g: Array, x: Array, output_size: Any) -> tuple[Array]:
    """As `avg_pool2d_gradients`; along an axis at most OH // H + 2 bins cover one pixel."""
    bins_per_pixel = (g.shape[1] // x.shape[1] + 2) * (g.shape[2] // x.shape[2] + 2)
    sizes = reference.adaptive_avg_pool2d_gradients(np.abs(g), x, output_size)[0]
    return (gamma(bins_per_pixel + 2, u) * sizes,)


def global_avg_pool(u: float, x: Array) -> Array:
    """One rounding per pixel, and the division."""
    return gamma(x.shape[1] * x.shape[2] + 1, u) * reference.global_avg_pool(np.abs(x))


def global_avg_pool_gradients(u: float, g: Array, x: Array) -> tuple[Array]:
    """A division, or a reciprocal and a product."""
    return (gamma(2, u) * reference.global_avg_pool_gradients(np.abs(g), x)[0],)
