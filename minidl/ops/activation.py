"""Activations and the softmax family. Each keeps its result rather than its input: the gradient is a formula
in y."""

from typing import Any

from minidl import backend
from minidl.backend import Array
from minidl.errors import ShapeError
from minidl.ops._shapes import check_float, one_axis
from minidl.recording import op


@op
def relu(x: Array) -> Any:
    """max(x, 0); the gradient at 0 is 0."""
    check_float("relu", x)
    xp = backend.of(x)
    y = xp.relu(x)

    def grad_x(g: Array) -> Array:
        return xp.relu_grad(g, y)

    return y, (grad_x,)


@op
def sigmoid(x: Array) -> Any:
    """1 / (1 + e^-x); dy/dx = y (1 - y)."""
    check_float("sigmoid", x)
    xp = backend.of(x)
    y = xp.sigmoid(x)

    def grad_x(g: Array) -> Array:
        return xp.mul(g, xp.mul(y, xp.sub(1.0, y)))

    return y, (grad_x,)


@op
def tanh(x: Array) -> Any:
    """Hyperbolic tangent; dy/dx = 1 - y^2."""
    check_float("tanh", x)
    xp = backend.of(x)
    y = xp.tanh(x)

    def grad_x(g: Array) -> Array:
        return xp.mul(g, xp.sub(1.0, xp.mul(y, y)))

    return y, (grad_x,)


@op
def softmax(x: Array, *, axis: int = -1) -> Any:
    """e^x / sum(e^x) along an axis.  grad_x = y (g - sum(g y)).  ShapeError over nothing."""
    check_float("softmax", x)
    axis = _checked_axis("softmax", x, axis)
    xp = backend.of(x)
    y = xp.softmax(x, axis)

    def grad_x(g: Array) -> Array:
        return xp.mul(y, xp.sub(g, xp.sum(xp.mul(g, y), axis=axis, keepdims=True)))

    return y, (grad_x,)


@op
def log_softmax(x: Array, *, axis: int = -1) -> Any:
    """log(softmax(x)) along an axis.  grad_x = g - e^y sum(g).  ShapeError over nothing."""
    check_float("log_softmax", x)
    axis = _checked_axis("log_softmax", x, axis)
    xp = backend.of(x)
    y = xp.log_softmax(x, axis)

    def grad_x(g: Array) -> Array:
        return xp.sub(g, xp.mul(xp.exp(y), xp.sum(g, axis=axis, keepdims=True)))

    return y, (grad_x,)


def _checked_axis(op_name: str, x: Array, axis: int) -> int:
    """The axis counted from 0.  ShapeError where it has no elements, whose largest would be asked for."""
    axis = one_axis(op_name, x.ndim, axis)
    if x.shape[axis] == 0:
        raise ShapeError(f"{op_name}: x of shape {x.shape} has no elements along axis {axis}")
    return axis
