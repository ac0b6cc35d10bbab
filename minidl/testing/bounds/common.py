"""What every bound is built from: how errors of rounding add up."""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
# (u, *inputs, **options) -> the largest error allowed, per output element; of a gradient (u, g, *inputs,
# **options) -> a tuple with that for each array
Bound = Callable[..., Any]

LIBRARY = 8  # exp, log, tanh, pow: libraries stay within 4 units in the last place, which are 8 roundings


def gamma(n: Any, u: float) -> Any:
    """The relative error of n roundings in a row."""
    return n * u / (1 - n * u)


def exact(u: float, *inputs: Any, **options: Any) -> float:
    """Values are moved or chosen, never computed."""
    return 0.0


def exact_gradient(u: float, g: Array, *inputs: Any, **options: Any) -> tuple[float]:
    """Of an op with one array: the values of g are moved or chosen."""
    return (0.0,)


def roundings(op: Callable[..., Array], count: int) -> Bound:
    """`count` roundings of the result, element by element."""
    return lambda u, *inputs, **options: gamma(count, u) * np.abs(op(*inputs, **options))


def gradient_roundings(gradients: Callable[..., tuple[Array, ...]], count: int) -> Bound:
    """The same of an op's gradients, where nothing is added up."""
    return lambda u, *inputs, **options: tuple(
        gamma(count, u) * np.abs(grad) for grad in gradients(*inputs, **options)
    )
