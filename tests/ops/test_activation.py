"""Activations and the softmax family: large inputs, ties, errors (test_proofs.py draws the rest)."""

import numpy as np
import pytest

from minidl import ops
from minidl.autograd import tensor
from minidl.errors import ShapeError
from minidl.testing import agree, strategies
from minidl.testing.strategies import ArrayCase


def test_relu_has_gradient_zero_at_zero() -> None:
    x = tensor(np.array([-1.0, 0.0, -0.0, 2.0]), requires_grad=True)
    ops.relu(x).backward(np.ones(4))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, [0, 0, 0, 1])


def test_relu_keeps_nan() -> None:
    """A diverged network must show it."""
    assert np.isnan(ops.relu(np.array([np.nan, 1.0])).data[0])


@pytest.mark.parametrize("size", [40_000])
def test_relu_on_arrays_large_enough_for_threads(size: int) -> None:
    x = strategies.VALUES["ties"](np.random.default_rng(0), (size,)).astype(np.float32)
    t = tensor(x, requires_grad=True)
    y = ops.relu(t)
    y.backward(np.ones_like(x))
    assert t.grad is not None
    np.testing.assert_array_equal(y.data, np.maximum(x, 0))
    np.testing.assert_array_equal(t.grad.data, x > 0)


def test_sigmoid_and_tanh_of_large_values() -> None:
    """Neither overflows, and the left tail of the sigmoid keeps its digits."""
    x = np.array([-80.0, -30.0, -15.0, -5.0, 5.0, 30.0, 1000.0])
    assert agree(ops.sigmoid, ArrayCase(x=x))
    assert agree(ops.tanh, ArrayCase(x=x))


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_softmax_of_large_values(scale: float) -> None:
    x = np.array([[scale, 0.0, scale], [scale, scale + 1, scale - 1]])
    for op in (ops.softmax, ops.log_softmax):
        assert agree(op, ArrayCase(x=x))
        assert np.all(np.isfinite(op(x).data))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_gradients_of_large_values_by_hand(dtype: type) -> None:
    """p is 1/2, 0, 1/2: grad_x = p (g - 5/2) for softmax, g - 7 p for log_softmax."""
    for op, y_expected, grad_expected in (
        (ops.softmax, [0.5, 0, 0.5], [-0.75, 0, 0.75]),
        (ops.log_softmax, [-np.log(2), -2e4 - np.log(2), -np.log(2)], [-2.5, 2, 0.5]),
    ):
        x = tensor(np.array([1e4, -1e4, 1e4], dtype), requires_grad=True)
        y = op(x)
        y.backward(np.array([1, 2, 4], dtype))
        assert x.grad is not None
        rounding = 4 * np.finfo(dtype).eps  # of exp, log and a sum of three
        np.testing.assert_allclose(y.data, y_expected, rtol=rounding)
        np.testing.assert_allclose(x.grad.data, grad_expected, rtol=rounding)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_bad_axes(name: str) -> None:
    op = getattr(ops, name)
    with pytest.raises(ShapeError, match=rf"{name}: x of shape \(3, 0\) has no elements along axis 1"):
        op(np.zeros((3, 0)))
    for axis in ((0, 1), None):
        with pytest.raises(ShapeError, match=rf"{name}: axis is .*; give one axis of the 2"):
            op(np.zeros((2, 3)), axis=axis)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_an_axis_outside_the_array(name: str) -> None:
    with pytest.raises(ShapeError, match=f"{name}: axis 2 is outside an array with 2 axes"):
        getattr(ops, name)(np.zeros((2, 3)), axis=2)
