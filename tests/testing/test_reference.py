"""The oracle itself: against published answers, SciPy and NumPy; compare_torch/ has PyTorch."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from scipy import signal, special

from minidl.testing import reference, strategies
from minidl.testing.strategies import VALUES

CLOSE = {"rtol": 1e-12, "atol": 1e-12}  # both sides compute in float64, sums have at most a few hundred terms


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return VALUES["normal"](np.random.default_rng(seed), shape)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter: Any, key: Any, words: list[int]) -> None:
    assert reference.philox(counter, key) == words


def test_dropout_mask_reads_four_elements_from_each_block() -> None:
    mask = reference.dropout_mask((2, 5), 0.5, seed=7, stream=2, call=2**32 + 3)
    words = [reference.philox((block, 0, 3, 1), (7, 2)) for block in range(3)]
    np.testing.assert_array_equal(mask.ravel(), np.array(words).ravel()[:10] >= 2**31)


def test_conv2d_is_scipys_correlation() -> None:
    x, weight = normal(1, 6, 7, 2), normal(3, 2, 2, 3, seed=1)
    expected = [
        sum(signal.correlate2d(x[0, :, :, c], weight[:, :, c, f], "valid") for c in range(2))
        for f in range(3)
    ]
    np.testing.assert_allclose(
        reference.conv2d(x, weight), np.moveaxis(np.array(expected), 0, -1)[None], **CLOSE
    )


def test_softmax_is_scipys() -> None:
    x = 1000 + 10 * normal(3, 4)
    np.testing.assert_allclose(reference.softmax(x, axis=0), special.softmax(x, axis=0), **CLOSE)
    np.testing.assert_allclose(reference.log_softmax(x), special.log_softmax(x, axis=1), **CLOSE)


@given(strategies.matmul_cases())
def test_matmul_is_numpys(case: strategies.PairCase) -> None:
    np.testing.assert_allclose(reference.matmul(case.a, case.b), case.a @ case.b, **CLOSE)


@pytest.mark.parametrize(
    ("a", "b"), [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((4, 2, 3), (3,)), ((3,), (4, 3, 2))]
)
def test_matmul_of_vectors_is_numpys(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = normal(*a), normal(*b, seed=1)
    np.testing.assert_allclose(reference.matmul(x, y), x @ y, **CLOSE)


@given(strategies.concat_cases())
def test_concat_is_numpys(case: strategies.ConcatCase) -> None:
    np.testing.assert_array_equal(
        reference.concat(case.arrays, **case.options), np.concatenate(case.arrays, **case.options)
    )


@given(strategies.transpose_cases())
def test_transpose_is_numpys(case: strategies.ArrayCase) -> None:
    np.testing.assert_array_equal(
        reference.transpose(case.x, **case.options), np.transpose(case.x, **case.options)
    )


@given(strategies.reduction_cases())
def test_reductions_are_numpys(case: strategies.ArrayCase) -> None:
    for name in ("sum", "mean", "max"):
        expected = getattr(np, name)(case.x, **case.options)
        np.testing.assert_allclose(getattr(reference, name)(case.x, **case.options), expected, **CLOSE)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before_after"),
    [
        ((5, 5), 3, 2, ((1, 1), (1, 1))),
        ((6, 4), 3, 2, ((0, 1), (0, 1))),  # the odd row comes last
        ((7, 8), 2, 3, ((0, 1), (0, 0))),
        ((4, 4), 1, 3, ((0, 0), (0, 0))),
    ],
)
def test_same_padding_is_tensorflows(size: Any, kernel: int, stride: int, before_after: Any) -> None:
    x, weight = normal(1, *size, 1), normal(kernel, kernel, 1, 1, seed=1)
    y = reference.conv2d(x, weight, stride=stride, padding="same")
    assert y.shape[1:3] == tuple(math.ceil(s / stride) for s in size)
    np.testing.assert_array_equal(y, reference.conv2d(x, weight, stride=stride, padding=before_after))


def test_cross_entropy_of_ignored_labels_only_is_nan() -> None:
    assert math.isnan(reference.cross_entropy(normal(2, 3), np.array([9, 9]), ignore_index=9))


def test_running_statistics_take_the_unbiased_variance() -> None:
    x = np.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    mean, var = reference.running_statistics(x, np.zeros(1), np.ones(1), momentum=0.1)
    # The biased variance would be 1.
    np.testing.assert_allclose([mean[0], var[0]], [0.1 * 2, 0.9 + 0.1 * 2], **CLOSE)


def test_local_response_norm_by_hand() -> None:
    x = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
    y = reference.local_response_norm(x, 3, alpha=0.3, beta=1.0, k=2.0)
    np.testing.assert_allclose(y.ravel(), [1 / 2.5, 2 / 3.4, 3 / 3.3], **CLOSE)
    y = reference.local_response_norm(x, 3, alpha=0.1, beta=1.0, k=2.0, divide_alpha=False)
    np.testing.assert_allclose(y.ravel(), [1 / 2.5, 2 / 3.4, 3 / 3.3], **CLOSE)
