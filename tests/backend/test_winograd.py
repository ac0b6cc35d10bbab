"""Winograd's matrices and the products around them: exact in float64, and what float32 makes of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from minidl import ops
from minidl.backend.cpu import winograd
from minidl.backend.cpu.compile import call
from minidl.backend.cpu.microkernel import force_lanes, lanes
from minidl.backend.cpu.sandwich import sandwich
from minidl.backend.plans import force_plan
from minidl.testing import reference

SIZES = pytest.mark.parametrize("size", [3, 5])


@SIZES
def test_the_matrices_make_a_correlation(size: int) -> None:
    """y[i] = sum over a of d[i + a] w[a], for any d and w."""
    rng = np.random.default_rng(0)
    d, w = rng.standard_normal(6), rng.standard_normal(size)
    a, g = winograd.output_matrix(size), winograd.filter_matrix(size)
    y = a.T @ ((g @ w) * (winograd.IMAGE_MATRIX @ d))
    np.testing.assert_allclose(y, np.correlate(d, w, "valid"), rtol=1e-12, atol=1e-13)


@SIZES
def test_the_matrices_make_the_gradient_by_the_filter(size: int) -> None:
    rng = np.random.default_rng(0)
    d, g = rng.standard_normal(6), rng.standard_normal(7 - size)
    products = (winograd.IMAGE_MATRIX @ d) * (winograd.output_matrix(size) @ g)
    found = winograd.filter_matrix(size).T @ products
    np.testing.assert_allclose(found, np.correlate(d, g, "valid"), rtol=1e-12, atol=1e-13)


MATRIX = np.array([[1.0, 0, -2], [0, 0.5, 1]])
PRODUCT = sandwich(MATRIX)


@njit
def run(code, x, y, add, relu):  # type: ignore[no-untyped-def]
    inputs, outputs = np.empty(9, np.int64), np.empty(4, np.int64)
    for k in range(9):
        inputs[k] = x[k].ctypes.data
    for k in range(4):
        outputs[k] = y[k].ctypes.data
    bias = add.ctypes.data if len(add) else 0
    call(code, (inputs.ctypes.data, outputs.ctypes.data, x.shape[1], bias, relu))


@pytest.mark.parametrize("count", [1, 4, 8, 16])
@pytest.mark.parametrize(("with_bias", "relu"), [(False, 0), (True, 0), (True, 1)])
def test_a_sandwich_of_any_number_of_channels(count: int, with_bias: bool, relu: int) -> None:
    rng = np.random.default_rng(0)
    for channels in (1, 7, 16, 37):
        x = rng.standard_normal((9, channels)).astype(np.float32)
        add = rng.standard_normal(channels if with_bias else 0).astype(np.float32)
        y = np.full((4, channels), np.nan, np.float32)
        with force_lanes(count):
            run(PRODUCT(lanes()), x, y, add, relu)
        expected = np.einsum("ia,abc,jb->ijc", MATRIX, x.reshape(3, 3, -1), MATRIX).reshape(4, -1)
        expected += add if with_bias else 0
        expected = np.maximum(expected, 0) if relu else expected
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 5]), st.sampled_from([1, 8, 40]))
def test_errors_stay_within_a_multiple_of_the_direct_plans(seed: int, size: int, channels: int) -> None:
    """At most 32 times the largest error that a direct sum may make, on numbers of one size."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 9, 10, channels)).astype(np.float32)
    weight = rng.standard_normal((size, size, channels, 4)).astype(np.float32)
    exact = reference.conv2d(x, weight, padding=1)
    allowed = reference.conv2d(np.abs(x), np.abs(weight), padding=1).max() * np.finfo(np.float32).eps / 2
    with force_plan("winograd"):
        error = np.abs(ops.conv2d(x, weight, padding=1).numpy() - exact).max()
    assert error <= 32 * allowed


def test_the_same_input_gives_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 20, 20, 32)).astype(np.float32)
    weight = rng.standard_normal((3, 3, 32, 48)).astype(np.float32)
    with force_plan("winograd"):
        first, second = (ops.conv2d(x, weight, padding=1).numpy().tobytes() for _ in range(2))
    assert first == second
