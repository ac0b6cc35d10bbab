"""The gradients of the naive windows and norms: central differences of their forward loops, ties by hand.

And their bounds: small where nothing cancels, wide enough where rounding may decide on which side of a kink a
value lies.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from minidl.testing import bounds, reference, strategies
from minidl.testing.strategies import VALUES

U32, U64 = np.finfo(np.float32).eps / 2, np.finfo(np.float64).eps / 2

# Along one argument these ops are linear (a maximum too, while its winner stays), and their differences exact
# at any step; what is left are the roundings of sums of up to 1e4 terms.
LINEAR = {"step": 1.0, "tolerance": 1e4 * U64}
# Elsewhere the error is step**2 / 6 of the third derivative, which is below 100 times the first for the
# numbers taken here, and U64 / step of the output.
SMOOTH = {"step": 1e-5, "tolerance": 1e-8}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return VALUES["normal"](np.random.default_rng(seed), shape)


def check(
    forward: Callable[..., np.ndarray],
    gradients: Callable[..., Sequence[Any]],
    *arrays: np.ndarray | None,
    step: float,
    tolerance: float,
    size: float = 1.0,
) -> None:
    """<gradient, direction> is what <g, output> changes by along the direction, for each array in turn.

    g is random, so are the directions, with elements up to about `size`.
    """
    g = normal(*forward(*arrays).shape, seed=1)
    found = gradients(g, *arrays)
    assert len(found) == len(arrays)
    for k, (array, grad) in enumerate(zip(arrays, found)):
        if array is None:
            assert grad is None
            continue
        assert grad.shape == array.shape
        assert grad.dtype == np.float64
        direction = size * np.random.default_rng(k + 2).uniform(-1, 1, array.shape)
        after, before = (
            forward(*arrays[:k], array + sign * step * direction, *arrays[k + 1 :]) for sign in (1, -1)
        )
        changes, terms = g * (after - before) / (2 * step), grad * direction
        assert abs(changes.sum() - terms.sum()) <= tolerance * (np.abs(changes).sum() + np.abs(terms).sum())


@given(strategies.conv2d_cases())
def test_conv2d(case: strategies.Conv2dCase) -> None:
    check(
        lambda *arrays: reference.conv2d(*arrays, **case.options),
        lambda g, *arrays: reference.conv2d_gradients(g, *arrays, **case.options),
        *case.inputs,
        **LINEAR,
    )


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("bias", [None, normal(4, seed=3)], ids=["", "bias"])
def test_conv2d_with_an_activation(activation: str, bias: np.ndarray | None) -> None:
    x, weight = normal(2, 4, 5, 4), normal(3, 2, 2, 4, seed=1)
    options = {"stride": (2, 1), "padding": ((0, 1), (2, 0)), "dilation": (1, 2), "groups": 2}
    # No kink is within reach of a step.
    assert np.abs(reference.conv2d(x, weight, bias, **options)).min() > 100 * SMOOTH["step"]
    check(
        lambda *arrays: reference.conv2d(*arrays, **options, activation=activation),
        lambda g, *arrays: reference.conv2d_gradients(g, *arrays, **options, activation=activation),
        x,
        weight,
        bias,
        **SMOOTH,
    )


def test_a_fused_relu_passes_nothing_at_zero() -> None:
    x, weight = np.array([0.0, 1.0, -1.0]).reshape(1, 1, 3, 1), np.ones((1, 1, 1, 1))
    grad_x, grad_weight, grad_bias = reference.conv2d_gradients(
        np.full((1, 1, 3, 1), 5.0), x, weight, np.zeros(1), activation="relu"
    )
    np.testing.assert_array_equal(grad_x.ravel(), [0, 5, 0])
    assert (grad_weight.item(), grad_bias.item()) == (5, 5)


@given(strategies.pool_cases(average=True))
def test_avg_pool2d(case: strategies.ArrayCase) -> None:
    check(
        lambda x: reference.avg_pool2d(x, **case.options),
        lambda g, x: reference.avg_pool2d_gradients(g, x, **case.options),
        case.x,
        **LINEAR,
    )


@given(strategies.pool_cases())
def test_max_pool2d(case: strategies.ArrayCase) -> None:
    """Of different integers, moved by less than a half, the same ones stay the largest."""
    check(
        lambda x: reference.max_pool2d(x, **case.options),
        lambda g, x: reference.max_pool2d_gradients(g, x, **case.options),
        np.random.default_rng(0).permutation(case.x.size).reshape(case.x.shape).astype(np.float64),
        **LINEAR,
        size=0.49,
    )


def test_of_equal_maxima_the_first_row_by_row_receives_the_gradient() -> None:
    x = np.array([[1, 2, 2], [2, 2, 1], [0, 2, 2]], np.float64)[None, :, :, None]
    g = np.array([[1, 10], [100, 1000]], np.float64)[None, :, :, None]
    (grad_x,) = reference.max_pool2d_gradients(g, x, 2, stride=1)
    np.testing.assert_array_equal(grad_x[0, :, :, 0], [[0, 11, 0], [100, 1000, 0], [0, 0, 0]])
    (grad_x,) = reference.max_pool2d_gradients(g, np.zeros((1, 3, 3, 1)), 3, stride=2, padding=1)
    np.testing.assert_array_equal(grad_x[0, :, :, 0], [[1, 10, 0], [100, 1000, 0], [0, 0, 0]])


def test_avg_pool2d_shares_by_what_counts() -> None:
    """Windows of 3 over columns 0..3 in padding -1 and 4, 5: columns -1..1, 2..4; ceil mode drops 5..7, which
    starts in the padding."""
    x, g = np.zeros((1, 1, 4, 1)), np.array([6.0, 12.0]).reshape(1, 1, 2, 1)
    options = {"padding": ((0, 0), (1, 2)), "ceil_mode": True}
    (counted,) = reference.avg_pool2d_gradients(g, x, (1, 3), **options)
    np.testing.assert_array_equal(counted.ravel(), [2, 2, 4, 4])
    (left_out,) = reference.avg_pool2d_gradients(g, x, (1, 3), count_include_pad=False, **options)
    np.testing.assert_array_equal(left_out.ravel(), [3, 3, 6, 6])


def test_avg_pool2d_does_not_count_what_hangs_over_the_padding() -> None:
    """Windows of 3 at stride 2 over columns 0..3: columns 0..2, 2..4."""
    x, g = np.zeros((1, 1, 4, 1)), np.array([6.0, 12.0]).reshape(1, 1, 2, 1)
    (grad_x,) = reference.avg_pool2d_gradients(g, x, (1, 3), stride=2, ceil_mode=True)
    np.testing.assert_array_equal(grad_x.ravel(), [2, 2, 8, 6])


@given(strategies.adaptive_pool_cases())
def test_adaptive_avg_pool2d(case: strategies.ArrayCase) -> None:
    check(
        lambda x: reference.adaptive_avg_pool2d(x, **case.options),
        lambda g, x: reference.adaptive_avg_pool2d_gradients(g, x, **case.options),
        case.x,
        **LINEAR,
    )


def test_adaptive_bins_overlap() -> None:
    g = np.array([6.0, 60.0]).reshape(1, 1, 2, 1)
    (grad_x,) = reference.adaptive_avg_pool2d_gradients(g, np.zeros((1, 1, 3, 1)), (1, 2))
    np.testing.assert_array_equal(grad_x.ravel(), [3, 33, 30])


def test_global_avg_pool() -> None:
    x = normal(2, 3, 4, 3)
    check(reference.global_avg_pool, reference.global_avg_pool_gradients, x, **LINEAR)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("residual", [None, normal(2, 3, 4, 2, seed=5)], ids=["", "residual"])
def test_batch_norm(training: bool, activation: str | None, residual: np.ndarray | None) -> None:
    statistics = {"running_mean": normal(2, seed=3), "running_var": np.abs(normal(2, seed=4)) + 0.5}

    def forward(x: Any, gamma: Any, beta: Any, residual: Any, activation: Any = activation) -> np.ndarray:
        options = statistics | {"training": training, "activation": activation, "residual": residual}
        return reference.batch_norm(x, gamma, beta, **options)

    def gradients(g: Any, x: Any, gamma: Any, beta: Any, residual: Any) -> Sequence[Any]:
        options = statistics | {"training": training, "activation": activation, "residual": residual}
        return reference.batch_norm_gradients(g, x, gamma, beta, **options)

    arrays = (normal(2, 3, 4, 2), normal(2, seed=1), normal(2, seed=2), residual)
    assert np.abs(forward(*arrays, activation=None)).min() > 100 * SMOOTH["step"]
    check(forward, gradients, *arrays, **SMOOTH)


def test_batch_norm_by_hand() -> None:
    """x = -1, 1 with eps 3: mean 0, var 1, std 2, x_hat = -1/2, 1/2. With g = 1, 0 the averages of g and of
    g * x_hat are 1/2 and -1/4."""
    x, g = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1), np.array([1.0, 0.0]).reshape(2, 1, 1, 1)
    grad_x, grad_gamma, grad_beta, _ = reference.batch_norm_gradients(
        g, x, np.array([2.0]), np.array([0.0]), training=True, eps=3.0
    )
    np.testing.assert_array_equal(grad_x.ravel(), [2 / 2 * (1 - 1 / 2 - 1 / 8), 2 / 2 * (-1 / 2 + 1 / 8)])
    assert (grad_gamma.item(), grad_beta.item()) == (-0.5, 1.0)


@given(strategies.local_response_norm_cases())
def test_local_response_norm(case: strategies.ArrayCase) -> None:
    check(
        lambda x: reference.local_response_norm(x, **case.options),
        lambda g, x: reference.local_response_norm_gradients(g, x, **case.options),
        case.x,
        **SMOOTH,
    )


def test_local_response_norm_by_hand() -> None:
    """x = 1, 2, 0 with size 3, a = 1, beta = 1, k = 1: s = 6, 6, 5; channel 0 is not in the energy of 2."""
    x, options = np.array([1.0, 2.0, 0.0]), {"alpha": 1.0, "beta": 1.0, "divide_alpha": False}
    rows = [reference.local_response_norm_gradients(g, x, 3, **options)[0] for g in np.eye(3)]
    expected = [[1 / 6 - 2 / 36, -4 / 36, 0], [-4 / 36, 1 / 6 - 8 / 36, 0], [0, 0, 1 / 5]]
    np.testing.assert_allclose(rows, expected, rtol=1e-14, atol=1e-16)


# --- bounds -------------------------------------------------------------------------------------------------

X = normal(2, 5, 6, 4)
CASES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "conv2d": ((X, normal(3, 3, 4, 4, seed=1), normal(4, seed=2)), {"padding": 1}),
    "max_pool2d": ((X, 3), {"stride": 1}),
    "avg_pool2d": ((X, 3), {"stride": 2, "padding": 1}),
    "adaptive_avg_pool2d": ((X, (2, 4)), {}),
    "global_avg_pool": ((X,), {}),
    "batch_norm": ((X, *(normal(4, seed=k) for k in (1, 2, 3)), np.ones(4)), {"training": True}),
    "local_response_norm": ((X, 3), {"alpha": 0.5}),
}


@pytest.mark.parametrize("name", CASES)
def test_bounds_are_small_where_nothing_cancels(name: str) -> None:
    """A dropped term changes some element by a sizeable part of the largest one; rounding may not."""
    inputs, options = CASES[name]
    g = normal(*getattr(reference, name)(*inputs, **options).shape, seed=9)
    found = getattr(reference, f"{name}_gradients")(g, *inputs, **options)
    allowed = bounds.GRADIENTS[name](U32, g, *inputs, **options)
    assert len(found) == len(allowed)
    for grad, error in zip(found, allowed):
        assert grad is None or np.max(error) < 1e-4 * np.abs(grad).max()


@pytest.mark.parametrize(("u", "allowed"), [(U32, 3.0), (U64, 0.0)])
def test_where_rounding_decides_about_a_relu_either_gradient_is_allowed(u: float, allowed: float) -> None:
    """1 + 1e-9 - 1 is positive, but in float32 it is 0 when added from the left."""
    x, weight = np.array([1, 1e-9, -1]).reshape(1, 1, 3, 1), np.ones((1, 3, 1, 1))
    g = np.full((1, 1, 1, 1), 3.0)
    error = bounds.GRADIENTS["conv2d"](u, g, x, weight, activation="relu")[0]
    np.testing.assert_allclose(error.ravel(), allowed, rtol=1e-6, atol=1e-14)


def test_where_rounding_decides_about_a_relu_behind_batch_norm_either_gradient_is_allowed() -> None:
    """Two values per channel become -1 and 1; beta lifts the first to just above 0."""
    inputs = (np.array([3.0, 5.0]).reshape(2, 1, 1, 1), np.ones(1), np.full(1, 1 + 1e-9), None, None)
    g, options = np.full((2, 1, 1, 1), 3.0), {"training": True, "eps": 0.0, "activation": "relu"}
    z = reference.batch_norm(*inputs, training=True, eps=0.0)
    assert 0 < z[0] < 1e-8
    for u, allowed in ((U32, 3.0), (U64, 0.0)):
        *_, grad_beta, _ = bounds.GRADIENTS["batch_norm"](u, g, *inputs, **options)
        np.testing.assert_allclose(grad_beta, allowed, rtol=1e-6, atol=1e-14)
