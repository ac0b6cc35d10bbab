"""Choosing and forcing a plan."""

import numpy as np
import pytest

import minidl as md
from minidl import ops
from minidl.backend.cpu import choose_plan
from minidl.window import window

POINTWISE, THREE = window("conv2d", (8, 8), 1), window("conv2d", (8, 8), 3, padding=1)


def test_the_usual_plans():
    assert choose_plan(POINTWISE, np.dtype("float32")).name == "pointwise"
    assert choose_plan(THREE, np.dtype("float32")).name == "im2col"
    assert choose_plan(window("conv2d", (8, 8), 1, stride=2), np.dtype("float32")).name == "im2col"


def test_a_forced_plan_rules_where_it_is_valid_and_ends_with_the_block():
    with md.force_plan("im2col"):
        assert choose_plan(POINTWISE, np.dtype("float32")).name == "im2col"
    with md.force_plan("pointwise"):
        assert choose_plan(THREE, np.dtype("float32")).name == "im2col"
    with pytest.raises(ZeroDivisionError), md.force_plan("im2col"):
        raise ZeroDivisionError
    assert choose_plan(POINTWISE, np.dtype("float32")).name == "pointwise"


def test_both_plans_of_a_pointwise_convolution_agree():
    rng = np.random.default_rng(0)
    x = md.tensor(rng.standard_normal((3, 5, 7, 6)), requires_grad=True)
    weight = md.tensor(rng.standard_normal((1, 1, 6, 4)), requires_grad=True)
    results = []
    for plan in ("pointwise", "im2col"):
        with md.force_plan(plan):
            x.grad = weight.grad = None
            y = ops.conv2d(x, weight)
            ops.sum(y * y).backward()
            results.append((y.numpy(), x.grad.numpy(), weight.grad.numpy()))
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)  # the same sums, in another order


def test_an_unknown_plan():
    with (
        pytest.raises(ValueError, match="there is no plan 'fft'; the plans are auto, pointwise"),
        md.force_plan("fft"),
    ):
        pass
