"""Reductions: the tie rule of max, long sums, empty arrays, errors (test_proofs.py draws the rest)."""

import numpy as np
import pytest

from minidl import ops
from minidl.autograd import tensor
from minidl.errors import ShapeError
from minidl.testing import agree, strategies
from minidl.testing.strategies import ArrayCase


def test_a_long_sum_stays_within_its_bound() -> None:
    x = strategies.VALUES["offset"](np.random.default_rng(0), (3, 5000))
    for op in (ops.sum, ops.mean):
        assert agree(op, ArrayCase(x=x, options={"axis": 1}))


@pytest.mark.parametrize(
    ("axis", "winners"),
    [
        (None, [[1, 0, 0], [0, 0, 0]]),
        (0, [[1, 1, 0], [0, 0, 1]]),
        (1, [[1, 0, 0], [1, 0, 0]]),
    ],
)
def test_of_equal_maxima_the_first_receives_the_gradient(axis: int | None, winners: list[list[int]]) -> None:
    x = tensor(np.array([[7.0, 7.0, 3.0], [7.0, 5.0, 7.0]]), requires_grad=True)
    y = ops.max(x, axis=axis)
    y.backward(np.ones(y.shape))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, winners)


def test_max_of_negative_values_only() -> None:
    assert ops.max(np.array([-3.0, -2.0])).item() == -2


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
def test_wrong_axes(name: str) -> None:
    op = getattr(ops, name)
    with pytest.raises(ShapeError, match=f"{name}: axis 2 is outside an array with 2 axes"):
        op(np.zeros((2, 3)), axis=2)
    with pytest.raises(ShapeError, match=rf"{name}: axis \(0, -2\) names an axis twice"):
        op(np.zeros((2, 3)), axis=(0, -2))


@pytest.mark.parametrize("name", ["mean", "max"])
def test_nothing_to_reduce(name: str) -> None:
    with pytest.raises(ShapeError, match=rf"{name}: x of shape \(0, 3\) has no elements along axis 0"):
        getattr(ops, name)(np.zeros((0, 3)), axis=0)


def test_the_sum_of_nothing_is_zero() -> None:
    np.testing.assert_array_equal(ops.sum(np.zeros((0, 3)), axis=0).data, np.zeros(3))
