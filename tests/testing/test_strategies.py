"""What the strategies draw: valid everywhere, reaching every kind of case, shrinking to the plainest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from minidl.testing import reference, strategies
from minidl.testing.strategies import BatchNormCase, CrossEntropyCase, WindowDraw

SEARCH = settings(max_examples=3000, derandomize=True, database=None, phases=[Phase.generate])
SHRINK = settings(SEARCH, phases=[Phase.generate, Phase.shrink])


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


@given(strategies.windows(max_dilation=1, spare=0))
def test_without_spare_padding_every_window_touches_the_image(window: WindowDraw) -> None:
    covered = reference.avg_pool2d(
        np.ones((1, *window.size, 1)), window.kernel_size, stride=window.stride, padding=window.padding
    )
    assert np.all(covered > 0)


def sides(window: WindowDraw) -> Any:
    """The padding as ((top, bottom), (left, right)); zeros for the named forms."""
    p = window.padding
    return (
        ((0, 0), (0, 0))
        if isinstance(p, str)
        else np.broadcast_to(np.reshape(p, (-1, 1)) if np.ndim(p) == 1 else p, (2, 2))
    )


@pytest.mark.parametrize(
    "wanted",
    [
        lambda w: w.stride[0] > w.kernel_size[0],
        lambda w: w.stride[0] < w.kernel_size[0] and w.output[0] > 1,
        lambda w: w.kernel_size == (1, 7),
        lambda w: w.kernel_size == (7, 1),
        lambda w: w.kernel_size == (1, 1) and w.stride == (1, 1) and np.all(sides(w) == np.zeros(2)),
        lambda w: w.dilation[0] > 1 and w.dilation[1] == 1 and w.kernel_size[0] == 3,
        lambda w: w.padding == "same" and w.stride == (2, 2) and w.size[0] % 2 == 1,
        lambda w: w.padding == "same" and w.stride == (3, 3),
        lambda w: w.padding == "valid",
        lambda w: isinstance(w.padding, int) and w.padding > 1,
        lambda w: np.ndim(w.padding) == 1 and len(set(w.padding)) == 2,
        lambda w: np.ndim(w.padding) == 2 and w.padding[0][0] < w.padding[0][1],
        lambda w: np.ndim(w.padding) == 2 and w.padding[1][0] > w.padding[1][1],
        lambda w: sides(w)[0][0] >= w.kernel_size[0],
        lambda w: w.padding == 0 and (w.size[0] - w.kernel_size[0]) % w.stride[0] == 2 and w.dilation[0] == 1,
    ],
    ids=[
        "gaps",
        "overlap",
        "1x7",
        "7x1",
        "pointwise",
        "dilated-rows",
        "same-2-odd",
        "same-3",
        "valid",
        "int",
        "pair",
        "more-below",
        "more-left",
        "window-in-padding",
        "rows-left-over",
    ],
)
def test_every_kind_of_window_is_drawn(wanted: Callable[[WindowDraw], bool]) -> None:
    find(strategies.windows(), wanted, settings=SEARCH)


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        (strategies.conv2d_cases(), lambda case: case.options["groups"] > 1 and case.weight.shape[2] == 1),
        (strategies.conv2d_cases(), lambda case: case.options["groups"] > 1 and case.weight.shape[2] > 1),
        (strategies.conv2d_cases(), lambda case: case.bias is None),
        (strategies.pool_cases(), lambda case: case.options["ceil_mode"] and case.options["stride"][0] > 1),
        (strategies.batch_norm_cases(), lambda case: case.x.mean() > 900 and case.options["training"]),
        (
            strategies.batch_norm_cases(),
            lambda case: "residual" in case.options and "activation" in case.options,
        ),
        (
            strategies.cross_entropy_cases(),
            lambda case: "ignore_index" in case.options and "class_weight" in case.options,
        ),
        (strategies.adaptive_pool_cases(), lambda case: case.options["output_size"][0] > case.x.shape[1]),
        (strategies.local_response_norm_cases(), lambda case: case.options["size"] > case.x.shape[3]),
        (strategies.getitem_cases(), lambda case: isinstance(case.options["index"][0], np.ndarray)),
        (strategies.broadcastable_arrays(), lambda pair: pair[0].ndim == 3 and pair[1].ndim == 1),
    ],
)
def test_every_kind_of_case_is_drawn(strategy: Any, wanted: Callable[[Any], bool]) -> None:
    find(strategy, wanted, settings=SEARCH)


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
    ],
)
def test_kinds_of_values(kind: str, check: Callable[[np.ndarray], bool]) -> None:
    x = find(strategies.arrays((20, 20), values=(kind,), dtype=np.float32), lambda _: True, settings=SEARCH)
    assert x.dtype == np.float32
    assert check(x)
