"""Bounds for ops that move elements: exact, but for an element that was taken several times."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.testing import reference
from minidl.testing.bounds.common import Bound, exact, exact_gradient, gamma

Array = np.ndarray


def concat_gradients(u: float, g: Array, arrays: Sequence[Array], axis: int = -1) -> tuple[float, ...]:
    """Every element of g goes to one place."""
    return (0.0,) * len(arrays)


def getitem_gradients(u: float, g: Array, x: Array, index: Any) -> tuple[Array]:
    """An element taken n times receives a sum of n terms: n - 1 roundings."""
    (taken,) = reference.getitem_gradients(np.ones_like(g), x, index)
    (sizes,) = reference.getitem_gradients(np.abs(g), x, index)
    return (gamma(np.maximum(taken - 1, 0), u) * sizes,)


FORWARD: dict[str, Bound] = dict.fromkeys(
    ("reshape", "transpose", "flatten", "concat", "pad", "getitem"), exact
)
GRADIENTS: dict[str, Bound] = {
    **dict.fromkeys(("reshape", "transpose", "flatten", "pad"), exact_gradient),
    "concat": concat_gradients,
    "getitem": getitem_gradients,
}
