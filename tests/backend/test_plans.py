"""Choosing and forcing a plan."""

from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl import ops
from minidl.backend.cpu import choose_plan
from minidl.window import Window, window

SINGLE, DOUBLE = np.dtype("float32"), np.dtype("float64")
POINTWISE, THREE = window("conv2d", (8, 8), 1), window("conv2d", (8, 8), 3, padding=1)
STRIDED, FIVE = window("conv2d", (8, 8), 1, stride=2), window("conv2d", (16, 16), 5, padding=2)
DILATED, WIDE = window("conv2d", (8, 8), 3, dilation=2), window("conv2d", (8, 8), (1, 7), padding=(0, 3))


@pytest.mark.parametrize(
    ("geometry", "single", "double"),
    [
        (POINTWISE, "direct", "pointwise"),
        (STRIDED, "direct", "im2col"),
        (THREE, "winograd", "im2col"),
        (FIVE, "winograd", "im2col"),
        (DILATED, "direct", "im2col"),
        (WIDE, "winograd", "im2col"),
    ],
)
def test_the_usual_plans(geometry: Window, single: str, double: str) -> None:
    assert choose_plan(geometry, SINGLE).name == single
    assert choose_plan(geometry, DOUBLE).name == double


@pytest.mark.parametrize(
    ("channels", "filters", "images", "expected"),
    [(3, 64, 16, "direct"), (64, 64, 16, "winograd"), (512, 512, 1, "direct"), (512, 512, 64, "winograd")],
)
def test_winograd_has_to_pay(channels: int, filters: int, images: int, expected: str) -> None:
    """Its transforms cost much where there are few channels, or few tiles for many filters."""
    plan = choose_plan(THREE, SINGLE, 1, channels, filters, images)
    assert plan.name == expected
    assert ("fewer multiplications" in plan.reason) == (expected == "winograd")


def test_a_forced_plan_rules_where_it_is_valid_and_ends_with_the_block() -> None:
    with md.force_plan("im2col"):
        assert choose_plan(POINTWISE, SINGLE).name == "im2col"
    with md.force_plan("pointwise"):
        assert choose_plan(POINTWISE, SINGLE).name == "pointwise"
        assert choose_plan(THREE, SINGLE).name == "winograd"
    with md.force_plan("winograd"):
        assert choose_plan(THREE, SINGLE, channels=1).name == "winograd"
        assert choose_plan(THREE, DOUBLE).name == "im2col"  # never in float64
        assert choose_plan(POINTWISE, SINGLE).name == "direct"
    with pytest.raises(ZeroDivisionError), md.force_plan("im2col"):
        raise ZeroDivisionError
    assert choose_plan(POINTWISE, SINGLE).name == "direct"


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
def test_all_plans_of_a_pointwise_convolution_agree(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = md.tensor(rng.standard_normal((3, 5, 7, 6)).astype(dtype), requires_grad=True)
    weight = md.tensor(rng.standard_normal((1, 1, 6, 4)).astype(dtype), requires_grad=True)
    results = []
    for plan in ("pointwise", "im2col", "direct"):
        with md.force_plan(plan):
            x.grad = weight.grad = None
            y = ops.conv2d(x, weight)
            ops.sum(y * y).backward()
            results.append((y.numpy(), x.grad.numpy(), weight.grad.numpy()))
    close = 100 * np.finfo(dtype).eps  # the same sums, in another order
    for first, *others in zip(*results):
        for other in others:
            np.testing.assert_allclose(first, other, rtol=close, atol=close * np.abs(first).max())


def test_an_unknown_plan() -> None:
    with (
        pytest.raises(ValueError, match="there is no plan 'fft'; the plans are auto, pointwise"),
        md.force_plan("fft"),
    ):
        pass
