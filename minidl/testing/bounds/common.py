"""What every bound is built from: how errors of rounding add up."""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Bound = Callable[..., Any]  # (u, *inputs, **options) -> the largest error allowed, per output element

LIBRARY = 8  # exp, log, tanh, pow: libraries stay within 4 units in the last place, which are 8 roundings


def gamma(n: float, u: float) -> float:
    """The relative error of n roundings in a row."""
    return n * u / (1 - n * u)


def exact(u: float, *inputs: Any, **options: Any) -> float:
    """Values are moved or chosen, never computed."""
    return 0.0


def roundings(op: Callable[..., Array], count: int) -> Bound:
    """`count` roundings of the result, element by element."""
    return lambda u, *inputs, **options: gamma(count, u) * np.abs(op(*inputs, **options))
