"""Gradients of a convolution's input that are added to what is there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as md
from minidl import ops
from minidl.backend import cpu
from minidl.window import window


@given(st.data())
def test_added_to_what_is_there(data: st.DataObject):
    size = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    kernel = tuple(data.draw(st.integers(1, min(3, n))) for n in size)
    groups = data.draw(st.sampled_from([1, 1, 1, 2]))
    channels, filters = (groups * data.draw(st.integers(1, 40)) for _ in range(2))
    stride, padding = data.draw(st.integers(1, 2)), data.draw(st.integers(0, 1))
    dtype = data.draw(st.sampled_from([np.float32, np.float32, np.float64]))
    geometry = window("conv2d", size, kernel, stride=stride, padding=padding, dilation=1)
    images = data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    g = rng.standard_normal((images, *geometry.output, filters)).astype(dtype)
    weight = rng.standard_normal((*kernel, channels // groups, filters)).astype(dtype)
    before = rng.standard_normal((images, *size, channels)).astype(dtype)
    into = before.copy()
    assert cpu.conv2d_grad_x(g, weight, geometry, groups, into) is into
    alone = cpu.conv2d_grad_x(g, weight, geometry, groups)
    # a sum of as many terms, in another order
    terms = cpu.conv2d_grad_x(np.abs(g), np.abs(weight), geometry, groups) + np.abs(before)
    assert (np.abs(into - (before + alone)) <= 4 * 9 * filters * np.finfo(dtype).eps * terms).all()


@pytest.mark.parametrize("activation", [None, "relu"])
def test_branches_add_up(activation: str | None, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    weights = [
        md.tensor(rng.standard_normal((k, k, 20, 24)).astype(np.float32), requires_grad=True)
        for k in (1, 3, 1)
    ]
    start = rng.standard_normal((2, 6, 6, 20)).astype(np.float32)

    def gradient(chosen: list[int]) -> np.ndarray:
        x = md.tensor(start, requires_grad=True)
        block = ops.mul(x, 2.0)
        branches = [
            ops.conv2d(block, weights[i], padding=weights[i].shape[0] // 2, activation=activation)
            for i in chosen
        ]
        ops.concat(branches, axis=3).sum().backward()
        assert x.grad is not None
        return x.grad.data

    apart = [gradient([i]) for i in range(3)]
    np.testing.assert_allclose(gradient([0, 1, 2]), sum(apart), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(gradient([0, 0, 2]), 2 * apart[0] + apart[2], rtol=1e-4, atol=1e-3)
    for weight in weights:
        weight.grad = None
    monkeypatch.setattr(cpu, "add_into", None)  # nor is it needed: the second pointwise one adds by itself
    np.testing.assert_allclose(gradient([0, 2]), apart[0] + apart[2], rtol=1e-4, atol=1e-3)
