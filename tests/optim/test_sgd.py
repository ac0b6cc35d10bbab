"""SGD against the textbook rule."""

import numpy as np
import pytest

from minidl.autograd import Tensor
from minidl.optim import SGD


def rule(p, g, state, t, lr, momentum=0.0, weight_decay=0.0, nesterov=False):
    slope = g + weight_decay * p
    state["v"] = slope if t == 1 else momentum * state["v"] + slope
    return p - lr * (slope + momentum * state["v"] if nesterov else state["v"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.01},
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 0.01},
        {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    ],
    ids=str,
)
def test_sgd_is_the_textbook_rule(agrees_with, dtype, options):
    agrees_with(SGD, rule, dtype, lr=0.1, **options)


def test_velocity_under_a_constant_gradient_is_a_geometric_series():
    p = Tensor(np.zeros(3), requires_grad=True)
    optimizer = SGD([p], lr=0.5, momentum=0.8)
    for _ in range(6):
        p.grad = Tensor(np.ones(3))
        optimizer.step()
    velocities = [(1 - 0.8**t) / (1 - 0.8) for t in range(1, 7)]
    np.testing.assert_allclose(p.data, -0.5 * sum(velocities), rtol=1e-14)


def test_without_momentum_no_velocity_is_kept(make_parameters):
    assert list(SGD(make_parameters(), lr=0.1).state_dict()) == [
        "optimizer",
        "lr",
        "momentum",
        "weight_decay",
        "nesterov",
        "steps",
    ]


def test_momentum_switched_on_later_starts_from_rest(make_parameters, give_gradients):
    early, late = make_parameters(), make_parameters()
    plain, switched = SGD(early, lr=0.1), SGD(late, lr=0.1)
    switched.momentum = 0.9
    for params, optimizer in ((early, plain), (late, switched)):
        give_gradients(params, 0)
        optimizer.step()
    for a, b in zip(early, late, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    assert "velocity.0" in switched.state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -0.1}, r"SGD: lr is -0.1, it must lie in 0 <= lr < inf"),
        ({"lr": float("nan")}, r"SGD: lr is nan"),
        ({"lr": 0.1, "momentum": -1.0}, r"SGD: momentum is -1.0"),
        ({"lr": 0.1, "weight_decay": float("inf")}, r"SGD: weight_decay is inf"),
        ({"lr": 0.1, "nesterov": True}, r"SGD: nesterov=True needs a momentum above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(make_parameters, options, message):
    with pytest.raises(ValueError, match=message):
        SGD(make_parameters(), **options)
