"""Matrix products: matmul and the fully connected layer."""

from typing import Any

from minidl import backend
from minidl.backend import Array
from minidl.errors import ShapeError
from minidl.ops._shapes import check_broadcast, check_float, unbroadcast
from minidl.recording import op


@op
def matmul(a: Array, b: Array) -> Any:
    """a @ b.  (..., M, D), (..., D, K) -> (..., M, K); leading axes broadcast.

    grad_a = g @ b^T, grad_b = a^T @ g.  ShapeError for fewer than two axes or when the inner ones differ.
    """
    check_float("matmul", a, b)
    if a.ndim < 2 or b.ndim < 2:
        raise ShapeError(
            f"matmul: a has shape {a.shape}, b has {b.shape}; both need at least two axes, reshape vectors "
            "to (1, D) or (D, 1)"
        )
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"matmul: a has {a.shape[-1]} columns (last axis of {a.shape}) but b has {b.shape[-2]} rows "
            f"(axis -2 of {b.shape})"
        )
    check_broadcast("matmul", a[..., :1, :1], b[..., :1, :1])
    xp, a_shape, b_shape = backend.of(a), a.shape, b.shape

    def grad_a(g: Array) -> Array:
        return unbroadcast(xp.matmul(g, _swap(b)), a_shape)

    def grad_b(g: Array) -> Array:
        return unbroadcast(xp.matmul(_swap(a), g), b_shape)

    return xp.matmul(a, b), (grad_a, grad_b)


@op
def linear(x: Array, weight: Array, bias: Array | None = None) -> Any:
    """x @ weight + bias.  (N, D_in), (D_in, D_out), (D_out,) -> (N, D_out)

    ShapeError unless the shapes fit; images must be flattened first.
    """
    check_float("linear", x, weight)
    if x.ndim != 2 or weight.ndim != 2:
        raise ShapeError(
            f"linear: x has shape {x.shape} and weight {weight.shape}; they must be (N, D_in) and (D_in, "
            "D_out). Flatten images first (ops.flatten)"
        )
    if x.shape[1] != weight.shape[0]:
        raise ShapeError(
            f"linear: x has {x.shape[1]} features (last axis of {x.shape}) but weight takes "
            f"{weight.shape[0]} (axis 0 of {weight.shape})"
        )
    if bias is not None and bias.shape != (weight.shape[1],):
        raise ShapeError(
            f"linear: bias has shape {bias.shape}, it must be ({weight.shape[1]},) for weight {weight.shape}"
        )
    xp = backend.of(x)

    def grad_x(g: Array) -> Array:
        return xp.matmul(g, _swap(weight))

    def grad_weight(g: Array) -> Array:
        return xp.matmul(_swap(x), g)

    def grad_bias(g: Array) -> Array:
        return xp.column_sums(g)

    return xp.linear(x, weight, bias), (grad_x, grad_weight, grad_bias)


def _swap(x: Array) -> Array:
    """x with its last two axes exchanged; a view."""
    return backend.of(x).transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))
