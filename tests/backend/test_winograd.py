"""Winograd's matrices and the products around them: exact in float64, and what float32 makes of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from minidl import ops
from minidl.backend.cpu import filtering, winograd
from minidl.backend.cpu.compile import call
from minidl.backend.cpu.microkernel import force_lanes, lanes
from minidl.backend.cpu.sandwich import sandwich
from minidl.backend.cpu.winograd import _even_chunk
from minidl.backend.plans import force_plan
from minidl.testing import reference

MATRICES = filtering.output_matrix, filtering.filter_matrix, filtering.image_matrix
SIZES = pytest.mark.parametrize("size", [1, 3, 5, 7])


@SIZES
def test_the_matrices_make_a_correlation(size: int) -> None:
    """y[i] = sum over a of d[i + a] w[a], for any d and w."""
    rng = np.random.default_rng(0)
    d, w = rng.standard_normal(filtering.tile(size)), rng.standard_normal(size)
    a, g, b = (make(size) for make in MATRICES)
    y = a.T @ ((g @ w) * (b @ d))
    np.testing.assert_allclose(y, np.correlate(d, w, "valid"), rtol=1e-11, atol=1e-12)


@SIZES
def test_the_matrices_make_the_gradient_by_the_filter(size: int) -> None:
    rng = np.random.default_rng(0)
    d, g = rng.standard_normal(filtering.tile(size)), rng.standard_normal(filtering.tile(size) + 1 - size)
    output, filters, image = (make(size) for make in MATRICES)
    found = filters.T @ ((image @ d) * (output @ g))
    np.testing.assert_allclose(found, np.correlate(d, g, "valid"), rtol=1e-11, atol=1e-12)


LEFT, RIGHT = np.array([[1.0, 0, -2], [0, 0.5, 1]]), np.array([[0.0, 3], [1, -1]])
PRODUCT = sandwich(LEFT, RIGHT)


@njit
def run(code, x, y, add, relu):  # type: ignore[no-untyped-def]
    inputs, outputs = np.empty(6, np.int64), np.empty(4, np.int64)
    for k in range(6):
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
        x = rng.standard_normal((6, channels)).astype(np.float32)
        add = rng.standard_normal(channels if with_bias else 0).astype(np.float32)
        y = np.full((4, channels), np.nan, np.float32)
        with force_lanes(count):
            run(PRODUCT(lanes()), x, y, add, relu)
        expected = np.einsum("ia,abc,jb->ijc", LEFT, x.reshape(3, 2, -1), RIGHT).reshape(4, -1)
        expected += add if with_bias else 0
        expected = np.maximum(expected, 0) if relu else expected
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def errors(seed: int, size: tuple[int, int], channels: int, plan: str) -> tuple[np.ndarray, float]:
    """(what the plan's result lacks, one rounding of the largest sum of sizes)"""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 9, 10, channels)).astype(np.float32)
    weight = rng.standard_normal((*size, channels, 4)).astype(np.float32)
    with force_plan(plan):
        made = ops.conv2d(x, weight, padding=1).numpy()
    sizes = reference.conv2d(np.abs(x), np.abs(weight), padding=1)
    rounding = float(sizes.max() * np.finfo(np.float32).eps / 2)
    return np.abs(made - reference.conv2d(x, weight, padding=1)), rounding


@given(st.integers(0, 2**32 - 1), st.sampled_from(winograd.WINDOWS), st.sampled_from([1, 8, 40]))
def test_no_error_exceeds_a_multiple_of_what_a_direct_sum_may_make(
    seed: int, size: tuple[int, int], channels: int
) -> None:
    """At most 32 times the bound of a direct sum of eight terms, on numbers of one size.

    More terms raise that bound, but hardly the errors.
    """
    found, rounding = errors(seed, size, channels, "winograd")
    assert found.max() <= 32 * min(8, size[0] * size[1]) * rounding


@pytest.mark.parametrize("size", winograd.WINDOWS)
def test_errors_are_mostly_below_ten_times_those_of_the_direct_plan(size: tuple[int, int]) -> None:
    def usual(plan: str) -> float:
        return float(np.sqrt(np.mean([errors(seed, size, 40, plan)[0] ** 2 for seed in range(10)])))

    assert usual("winograd") <= 10 * usual("direct")


def test_the_same_input_gives_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 20, 20, 32)).astype(np.float32)
    weight = rng.standard_normal((3, 3, 32, 48)).astype(np.float32)
    with force_plan("winograd"):
        first, second = (ops.conv2d(x, weight, padding=1).numpy().tobytes() for _ in range(2))
    assert first == second


@given(
    tiles=st.integers(1, 5000), most=st.integers(1, 200), blocks=st.integers(1, 8), threads=st.integers(1, 8)
)
def test_chunks_are_shared_out_evenly(tiles: int, most: int, blocks: int, threads: int) -> None:
    chunk = _even_chunk(tiles, most, blocks, threads)
    units = [min(chunk, tiles - first) for first in range(0, tiles, chunk) for _ in range(blocks)]
    assert 1 <= chunk <= most
    share = -(-len(units) // threads)  # units of a thread, one after another
    longest = max(sum(units[k * share : (k + 1) * share]) for k in range(threads))
    assert longest <= tiles * blocks / threads + share + chunk * (len(units) % threads > 0)
