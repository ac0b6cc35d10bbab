"""Pooling: gradients at ties, rounding of the last window, errors (test_proofs.py draws the rest)."""

from typing import Any

import numpy as np
import pytest

from minidl import ops
from minidl.autograd import tensor
from minidl.errors import ShapeError
from minidl.testing import GradcheckSettings, agree, gradcheck
from minidl.testing.strategies import VALUES, ArrayCase


def normal(*shape: int) -> np.ndarray:
    return VALUES["normal"](np.random.default_rng(0), shape)


@pytest.mark.parametrize("op", [ops.max_pool2d, ops.avg_pool2d], ids=lambda op: op.__name__)
def test_gradients_element_by_element(op: Any) -> None:
    for options in (
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 2, "stride": 3, "ceil_mode": True},
    ):
        assert gradcheck(op, normal(2, 6, 5, 2), settings=GradcheckSettings(full=True), **options)


def test_adaptive_pool_gradient_element_by_element() -> None:
    assert gradcheck(
        ops.adaptive_avg_pool2d, normal(1, 7, 5, 2), (3, 2), settings=GradcheckSettings(full=True)
    )


def test_padding_never_wins_against_negative_values() -> None:
    x = -1 - np.abs(normal(1, 4, 4, 2))
    assert np.all(ops.max_pool2d(x, 3, stride=2, padding=1).data <= -1)


def test_of_equal_maxima_the_first_in_row_major_order_receives_the_gradient() -> None:
    x = np.zeros((1, 3, 3, 1))
    x[0, 0, 2] = x[0, 1, 0] = x[0, 2, 2] = 1.0
    t = tensor(x, requires_grad=True)
    ops.max_pool2d(t, 3).backward(np.full((1, 1, 1, 1), 5.0))
    assert t.grad is not None
    np.testing.assert_array_equal(t.grad.data.reshape(3, 3), [[0, 0, 5], [0, 0, 0], [0, 0, 0]])


def test_overlapping_windows_add_their_gradients() -> None:
    t = tensor(np.array([0.0, 9.0, 0.0]).reshape(1, 1, 3, 1), requires_grad=True)
    ops.max_pool2d(t, (1, 2), stride=1).backward(np.array([1.0, 10.0]).reshape(1, 1, 2, 1))
    assert t.grad is not None
    np.testing.assert_array_equal(t.grad.data.ravel(), [0, 11, 0])


def test_max_pool_shows_nan() -> None:
    x = normal(1, 4, 4, 1)
    x[0, 1, 1] = np.nan
    y = ops.max_pool2d(x, 2).data
    assert np.isnan(y[0, 0, 0, 0])
    assert np.isfinite(y).sum() == 3


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding", "floor", "ceil"),
    [
        (28, 3, 2, 0, 13, 14),  # Caffe's GoogLeNet pools
        (32, 3, 2, 0, 15, 16),  # NIN's
        (32, 3, 2, 1, 16, 17),
        (6, 2, 2, 1, 4, 4),
        (6, 3, 2, 1, 3, 4),
        (5, 2, 3, 1, 2, 2),  # a third window would start in the padding behind the image: dropped
        (7, 1, 3, 0, 3, 3),
    ],
)
def test_rounding_of_the_output_size(
    size: int, kernel_size: int, stride: int, padding: int, floor: int, ceil: int
) -> None:
    x = np.ones((1, size, size, 1))
    for ceil_mode, expected in ((False, floor), (True, ceil)):
        y = ops.max_pool2d(x, kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode)
        assert y.shape == (1, expected, expected, 1)


def test_what_an_average_is_divided_by() -> None:
    x = np.ones((1, 3, 3, 1))
    with_padding = ops.avg_pool2d(x, 2, stride=2, padding=1).data.reshape(2, 2)
    without = ops.avg_pool2d(x, 2, stride=2, padding=1, count_include_pad=False).data.reshape(2, 2)
    over_the_edge = ops.avg_pool2d(x, 2, stride=2, ceil_mode=True).data.reshape(2, 2)
    np.testing.assert_array_equal(with_padding, [[0.25, 0.5], [0.5, 1.0]])
    np.testing.assert_array_equal(without, np.ones((2, 2)))
    np.testing.assert_array_equal(over_the_edge, np.ones((2, 2)))  # what hangs over the edge never counts


@pytest.mark.parametrize(("count_include_pad", "expected"), [(True, [2 / 3, 1, 1 / 2]), (False, [1, 1, 1])])
def test_a_last_window_counts_padding_but_nothing_beyond_it(
    count_include_pad: bool, expected: list[float]
) -> None:
    """Columns -1 .. 4 with padding; the third window reads 3, the padding at 4, and hangs over to 5."""
    y = ops.avg_pool2d(
        np.ones((1, 1, 4, 1)),
        (1, 3),
        stride=(1, 2),
        padding=(0, 1),
        ceil_mode=True,
        count_include_pad=count_include_pad,
    )
    np.testing.assert_allclose(y.data.ravel(), expected, rtol=1e-15)


@pytest.mark.parametrize("average", [False, True])
def test_in_ceil_mode_a_window_may_be_larger_than_the_image(average: bool) -> None:
    """It hangs over by less than a stride: GoogLeNet's last pools on small images."""
    for count_include_pad in (True, False):
        extra = {"count_include_pad": count_include_pad} if average else {}
        op = ops.avg_pool2d if average else ops.max_pool2d
        options = {"kernel_size": (3, 4), "stride": (2, 3), "padding": (0, 1), "ceil_mode": True, **extra}
        case = ArrayCase(x=normal(2, 2, 1, 3), options=options)
        assert op(case.x, **case.options).shape == (2, 1, 1, 3)
        assert agree(op, case)
        assert gradcheck(op, case.x, **case.options)
        with pytest.raises(ShapeError, match=r"a window of 3 .* does not fit into H = 1"):
            op(case.x[:, :1], **case.options)


SAME = [(n, k, s) for n in (1, 4, 5, 6) for k in (1, 2, 3, 5) for s in (1, 2, 3, 4, 5)]


@pytest.mark.parametrize("op", [ops.max_pool2d, ops.avg_pool2d], ids=lambda op: op.__name__)
def test_same_padding_at_every_stride(op: Any) -> None:
    """TensorFlow's rule as its documentation puts it, by the remainder of the image's size and the stride."""
    for size, kernel, stride in SAME:
        total = max(kernel - (size % stride or stride), 0)
        sides = (total // 2, total - total // 2)
        x = normal(1, size, 3, 1)
        y = op(x, (kernel, 1), stride=(stride, 1), padding="same")
        assert y.shape == (1, -(-size // stride), 3, 1)
        explicit = op(x, (kernel, 1), stride=(stride, 1), padding=(sides, (0, 0)))
        np.testing.assert_array_equal(y.data, explicit.data)


def test_same_averages_leave_the_padding_out_on_request() -> None:
    """TensorFlow's average pool: a mean of ones is one everywhere."""
    y = ops.avg_pool2d(np.ones((1, 5, 6, 2)), 3, stride=2, padding="same", count_include_pad=False)
    np.testing.assert_allclose(y.data, np.ones((1, 3, 3, 2)), rtol=1e-15)


def test_adaptive_bins_overlap_where_the_image_is_no_multiple_of_them() -> None:
    """Five columns in three bins: 0-1, 1-3, 3-4, each from floor(5 i / 3) up to ceil(5 (i + 1) / 3)."""
    x = tensor(np.array([0.0, 1.0, 2.0, 4.0, 8.0]).reshape(1, 1, 5, 1), requires_grad=True)
    y = ops.adaptive_avg_pool2d(x, (1, 3))
    y.backward(np.array([6.0, 60.0, 600.0]).reshape(1, 1, 3, 1))
    assert x.grad is not None
    np.testing.assert_allclose(y.data.ravel(), [0.5, 7 / 3, 6], rtol=1e-15)
    np.testing.assert_allclose(x.grad.data.ravel(), [3, 3 + 20, 20, 20 + 300, 300], rtol=1e-15)


def test_adaptive_bins_repeat_pixels_where_there_are_more_of_them() -> None:
    """Two columns in three bins: 0, 0-1, 1."""
    x = tensor(np.array([2.0, 4.0]).reshape(1, 1, 2, 1), requires_grad=True)
    y = ops.adaptive_avg_pool2d(x, (2, 3))
    y.backward(np.ones((1, 2, 3, 1)))
    assert x.grad is not None
    np.testing.assert_array_equal(y.data.reshape(2, 3), [[2, 3, 4], [2, 3, 4]])
    np.testing.assert_array_equal(x.grad.data.ravel(), [3, 3])


def test_stride_is_the_kernel_size_by_default() -> None:
    x = normal(1, 6, 6, 1)
    for op in (ops.max_pool2d, ops.avg_pool2d):
        np.testing.assert_array_equal(op(x, (2, 3)).data, op(x, (2, 3), stride=(2, 3)).data)


def test_a_large_window_numbers_its_taps_beyond_a_byte() -> None:
    case = ArrayCase(x=normal(1, 20, 20, 1), options={"kernel_size": 20})
    assert agree(ops.max_pool2d, case, dtypes=[np.float64])  # float32 would only compile more kernels
    assert gradcheck(ops.max_pool2d, case.x, **case.options)


OPS = {"max_pool2d": (2,), "avg_pool2d": (2,), "adaptive_avg_pool2d": (2,), "global_avg_pool": ()}


@pytest.mark.parametrize(("name", "arguments"), OPS.items())
def test_inputs_that_are_no_images(name: str, arguments: tuple[Any, ...]) -> None:
    op = getattr(ops, name)
    with pytest.raises(ShapeError, match=rf"{name}: x has shape \(8, 8, 4\), it must be \(N, H, W, C\)"):
        op(np.zeros((8, 8, 4)), *arguments)
    with pytest.raises(ShapeError, match=f"{name}: .* a batch of size 0"):
        op(np.zeros((0, 8, 8, 4)), *arguments)
    with pytest.raises(ShapeError, match=f"{name}: .* without pixels"):
        op(np.zeros((1, 0, 8, 4)), *arguments)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_bad_windows(name: str) -> None:
    op, x = getattr(ops, name), np.zeros((1, 4, 4, 2))
    with pytest.raises(ShapeError, match=f"{name}: a window of 5 .* does not fit into H = 4"):
        op(x, 5)
    with pytest.raises(
        ShapeError, match=rf"{name}: padding \(\(2, 2\), \(2, 2\)\) must be smaller than kernel_size \(2, 2\)"
    ):
        op(x, 2, padding=2)
    with pytest.raises(ValueError, match=f"{name}: kernel_size is 0, it must be at least 1"):
        op(x, 0)
    with pytest.raises(ValueError, match=f"{name}: stride is 0, it must be at least 1"):
        op(x, 2, stride=0)


def test_a_bad_output_size() -> None:
    with pytest.raises(ValueError, match="adaptive_avg_pool2d: output_size is 0, it must be at least 1"):
        ops.adaptive_avg_pool2d(np.zeros((1, 4, 4, 2)), 0)
