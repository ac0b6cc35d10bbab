"""Gradient clipping, by norm and by value."""

import math

import numpy as np
import pytest

from minidl.autograd import Tensor
from minidl.backend import cpu
from minidl.backend.cpu import update
from minidl.backend.cpu.update import CHUNK_SIZE
from minidl.optim import clip_grad_norm, clip_grad_value


def total_norm(params):
    grads = [p.grad.data.astype(np.float64) for p in params if p.grad is not None]
    return math.sqrt(sum(float((g**2).sum()) for g in grads))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norm_is_brought_down_to_the_maximum_in_the_same_direction(make_parameters, give_gradients, dtype):
    params = make_parameters(dtype)
    give_gradients(params, 0)
    params[1].grad = None
    before = [None if p.grad is None else p.grad.data.copy() for p in params]
    norm = total_norm(params)
    assert clip_grad_norm(iter(params), 2.0) == pytest.approx(norm, rel=1e-14)
    assert total_norm(params) == pytest.approx(2.0, rel=1e-6)  # float32 factors and products
    for p, old in zip(params, before, strict=True):
        if p.grad is not None:
            assert p.grad.dtype == dtype
            assert p.grad._version.count == 1
            np.testing.assert_allclose(p.grad.data, old * (2.0 / norm), rtol=1e-6)
    assert params[1].grad is None


@pytest.mark.parametrize("max_norm", [1e6, math.inf])
def test_a_small_norm_is_measured_and_left(make_parameters, give_gradients, max_norm):
    params = make_parameters()
    give_gradients(params, 0)
    before = [p.grad.data.copy() for p in params]
    assert clip_grad_norm(params, max_norm) == pytest.approx(total_norm(params), rel=1e-14)
    for p, old in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.grad.data, old)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_is_returned_and_changes_nothing(make_parameters, give_gradients, bad):
    params = make_parameters()
    give_gradients(params, 0)
    params[2].grad.data[3, 4] = bad
    before = [p.grad.data.copy() for p in params]
    norm = clip_grad_norm(params, 1.0)
    assert math.isnan(norm) if math.isnan(bad) else norm == bad
    for p, old in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.grad.data, old)


def test_squares_beyond_float32_do_not_overflow():
    p = Tensor(np.zeros(4, np.float32), requires_grad=True)
    p.grad = Tensor(np.full(4, 1e30, np.float32))
    assert clip_grad_norm([p], 1.0) == pytest.approx(2e30, rel=1e-6)
    np.testing.assert_allclose(p.grad.data, 0.5, rtol=1e-6)


def test_without_gradients_the_norm_is_zero(make_parameters):
    assert clip_grad_norm(make_parameters(), 1.0) == 0.0
    assert clip_grad_norm([], 1.0) == 0.0


def test_a_maximum_of_zero_zeroes_the_gradients(make_parameters, give_gradients):
    params = make_parameters()
    give_gradients(params, 0)
    clip_grad_norm(params, 0.0)
    assert not any(p.grad.data.any() for p in params)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, CHUNK_SIZE - 1, CHUNK_SIZE + 1, 5 * CHUNK_SIZE + 7])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_squares_take_every_element_once(size, dtype, monkeypatch):
    x = np.random.default_rng(size).integers(-9, 10, size).astype(dtype)  # sums of whole numbers are exact
    exact = sum(int(value) ** 2 for value in x)
    for parallel_size in (1, 1 << 40):
        monkeypatch.setattr(update, "PARALLEL_SIZE", parallel_size)
        assert cpu.sums_of_squares([x]) == [exact]
        assert cpu.sums_of_squares([np.repeat(x, 3)[::3]]) == [exact]


def test_sum_of_squares_has_the_same_bits_with_one_thread_and_many(monkeypatch):
    x = np.random.default_rng(0).standard_normal(100_003, np.float32)
    sums = []
    for parallel_size in (1, 1 << 40):
        monkeypatch.setattr(update, "PARALLEL_SIZE", parallel_size)
        sums += cpu.sums_of_squares([x])
    assert sums[0] == sums[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_moved_into_the_range(make_parameters, give_gradients, dtype):
    params = make_parameters(dtype)
    give_gradients(params, 0)
    params[0].grad = None
    params[1].grad.data[0, 0] = [np.nan, np.inf, -np.inf, 0.25]
    before = [p.grad.data.copy() for p in params[1:]]
    clip_grad_value(params, 0.5)
    for p, old in zip(params[1:], before, strict=True):
        np.testing.assert_array_equal(p.grad.data, np.clip(old, -0.5, 0.5))
        assert p.grad.dtype == dtype
        assert p.grad._version.count == 1


@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_negative_limits_are_refused(make_parameters, value):
    with pytest.raises(ValueError, match=f"clip_grad_norm: max_norm is {value}, it must be at least 0"):
        clip_grad_norm(make_parameters(), value)
    with pytest.raises(ValueError, match=f"clip_grad_value: value is {value}, it must lie in 0 <= value"):
        clip_grad_value(make_parameters(), value)


def test_what_is_no_tensor_is_refused(make_parameters):
    with pytest.raises(TypeError, match=r"clip_grad_norm: params\[0\] is a float, not a Tensor"):
        clip_grad_norm([1.0], 1.0)
    with pytest.raises(TypeError, match=r"clip_grad_value: params is a single Tensor"):
        clip_grad_value(make_parameters()[0], 1.0)
