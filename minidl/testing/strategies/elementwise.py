"""Cases for ops that work element by element, inside the domain of each.

In every case each array has influence on the output, so `gradcheck` never compares zeros with zeros: one
element is set where chance might leave none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from minidl.testing.strategies.arrays import (
    ArrayCase,
    Case,
    PairCase,
    arrays,
    broadcastable_arrays,
    layouts,
    shapes,
)

Array = np.ndarray
Draw = st.DrawFn


@st.composite
def unary_cases(
    draw: Draw,
    *,
    dtype: Any = np.float64,
    values: Sequence[str] = ("normal", "ties"),
    live: float | None = None,
    min_dims: int = 0,
) -> ArrayCase:
    """One array x of any shape with at least `min_dims` axes.

    `live` is a number where the op has a slope: x holds it once, however flat the op is at the rest.
    """
    x = draw(arrays(shapes(min_dims=min_dims), dtype=dtype, values=values))
    if live is not None:
        x.flat[0] = live
    return ArrayCase(x=x, layout=draw(layouts()))


@st.composite
def broadcast_cases(
    draw: Draw,
    *,
    dtype: Any = np.float64,
    values: Sequence[str] = ("normal", "ties", "offset"),
    b_values: Sequence[str] | None = None,
) -> PairCase:
    """Two arrays that broadcast; b's values are of the kinds in `b_values`, those of a by default.

    Neither begins with 0, so that in a product each has influence.
    """
    a_shape, b_shape = draw(npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4))[0]
    a = draw(arrays(a_shape, dtype=dtype, values=values))
    b = draw(arrays(b_shape, dtype=dtype, values=b_values or values))
    for array in (a, b):
        array.flat[0] = array.flat[0] or 1.0
    return PairCase(a=a, b=b, layout=draw(layouts()))


@st.composite
def extremum_cases(
    draw: Draw, *, dtype: Any = np.float64, values: Sequence[str] = ("normal", "ties")
) -> PairCase:
    """For maximum and minimum: a is larger in the first place and smaller in the last, elsewhere either.

    Two single numbers tie.
    """
    a, b = draw(broadcastable_arrays(dtype=dtype, values=values))
    many, one = (a, b) if a.size > 1 else (b, a)
    sign = 1 if many is a else -1
    many.flat[0], many.flat[-1] = one.flat[0] + sign, one.flat[-1] - sign
    if many.size == 1:
        many.flat[0] = one.flat[0]
    return PairCase(a=a, b=b, layout=draw(layouts()))


@dataclass(frozen=True, repr=False)
class WhereCase(Case):
    """condition (booleans), a and b, which broadcast."""

    condition: Array
    a: Array
    b: Array


@st.composite
def where_cases(draw: Draw, *, dtype: Any = np.float64) -> WhereCase:
    """A condition that holds somewhere and fails somewhere; smaller than a and b, as large, or larger."""
    drawn = draw(npst.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=4))
    shape, a_shape, b_shape = drawn.input_shapes
    if np.prod(shape) == 1:  # one truth value would leave a or b without influence
        shape = (2, *(1 for _ in drawn.result_shape))
    condition = draw(arrays(shape)) > 0
    condition.flat[0], condition.flat[-1] = True, False
    a, b = draw(arrays(a_shape, dtype=dtype)), draw(arrays(b_shape, dtype=dtype))
    return WhereCase(condition=condition, a=a, b=b, layout=draw(layouts()))


@st.composite
def clip_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """Both limits or one, and values below, between, above, and equal to a limit."""
    x = draw(arrays(shapes(min_dims=0), dtype=dtype, values=("normal", "ties")))
    x.flat[0] = 0.25  # between the limits
    low, high = draw(st.sampled_from(((-0.5, 0.5), (-1.0, 1.0), (None, 1.0), (-1.0, None))))
    return ArrayCase(x=x, options={"low": low, "high": high}, layout=draw(layouts()))


@dataclass(frozen=True, repr=False)
class CastCase(ArrayCase):
    """x and the option dtype, which follows x's own: what an op returns has its inputs' dtype."""

    def astype(self, dtype: Any) -> "CastCase":
        """x rounded to another dtype, and cast to that."""
        return replace(self, x=self.x.astype(dtype), options={"dtype": np.dtype(dtype)})


@st.composite
def cast_cases(draw: Draw, *, dtype: Any = np.float64) -> CastCase:
    """An array and its dtype."""
    x = draw(arrays(shapes(min_dims=0), dtype=dtype, values=("normal", "ties")))
    return CastCase(x=x, options={"dtype": np.dtype(dtype)}, layout=draw(layouts()))


@st.composite
def dropout_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """An array of any shape, the probability p, and training or not.

    The mask comes from the random streams: seed them before the call. After manual_seed(0) the first element
    is kept, whatever p.
    """
    x = draw(arrays(shapes(max_side=5), dtype=dtype))
    options = {"p": draw(st.sampled_from((0.5, 0.25, 0.1, 0.0))), "training": draw(st.booleans())}
    return ArrayCase(x=x, options=options, layout=draw(layouts()))
