"""Dropout: the pinned Philox masks, their streams, the gradient, errors."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as md
from minidl import ops, streams
from minidl.autograd import Tensor, tensor
from minidl.testing import agree, gradcheck, reference, strategies
from minidl.testing.strategies import ArrayCase

DROPOUT = streams.NAMES.index("dropout")


@given(
    strategies.arrays(strategies.shapes(max_side=5)),
    st.sampled_from((0.0, 0.1, 0.5, 0.7)),
    st.integers(0, 2**32 - 1),
)
def test_dropout(x: np.ndarray, p: float, seed: int) -> None:
    def dropout(x: np.ndarray | Tensor) -> Tensor:
        streams.manual_seed(seed)
        return ops.dropout(x, p, training=True)

    assert agree(
        dropout,
        ArrayCase(x=x),
        reference=lambda x: reference.dropout(x, p, training=True, seed=seed, stream=DROPOUT, call=0),
        bound=lambda u, x: 3 * u * np.abs(x) / (1 - p),  # 1 - p, its inverse, and the product
    )
    if reference.dropout_mask(x.shape, p, seed=seed, stream=DROPOUT, call=0).any():
        assert gradcheck(dropout, x)


def test_every_call_has_a_mask_of_its_own() -> None:
    streams.manual_seed(3)
    x = np.ones((7, 5), np.float32)
    for call in range(3):
        expected = reference.dropout_mask(x.shape, 0.5, seed=3, stream=DROPOUT, call=call)
        np.testing.assert_array_equal(ops.dropout(x, 0.5, training=True).data != 0, expected)


def test_two_dropouts_differ_and_the_same_seed_repeats_them() -> None:
    def two() -> list[np.ndarray]:
        streams.manual_seed(11)
        return [ops.dropout(np.ones(1000), 0.5, training=True).data for _ in range(2)]

    first, second = two()
    assert 400 < (first != second).sum() < 600  # 500 expected, and 100 are more than six standard deviations
    for found, expected in zip(two(), (first, second), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_another_seed_gives_another_mask() -> None:
    masks = []
    for seed in (0, 1):
        streams.manual_seed(seed)
        masks.append(ops.dropout(np.ones(1000), 0.5, training=True).data)
    assert 400 < (masks[0] != masks[1]).sum() < 600


def test_the_gradient_has_the_mask_of_its_own_call() -> None:
    """Calls and draws between a forward and its backward change nothing."""
    streams.manual_seed(3)
    x = tensor(np.ones(200), requires_grad=True)
    y = ops.dropout(x, 0.5, training=True)
    ops.dropout(np.ones(200), 0.5, training=True)
    streams.manual_seed(4)
    y.backward(np.full(200, 3.0))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, 3 * y.data)


def test_the_mask_moves_no_other_stream_and_no_other_stream_moves_it() -> None:
    streams.manual_seed(3)
    expected = ops.dropout(np.ones(200), 0.5, training=True).data
    generators = streams.get_state()["generators"]
    streams.manual_seed(3)
    assert streams.get_state()["generators"] == generators
    streams.generator("shuffle").random(7)
    np.testing.assert_array_equal(ops.dropout(np.ones(200), 0.5, training=True).data, expected)


def test_the_number_of_threads_does_not_change_the_mask() -> None:
    x = np.ones(10_007, np.float32)

    def mask(threads: int) -> np.ndarray:
        md.set_num_threads(threads)
        streams.manual_seed(5)
        return ops.dropout(x, 0.5, training=True).data

    before = md.get_num_threads()
    try:
        np.testing.assert_array_equal(mask(1), mask(min(2, numba.config.NUMBA_NUM_THREADS)))
    finally:
        md.set_num_threads(before)


def test_evaluation_and_p_of_zero_pass_the_input_and_use_up_no_mask() -> None:
    streams.manual_seed(3)
    before = streams.get_state()
    x = np.ones((3, 4))
    for p, training in ((0.5, False), (0.0, True)):
        np.testing.assert_array_equal(ops.dropout(x, p, training=training).data, x)
    assert streams.get_state() == before


def test_p_of_zero_passes_the_gradient() -> None:
    x = tensor(np.array([1.0, -2.0]), requires_grad=True)
    ops.dropout(x, 0.0, training=True).backward(np.array([3.0, 4.0]))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, [3, 4])


def test_p_of_one_drops_everything() -> None:
    """Zeros, not the 0 * infinity of a scale of 1 / (1 - p)."""
    x = tensor(np.ones((50, 50)), requires_grad=True)
    y = ops.dropout(x, 1.0, training=True)
    y.backward(np.ones((50, 50)))
    assert x.grad is not None
    assert not y.data.any()
    assert not x.grad.data.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_arrays_are_masked_by_several_threads_alike(dtype: type) -> None:
    """More blocks than one thread takes at a time; the share kept is p within four standard deviations."""
    streams.manual_seed(0)
    y = ops.dropout(np.ones(50_001, dtype), 0.3, training=True).data
    assert abs((y != 0).mean() - 0.7) < 4 * np.sqrt(0.3 * 0.7 / y.size)
    for start in (0, 4 * 4096 - 8, 49_996):  # the first block, one thread's last ones, the remainder
        words = [
            reference.philox((block, 0, 0, 0), (0, DROPOUT)) for block in range(start // 4, start // 4 + 4)
        ]
        expected = np.array(words).ravel()[: len(y[start : start + 16])] >= np.floor(0.3 * 2**32)
        np.testing.assert_array_equal(y[start : start + 16] != 0, expected)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_p_must_be_a_probability(p: float) -> None:
    with pytest.raises(ValueError, match=f"dropout: p is {p}, it must be a probability: 0 <= p <= 1"):
        ops.dropout(np.ones(3), p, training=True)
