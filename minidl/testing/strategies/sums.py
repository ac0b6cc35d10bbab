"""Cases for reductions and products of matrices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from minidl.testing.strategies.arrays import ArrayCase, Case, PairCase, arrays, layouts, shapes, sides

Array = np.ndarray
Draw = st.DrawFn


@st.composite
def reduction_cases(
    draw: Draw, *, dtype: Any = np.float64, values: Sequence[str] = ("normal", "ties")
) -> ArrayCase:
    """An array, and one axis, several in any order, or all of them to reduce; with and without keepdims."""
    x = draw(arrays(shapes(), dtype=dtype, values=values))
    one, several = st.integers(-x.ndim, x.ndim - 1), npst.valid_tuple_axes(x.ndim, min_size=1)
    options = {"axis": draw(st.none() | one | several), "keepdims": draw(st.booleans())}
    return ArrayCase(x=x, options=options, layout=draw(layouts()))


@dataclass(frozen=True, repr=False)
class LinearCase(Case):
    """x (N, D), weight (D, F), bias (F,) or None."""

    x: Array
    weight: Array
    bias: Array | None


@st.composite
def linear_cases(draw: Draw, *, dtype: Any = np.float64) -> LinearCase:
    """Matrices of any small shape, single rows and columns too, some around the width of a vector."""
    n, d, f = draw(st.integers(1, 5)), draw(sides(5)), draw(sides(5))
    return LinearCase(
        x=draw(arrays((n, d), dtype=dtype)),
        weight=draw(arrays((d, f), dtype=dtype)),
        bias=draw(st.none() | arrays((f,), dtype=dtype)),
        layout=draw(layouts()),
    )


@st.composite
def matmul_cases(draw: Draw, *, dtype: Any = np.float64) -> PairCase:
    """(..., M, K) and (..., K, N) whose leading axes broadcast."""
    lead = draw(npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    m, k, n = (draw(sides(4)) for _ in range(3))
    a, b = draw(arrays((*lead[0], m, k), dtype=dtype)), draw(arrays((*lead[1], k, n), dtype=dtype))
    return PairCase(a=a, b=b, layout=draw(layouts()))
