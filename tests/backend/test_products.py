"""Matrix products in shares: every layout in memory, and threads that rest when they are done."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.backend import cpu
from minidl.backend.cpu import products

LAYOUTS = ("rows", "columns", "every other", "backwards", "repeated", "part")


def lying(array: np.ndarray, layout: str) -> np.ndarray:
    """The same shape and numbers, or some of them, in another layout."""
    if layout == "columns":
        return array.swapaxes(-1, -2).copy().swapaxes(-1, -2)
    if layout == "every other":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if layout == "backwards":
        return array[..., ::-1, :]
    if layout == "repeated":
        return np.broadcast_to(array[..., :1, :], array.shape)
    if layout == "part":
        return np.concatenate([array, array], axis=-1)[..., : array.shape[-1]]
    return array


@st.composite
def factors(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    m, depth, k = draw(st.tuples(*[st.integers(1, 70)] * 3))
    leading = draw(st.sampled_from([((), ()), ((3,), ()), ((), (2,)), ((2, 1), (3,)), ((1,), (4, 1))]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    shapes = (*leading[0], m, depth), (*leading[1], depth, k)
    return tuple(
        lying(rng.standard_normal(shape).astype(dtype), draw(st.sampled_from(LAYOUTS))) for shape in shapes
    )


@given(factors(), st.sampled_from([1, 2, 5]))
def test_every_layout(given_: tuple[np.ndarray, ...], shares: int):
    a, b = given_
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(products, "_SMALL", 0)
        patched.setattr(products, "get_num_threads", lambda: shares)
        y = cpu.matmul(a, b)
    exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
    size = np.matmul(np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64)))
    assert y.dtype == a.dtype
    assert y.shape == exact.shape
    assert (np.abs(y - exact) <= (a.shape[-1] + 1) * np.finfo(a.dtype).eps * size).all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_nothing_to_multiply(shape: tuple[int, int, int]):
    m, depth, k = shape
    y = cpu.matmul(np.ones((m, depth), np.float32), np.ones((depth, k), np.float32))
    np.testing.assert_array_equal(y, np.zeros((m, k)))


def test_no_thread_works_on_when_a_product_is_done():
    x, weight = np.ones((8, 2048), np.float32), np.ones((2048, 1000), np.float32)
    cpu.linear(x, weight, None)  # compiles
    used = []
    for _ in range(5):
        time.sleep(0.1)
        cpu.linear(x, weight, None)
        time.sleep(0.01)  # threads may look out for a moment
        before = time.process_time()
        time.sleep(0.03)
        used.append(time.process_time() - before)
    assert min(used) < 0.01
