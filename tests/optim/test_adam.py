"""Adam and AdamW against the papers' algorithms."""

import numpy as np
import pytest

from minidl.autograd import Tensor
from minidl.optim import Adam, AdamW


def adam(p, g, state, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    g = g + weight_decay * p
    state["m"] = betas[0] * state.get("m", 0.0) + (1 - betas[0]) * g
    state["v"] = betas[1] * state.get("v", 0.0) + (1 - betas[1]) * g**2
    m_hat, v_hat = state["m"] / (1 - betas[0] ** t), state["v"] / (1 - betas[1] ** t)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps)


def adamw(p, g, state, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    return adam(p * (1 - lr * weight_decay), g, state, t, lr, betas, eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize(("optimiser", "rule"), [(Adam, adam), (AdamW, adamw)])
def test_adam_is_the_papers_algorithm(agrees_with, optimiser, rule, dtype, options):
    agrees_with(optimiser, rule, dtype, **options)


@pytest.mark.parametrize("optimiser", [Adam, AdamW])
def test_first_step_is_lr_along_the_sign_of_the_gradient(optimiser):
    p = Tensor(np.zeros(3), requires_grad=True)
    p.grad = Tensor(np.array([1e-3, -5.0, 70.0]))
    optimiser([p], lr=0.1).step()
    np.testing.assert_allclose(p.data, [-0.1, 0.1, -0.1], rtol=2e-5)  # eps is 1e-5 of the smallest gradient


def test_late_first_gradient_is_corrected_like_any_first(make_parameters):
    early, late = make_parameters(shapes=[(4,), (4,)])
    late.data[...] = early.data
    optimizer = Adam([early, late], lr=0.1)
    g = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
    early.grad = Tensor(g)
    optimizer.step()
    after_one = early.data.copy()
    early.grad, late.grad = None, Tensor(g)
    optimizer.step()
    np.testing.assert_array_equal(late.data, after_one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, r"lr is -1.0"),
        ({"betas": (1.0, 0.999)}, r"betas\[0\] is 1.0, it must lie in 0 <= betas\[0\] < 1"),
        ({"betas": (0.9, -0.1)}, r"betas\[1\] is -0.1"),
        ({"eps": -1e-8}, r"eps is -1e-08"),
        ({"weight_decay": -0.1}, r"weight_decay is -0.1"),
    ],
)
@pytest.mark.parametrize("optimiser", [Adam, AdamW])
def test_numbers_out_of_range_are_refused(make_parameters, optimiser, options, message):
    with pytest.raises(ValueError, match=f"{optimiser.__name__}: {message}"):
        optimiser(make_parameters(), **options)
