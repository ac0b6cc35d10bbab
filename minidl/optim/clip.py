"""Gradient clipping, between `backward` and `step`: in place; a parameter without a gradient is skipped."""

import math
from collections.abc import Iterable

from minidl import backend
from minidl.autograd import Tensor
from minidl.optim.optimizer import number, tensors


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients by one factor so that their joint norm is at most max_norm.  -> the norm before

    norm = sqrt(sum of all g**2), summed in float64 in a fixed order. If it is infinite or NaN, it is returned
    and the gradients stay as they are, for the caller to see. max_norm=inf only measures.
    Pascanu et al. 2012, arXiv:1211.5063, Algorithm 1.  ValueError unless max_norm >= 0.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm: max_norm is {max_norm}, it must be at least 0")
    grads = [p.grad for p in tensors(params, "clip_grad_norm") if p.grad is not None]
    arrays = [g.data for g in grads]
    norm = math.sqrt(sum(backend.of(arrays[0]).sums_of_squares(arrays))) if arrays else 0.0
    if max_norm < norm < math.inf:
        for g in grads:
            backend.of(g.data).scale_into(g.data, max_norm / norm)
            g.mark_written()
    return norm


def clip_grad_value(params: Iterable[Tensor], value: float) -> None:
    """Move all gradients' elements into [-value, value]; a NaN stays.  ValueError unless 0 <= value < inf."""
    value = number("clip_grad_value", "value", value)
    for p in tensors(params, "clip_grad_value"):
        if p.grad is not None:
            backend.of(p.grad.data).clip_into(p.grad.data, -value, value)
            p.grad.mark_written()
