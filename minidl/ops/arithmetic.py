"""Elementwise arithmetic with NumPy's broadcasting: add, sub, mul, div, neg, pow, abs, exp, log, sqrt,
maximum, minimum, where, clip.

An input that was broadcast receives the sum of its gradient over the places it was repeated to. A vjp
captures the arrays its formula needs and no more: a sum captures shapes alone.
"""

from typing import Any

import numpy as np

from minidl import backend
from minidl.autograd import Tensor
from minidl.backend import Array
from minidl.ops._shapes import check_broadcast, check_float, unbroadcast
from minidl.recording import op


@op
def add(a: Array, b: Array) -> Any:
    """a + b"""
    check_broadcast("add", a, b)
    a_shape, b_shape = a.shape, b.shape

    def grad_a(g: Array) -> Array:
        return unbroadcast(g, a_shape)

    def grad_b(g: Array) -> Array:
        return unbroadcast(g, b_shape)

    return backend.of(a).add(a, b), (grad_a, grad_b)


@op
def sub(a: Array, b: Array) -> Any:
    """a - b"""
    check_broadcast("sub", a, b)
    xp, a_shape, b_shape = backend.of(a), a.shape, b.shape

    def grad_a(g: Array) -> Array:
        return unbroadcast(g, a_shape)

    def grad_b(g: Array) -> Array:
        return xp.neg(unbroadcast(g, b_shape))

    return xp.sub(a, b), (grad_a, grad_b)


@op
def mul(a: Array, b: Array) -> Any:
    """a * b"""
    check_broadcast("mul", a, b)
    xp, a_shape, b_shape = backend.of(a), a.shape, b.shape

    def grad_a(g: Array) -> Array:
        return unbroadcast(xp.mul(g, b), a_shape)

    def grad_b(g: Array) -> Array:
        return unbroadcast(xp.mul(g, a), b_shape)

    return xp.mul(a, b), (grad_a, grad_b)


@op
def div(a: Array, b: Array) -> Any:
    """a / b, of floats."""
    check_broadcast("div", a, b)
    check_float("div", a)
    xp, a_shape, b_shape = backend.of(a), a.shape, b.shape
    y = xp.div(a, b)

    def grad_a(g: Array) -> Array:
        return unbroadcast(xp.div(g, b), a_shape)

    def grad_b(g: Array) -> Array:
        return unbroadcast(xp.neg(xp.div(xp.mul(g, y), b)), b_shape)

    return y, (grad_a, grad_b)


@op
def pow(a: Array, b: Array) -> Any:
    """a ** b.  d/da = b a^(b-1), 0 where b is 0; d/db = a^b log(a), 0 where a is 0."""
    check_broadcast("pow", a, b)
    xp, a_shape, b_shape = backend.of(a), a.shape, b.shape
    y = xp.pow(a, b)

    def grad_a(g: Array) -> Array:
        exponent = xp.where(xp.compare(b, "==", 0), 1.0, b)  # 0 * a**-1 would be nan at a = 0
        return unbroadcast(xp.mul(g, xp.mul(b, xp.pow(a, xp.sub(exponent, 1)))), a_shape)

    def grad_b(g: Array) -> Array:
        base = xp.where(xp.compare(a, "==", 0), 1.0, a)
        return unbroadcast(xp.mul(g, xp.mul(y, xp.log(base))), b_shape)

    return y, (grad_a, grad_b)


@op
def neg(x: Array) -> Any:
    """-x"""
    xp = backend.of(x)

    def grad_x(g: Array) -> Array:
        return xp.neg(g)

    return xp.neg(x), (grad_x,)


@op
def abs(x: Array) -> Any:
    """|x|; the gradient at 0 is 0."""
    xp = backend.of(x)

    def grad_x(g: Array) -> Array:
        return xp.mul(g, xp.sign(x))

    return xp.abs(x), (grad_x,)


@op
def exp(x: Array) -> Any:
    """e^x"""
    check_float("exp", x)
    xp = backend.of(x)
    y = xp.exp(x)

    def grad_x(g: Array) -> Array:
        return xp.mul(g, y)

    return y, (grad_x,)


@op
def log(x: Array) -> Any:
    """Natural logarithm."""
    check_float("log", x)
    xp = backend.of(x)

    def grad_x(g: Array) -> Array:
        return xp.div(g, x)

    return xp.log(x), (grad_x,)


@op
def sqrt(x: Array) -> Any:
    """Square root; d/dx = 1 / (2 sqrt(x)), infinite at 0."""
    check_float("sqrt", x)
    xp = backend.of(x)
    y = xp.sqrt(x)

    def grad_x(g: Array) -> Array:
        return xp.div(xp.mul(g, 0.5), y)

    return y, (grad_x,)


@op
def maximum(a: Array, b: Array) -> Any:
    """The larger of two, elementwise.  Where they tie, each receives half of the gradient."""
    check_broadcast("maximum", a, b)
    return _larger(a, b, ">", backend.of(a).maximum(a, b))


@op
def minimum(a: Array, b: Array) -> Any:
    """The smaller of two, elementwise.  Where they tie, each receives half of the gradient."""
    check_broadcast("minimum", a, b)
    return _larger(a, b, "<", backend.of(a).minimum(a, b))


def _larger(a: Array, b: Array, relation: str, y: Array) -> Any:
    """The result y of maximum or minimum, with its vjps: g goes where `relation` holds."""
    xp, a_shape, b_shape = backend.of(a), a.shape, b.shape

    def grad_a(g: Array) -> Array:
        return unbroadcast(_share(g, a, b), a_shape)

    def grad_b(g: Array) -> Array:
        return unbroadcast(_share(g, b, a), b_shape)

    def _share(g: Array, mine: Array, other: Array) -> Array:
        won = xp.where(xp.compare(mine, relation, other), g, 0.0)
        return xp.where(xp.compare(mine, "==", other), xp.mul(g, 0.5), won)

    return y, (grad_a, grad_b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition (booleans, an array or a Tensor) holds, else b."""
    return _where(a, b, condition=condition.data if isinstance(condition, Tensor) else condition)


@op
def _where(a: Array, b: Array, *, condition: Any) -> Any:
    mask = backend.asarray(condition, backend.device_of(a))
    mask = mask if mask.dtype == bool else backend.of(mask).cast(mask, np.dtype(bool))
    check_broadcast("where", a, b)
    check_broadcast("where", mask, a, ("condition", "a"))
    check_broadcast("where", mask, b, ("condition", "b"))
    xp, a_shape, b_shape = backend.of(a), a.shape, b.shape

    def grad_a(g: Array) -> Array:
        return unbroadcast(xp.where(mask, g, 0.0), a_shape)

    def grad_b(g: Array) -> Array:
        return unbroadcast(xp.where(mask, 0.0, g), b_shape)

    return xp.where(mask, a, b), (grad_a, grad_b)


@op
def clip(x: Array, low: float | None = None, high: float | None = None) -> Any:
    """x kept within low .. high; the gradient passes where low <= x <= high."""
    if low is None and high is None:
        raise ValueError("clip: give low, high or both")
    xp = backend.of(x)
    y = xp.clip(x, low, high)

    def grad_x(g: Array) -> Array:
        return xp.where(xp.compare(x, "==", y), g, 0.0)

    return y, (grad_x,)


@op
def cast(x: Array, *, dtype: Any) -> Any:
    """x in another dtype; the gradient returns in x's own."""
    xp, before = backend.of(x), x.dtype

    def grad_x(g: Array) -> Array:
        return xp.cast(g, before)

    return xp.cast(x, dtype), (grad_x,)
