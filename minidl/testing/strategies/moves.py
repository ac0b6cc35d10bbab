"""Cases for ops that move elements: reshape, flatten, transpose, concat, pad, getitem."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from minidl.testing.strategies.arrays import ArrayCase, Case, arrays, layouts, shapes

Array = np.ndarray
Draw = st.DrawFn


@st.composite
def reshape_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """An array and a shape of as many elements: axes exchanged, joined, one of them perhaps -1."""
    x = draw(arrays(shapes(), dtype=dtype))
    shape: list[int] = []
    for length in draw(st.permutations(x.shape)):
        joined = draw(st.booleans())
        if shape and joined:
            shape[-1] *= length
        else:
            shape.append(length)
    if draw(st.booleans()):
        shape[draw(st.integers(0, len(shape) - 1))] = -1
    wanted = shape[0] if len(shape) == 1 and draw(st.booleans()) else tuple(shape)
    return ArrayCase(x=x, options={"shape": wanted}, layout=draw(layouts()))


@st.composite
def transpose_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """An array and an order of its axes, counted from either end, or None."""
    x = draw(arrays(shapes(), dtype=dtype))
    first = draw(st.sampled_from((0, -x.ndim)))
    axes = draw(st.none() | st.permutations(range(first, first + x.ndim)).map(tuple))
    return ArrayCase(x=x, options={"axes": axes}, layout=draw(layouts()))


@dataclass(frozen=True, repr=False)
class ConcatCase(Case):
    """Arrays whose shapes differ along the option `axis` alone."""

    arrays: list[Array]


@st.composite
def concat_cases(draw: Draw, *, dtype: Any = np.float64) -> ConcatCase:
    """One to four arrays along any axis, counted from either end."""
    shape = draw(shapes())
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    parts = []
    for length in lengths:
        part = list(shape)
        part[axis] = length
        parts.append(draw(arrays(tuple(part), dtype=dtype)))
    return ConcatCase(arrays=parts, options={"axis": axis}, layout=draw(layouts()))


@st.composite
def pad_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """An array, (before, after) for every axis, and the value between."""
    x = draw(arrays(shapes(), dtype=dtype))
    width = st.tuples(st.integers(0, 2), st.integers(0, 2))
    options = {
        "widths": tuple(draw(width) for _ in range(x.ndim)),
        "value": draw(st.sampled_from((0.0, 1.5))),
    }
    return ArrayCase(x=x, options=options, layout=draw(layouts()))


@st.composite
def getitem_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """An array and an index that picks something: integers, slices with steps, ellipsis, new axes, arrays of
    integers, alone or among slices, or a mask."""
    x = draw(arrays(shapes(), dtype=dtype))
    basic, advanced = (
        _basic_indices(x.shape),
        npst.integer_array_indices(x.shape, result_shape=npst.array_shapes(max_dims=2, max_side=3)),
    )
    index = draw(st.one_of(basic, advanced, _mixed_indices(x.shape), _masks(x.shape)))
    return ArrayCase(x=x, options={"index": index}, layout=draw(layouts()))


@st.composite
def _basic_indices(draw: Draw, shape: tuple[int, ...]) -> Any:
    """An integer or a slice for each axis; an ellipsis in place of some, and new axes between."""
    parts: list[Any] = [draw(st.integers(-n, n - 1) | _slices(n)) for n in shape]
    if draw(st.booleans()):
        start = draw(st.integers(0, len(parts)))
        parts[start : draw(st.integers(start, len(parts)))] = [Ellipsis]
    for _ in range(draw(st.integers(0, 2))):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)


@st.composite
def _slices(draw: Draw, n: int) -> slice:
    """A slice from a first element to a last one, forwards or backwards, so it is never empty."""
    first, last, step = draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1)), draw(st.integers(1, 3))
    if first <= last:
        return slice(first or None, None if last == n - 1 else last + 1, step)
    return slice(first, None if last == 0 else last - 1, -step)


@st.composite
def _mixed_indices(draw: Draw, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Slices, and at one axis an array of places, some of them twice."""
    parts: list[Any] = [draw(_slices(n)) for n in shape]
    axis = draw(st.integers(0, len(shape) - 1))
    places = st.integers(-shape[axis], shape[axis] - 1)
    parts[axis] = np.array(draw(st.lists(places, min_size=1, max_size=5)))
    return tuple(parts)


@st.composite
def _masks(draw: Draw, shape: tuple[int, ...]) -> Array:
    """Booleans for the leading axes, of which at least one is true."""
    lead = shape[: draw(st.integers(1, len(shape)))]
    chosen = draw(st.lists(st.integers(0, prod(lead) - 1), min_size=1, max_size=5))
    mask = np.zeros(lead, bool)
    mask.flat[chosen] = True
    return mask
