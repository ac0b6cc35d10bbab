"""Bounds for ops that work element by element: a few roundings of the result."""

from minidl.testing import reference
from minidl.testing.bounds.common import LIBRARY, Bound, exact, roundings

FORWARD: dict[str, Bound] = {
    **dict.fromkeys(("neg", "abs", "maximum", "minimum", "where", "clip", "relu"), exact),
    **{name: roundings(getattr(reference, name), 1) for name in ("add", "sub", "mul", "div", "sqrt")},
    **{name: roundings(getattr(reference, name), LIBRARY) for name in ("exp", "log", "tanh", "pow")},
    "sigmoid": roundings(reference.sigmoid, LIBRARY + 2),
}
