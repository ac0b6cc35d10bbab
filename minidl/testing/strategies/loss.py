"""Cases for softmax and cross-entropy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minidl.testing.strategies.arrays import ArrayCase, Case, arrays, layouts, shapes

Array = np.ndarray
Draw = st.DrawFn
SCALES = ("normal", "ties", "offset", "large")


@st.composite
def _scores(draw: Draw, shape: tuple[int, ...], axis: int, dtype: Any, values: Sequence[str]) -> Array:
    """An array for softmax along `axis`, where the first two elements share the largest value.

    Where all others lie far below, the softmax is (1/2, 1/2) and still has slopes; with one winner it would
    be constant to rounding. Only large values are treated so.
    """
    kind = draw(st.sampled_from(values))
    x = draw(arrays(shape, dtype=dtype, values=(kind,)))
    if kind == "large":
        along = np.moveaxis(x, axis, 0)
        along[:2] = along.max(0)
    return x


@st.composite
def softmax_cases(draw: Draw, *, dtype: Any = np.float64, values: Sequence[str] = SCALES) -> ArrayCase:
    """An array with at least two values along the option `axis`: moderate, far from 0, or far apart."""
    shape = list(draw(shapes()))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] += 1
    x = draw(_scores(tuple(shape), axis, dtype, values))
    return ArrayCase(x=x, options={"axis": axis}, layout=draw(layouts()))


@dataclass(frozen=True, repr=False)
class CrossEntropyCase(Case):
    """logits (N, K), labels (N,) integers."""

    logits: Array
    labels: Array


@st.composite
def cross_entropy_cases(
    draw: Draw, *, dtype: Any = np.float64, values: Sequence[str] = SCALES
) -> CrossEntropyCase:
    """Every reduction, label smoothing, class weights, and ignored labels (never all of them)."""
    n, k = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    labels = np.array(draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)), np.int64)
    options: dict[str, Any] = {
        "label_smoothing": draw(st.sampled_from((0.0, 0.1))),
        "reduction": draw(st.sampled_from(("mean", "sum", "none"))),
    }
    if draw(st.booleans()):
        options["ignore_index"] = draw(st.sampled_from((-100, 255)))
        labels[draw(st.integers(1, n)) :] = options["ignore_index"]
    if draw(st.booleans()):
        options["class_weight"] = draw(arrays((k,), dtype=dtype, values=("positive",)))
    logits = draw(_scores((n, k), 1, dtype, values))
    return CrossEntropyCase(logits=logits, labels=labels, options=options, layout=draw(layouts()))
