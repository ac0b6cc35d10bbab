"""Losses: softmax cross-entropy."""

from math import isnan, nan
from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.errors import DataError, DTypeError, ShapeError
from minidl.ops._shapes import check_float
from minidl.recording import op

REDUCTIONS = ("mean", "sum", "none")


@op
def cross_entropy(
    logits: Array,
    labels: Any,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    ignore_index: int | None = None,
    class_weight: Any = None,
) -> Any:
    """-log of the probability that softmax(logits) gives to each label.  (N, K), (N,) -> one number, or (N,)
    with reduction "none"

    With smoothing s and class weights w the target is q_k = w_k ((1 - s) [k = label] + s / K) and the loss
    -sum_k q_k log p_k. "mean" divides by the sum of the labels' weights, as PyTorch does; rows whose label is
    `ignore_index` count for nothing and receive gradient 0. Where no row is left, or none with a weight, the
    mean is nan. grad_logits = p * sum_k q_k - q.  Szegedy et al. 2016, arXiv:1512.00567, section 7
    (smoothing). ShapeError, DTypeError or DataError for labels or weights that do not fit; ValueError for a
    bad option.
    """
    check_float("cross_entropy", logits)
    counted = check_labels("cross_entropy", logits, labels, ignore_index)
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"cross_entropy: reduction is {reduction!r}; it may be {', '.join(map(repr, REDUCTIONS))}"
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing is {label_smoothing}, it must lie in 0 .. 1")
    xp, weight = backend.of(logits), _class_weight(logits, class_weight)
    losses, slope, weights = xp.cross_entropy(logits, np.asarray(labels), counted, weight, label_smoothing)
    if reduction == "none":
        return losses, (lambda g: xp.mul(slope, xp.reshape(g, (-1, 1))),)
    total = (float(weights.sum()) or nan) if reduction == "mean" else 1.0
    kept = backend.asarray(counted.reshape(-1, 1), backend.device_of(logits)) if isnan(total) else None

    def grad_logits(g: Array) -> Array:
        grad = xp.mul(slope, xp.div(g, total))
        return grad if kept is None else xp.where(kept, grad, 0.0)  # no row, no nan

    return xp.div(xp.sum(losses), total), (grad_logits,)


def _class_weight(logits: Array, class_weight: Any) -> np.ndarray:
    """The weight of each class, in the dtype of the logits; ones by default."""
    k = logits.shape[1]
    given = np.ones(k) if class_weight is None else np.asarray(class_weight)
    if given.dtype.kind not in "fiu":
        raise DTypeError(f"cross_entropy: class_weight is {given.dtype}, it must hold numbers, one per class")
    if given.shape != (k,):
        raise ShapeError(
            f"cross_entropy: class_weight has shape {given.shape}, it must be ({k},) for logits "
            f"{logits.shape}"
        )
    return given.astype(logits.dtype)


def check_labels(op_name: str, logits: Array, labels: Any, ignore_index: int | None = None) -> np.ndarray:
    """Which rows count (all but those labelled `ignore_index`).

    An error unless labels are N integers in 0 .. K-1.
    """
    if logits.ndim != 2:
        raise ShapeError(f"{op_name}: logits have shape {logits.shape}, they must be (N, K)")
    n, k = logits.shape
    if n == 0:
        raise ShapeError(
            f"{op_name}: logits have shape {logits.shape}: a batch of size 0 has no loss; drop empty batches"
        )
    if k == 0:
        raise ShapeError(f"{op_name}: logits have shape {logits.shape}: there are no classes")
    numbers = np.asarray(labels)
    if numbers.dtype.kind not in "iu":
        raise DTypeError(
            f"{op_name}: labels are {numbers.dtype}, they must be integers (class numbers 0 .. {k - 1}); "
            f"use labels.astype('int64'), or argmax(1) of one-hot rows"
        )
    if numbers.shape != (n,):
        raise ShapeError(
            f"{op_name}: labels have shape {numbers.shape}, they must be ({n},) for logits {logits.shape}"
        )
    counted = np.ones(n, bool) if ignore_index is None else numbers != ignore_index
    wrong = counted & ((numbers < 0) | (numbers >= k))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{op_name}: labels[{row}] is {numbers[row]}, it must lie in 0 .. {k - 1} for {k} classes "
            f"(logits {logits.shape})"
        )
    return counted
