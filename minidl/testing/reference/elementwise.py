"""Element by element, with broadcasting."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray


def _elementwise(formula: Callable[..., float], *arrays: Any) -> Array:
    """formula(a, b, ...) for every element of the arrays, broadcast against each other."""
    together = np.broadcast(*(np.asarray(array, np.float64) for array in arrays))
    return np.array([formula(*map(float, values)) for values in together], np.float64).reshape(together.shape)


def add(a: Any, b: Any) -> Array:
    """a + b"""
    return _elementwise(lambda p, q: p + q, a, b)


def sub(a: Any, b: Any) -> Array:
    """a - b"""
    return _elementwise(lambda p, q: p - q, a, b)


def mul(a: Any, b: Any) -> Array:
    """a * b"""
    return _elementwise(lambda p, q: p * q, a, b)


def div(a: Any, b: Any) -> Array:
    """a / b"""
    return _elementwise(lambda p, q: p / q, a, b)


def neg(x: Any) -> Array:
    """-x"""
    return _elementwise(lambda p: -p, x)


def pow(a: Any, b: Any) -> Array:
    """a ** b"""
    return _elementwise(lambda p, q: p**q, a, b)


def abs(x: Any) -> Array:
    """x without its sign"""
    return _elementwise(math.fabs, x)


def exp(x: Any) -> Array:
    """e ** x"""
    return _elementwise(math.exp, x)


def log(x: Any) -> Array:
    """The natural logarithm."""
    return _elementwise(math.log, x)


def sqrt(x: Any) -> Array:
    """The square root."""
    return _elementwise(math.sqrt, x)


def maximum(a: Any, b: Any) -> Array:
    """The larger of a and b."""
    return _elementwise(lambda p, q: p if p >= q else q, a, b)


def minimum(a: Any, b: Any) -> Array:
    """The smaller of a and b."""
    return _elementwise(lambda p, q: p if p <= q else q, a, b)


def where(condition: Any, a: Any, b: Any) -> Array:
    """a where the condition holds, else b."""
    return _elementwise(lambda c, p, q: p if c else q, condition, a, b)


def clip(x: Any, low: float | None = None, high: float | None = None) -> Array:
    """x, but at least `low` and at most `high`."""
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    return _elementwise(lambda p: least if p < least else most if p > most else p, x)


def relu(x: Any) -> Array:
    """x where it is positive, else 0."""
    return _elementwise(lambda p: p if p > 0 else 0.0, x)


def sigmoid(x: Any) -> Array:
    """1 / (1 + exp(-x)), written so that exp never overflows."""
    return _elementwise(lambda p: 1 / (1 + math.exp(-p)) if p >= 0 else math.exp(p) / (1 + math.exp(p)), x)


def tanh(x: Any) -> Array:
    """The hyperbolic tangent."""
    return _elementwise(math.tanh, x)


def activate(x: Array, activation: str | None) -> Array:
    """The activation that a fused op ends with, or none."""
    return x if activation is None else {"relu": relu, "sigmoid": sigmoid, "tanh": tanh}[activation](x)
