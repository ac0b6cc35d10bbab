"""Bounds for ops that work element by element: a few roundings of the result.

A gradient is g times a slope, so each such term is a few roundings off as well; where an input was broadcast,
its n terms are added up, and gamma(n - 1) of their sizes comes on top. Roundings are counted in the form of
the formula that has most of them: g * (1 / x) is as good as g / x.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.testing import reference
from minidl.testing.bounds.common import LIBRARY, Bound, exact, gamma, roundings

Array = np.ndarray

FORWARD: dict[str, Bound] = {
    **dict.fromkeys(("neg", "abs", "maximum", "minimum", "where", "clip", "cast", "relu"), exact),
    **{name: roundings(getattr(reference, name), 1) for name in ("add", "sub", "mul", "div", "sqrt")},
    **{name: roundings(getattr(reference, name), LIBRARY) for name in ("exp", "log", "tanh", "pow")},
    "sigmoid": roundings(reference.sigmoid, LIBRARY + 2),
}


def _slope_roundings(name: str, *counts: int) -> Bound:
    """counts[k]: how often a term of the k-th gradient is rounded, relative to its own size."""

    def bound(u: float, g: Array, *inputs: Any, **options: Any) -> tuple[Array, ...]:
        terms = _terms(name, g, *inputs, **options)
        errors = [gamma(count, u) * term for count, term in zip(counts, terms, strict=True)]
        return _added(u, errors, terms, inputs[-len(counts) :])  # those with gradients come last

    return bound


def _terms(name: str, g: Array, *inputs: Any, **options: Any) -> list[Array]:
    """|g * slope| by every array at every place of the output: the gradients where nothing is broadcast."""
    everywhere = [np.broadcast_to(x, g.shape) for x in inputs]
    return [np.abs(term) for term in getattr(reference, f"{name}_gradients")(g, *everywhere, **options)]


def _added(u: float, errors: list[Any], terms: list[Array], inputs: Any) -> tuple[Array, ...]:
    """The error of each gradient when its terms, off by `errors`, are added up to the input's shape."""
    allowed = []
    for error, term, x in zip(errors, terms, inputs, strict=True):
        added = gamma(term.size // max(1, np.size(x)) - 1, u)
        allowed.append(_sum_to(error + added * (term + error), np.shape(x)))
    return tuple(allowed)


def _sum_to(terms: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes along which an array of `shape` was broadcast."""
    leading = terms.ndim - len(shape)
    return terms.sum((*range(leading), *(leading + i for i, n in enumerate(shape) if n == 1))).reshape(shape)


def _pow(u: float, g: Array, a: Array, b: Array) -> tuple[Array, ...]:
    """b - 1 is rounded, and an exponent that is off by u * |b - 1| changes the power by log(a) times that."""
    terms = _terms("pow", g, a, b)
    exponent = np.abs((b - 1) * np.log(np.where(a == 0, 1.0, np.abs(a))))
    errors = [
        (gamma(LIBRARY + 2, u) + np.expm1(u * exponent) * (1 + gamma(LIBRARY + 2, u))) * terms[0],
        gamma(2 * LIBRARY + 2, u) * terms[1],  # a power and a logarithm
    ]
    return _added(u, errors, terms, (a, b))


def _in_terms_of_y(slope: Callable[[float, Array], tuple[Array, Array]]) -> Bound:
    """g times slope(u, x), which returns the slope and its error; the product rounds once more."""

    def bound(u: float, g: Array, x: Array) -> tuple[Array]:
        size, error = slope(u, x)
        return (np.abs(g) * (error + u * (size + error)),)

    return bound


def _sigmoid_slope(u: float, x: Array) -> tuple[Array, Array]:
    """y * (1 - y), off by d * (1 - y) + (y + d) * (d + a rounding): 1 - y cancels, and keeps y's error d."""
    y, rest = reference.sigmoid(x), reference.sigmoid(-x)
    d = gamma(LIBRARY + 2, u) * y
    e = d + u * (rest + d)
    return y * rest, d * rest + (y + d) * e + u * (y + d) * (rest + e)


def _tanh_slope(u: float, x: Array) -> tuple[Array, Array]:
    """1 - y**2: the difference cancels, and keeps the error of the square."""
    y = reference.tanh(x)
    e = gamma(2 * LIBRARY + 1, u) * y**2
    return 1 - y**2, e + u * (1 - y**2 + e)


GRADIENTS: dict[str, Bound] = {
    **{name: _slope_roundings(name, 0) for name in ("neg", "abs", "clip", "cast", "relu")},
    **{name: _slope_roundings(name, 0, 0) for name in ("add", "sub", "maximum", "minimum", "where")},
    "mul": _slope_roundings("mul", 1, 1),
    "div": _slope_roundings("div", 2, 3),  # g * (1 / b), g * (a / b**2)
    "pow": _pow,
    "exp": _slope_roundings("exp", LIBRARY + 1),
    "log": _slope_roundings("log", 2),  # g * (1 / x)
    "sqrt": _slope_roundings("sqrt", 3),  # g * (1/2 / sqrt(x))
    "sigmoid": _in_terms_of_y(_sigmoid_slope),
    "tanh": _in_terms_of_y(_tanh_slope),
}
