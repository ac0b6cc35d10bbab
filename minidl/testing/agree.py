"""Does an op agree with the naive reference?  Judged by what rounding explains, not by a guessed tolerance.

The reference is `minidl.testing.reference`, what rounding explains is in `minidl.testing.bounds`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.autograd import Tensor
from minidl.testing import bounds, reference
from minidl.testing.bounds import Bound
from minidl.testing.strategies import Case

Array = np.ndarray


def agree(
    fn: Callable[..., Any],
    case: Case,
    *,
    reference: Callable[..., Array] | None = None,
    bound: Bound | None = None,
    dtypes: Sequence[Any] = (np.float32, np.float64),
) -> bool:
    """True if `fn(*case.inputs, **case.options)` is the reference's up to rounding, or an AssertionError.

    The case is rounded to each of `dtypes` in turn; fn must answer in that dtype. For an op of minidl both
    oracle and bound are found by its name. For one's own give `reference` (the same arguments, computing in
    float64) and `bound`: a function of the unit roundoff and the same arguments that returns the largest
    error allowed, as an array or a number.  ValueError without them.
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    oracle, allowed = reference or _oracle(name), bound or bounds.FORWARD.get(name)
    if oracle is None or allowed is None:
        raise ValueError(f"agree: nothing is known about {name}; pass reference= and bound=")
    for dtype in dtypes:
        rounded = case.astype(dtype)
        y = fn(*_copies(rounded.inputs), **rounded.options)
        found = y.data if isinstance(y, Tensor) else y
        expected = oracle(*rounded.inputs, **rounded.options)
        if found.dtype != dtype or found.shape != expected.shape:
            raise AssertionError(
                f"agree: {name} returned {found.dtype} {found.shape}, expected {np.dtype(dtype)} "
                f"{expected.shape}\n  for {rounded!r}"
            )
        # The reference rounds too, in float64, and within the same bound.
        u, reference_u = np.finfo(dtype).eps / 2, np.finfo(np.float64).eps / 2
        wide = rounded.astype(np.float64)
        limit = allowed(u, *wide.inputs, **wide.options) + allowed(reference_u, *wide.inputs, **wide.options)
        limit = limit + np.finfo(dtype).tiny  # smaller numbers have fewer digits
        what = f"{name} ({np.dtype(dtype)})"
        _compare(what, found, expected, np.broadcast_to(limit, expected.shape), rounded)
    return True


def _oracle(name: str) -> Callable[..., Array] | None:
    return getattr(reference, name, None) if name in bounds.FORWARD else None


def _copies(values: Sequence[Any]) -> list[Any]:
    """Batch norm writes into its running statistics; the case stays as it was drawn."""
    return [value.copy() if isinstance(value, np.ndarray) else value for value in values]


def _compare(what: str, found: Array, expected: Array, limit: Array, case: Case) -> None:
    """AssertionError naming the element that is furthest outside its bound."""
    with np.errstate(invalid="ignore"):
        error = np.where(found == expected, 0.0, np.abs(found - expected))
    outside = ~((error <= limit) | (np.isnan(found) & np.isnan(expected)))
    if not outside.any():
        return
    ratio = np.where(outside, error / limit, 0.0)
    worst = np.unravel_index(int(np.nan_to_num(ratio, nan=np.inf).argmax()), expected.shape)
    raise AssertionError(
        f"agree: {what}: {int(outside.sum())} of {outside.size} elements are further from the reference than "
        f"rounding explains\n  worst element {list(map(int, worst))}: found {float(found[worst])!r}, "
        f"reference {float(expected[worst])!r}, error {error[worst]:.3g}, bound {limit[worst]:.3g}\n"
        f"  for {case!r}"
    )
