"""Normalisation: running statistics, every gradient path element by element, both conventions of local
response norm, errors (test_proofs.py draws the rest)."""

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given

import minidl as md
from minidl import ops
from minidl.autograd import Tensor, tensor
from minidl.errors import DTypeError, ShapeError
from minidl.testing import GradcheckSettings, agree, gradcheck, reference, strategies
from minidl.testing.strategies import VALUES, ArrayCase, BatchNormCase


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return VALUES["normal"](np.random.default_rng(seed), shape)


def case_of(n: int, h: int, w: int, c: int, **options: Any) -> BatchNormCase:
    if options.get("residual"):
        options["residual"] = normal(n, h, w, c, seed=5)
    return BatchNormCase(
        x=normal(n, h, w, c),
        gamma=normal(c, seed=1),
        beta=normal(c, seed=2),
        running_mean=normal(c, seed=3),
        running_var=np.abs(normal(c, seed=4)) + 0.5,
        options=options,
    )


def check_gradients(case: BatchNormCase, settings: GradcheckSettings) -> bool:
    """gradcheck of everything that has a gradient; the running statistics start afresh in every run."""
    options = dict(case.options)
    residual = options.pop("residual", None)

    def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, residual: Tensor | None) -> Tensor:
        return ops.batch_norm(
            x, gamma, beta, case.running_mean.copy(), case.running_var.copy(), residual=residual, **options
        )

    return gradcheck(batch_norm, case.x, case.gamma, case.beta, residual, settings=settings)


@pytest.mark.parametrize(
    "case",
    [
        case_of(2, 3, 2, 2, training=True),
        case_of(2, 3, 2, 2, training=False),
        case_of(2, 2, 3, 2, training=True, activation="relu", residual=True),
        case_of(2, 2, 3, 2, training=False, activation="relu", residual=True),
    ],
    ids=["train", "eval", "train-fused", "eval-fused"],
)
def test_batch_norm_gradients_element_by_element(case: BatchNormCase) -> None:
    assert check_gradients(case, GradcheckSettings(full=True))


@given(strategies.batch_norm_cases(training=True, values=("normal", "ties")))
def test_running_statistics(case: BatchNormCase) -> None:
    mean, var = case.running_mean.copy(), case.running_var.copy()
    ops.batch_norm(case.x, case.gamma, case.beta, mean, var, **case.options)
    expected = reference.running_statistics(
        case.x, case.running_mean, case.running_var, momentum=case.options["momentum"]
    )
    np.testing.assert_allclose([mean, var], expected, rtol=1e-12, atol=1e-14)  # a few dozen roundings


def test_running_statistics_may_be_tensors_and_keep_their_dtype() -> None:
    case = case_of(2, 3, 3, 4, training=True).astype(np.float32)
    mean, var = tensor(case.running_mean), tensor(case.running_var)
    before = mean.data
    ops.batch_norm(case.x, case.gamma, case.beta, mean, var, training=True)
    assert mean.data is before  # written in place
    assert mean.dtype == var.dtype == np.float32
    assert not np.array_equal(mean.data, case.running_mean)


def test_evaluation_leaves_the_running_statistics_alone() -> None:
    case = case_of(2, 3, 3, 4, training=False)
    mean, var = case.running_mean.copy(), case.running_var.copy()
    ops.batch_norm(case.x, case.gamma, case.beta, mean, var, training=False)
    np.testing.assert_array_equal(mean, case.running_mean)
    np.testing.assert_array_equal(var, case.running_var)


def test_a_large_offset_costs_no_digits() -> None:
    """The variance of 1000 + noise in float32: E[x^2] - mean^2 would have no correct digit left."""
    rng = np.random.default_rng(0)
    case = case_of(4, 8, 8, 3, training=True)
    shifted = BatchNormCase(
        x=VALUES["offset"](rng, case.x.shape),
        gamma=case.gamma,
        beta=case.beta,
        running_mean=case.running_mean,
        running_var=case.running_var,
        options=case.options,
    )
    assert agree(ops.batch_norm, shifted)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("axis", [-1, 1])
def test_the_gradient_of_a_part_of_a_concatenation(axis: int, relu: bool) -> None:
    """It is read where it lies: between its rows are the other part's."""
    x, g, gamma, beta = (
        normal(3, 17, 17, 5),
        normal(3, 17, 17, 5, seed=1),
        normal(5, seed=2),
        normal(5, seed=3),
    )

    def gradients(joined: bool) -> list[np.ndarray]:
        leaves = [tensor(value, requires_grad=True) for value in (x, gamma, beta)]
        statistics = np.zeros(5), np.ones(5)
        activation = "relu" if relu else None
        y = ops.batch_norm(*leaves, *statistics, training=True, activation=activation)
        if joined:
            full = np.concatenate([g, g], axis)
            ops.concat([y, tensor(g)], axis).backward(full)
        else:
            y.backward(g)
        return [leaf.grad.numpy() for leaf in leaves]

    for found, expected in zip(gradients(True), gradients(False)):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_more_rows_than_one_chunk() -> None:
    case = case_of(3, 17, 19, 3, training=True, activation="relu", residual=True)
    assert agree(ops.batch_norm, case)
    assert check_gradients(case, GradcheckSettings())


def test_fused_is_unfused() -> None:
    case = case_of(2, 3, 3, 2, training=True, activation="relu", residual=True)

    def results(fused: bool) -> list[np.ndarray]:
        x, gamma, beta, residual = (
            tensor(array, requires_grad=True)
            for array in (case.x, case.gamma, case.beta, case.options["residual"])
        )
        statistics = case.running_mean.copy(), case.running_var.copy()
        if fused:
            y = ops.batch_norm(
                x, gamma, beta, *statistics, training=True, activation="relu", residual=residual
            )
        else:
            y = ops.relu(ops.batch_norm(x, gamma, beta, *statistics, training=True) + residual)
        y.backward(normal(*y.shape, seed=6))
        return [y.data, *(t.grad.data for t in (x, gamma, beta, residual) if t.grad is not None)]

    for fused, unfused in zip(results(True), results(False), strict=True):
        np.testing.assert_allclose(fused, unfused, rtol=1e-12, atol=1e-12)  # equal to rounding


def test_repeated_backward_with_one_upstream_tensor() -> None:
    """What the vjps share is computed once per backward, not once per upstream tensor."""
    case = case_of(2, 3, 3, 2, training=True, activation="relu", residual=True)
    leaves = [
        tensor(array, requires_grad=True)
        for array in (case.x, case.gamma, case.beta, case.options["residual"])
    ]
    x, gamma, beta, residual = leaves
    y = ops.batch_norm(
        x,
        gamma,
        beta,
        case.running_mean,
        case.running_var,
        training=True,
        activation="relu",
        residual=residual,
    )
    upstream = Tensor(normal(*y.shape, seed=6))
    y.backward(upstream, retain_graph=True)
    once = [leaf.grad.data.copy() for leaf in leaves if leaf.grad is not None]
    for _ in range(2):
        y.backward(upstream, retain_graph=True)
    for leaf, gradient in zip(leaves, once, strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.data, 3 * gradient, rtol=1e-12)
    upstream.data *= -1.0
    y.backward(upstream)
    for leaf, gradient in zip(leaves, once, strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.data, 2 * gradient, rtol=1e-12)


def test_one_value_per_channel_is_refused_in_training_only() -> None:
    case = case_of(1, 1, 1, 3, training=True)
    with pytest.raises(
        ShapeError, match=r"batch_norm: x of shape \(1, 1, 1, 3\) has one value per channel.*eval\(\)"
    ):
        ops.batch_norm(*case.inputs, training=True)
    evaluated = case_of(1, 1, 1, 3, training=False)
    assert agree(ops.batch_norm, evaluated)
    assert check_gradients(evaluated, GradcheckSettings(full=True))


def test_a_refused_batch_leaves_the_running_statistics_alone() -> None:
    case = case_of(1, 1, 1, 3, training=True)
    mean, var = case.running_mean.copy(), case.running_var.copy()
    with pytest.raises(ShapeError):
        ops.batch_norm(case.x, case.gamma, case.beta, mean, var, training=True)
    np.testing.assert_array_equal(mean, case.running_mean)
    np.testing.assert_array_equal(var, case.running_var)


def test_in_evaluation_the_statistics_are_constants_to_the_gradient() -> None:
    """A gradient through the batch's own mean would add up to 0 in each channel; this one does not."""
    case = case_of(2, 3, 2, 2, training=False)
    x, gamma, beta = (tensor(array, requires_grad=True) for array in (case.x, case.gamma, case.beta))
    y = ops.batch_norm(x, gamma, beta, case.running_mean, case.running_var, training=False)
    g = normal(*y.shape, seed=6)
    y.backward(g)
    inv_std = 1 / np.sqrt(case.running_var + 1e-5)
    for leaf, expected in (
        (x, g * case.gamma * inv_std),
        (gamma, (g * (case.x - case.running_mean) * inv_std).sum((0, 1, 2))),
        (beta, g.sum((0, 1, 2))),
    ):
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.data, expected, rtol=1e-12, atol=1e-12)  # a dozen roundings


def test_statistics_that_move_on_do_not_change_an_earlier_gradient() -> None:
    """Between an evaluation and its backward, training may write into the running statistics."""
    case = case_of(2, 3, 2, 2, training=False)

    def grad_gamma(interrupted: bool) -> np.ndarray:
        gamma = tensor(case.gamma, requires_grad=True)
        statistics = case.running_mean.copy(), case.running_var.copy()
        y = ops.batch_norm(case.x, gamma, case.beta, *statistics, training=False)
        if interrupted:
            ops.batch_norm(case.x, case.gamma, case.beta, *statistics, training=True, momentum=0.5)
        y.backward(normal(*y.shape, seed=6))
        assert gamma.grad is not None
        return gamma.grad.data

    np.testing.assert_array_equal(grad_gamma(True), grad_gamma(False))


def test_a_failed_call_leaves_the_running_statistics_alone() -> None:
    case = case_of(2, 2, 2, 3, training=True)
    mean = case.running_mean.copy()
    with pytest.raises(ValueError, match="activation"):
        ops.batch_norm(
            case.x, case.gamma, case.beta, mean, case.running_var, training=True, activation="gelu"
        )
    np.testing.assert_array_equal(mean, case.running_mean)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"x": np.zeros((2, 3, 3, 5))}, "x has 5 channels .* but gamma has 4"),
        ({"x": np.zeros((2, 4, 3, 5))}, "x has 5 channels .* but gamma has 4 .*It looks like"),
        ({"x": np.zeros((2, 4))}, r"x has shape \(2, 4\), it must be \(N, H, W, C\)"),
        ({"x": np.zeros((0, 3, 3, 4))}, "a batch of size 0"),
        ({"gamma": np.zeros((1, 4))}, r"gamma has shape \(1, 4\), it must be \(4,\)"),
        ({"beta": np.zeros(3)}, r"beta has shape \(3,\), it must be \(4,\) for x of shape \(2, 3, 3, 4\)"),
        ({"running_mean": np.zeros(3)}, r"running_mean has shape \(3,\), it must be \(4,\)"),
        ({"running_var": np.zeros(3)}, r"running_var has shape \(3,\), it must be \(4,\)"),
        (
            {"residual": np.zeros((2, 3, 3, 1))},
            r"residual has shape \(2, 3, 3, 1\), it must equal x's \(2, 3, 3, 4\)",
        ),
    ],
)
def test_shapes_that_do_not_fit(change: dict[str, np.ndarray], text: str) -> None:
    given_ = {
        "x": np.zeros((2, 3, 3, 4)),
        "gamma": np.zeros(4),
        "beta": np.zeros(4),
        "running_mean": np.zeros(4),
        "running_var": np.ones(4),
    }
    with pytest.raises(ShapeError, match=f"batch_norm: .*{text}"):
        ops.batch_norm(**(given_ | change), training=True)


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize(
    ("statistic", "kind"), [([0.0] * 4, "a list"), (None, "a NoneType"), (np.zeros(4, np.int64), "int64")]
)
def test_statistics_that_cannot_be_written(name: str, statistic: Any, kind: str) -> None:
    given_ = {"running_mean": np.zeros(4), "running_var": np.ones(4), name: statistic}
    with pytest.raises(
        DTypeError, match=rf"batch_norm: {name} is {kind}; give an array or a Tensor of floats"
    ):
        ops.batch_norm(np.zeros((2, 3, 3, 4)), np.ones(4), np.zeros(4), **given_, training=True)


def test_a_negative_eps() -> None:
    with pytest.raises(ValueError, match=r"batch_norm: eps is -0\.1, it must be at least 0"):
        ops.batch_norm(*case_of(2, 2, 2, 3).inputs, training=True, eps=-0.1)


def test_an_unknown_activation() -> None:
    with pytest.raises(ValueError, match="batch_norm: activation is 'tanh'; it may be None or 'relu'"):
        ops.batch_norm(*case_of(2, 2, 2, 3).inputs, training=True, activation="tanh")


def test_a_first_row_unlike_the_others_costs_no_digits() -> None:
    x = (3000 + np.random.default_rng(0).standard_normal((1, 100, 100, 1))).astype(np.float32)
    x[0, 0, 0] = 0
    running_var = np.zeros(1, np.float32)
    ops.batch_norm(
        x,
        np.ones(1, np.float32),
        np.zeros(1, np.float32),
        np.zeros(1, np.float32),
        running_var,
        training=True,
        momentum=1.0,
    )
    np.testing.assert_allclose(running_var, x.astype(np.float64).var(ddof=1), rtol=1e-5)


@pytest.mark.parametrize("divide_alpha", [True, False])
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6])
def test_local_response_norm_gradient_element_by_element(beta: float, divide_alpha: bool) -> None:
    options = {"size": 3, "alpha": 0.7, "beta": beta, "k": 2.0, "divide_alpha": divide_alpha}
    x = normal(1, 2, 1, 5)
    assert agree(ops.local_response_norm, ArrayCase(x=x, options=options))
    assert gradcheck(ops.local_response_norm, x, settings=GradcheckSettings(full=True), **options)


def test_both_conventions_of_alpha_by_hand() -> None:
    """Channels 1, 2, 3 with size 3: the energies around them are 1 + 4, 1 + 4 + 9 and 4 + 9."""
    x = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
    divided = ops.local_response_norm(x, 3, alpha=3.0, beta=1.0, k=1.0).data.ravel()
    undivided = ops.local_response_norm(x, 3, alpha=3.0, beta=1.0, k=1.0, divide_alpha=False).data.ravel()
    np.testing.assert_allclose(divided, [1 / 6, 2 / 15, 3 / 14], rtol=1e-15)
    np.testing.assert_allclose(undivided, [1 / 16, 2 / 43, 3 / 40], rtol=1e-15)


def test_local_response_norm_over_more_rows_than_one_chunk_and_more_neighbours_than_channels() -> None:
    case = ArrayCase(x=normal(2, 13, 11, 4), options={"size": 25, "alpha": 0.5})
    assert agree(ops.local_response_norm, case)
    assert gradcheck(ops.local_response_norm, case.x, **case.options)


def test_a_large_channel_costs_its_distant_neighbours_no_digits() -> None:
    """A running sum over the channels would carry the large one's rounding on to all that follow."""
    x = 0.1 * normal(1, 1, 2, 12)
    x[..., 0] = 1e4
    assert agree(ops.local_response_norm, ArrayCase(x=x, options={"size": 3, "alpha": 3.0}))


def test_the_number_of_threads_does_not_change_a_bit_of_local_response_norm() -> None:
    x = normal(4, 15, 16, 8).astype(np.float32)  # four chunks of rows

    def results(threads: int) -> list[bytes]:
        md.set_num_threads(threads)
        t = tensor(x, requires_grad=True)
        y = ops.local_response_norm(t, 5, alpha=0.5)
        y.backward(normal(*y.shape, seed=1).astype(np.float32))
        assert t.grad is not None
        return [y.data.tobytes(), t.grad.data.tobytes()]

    before = md.get_num_threads()
    try:
        assert results(1) == results(min(2, numba.config.NUMBA_NUM_THREADS))
    finally:
        md.set_num_threads(before)


@pytest.mark.parametrize("size", [0, -3, 2.0, True, "5", None])
def test_local_response_norm_of_no_number_of_channels(size: Any) -> None:
    with pytest.raises(ValueError, match=f"local_response_norm: size is {size!r}, it must be an odd number"):
        ops.local_response_norm(np.zeros((1, 2, 2, 4)), size)


def test_local_response_norm_of_an_even_size() -> None:
    with pytest.raises(
        ValueError,
        match=r"local_response_norm: size is 4, it must be odd: of the neighbours c-2 \.\. c\+2 of channel c "
        r"an even window lacks one.*PyTorch c\+2, ONNX c-2.*Give 5 .* or 3",
    ):
        ops.local_response_norm(np.zeros((1, 2, 2, 4)), 4)


@pytest.mark.parametrize("options", [{"alpha": -1e-4}, {"k": -1.0}, {"k": float("nan")}])
def test_local_response_norm_of_numbers_that_have_no_power(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"local_response_norm: alpha is .* both must be at least 0"):
        ops.local_response_norm(np.zeros((1, 2, 2, 4)), 3, **options)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((2, 2, 4), r"x has shape \(2, 2, 4\), it must be \(N, H, W, C\)"),
        ((0, 2, 2, 4), "a batch of size 0"),
        ((1, 2, 2, 0), "without pixels or channels"),
    ],
)
def test_local_response_norm_of_no_images(shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ShapeError, match=f"local_response_norm: .*{text}"):
        ops.local_response_norm(np.zeros(shape), 3)


def test_local_response_norm_of_integers() -> None:
    with pytest.raises(DTypeError, match="local_response_norm: it computes in float32 or float64, not int64"):
        ops.local_response_norm(np.zeros((1, 2, 2, 4), np.int64), 3)
