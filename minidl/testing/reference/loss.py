"""Softmax and cross-entropy."""

import math
from typing import Any

import numpy as np

from minidl.testing.reference.elementwise import div, exp, log, mul, sub
from minidl.testing.reference.sums import dot, max, sum

Array = np.ndarray


def softmax(x: Any, axis: int = -1) -> Array:
    """exp(x) / sum of exp(x) along `axis`."""
    powers = exp(_below_largest(x, axis))
    return div(powers, sum(powers, axis, keepdims=True))


def softmax_gradients(g: Any, x: Any, axis: int = -1) -> tuple[Array]:
    """y[k] * (g[k] - sum over j of g[j] * y[j]), along `axis`: d y[j] / d x[k] is y[k] * ([j = k] - y[j])."""
    y = softmax(x, axis)
    return (mul(y, sub(g, sum(mul(g, y), axis, keepdims=True))),)


def log_softmax(x: Any, axis: int = -1) -> Array:
    """x - log(sum of exp(x)) along `axis`."""
    below = _below_largest(x, axis)
    return sub(below, log(sum(exp(below), axis, keepdims=True)))


def log_softmax_gradients(g: Any, x: Any, axis: int = -1) -> tuple[Array]:
    """g[k] - p[k] * sum over j of g[j], along `axis`, with p = softmax(x)."""
    return (sub(g, mul(softmax(x, axis), sum(g, axis, keepdims=True))),)


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


def cross_entropy_gradients(
    g: Any,
    logits: Any,
    labels: Any,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    ignore_index: int | None = None,
    class_weight: Any = None,
) -> tuple[Array]:
    """g * (p[n, k] * sum of q - q[k]), with q[k] = w[k] * s / K, and (1 - s) * w[t] more at the label t.

    Nothing where the label is ignored; the mean divides g by the sum of w[t] over the labels that count.
    """
    p = softmax(logits)
    k = p.shape[-1]
    w = np.ones(k) if class_weight is None else np.asarray(class_weight, np.float64)
    rows = [(n, t) for n, t in enumerate(np.asarray(labels).tolist()) if t != ignore_index]
    arriving = np.broadcast_to(np.asarray(g, np.float64), len(p))
    if reduction == "mean":
        arriving = arriving / (math.fsum(w[t] for _, t in rows) or math.nan)
    grad = np.zeros_like(p)
    for n, t in rows:
        q = label_smoothing / k * w
        q[t] += (1 - label_smoothing) * w[t]
        grad[n] = arriving[n] * (p[n] * math.fsum(q) - q)
    return (grad,)
