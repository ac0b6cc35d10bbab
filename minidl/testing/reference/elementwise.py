"""Element by element, with broadcasting. Beside each op stand its slopes, from which its gradients follow."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def _elementwise(formula: Callable[..., float], *arrays: Any) -> Array:
    """formula(a, b, ...) for every element of the arrays, broadcast against each other."""
    together = np.broadcast(*(np.asarray(array, np.float64) for array in arrays))
    return np.array([formula(*map(float, values)) for values in together], np.float64).reshape(together.shape)


def _gradients(slopes: Callable[..., Sequence[float]]) -> Callable[..., tuple[Array, ...]]:
    """The gradients of an op whose slopes by its arrays are slopes(a, b, ...), one per array.

    Each is g times the slope; an element that was broadcast to several places receives their sum.
    """

    def gradients(g: Any, *arrays: Any) -> tuple[Array, ...]:
        found = []
        for k, shape in enumerate(map(np.shape, arrays)):
            slope = _elementwise(lambda *values, k=k: slopes(*values)[k], *arrays)
            found.append(collected(g * slope, np.broadcast_to(numbered(shape), slope.shape), shape))
        return tuple(found)

    return gradients


def numbered(shape: Sequence[int]) -> Array:
    """0, 1, 2 ... in memory order: every element's own number, to see where an op moves it."""
    return np.arange(math.prod(shape)).reshape(shape)


def collected(terms: Any, origin: Array, shape: Sequence[int]) -> Array:
    """Per element of an array of `shape` the sum of its terms: terms[k] belongs to element number origin[k],
    or to none where that is negative."""
    parts: list[list[float]] = [[] for _ in range(math.prod(shape))]
    for term, number in zip(np.asarray(terms, np.float64).flat, origin.flat, strict=True):
        if number >= 0:
            parts[int(number)].append(float(term))
    return np.array([math.fsum(part) for part in parts], np.float64).reshape(shape)


def add(a: Any, b: Any) -> Array:
    """a + b"""
    return _elementwise(lambda p, q: p + q, a, b)


add_gradients = _gradients(lambda p, q: (1.0, 1.0))


def sub(a: Any, b: Any) -> Array:
    """a - b"""
    return _elementwise(lambda p, q: p - q, a, b)


sub_gradients = _gradients(lambda p, q: (1.0, -1.0))


def mul(a: Any, b: Any) -> Array:
    """a * b"""
    return _elementwise(lambda p, q: p * q, a, b)


mul_gradients = _gradients(lambda p, q: (q, p))


def div(a: Any, b: Any) -> Array:
    """a / b"""
    return _elementwise(lambda p, q: p / q, a, b)


div_gradients = _gradients(lambda p, q: (1 / q, -p / q**2))


def neg(x: Any) -> Array:
    """-x"""
    return _elementwise(lambda p: -p, x)


neg_gradients = _gradients(lambda p: (-1.0,))


def pow(a: Any, b: Any) -> Array:
    """a ** b"""
    return _elementwise(lambda p, q: p**q, a, b)


def _pow_slopes(p: float, q: float) -> tuple[float, float]:
    """b * a**(b-1), 0 where b is 0; a**b * log(a), 0 where a is 0 and nan where it has no logarithm."""
    return q * p ** (q - 1) if q else 0.0, p**q * math.log(p) if p > 0 else math.nan if p else 0.0


pow_gradients = _gradients(_pow_slopes)


def abs(x: Any) -> Array:
    """x without its sign"""
    return _elementwise(math.fabs, x)


abs_gradients = _gradients(lambda p: (float(p > 0) - float(p < 0),))


def exp(x: Any) -> Array:
    """e ** x"""
    return _elementwise(math.exp, x)


exp_gradients = _gradients(lambda p: (math.exp(p),))


def log(x: Any) -> Array:
    """The natural logarithm."""
    return _elementwise(math.log, x)


log_gradients = _gradients(lambda p: (1 / p,))


def sqrt(x: Any) -> Array:
    """The square root."""
    return _elementwise(math.sqrt, x)


sqrt_gradients = _gradients(lambda p: (0.5 / math.sqrt(p) if p else math.inf,))


def maximum(a: Any, b: Any) -> Array:
    """The larger of a and b."""
    return _elementwise(lambda p, q: p if p >= q else q, a, b)


def _won(p: float, q: float) -> float:
    """The share of the gradient that p receives if the larger one counts: half of it in a tie."""
    return 1.0 if p > q else 0.5 if p == q else 0.0


maximum_gradients = _gradients(lambda p, q: (_won(p, q), _won(q, p)))


def minimum(a: Any, b: Any) -> Array:
    """The smaller of a and b."""
    return _elementwise(lambda p, q: p if p <= q else q, a, b)


minimum_gradients = _gradients(lambda p, q: (_won(q, p), _won(p, q)))


def where(condition: Any, a: Any, b: Any) -> Array:
    """a where the condition holds, else b."""
    return _elementwise(lambda c, p, q: p if c else q, condition, a, b)


def where_gradients(g: Any, condition: Any, a: Any, b: Any) -> tuple[Array, ...]:
    """The gradients of a and b."""
    return _gradients(lambda c, p, q: (0.0, 1.0, 0.0) if c else (0.0, 0.0, 1.0))(g, condition, a, b)[1:]


def clip(x: Any, low: float | None = None, high: float | None = None) -> Array:
    """x, but at least `low` and at most `high`, which are rounded to x's dtype as all numbers are."""
    least, most = _limits(x, low, high)
    return _elementwise(lambda p: least if p < least else most if p > most else p, x)


def clip_gradients(g: Any, x: Any, low: float | None = None, high: float | None = None) -> tuple[Array, ...]:
    """g inside the limits and on them."""
    least, most = _limits(x, low, high)
    return _gradients(lambda p: (float(least <= p <= most),))(g, x)


def _limits(x: Any, low: float | None, high: float | None) -> tuple[float, float]:
    dtype = np.asarray(x).dtype.type
    return -math.inf if low is None else float(dtype(low)), math.inf if high is None else float(dtype(high))


def cast(x: Any, *, dtype: Any) -> Array:
    """x rounded to another dtype, in float64 again."""
    return np.asarray(x).astype(dtype).astype(np.float64)


def cast_gradients(g: Any, x: Any, *, dtype: Any) -> tuple[Array, ...]:
    """g rounded to x's own dtype."""
    return (cast(g, dtype=np.asarray(x).dtype),)


def relu(x: Any) -> Array:
    """x where it is positive, else 0."""
    return _elementwise(lambda p: p if p > 0 else 0.0, x)


relu_gradients = _gradients(lambda p: (float(p > 0),))


def sigmoid(x: Any) -> Array:
    """1 / (1 + exp(-x)), written so that exp never overflows."""
    return _elementwise(_sigmoid, x)


def _sigmoid(p: float) -> float:
    return 1 / (1 + math.exp(-p)) if p >= 0 else math.exp(p) / (1 + math.exp(p))


sigmoid_gradients = _gradients(lambda p: (_sigmoid(p) * _sigmoid(-p),))


def tanh(x: Any) -> Array:
    """The hyperbolic tangent."""
    return _elementwise(math.tanh, x)


tanh_gradients = _gradients(lambda p: (1 - math.tanh(p) ** 2,))


def activate(x: Array, activation: str | None) -> Array:
    """The activation that a fused op ends with, or none."""
    return x if activation is None else {"relu": relu, "sigmoid": sigmoid, "tanh": tanh}[activation](x)
