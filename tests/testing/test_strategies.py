"""What the strategies draw: valid everywhere, in the layout asked for, shrinking to the plainest."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from minidl import backend
from minidl.testing import reference, strategies
from minidl.testing.strategies import VALUES, BatchNormCase, CrossEntropyCase, WindowDraw

SHRINK = settings(max_examples=3000, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])


@given(strategies.windows(), st.integers(1, 2))
def test_a_window_gives_the_outputs_it_says(window: WindowDraw, n: int) -> None:
    y = reference.conv2d(
        np.ones((n, *window.size, 1)),
        np.ones((*window.kernel_size, 1, 1)),
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
    )
    assert y.shape == (n, *window.output, 1)


@given(strategies.windows(max_dilation=3, max_kernel=4), st.integers(1, 2))
def test_some_window_reads_the_image(window: WindowDraw, n: int) -> None:
    y = reference.conv2d(
        np.ones((n, *window.size, 1)),
        np.ones((*window.kernel_size, 1, 1)),
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
    )
    assert np.any(y > 0)


@given(strategies.windows(max_dilation=1, spare=0))
def test_without_spare_padding_every_window_touches_the_image(window: WindowDraw) -> None:
    covered = reference.avg_pool2d(
        np.ones((1, *window.size, 1)), window.kernel_size, stride=window.stride, padding=window.padding
    )
    assert np.all(covered > 0)


def test_cases_shrink_to_the_plainest() -> None:
    window = find(strategies.windows(), lambda _: True, settings=SHRINK)
    assert window == WindowDraw((1, 1), (1, 1), (1, 1), 0, (1, 1), (1, 1))
    case = find(strategies.conv2d_cases(), lambda case: case.options["stride"][1] > 1, settings=SHRINK)
    assert case.x.shape == (1, 1, 1, 1)
    assert case.options == {"stride": (1, 2), "padding": 0, "dilation": (1, 1), "groups": 1}


@given(strategies.batch_norm_cases())
def test_batch_norm_always_has_a_variance(case: BatchNormCase) -> None:
    assert case.x.size > case.x.shape[-1]


@given(strategies.cross_entropy_cases())
def test_some_label_always_counts(case: CrossEntropyCase) -> None:
    assert np.any(case.labels != case.options.get("ignore_index"))


@given(strategies.batch_norm_cases())
def test_a_case_in_another_dtype(case: BatchNormCase) -> None:
    narrow = case.astype(np.float32)
    assert {array.dtype for array in narrow.inputs} == {np.dtype(np.float32)}
    assert narrow.options.get("residual", narrow.x).dtype == np.float32
    assert case.x.dtype == np.float64


def test_labels_keep_their_dtype_and_lists_are_cast() -> None:
    case = CrossEntropyCase(logits=np.zeros((1, 2)), labels=np.array([1]))
    assert case.astype(np.float32).labels.dtype == np.int64
    parts = strategies.ConcatCase(arrays=[np.zeros(2)], options={"axis": 0}).astype(np.float32)
    assert parts.arrays[0].dtype == np.float32


def test_a_case_prints_on_a_few_lines() -> None:
    case = strategies.LinearCase(x=np.zeros((9, 9)), weight=np.zeros((9, 2)), bias=np.ones(2))
    assert repr(case) == "LinearCase(x=<float64 (9, 9)>, weight=<float64 (9, 2)>, bias=array([1., 1.]))"


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("ties", lambda x: len(np.unique(x)) == 5),
        ("offset", lambda x: abs(x.mean() - 1000) < 1),
        ("positive", lambda x: x.min() >= 0.5),
        ("normal", lambda x: abs(x.mean()) < 0.2),
        ("large", lambda x: abs(x.std() - 1e4) < 1e3),
        ("nonzero", lambda x: abs(x).min() >= 0.5 and (x < 0).any() and (x > 0).any()),
    ],
)
def test_kinds_of_values(kind: str, check: Callable[[np.ndarray], bool]) -> None:
    x = find(strategies.arrays((20, 20), values=(kind,), dtype=np.float32), lambda _: True, settings=SHRINK)
    assert x.dtype == np.float32
    assert check(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("values", VALUES)
def test_no_number_is_subnormal(values: str, dtype: type) -> None:
    """Neither as drawn nor when a case is rounded to float32."""

    @given(strategies.arrays(strategies.shapes(max_side=8), dtype=dtype, values=(values,)))
    def check(x: np.ndarray) -> None:
        for array in (x, x.astype(np.float32)):
            sizes = np.abs(array[array != 0])
            assert np.all(sizes >= np.finfo(array.dtype).tiny)
            assert np.count_nonzero(array) == np.count_nonzero(x)
            assert np.all(np.isfinite(sizes))

    check()


@given(strategies.arrays(strategies.shapes(min_dims=0), dtype=np.float32), strategies.layouts())
def test_a_layout_keeps_the_values(x: np.ndarray, layout: str) -> None:
    y = strategies.laid_out(x, layout)
    assert y.dtype == np.float32
    assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    ("layout", "strides"),
    [
        ("contiguous", (96, 32, 8)),
        ("transposed", (8, 16, 48)),
        ("reversed", (-96, 32, 8)),
        ("sliced", (216, 72, 16)),
        ("channels", (216, 72, 8)),
    ],
)
def test_layouts_in_memory(layout: str, strides: tuple[int, ...]) -> None:
    """Of float64 (2, 3, 4); the wider array of the last two has 9 channels."""
    assert strategies.laid_out(np.zeros((2, 3, 4)), layout).strides == strides
    assert strategies.laid_out([np.zeros((2, 3, 4))], layout)[0].strides == strides


@given(strategies.conv2d_cases())
def test_inputs_are_new_arrays_in_the_layout_drawn(case: strategies.Conv2dCase) -> None:
    for array, again in zip(case.inputs, case.astype(np.float32).inputs, strict=True):
        if array is not None:
            expected = strategies.laid_out(np.array(array), case.layout)
            assert array.strides == expected.strides
            assert again.strides == tuple(stride // 2 for stride in array.strides)
            assert not np.shares_memory(array, case.x)


@given(strategies.devices())
def test_devices_can_be_used(device: str) -> None:
    assert backend.check_device(device) == device


def test_devices_shrink_to_the_cpu() -> None:
    assert find(strategies.devices(), lambda _: True, settings=SHRINK) == "cpu"
