"""2-D convolution. The op checks and differentiates; the backend's conv.py computes, and chooses how."""

from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.errors import ShapeError
from minidl.ops._shapes import check_image
from minidl.recording import op, shared
from minidl.window import Padding, Pair, window

ACTIVATIONS = (None, "relu")


@op
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Any:
    """Cross-correlate images with filters.  (N, H, W, C), (KH, KW, C/groups, F), (F,) -> (N, OH, OW, F)

    y[n,i,j,f] = act(bias[f] + sum over a, b, c of x[n, i*stride - top + a*dilation, j*stride - left +
    b*dilation, c] * weight[a,b,c,f]), x being 0 outside the image. `padding` is 0, p, (rows, columns), ((top,
    bottom), (left, right)), "valid" or "same" (TensorFlow's rule). With groups, filters j*F/groups onward
    read channels j*C/groups onward alone. `activation` "relu" is applied while y is in cache. ShapeError
    unless x, weight, bias and groups fit; ValueError for an unknown activation.
    """
    _check(x, weight, bias, groups)
    check_activation("conv2d", activation)
    geometry = window(
        "conv2d", x.shape[1:3], weight.shape[:2], stride=stride, padding=padding, dilation=dilation
    )
    xp = backend.of(x)
    y = xp.conv2d(x, weight, bias, geometry, groups, activation)
    arriving = shared(lambda g: xp.relu_grad(g, y)) if activation else (lambda g: g)

    def grad_x(g: Array, into: Array | None = None) -> Array:
        return xp.conv2d_grad_x(arriving(g), weight, geometry, groups, into)

    def grad_weight(g: Array) -> Array:
        return xp.conv2d_grad_weight(arriving(g), x, geometry, groups)

    def grad_bias(g: Array) -> Array:
        return xp.column_sums(arriving(g))

    return y, (grad_x, grad_weight, grad_bias)


def check_activation(op_name: str, activation: str | None) -> None:
    """ValueError for a fused activation that does not exist."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op_name}: activation is {activation!r}; it may be None or 'relu'")


def _check(x: Array, weight: Array, bias: Array | None, groups: int) -> None:
    if weight.ndim != 4:
        raise ShapeError(f"conv2d: weight has shape {weight.shape}, it must be (KH, KW, C/groups, F)")
    if 0 in weight.shape[2:]:
        raise ShapeError(f"conv2d: weight has shape {weight.shape}: no channels or no filters")
    if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)):
        raise ValueError(f"conv2d: groups is {groups!r}, it must be an integer of at least 1")
    filters = weight.shape[3]
    if groups < 1 or filters % groups:
        raise ShapeError(
            f"conv2d: groups is {groups}, it must divide the {filters} filters (last axis of weight "
            f"{weight.shape})"
        )
    channels = weight.shape[2] * groups
    each = f" in each of {groups} groups" if groups > 1 else ""
    check_image("conv2d", x, channels, f"weight takes {weight.shape[2]}{each} (axis 2 of {weight.shape})")
    if bias is not None and bias.shape != (filters,):
        raise ShapeError(
            f"conv2d: bias has shape {bias.shape}, it must be ({filters},) for weight {weight.shape}"
        )
