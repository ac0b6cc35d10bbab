"""Elementwise arithmetic: ties, edges, dtypes of scalars, operators (test_proofs.py draws the rest)."""

from typing import Any

import numpy as np
import pytest

from minidl import ops
from minidl.autograd import Tensor, tensor
from minidl.errors import DTypeError
from minidl.testing import GradcheckSettings, agree, gradcheck
from minidl.testing.strategies import ArrayCase

# x ** 0 does not depend on x.
MAY_BE_ZERO = GradcheckSettings(allow_zero=True)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1])
def test_pow_of_negative_bases_by_a_number(exponent: int) -> None:
    x = np.array([-2.0, -0.5, 1.5])
    assert agree(
        lambda x: ops.pow(x, exponent),
        ArrayCase(x=x),
        reference=lambda x: x.astype(np.float64) ** exponent,
        bound=lambda u, x: 8 * u * np.abs(x**exponent),
    )
    assert gradcheck(lambda x: ops.pow(x, exponent), x, settings=MAY_BE_ZERO)


def test_pow_at_zero_has_finite_gradients() -> None:
    x, exponent = (
        tensor(np.zeros(3), requires_grad=True),
        tensor(np.array([0.0, 1.0, 2.0]), requires_grad=True),
    )
    ops.pow(x, exponent).backward(np.ones(3))
    assert x.grad is not None
    assert exponent.grad is not None
    np.testing.assert_array_equal(x.grad.data, [0, 1, 0])
    np.testing.assert_array_equal(exponent.grad.data, [0, 0, 0])


def test_ties_of_maximum_share_the_gradient() -> None:
    for op in (ops.maximum, ops.minimum):
        a, b = tensor(np.ones(2), requires_grad=True), tensor(np.ones(2), requires_grad=True)
        op(a, b).backward(np.array([2.0, 4.0]))
        assert a.grad is not None
        assert b.grad is not None
        np.testing.assert_array_equal(a.grad.data, [1, 2])
        np.testing.assert_array_equal(b.grad.data, [1, 2])


def test_abs_has_gradient_zero_at_zero() -> None:
    x = tensor(np.array([-1.0, 0.0, 2.0]), requires_grad=True)
    ops.abs(x).backward(np.ones(3))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, [-1, 0, 1])


def test_one_tensor_on_both_sides_receives_both_gradients() -> None:
    for op in (ops.add, ops.sub, ops.mul, ops.div, ops.pow, ops.maximum):
        assert gradcheck(lambda x, op=op: op(x, x), np.array([0.5, 1.5]), settings=MAY_BE_ZERO)


@pytest.mark.parametrize("scalar", [2, 2.0, np.float64(2), np.float32(2), np.int64(2), True], ids=repr)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "maximum", "minimum"])
def test_scalars_take_the_tensors_dtype(name: str, scalar: Any) -> None:
    x = tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    for y in (getattr(ops, name)(x, scalar), getattr(ops, name)(scalar, x)):
        assert y.dtype == np.float32
        y.backward(np.ones(2, np.float32))
        assert x.grad is not None
        assert x.grad.dtype == np.float32


def test_operators_are_the_ops() -> None:
    a, b = tensor(np.array([1.0, 2.0])), np.array([3.0, 4.0])
    for found, expected in [
        (a + b, [4, 6]),
        (b + a, [4, 6]),
        (a - b, [-2, -2]),
        (b - a, [2, 2]),
        (a * b, [3, 8]),
        (b * a, [3, 8]),
        (b / a, [3, 2]),
        (a**2, [1, 4]),
        (2**a, [2, 4]),
        (-a, [-1, -2]),
    ]:
        assert isinstance(found, Tensor)
        np.testing.assert_array_equal(found.data, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_arrays_large_enough_for_threads(dtype: type) -> None:
    """Same shapes, numbers, one element with more axes, a row, a view: as NumPy has it."""
    a = np.arange(200 * 201).astype(dtype).reshape(200, 201)
    for b in (a + 1, np.ones((1, 1, 1), dtype), a[:1], a[:, :1], a[::-1], dtype(3)):
        for op, expected in ((ops.add, a + b), (ops.mul, a * b)):
            found = op(a, b).data
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, expected)


def test_float_dtypes_never_mix() -> None:
    with pytest.raises(DTypeError, match="add: b is float64 but a is float32"):
        ops.add(tensor(np.zeros(2, np.float32)), np.zeros(2))


def test_cast_changes_the_dtype_and_returns_the_gradient_in_the_old_one() -> None:
    x = tensor(np.array([1.5, 2.5], np.float32), requires_grad=True)
    y = ops.cast(x, dtype=np.dtype(np.float64))
    y.backward(np.array([1.0, 2.0]))
    assert y.dtype == np.float64
    assert x.grad is not None
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.data, [1, 2])
