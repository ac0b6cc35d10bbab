"""Softmax and cross-entropy."""

import math
from typing import Any

import numpy as np

from minidl.testing.reference.elementwise import div, exp, log, sub
from minidl.testing.reference.sums import dot, max, sum

Array = np.ndarray


def softmax(x: Any, axis: int = -1) -> Array:
    """exp(x) / sum of exp(x) along `axis`."""
    powers = exp(_below_largest(x, axis))
    return div(powers, sum(powers, axis, keepdims=True))


def log_softmax(x: Any, axis: int = -1) -> Array:
    """x - log(sum of exp(x)) along `axis`."""
    below = _below_largest(x, axis)
    return sub(below, log(sum(exp(below), axis, keepdims=True)))


def _below_largest(x: Any, axis: int) -> Array:
    """x less its largest element along `axis`: the softmax is the same, and exp cannot overflow."""
    return sub(x, max(x, axis, keepdims=True))


def cross_entropy(
    logits: Any,
    labels: Any,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    ignore_index: int | None = None,
    class_weight: Any = None,
) -> Array:
    """The loss per image, their sum, or their mean.  (N, K), (N,) -> (N,) or ()

    For image n with label t, s = label_smoothing, w = class_weight, p = softmax(logits):
        -(1 - s) * w[t] * log(p[n, t]) - s / K * sum over k of w[k] * log(p[n, k])

    It is 0 where the label is ignore_index. The mean is PyTorch's: the sum of the losses by the sum of w[t]
    over the labels that count. With every label ignored it is nan.
    """
    log_p, labels = log_softmax(logits), np.asarray(labels)
    k = log_p.shape[-1]
    w = np.ones(k) if class_weight is None else np.asarray(class_weight, np.float64)
    losses, weights = np.zeros(len(labels)), np.zeros(len(labels))
    for n, t in enumerate(labels.tolist()):
        if t != ignore_index:
            losses[n] = -(1 - label_smoothing) * w[t] * log_p[n, t] - label_smoothing / k * dot(w, log_p[n])
            weights[n] = w[t]
    if reduction == "none":
        return losses
    total, weight = math.fsum(losses), math.fsum(weights)
    return np.array(total if reduction == "sum" else total / weight if weight else math.nan)
