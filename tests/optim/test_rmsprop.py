"""RMSprop against TensorFlow's rule."""

import numpy as np
import pytest

from minidl.autograd import Tensor
from minidl.optim import RMSprop


def rule(p, g, state, t, lr, decay=0.9, momentum=0.0, eps=1e-10, weight_decay=0.0):
    g = g + weight_decay * p
    state["ms"] = decay * state.get("ms", 1.0) + (1 - decay) * g * g
    state["m"] = momentum * state.get("m", 0.0) + lr * g / np.sqrt(state["ms"] + eps)
    return p - state["m"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decay": 0.5, "weight_decay": 0.1},
        {"momentum": 0.9},
        {"decay": 0.9, "momentum": 0.9, "eps": 1.0, "weight_decay": 4e-5},
    ],
    ids=str,
)
def test_rmsprop_is_tensorflows_rule(agrees_with, dtype, options):
    agrees_with(RMSprop, rule, dtype, lr=0.045, **options)


def test_first_step_divides_by_a_mean_square_that_started_at_one_with_eps_inside_the_root():
    p = Tensor(np.zeros(1), requires_grad=True)
    p.grad = Tensor(np.array([2.0]))
    RMSprop([p], lr=0.1, decay=0.9, eps=1.0).step()
    np.testing.assert_allclose(p.data, -0.1 * 2.0 / np.sqrt(0.9 * 1.0 + 0.1 * 4.0 + 1.0), rtol=1e-15)


def test_learning_rate_is_inside_the_velocity():
    p = Tensor(np.zeros(1), requires_grad=True)
    optimizer = RMSprop([p], lr=0.1, momentum=0.5)
    p.grad = Tensor(np.array([2.0]))
    optimizer.step()
    first = p.data.copy()
    optimizer.lr = 0.0
    optimizer.step()
    np.testing.assert_allclose(p.data, 1.5 * first, rtol=1e-15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": float("inf")}, "RMSprop: lr is inf"),
        ({"lr": 0.1, "decay": 1.0}, "RMSprop: decay is 1.0, it must lie in 0 <= decay < 1"),
        ({"lr": 0.1, "momentum": -0.9}, "RMSprop: momentum is -0.9"),
        ({"lr": 0.1, "eps": -1.0}, "RMSprop: eps is -1.0"),
        ({"lr": 0.1, "weight_decay": -1.0}, "RMSprop: weight_decay is -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(make_parameters, options, message):
    with pytest.raises(ValueError, match=message):
        RMSprop(make_parameters(), **options)
