"""The gradients of the oracle: against what the oracle itself does when its inputs move, and ties by hand.

gradcheck has no part in it: it needs Tensors, and the oracle knows none.
"""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from minidl import ops
from minidl.testing import bounds, reference, strategies
from minidl.testing.call import random_direction
from minidl.testing.strategies import ArrayCase, Case, CrossEntropyCase, PairCase

Array = np.ndarray

STEP = 2e-4
# Extrapolated, a slope is off by STEP**4 / 480 times the fifth derivative, below 1e-10 for these values, and
# by the rounding of the output, a few 1e-16 / STEP; both relative to the sizes of what is added up.
TRUST = 1e-9


def gradients(name: str, g: Any, *inputs: Any, **options: Any) -> list[Array | None]:
    return list(getattr(reference, f"{name}_gradients")(np.asarray(g, np.float64), *inputs, **options))


def check_slopes(name: str, case: Case) -> None:
    """Along a random direction of each array, <gradient, direction> is the slope of <upstream, output>."""
    rng = np.random.default_rng(0)
    listed = isinstance(case.inputs[0], list)  # the arrays of concat
    arrays = case.inputs[0] if listed else case.inputs
    places = [k for k, x in enumerate(arrays) if x is None or x.dtype.kind == "f"]

    def output(*moved: Any) -> Array:
        return getattr(reference, name)(*([list(moved)] if listed else moved), **case.options)

    y = output(*arrays)
    upstream = random_direction(rng, y.shape)
    for k, gradient in zip(places, gradients(name, upstream, *case.inputs, **case.options), strict=True):
        if gradient is None:
            assert arrays[k] is None
            continue
        assert (gradient.dtype, gradient.shape) == (np.float64, arrays[k].shape)
        direction = random_direction(rng, gradient.shape)
        slopes = []
        for h in (STEP, STEP / 2):
            right, left = (
                output(*arrays[:k], arrays[k] + step * direction, *arrays[k + 1 :]) for step in (h, -h)
            )
            slopes.append(math.fsum((upstream * (right - left)).flat) / (2 * h))
        numeric = (4 * slopes[1] - slopes[0]) / 3
        analytic = math.fsum((gradient * direction).flat)
        sizes = math.fsum(np.abs(upstream * y).flat) + math.fsum(np.abs(gradient * direction).flat)
        assert abs(numeric - analytic) <= TRUST * sizes


def test_every_op_has_a_reference_with_gradients_and_bounds_for_both() -> None:
    for name in ops.__all__:
        assert callable(getattr(reference, name))
        assert callable(getattr(reference, f"{name}_gradients"))
    assert sorted(bounds.FORWARD) == sorted(bounds.GRADIENTS) == sorted(ops.__all__)


@pytest.mark.parametrize(
    ("name", "values"),
    [("add", "normal"), ("sub", "normal"), ("mul", "normal"), ("div", "positive"), ("pow", "positive")],
)
def test_binary_ops_with_broadcasting(name: str, values: str) -> None:
    @given(strategies.broadcastable_arrays(values=(values,)))
    def check(pair: list[Array]) -> None:
        check_slopes(name, PairCase(a=pair[0], b=pair[1]))

    check()


@pytest.mark.parametrize("name", ["maximum", "minimum"])
@given(pair=strategies.broadcastable_arrays(values=("ties",)))
def test_maximum_and_minimum_without_ties(name: str, pair: list[Array]) -> None:
    check_slopes(name, PairCase(a=pair[0], b=pair[1] + 0.5))


@given(strategies.where_cases())
def test_where(case: Case) -> None:
    check_slopes("where", case)


@pytest.mark.parametrize(
    ("name", "values", "shift"),
    [
        ("neg", "normal", 0.0),
        ("abs", "ties", 0.5),  # nothing close to the kinks, which lie at whole numbers
        ("relu", "ties", 0.5),
        ("clip", "ties", 0.5),
        ("exp", "normal", 0.0),
        ("log", "positive", 0.0),
        ("sqrt", "positive", 0.0),
        ("sigmoid", "normal", 0.0),
        ("tanh", "normal", 0.0),
        ("flatten", "normal", 0.0),
    ],
)
def test_ops_of_one_array(name: str, values: str, shift: float) -> None:
    options = {"low": -1.0, "high": 1.0} if name == "clip" else {}

    @given(strategies.arrays((3, 2), values=(values,)))
    def check(x: Array) -> None:
        check_slopes(name, ArrayCase(x=x + shift, options=options))

    check()


@pytest.mark.parametrize(
    "name",
    ["sum", "mean", "matmul", "linear", "reshape", "transpose", "concat", "pad", "getitem", "dropout"],
)
def test_linear_ops(name: str) -> None:
    @given(strategies.CASES[name]())
    def check(case: Case) -> None:
        check_slopes(name, case)

    check()


@given(strategies.reduction_cases())
def test_max_without_ties(case: ArrayCase) -> None:
    distinct = np.argsort(case.x, axis=None).astype(np.float64).reshape(case.x.shape)
    check_slopes("max", ArrayCase(x=distinct, options=case.options))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(case=strategies.softmax_cases(values=("normal", "ties")))
def test_softmax_family(name: str, case: ArrayCase) -> None:
    check_slopes(name, case)


@given(strategies.cross_entropy_cases(values=("normal", "ties")))
def test_cross_entropy(case: CrossEntropyCase) -> None:
    check_slopes("cross_entropy", case)


# --- by hand ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "g", "inputs", "expected"),
    [
        ("relu", [1, 2, 3, 4], ([-1.0, 0.0, -0.0, 2.0],), [[0, 0, 0, 4]]),
        ("abs", [1, 2, 3], ([-1.0, 0.0, 2.0],), [[-1, 0, 3]]),
        ("maximum", [2, 4, 6], ([1.0, 1.0, 3.0], [1.0, 2.0, 1.0]), [[1, 0, 6], [1, 4, 0]]),
        ("minimum", [2, 4, 6], ([1.0, 1.0, 3.0], [1.0, 2.0, 1.0]), [[1, 4, 0], [1, 0, 6]]),
        ("clip", [1, 2, 3, 4, 5], ([-2.0, -1.0, 0.0, 1.0, 2.0], -1, 1), [[0, 2, 3, 4, 0]]),
        ("clip", [1, 2], ([-2.0, 2.0], None, 1), [[1, 0]]),
        ("where", [1, 2], ([True, False], [5.0, 6.0], [7.0, 8.0]), [[1, 0], [0, 2]]),
        ("sqrt", [1, 1], ([0.0, 4.0],), [[np.inf, 0.25]]),
        ("pow", [1, 1, 1], ([0.0, 0.0, 0.0], [0.0, 1.0, 2.0]), [[0, 1, 0], [0, 0, 0]]),
        ("pow", [1, 1], ([-2.0, -2.0], [3.0, -1.0]), [[12, -0.25], [np.nan, np.nan]]),
        ("add", [[1, 2, 3], [4, 5, 6]], ([[7.0], [8.0]], [1.0, 1.0, 1.0]), [[[6], [15]], [5, 7, 9]]),
        ("mul", [1, 2, 3], (2.0, [1.0, 2.0, 3.0]), [14, [2, 4, 6]]),
    ],
)
def test_elementwise_by_hand(name: str, g: Any, inputs: Any, expected: Any) -> None:
    found = gradients(name, g, *(np.array(x) if np.size(x) > 1 else x for x in inputs))
    for gradient, answer in zip(found, expected, strict=True):
        np.testing.assert_array_equal(gradient, answer)


def test_what_was_broadcast_receives_an_exact_sum() -> None:
    (grad_a, _) = gradients("add", [1e16, 1.0, -1e16], 0.0, np.zeros(3))
    assert grad_a == 1


@pytest.mark.parametrize(
    ("axis", "g", "expected"),
    [
        (None, 2.0, [[2, 0, 0], [0, 0, 0]]),
        (0, [1.0, 2.0, 3.0], [[1, 2, 0], [0, 0, 3]]),
        (1, [1.0, 2.0], [[1, 0, 0], [2, 0, 0]]),
        ((1, 0), 2.0, [[2, 0, 0], [0, 0, 0]]),  # row-major, however the axes are named
    ],
)
def test_of_equal_maxima_the_first_receives_the_gradient(axis: Any, g: Any, expected: Any) -> None:
    x = np.array([[7.0, 7.0, 3.0], [7.0, 5.0, 7.0]])
    np.testing.assert_array_equal(gradients("max", g, x, axis), [expected])


def test_an_element_taken_twice_receives_both_gradients() -> None:
    np.testing.assert_array_equal(
        gradients("getitem", [1.0, 10.0, 100.0], np.zeros(3), np.array([1, 1, 2])), [[0, 11, 100]]
    )


def test_concat_cuts_the_gradient_where_the_arrays_end() -> None:
    first, second = gradients("concat", [[1, 2, 3], [4, 5, 6]], [np.zeros((2, 1)), np.zeros((2, 2))])
    np.testing.assert_array_equal(first, [[1], [4]])
    np.testing.assert_array_equal(second, [[2, 3], [5, 6]])


def test_cast_rounds_forwards_and_back() -> None:
    x = np.array([1 + 2.0**-40, 3.0])
    np.testing.assert_array_equal(reference.cast(x, dtype=np.float32), [1, 3])
    np.testing.assert_array_equal(gradients("cast", x, x, dtype=np.float32), [x])
    np.testing.assert_array_equal(gradients("cast", x, x.astype(np.float32), dtype=np.float64), [[1, 3]])


def test_limits_take_the_dtype_of_the_array() -> None:
    """float32(0.1) is more than 0.1, and still not beyond that limit."""
    x = np.array([0.1], np.float32)
    assert reference.clip(x, None, 0.1) == x
    np.testing.assert_array_equal(gradients("clip", [1.0], x, None, 0.1), [[1]])
    np.testing.assert_array_equal(reference.pad(x, [(0, 1)], value=0.1), [x[0], x[0]])


def test_dropout_passes_what_the_mask_keeps() -> None:
    options = {"training": True, "seed": 3, "call": 5}
    x = np.ones((4, 5))
    y = reference.dropout(x, 0.5, **options)
    np.testing.assert_array_equal(gradients("dropout", 3 * x, x, 0.5, **options), [3 * y])
    assert 0 < (y == 2).sum() < y.size
    assert not reference.dropout(x, 1.0, **options).any()
    np.testing.assert_array_equal(gradients("dropout", x, x, 0.5, training=False), [x])


def test_ignored_labels_receive_no_gradient() -> None:
    logits, labels = np.log([[1.0, 3.0], [1.0, 1.0]]), np.array([1, 9])
    for reduction, g in (("mean", 2.0), ("sum", 2.0), ("none", [2.0, 5.0])):
        found = gradients("cross_entropy", g, logits, labels, ignore_index=9, reduction=reduction)
        np.testing.assert_allclose(found, [[[0.5, -0.5], [0, 0]]], rtol=1e-15)


def test_the_mean_divides_by_the_weights_of_the_labels() -> None:
    logits, labels = np.zeros((2, 2)), np.array([0, 1])
    found = gradients("cross_entropy", 1.0, logits, labels, class_weight=np.array([1.0, 3.0]))
    np.testing.assert_allclose(found, [[[-0.5 / 4, 0.5 / 4], [1.5 / 4, -1.5 / 4]]], rtol=1e-15)


def test_smoothing_spreads_the_target() -> None:
    found = gradients("cross_entropy", 1.0, np.zeros((1, 4)), np.array([2]), label_smoothing=0.2)
    np.testing.assert_allclose(found, [[[0.2, 0.2, -0.6, 0.2]]], rtol=1e-15)
