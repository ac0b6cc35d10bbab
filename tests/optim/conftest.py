"""Parameters and gradients that the optimiser tests share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl.autograd import Tensor

SHAPES = [(5,), (2, 3, 4), (200, 200)]  # the last is large enough for the parallel kernels

# Rounding of a few float operations per step, over the ten steps the tests take.
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}

Make = Callable[..., list[Tensor]]
Give = Callable[[list[Tensor], int], None]


@pytest.fixture
def make_parameters() -> Make:
    """make(dtype, shapes) -> the same parameters every time, with no gradients yet."""

    def make(dtype: str = "float32", shapes: list[tuple[int, ...]] = SHAPES) -> list[Tensor]:
        rng = np.random.default_rng(1)
        return [Tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True) for shape in shapes]

    return make


@pytest.fixture
def give_gradients() -> Give:
    """give(params, seed): a new random gradient for each, the same for the same seed."""

    def give(params: list[Tensor], seed: int) -> None:
        rng = np.random.default_rng(100 + seed)
        for p in params:
            p.grad = Tensor(rng.standard_normal(p.shape).astype(p.dtype))

    return give


@pytest.fixture
def agrees_with(make_parameters: Make, give_gradients: Give) -> Callable[..., None]:
    """agrees(optimiser class, rule, dtype, options): ten steps of either, the rule in float64, agree.

    rule(p, g, state, t, **options) -> p, `state` a dict that lives as long as the parameter, t from 1.
    """

    def agrees(optimiser: type, rule: Callable[..., np.ndarray], dtype: str, **options: Any) -> None:
        params = make_parameters(dtype)
        expected = [p.data.astype(np.float64) for p in params]
        states: list[dict] = [{} for _ in params]
        subject = optimiser(params, **options)
        for t in range(1, 11):
            give_gradients(params, t)
            subject.step()
            for i, p in enumerate(params):
                assert p.grad is not None
                expected[i] = rule(expected[i], p.grad.data.astype(np.float64), states[i], t, **options)
        for p, value in zip(params, expected, strict=True):
            assert p.dtype == dtype
            np.testing.assert_allclose(p.data, value, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])

    return agrees
