"""Bounds for softmax and cross-entropy, and for their gradients."""

from typing import Any

import numpy as np

from minidl.testing import reference
from minidl.testing.bounds.common import LIBRARY, gamma

Array = np.ndarray


def log_softmax(u: float, x: Array, axis: int = -1) -> Array:
    """x - largest rounds once; exp makes this a relative error, the sum averages it, log takes it back."""
    below, in_sum = _softmax_parts(u, x, axis)
    y = np.abs(reference.log_softmax(x, axis))
    return in_sum + u * below + gamma(LIBRARY, u) * np.abs(y - below) + u * y


def softmax(u: float, x: Array, axis: int = -1) -> Array:
    """The relative error of exp and of the sum of the others."""
    below, in_sum = _softmax_parts(u, x, axis)
    return reference.softmax(x, axis) * (u * below + gamma(LIBRARY + 2, u) + in_sum)


def softmax_gradients(u: float, g: Array, x: Array, axis: int = -1) -> tuple[Array]:
    """y * (g - sum of g * y): y is off by d, which enters by both factors; the rest are roundings."""
    y, d, g = reference.softmax(x, axis), softmax(u, x, axis), np.abs(g)
    total, from_y = (g * y).sum(axis, keepdims=True), (g * d).sum(axis, keepdims=True)
    difference = from_y + gamma(x.shape[axis] + 2, u) * (g + total + from_y)
    return ((y + d) * (difference + u * (g + total)) + d * (g + total),)


def log_softmax_gradients(u: float, g: Array, x: Array, axis: int = -1) -> tuple[Array]:
    """g - p * sum of g, where p = exp(y) is off by a factor of exp(error of y)."""
    g = np.abs(g)
    product = reference.softmax(x, axis) * g.sum(axis, keepdims=True)
    error = product * _grown(u, log_softmax(u, x, axis), x.shape[axis] + LIBRARY + 1)
    return (error + u * (g + product + error),)


def _grown(u: float, exponent: Array, count: int) -> Array:
    """The relative error of `count` roundings and of exp(y), where y is off by `exponent`."""
    more = np.expm1(exponent)
    return more + gamma(count, u) * (1 + more)


def _softmax_parts(u: float, x: Array, axis: int) -> tuple[Array, Array]:
    """How far each value lies below the largest, and the relative error of the sum of their exponentials."""
    below = x.max(axis, keepdims=True) - x
    carried = (reference.softmax(x, axis) * below).sum(axis, keepdims=True)
    return below, u * carried + gamma(x.shape[axis] + LIBRARY, u)


def cross_entropy(
    u: float,
    logits: Array,
    labels: Array,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    ignore_index: int | None = None,
    class_weight: Array | None = None,
) -> Any:
    """Losses are sums of log-probabilities: the errors of those add up, the sums' roundings come on top."""
    n, k = logits.shape
    target_weights, shares = _shares(logits, labels, label_smoothing, ignore_index, class_weight)
    sizes = (shares * np.abs(reference.log_softmax(logits))).sum(1)
    errors = (shares * log_softmax(u, logits)).sum(1) + gamma(k + 6, u) * sizes
    if reduction == "none":
        return errors
    total = errors.sum() + gamma(2 * n + 4, u) * sizes.sum()
    return total if reduction == "sum" else total / target_weights.sum()


def cross_entropy_gradients(
    u: float,
    g: Array,
    logits: Array,
    labels: Array,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    ignore_index: int | None = None,
    class_weight: Array | None = None,
) -> tuple[Array]:
    """g * (p * sum of q - q), by the sum of the weights for the mean: p = exp(log_softmax) is off as a
    factor, q, the sums, the quotient and the products round."""
    n, k = logits.shape
    target_weights, q = _shares(logits, labels, label_smoothing, ignore_index, class_weight)
    arriving = np.broadcast_to(np.abs(g), n) / (target_weights.sum() if reduction == "mean" else 1.0)
    product = reference.softmax(logits) * q.sum(1, keepdims=True)
    count = n + 8  # of q 4, of the sum of n weights, of the quotient, the difference and the last product
    error = product * _grown(u, log_softmax(u, logits), k + LIBRARY + count) + gamma(count, u) * q
    return (arriving[:, None] * error,)


def _shares(
    logits: Array,
    labels: Array,
    label_smoothing: float,
    ignore_index: int | None,
    class_weight: Array | None,
) -> tuple[Array, Array]:
    """The weight of each row's label (N,), and of each log-probability in the losses (N, K); 0 if ignored."""
    n, k = logits.shape
    w = np.ones(k) if class_weight is None else class_weight
    counts = labels != ignore_index
    target = np.where(counts, labels, 0)
    weights = counts * w[target]
    shares = counts[:, None] * label_smoothing / k * w
    shares[np.arange(n), target] += (1 - label_smoothing) * weights
    return weights, shares
