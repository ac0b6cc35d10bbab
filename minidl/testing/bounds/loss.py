"""Bounds for softmax and cross-entropy."""

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
    w = np.ones(k) if class_weight is None else class_weight
    counts = labels != ignore_index
    target = np.where(counts, labels, 0)
    shares = np.tile(label_smoothing / k * w, (n, 1))
    shares[np.arange(n), target] += (1 - label_smoothing) * w[target]
    sizes = counts * (shares * np.abs(reference.log_softmax(logits))).sum(1)
    errors = counts * (shares * log_softmax(u, logits)).sum(1) + gamma(k + 6, u) * sizes
    if reduction == "none":
        return errors
    total = errors.sum() + gamma(2 * n + 4, u) * sizes.sum()
    return total if reduction == "sum" else total / w[target][counts].sum()
