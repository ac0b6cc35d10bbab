"""gradcheck accepts right gradients, at kinks too, and every kind of wrong one is caught with a text that
helps.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl import autograd, nn, ops, streams
from minidl.autograd import Tensor
from minidl.backend import Array
from minidl.errors import DTypeError, ShapeError
from minidl.recording import op
from minidl.testing import GradcheckSettings, convergence, gradcheck
from minidl.testing.strategies import VALUES, usable_devices

X = VALUES["normal"](np.random.default_rng(0), (3, 4))
Y = VALUES["normal"](np.random.default_rng(1), (3, 4))
BOTH_MODES = pytest.mark.parametrize("full", [False, True])


def product(
    grad_a: Callable[..., Array] | None = None, grad_b: Callable[..., Array] | None = None
) -> Callable[..., Tensor]:
    """a * b as an op, with its gradients (functions of a, b and g) replaced at will."""

    def multiply(a: Array, b: Array) -> Any:
        def vjp_a(g: Array) -> Array:
            return grad_a(a, b, g) if grad_a else g * b

        def vjp_b(g: Array) -> Array:
            return grad_b(a, b, g) if grad_b else g * a

        return a * b, (vjp_a, vjp_b)

    return op(multiply)


def of_one(forward: Callable[[Array], Array], grad: Callable[[Array, Array], Array]) -> Callable[..., Tensor]:
    """An op of one argument from its value and its gradient, a function of x and g."""

    def function(x: Array) -> Any:
        def grad_x(g: Array) -> Array:
            return grad(x, g)

        return forward(x), (grad_x,)

    return op(function)


@BOTH_MODES
def test_a_right_gradient_passes(full: bool) -> None:
    assert gradcheck(product(), X, Y, settings=GradcheckSettings(full=full))


def test_float32_and_tensors_are_checked_in_float64() -> None:
    seen = []

    def watched(a: Tensor, b: Tensor) -> Tensor:
        seen.append((a.dtype, b.dtype))
        return product()(a, b)

    assert gradcheck(watched, Tensor(X.astype(np.float32), requires_grad=True), Tensor(Y.astype(np.float32)))
    assert set(seen) == {(np.dtype(np.float64), np.dtype(np.float64))}


def test_arguments_that_are_no_float_arrays_pass_through() -> None:
    def pick(arrays: list[Tensor], index: Array, nothing: None, *, scale: int) -> Tensor:
        assert nothing is None
        assert index.dtype == np.int64
        assert scale == 3
        return product()(*arrays)

    assert gradcheck(pick, [X, Y], np.array([1]), None, scale=3)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, b, g: -g * a,
        lambda a, b, g: g * a * 1.001,
        lambda a, b, g: g * b,
        lambda a, b, g: np.zeros_like(a),
        lambda a, b, g: g * a.mean(),
        lambda a, b, g: (g * a).mean(0, keepdims=True) + 0 * b,
        lambda a, b, g: np.where(np.arange(a.size).reshape(a.shape) == 5, 0, g * a),
        lambda a, b, g: np.where(np.arange(a.size).reshape(a.shape) == 5, np.nan, g * a),
    ],
    ids=["sign", "factor", "operand", "zero", "mean", "reduced", "one-element", "nan"],
)
@BOTH_MODES
def test_a_wrong_gradient_is_caught(full: bool, wrong: Callable[..., Array]) -> None:
    with pytest.raises(AssertionError, match="the gradient of b is wrong"):
        gradcheck(product(grad_b=wrong), Y, X, settings=GradcheckSettings(full=full))


@BOTH_MODES
def test_the_text_names_everything_needed_to_see_it_again(full: bool) -> None:
    def at_one_place(a: Array, b: Array, g: Array) -> Array:
        right = g * b
        right[1, 2] += 1.0
        return right

    settings = GradcheckSettings(eps=1e-5, full=full, seed=7)
    with pytest.raises(AssertionError) as failure:
        gradcheck(product(grad_a=at_one_place), X, Y, settings=settings)
    text = str(failure.value)
    element = "/ d a[1, 2]: analytic" if full else "worst element [1, 2]: analytic"
    for part in (
        "multiply: the gradient of a is wrong",
        element,
        "eps 1e-05, seed 7",
        "numeric",
        "gradcheck(multiply, a=<float64 (3, 4)>, b=<float64 (3, 4)>, settings=GradcheckSettings(eps=1e-05",
    ):
        assert part in text


def test_upstream_gradients_that_cancel_by_symmetry_are_not_used() -> None:
    """Softmax and batch norm have gradient 0 under a constant upstream: a checker that uses ones passes
    anything.
    """
    centred = of_one(lambda x: x - x.mean(), lambda x, g: g * (1 - 1 / x.size))  # the mean's path is wrong
    with pytest.raises(AssertionError, match="is wrong"):
        gradcheck(centred, X)


# --- kinks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
@BOTH_MODES
def test_at_a_kink_any_subgradient_passes(full: bool, slope: float) -> None:
    relu = of_one(lambda x: np.maximum(x, 0), lambda x, g: g * np.where(x == 0, slope, x > 0))
    assert gradcheck(relu, np.array([-1.0, 0.0, 0.0, 2.0, 0.0]), settings=GradcheckSettings(full=full))


@pytest.mark.parametrize("slope", [-0.01, 1.01])
def test_at_a_kink_nothing_else_passes(slope: float) -> None:
    relu = of_one(lambda x: np.maximum(x, 0), lambda x, g: g * np.where(x == 0, slope, x > 0))
    with pytest.raises(AssertionError, match=r"\[1\].*a kink"):
        gradcheck(relu, np.array([-1.0, 0.0, 2.0]), settings=GradcheckSettings(full=True))


def test_a_kink_excuses_no_other_element() -> None:
    relu = of_one(
        lambda x: np.maximum(x, 0), lambda x, g: g * np.where(x == 0, 0.5, x > 0) * np.where(x == 2, 1.01, 1)
    )
    with pytest.raises(AssertionError, match=r"d output\[2\] / d x\[2\]: analytic 1.01, numeric 1,"):
        gradcheck(relu, np.array([-1.0, 0.0, 2.0]), settings=GradcheckSettings(full=True))


# --- the complex step ---------------------------------------------------------------------------------------

COMPLEX = GradcheckSettings(method="complex")


@pytest.mark.parametrize("full", [False, True])
def test_the_complex_step_finds_what_a_difference_cannot_see(full: bool) -> None:
    """An error of one part in 10^8 is below any finite step's own error."""
    settings = GradcheckSettings(method="complex", full=full)
    right = of_one(np.exp, lambda x, g: g * np.exp(x))
    nearly = of_one(np.exp, lambda x, g: g * np.exp(x) * (1 + 1e-8))
    assert gradcheck(right, X, settings=settings)
    assert gradcheck(nearly, X)
    with pytest.raises(AssertionError, match="the gradient of x is wrong"):
        gradcheck(nearly, X, settings=settings)


@pytest.mark.parametrize(
    ("fn", "inputs"),
    [
        (ops.add, (X, Y)),
        (ops.sub, (X, Y)),
        (ops.mul, (X, Y)),
        (ops.div, (X, Y**2 + 1)),
        (ops.pow, (X**2 + 1, Y)),
        (ops.exp, (X,)),
        (ops.log, (X**2 + 1,)),
        (ops.sqrt, (X**2 + 1,)),
        (ops.tanh, (X,)),
        (ops.softmax, (X,)),
        (ops.log_softmax, (X,)),
        (ops.matmul, (X, Y.T)),
        (ops.linear, (X, Y.T, X[:, 0])),
        (ops.sum, (X,)),
        (ops.mean, (X,)),
        (lambda a, b: ops.concat([a * 2.0, ops.transpose(b)[:, 1:].reshape(3, 3) * a[:, :3]]), (X, Y.T)),
    ],
)
def test_smooth_ops_pass_with_the_complex_step(fn: Callable[..., Tensor], inputs: tuple[Array, ...]) -> None:
    assert gradcheck(fn, *inputs, settings=COMPLEX)


def test_constant_tensors_and_numbers_join_a_complex_step() -> None:
    assert gradcheck(lambda a, b: (1.0 - b) * a / Y, X, Tensor(Y), settings=COMPLEX)


def test_an_op_that_computes_on_real_numbers_alone_is_named() -> None:
    image, weight = np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1))
    with pytest.raises(TypeError, match=r"conv2d does not compute on complex .*use method='difference'"):
        gradcheck(ops.conv2d, image, weight, settings=COMPLEX)
    with pytest.raises(DTypeError):  # and outside a check complex numbers are refused as ever
        ops.add(np.ones(3), np.ones(3, complex))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="method is 'magic'; it may be 'difference' or 'complex'"):
        GradcheckSettings(method="magic")


# --- the sweep ----------------------------------------------------------------------------------------------


def test_the_error_of_a_right_gradient_falls_with_the_square_of_the_step() -> None:
    (sweep,) = convergence(ops.tanh, X)
    assert sweep.order == pytest.approx(2, abs=0.05)
    assert str(sweep).startswith("x: order 2.0")
    assert gradcheck(ops.tanh, X, settings=GradcheckSettings(sweep=True))


def test_the_error_of_a_wrong_gradient_stays() -> None:
    wrong = of_one(np.tanh, lambda x, g: 1.01 * g * (1 - np.tanh(x) ** 2))
    (sweep,) = convergence(wrong, X)
    assert sweep.order == pytest.approx(0, abs=0.05)
    with pytest.raises(AssertionError, match=r"falls with its power \S+ \(2: right"):
        gradcheck(wrong, X)


def test_the_sweep_sees_what_one_step_calls_close_enough() -> None:
    nearly = of_one(np.tanh, lambda x, g: (1 + 1e-7) * g * (1 - np.tanh(x) ** 2))
    assert gradcheck(nearly, X)
    with pytest.raises(AssertionError, match="does not fall with the square of the step"):
        gradcheck(nearly, X, settings=GradcheckSettings(sweep=True))


def test_a_linear_function_has_no_error_to_fall() -> None:
    assert all(each.order == np.inf for each in convergence(product(), X, Y))


# --- modules and random streams -----------------------------------------------------------------------------


def test_the_parameters_of_a_module_are_checked_too() -> None:
    image = VALUES["normal"](np.random.default_rng(2), (2, 4, 4, 3))
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )
    before = net.state_dict()
    assert gradcheck(net, image)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
        assert value.dtype == np.float32


def test_a_wrong_gradient_of_a_parameter_is_named_by_its_path() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            self.scale = nn.Parameter(np.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return product(grad_b=lambda a, b, g: (g * a).sum(0) * 1.01)(x, self.scale)

    with pytest.raises(AssertionError, match=r"the gradient of 1\.scale is wrong"):
        gradcheck(nn.Sequential(nn.Identity(), Scale()), X)


def test_dropout_keeps_its_mask_during_a_check_and_goes_on_afterwards() -> None:
    expected = [ops.dropout(X, 0.5, training=True).data for _ in range(2)]
    streams.manual_seed(0)
    first = ops.dropout(X, 0.5, training=True).data
    assert gradcheck(ops.dropout, X, 0.5, training=True)
    np.testing.assert_array_equal([first, ops.dropout(X, 0.5, training=True).data], expected)


# --- refusals -----------------------------------------------------------------------------------------------


@BOTH_MODES
def test_a_vacuous_check_is_refused(full: bool) -> None:
    constant = of_one(lambda x: np.ones_like(x), lambda x, g: np.zeros_like(x))
    with pytest.raises(AssertionError, match=r"vacuous: the output does not change with x.*allow_zero=True"):
        gradcheck(constant, X, settings=GradcheckSettings(full=full))
    assert gradcheck(constant, X, settings=GradcheckSettings(full=full, allow_zero=True))


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ((np.array([1, 2]), np.array([3, 4])), "no float array"),
        ((np.zeros((0, 3)), np.zeros((0, 3))), "without elements"),
    ],
)
def test_nothing_to_check_is_an_error(inputs: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        gradcheck(product(), *inputs)


def test_the_result_must_be_a_tensor() -> None:
    with pytest.raises(TypeError, match="returned tuple; it must return one Tensor"):
        gradcheck(lambda x: (x, x), X)


def test_an_output_that_was_not_recorded_is_an_error() -> None:
    with pytest.raises(AssertionError, match="does not depend on x: nothing was recorded"):
        gradcheck(lambda x: Tensor(x.data * 2), X)


def test_values_outside_the_domain_are_an_error() -> None:
    root = of_one(np.sqrt, lambda x, g: g / (2 * np.sqrt(x)))
    with np.errstate(invalid="ignore", divide="ignore"):
        with pytest.raises(AssertionError, match="not finite, so it has no slope"):
            gradcheck(root, np.array([-1.0]))
        with pytest.raises(AssertionError, match="not finite a step away from x"):
            gradcheck(root, np.array([1e-9]))


# --- side conditions ----------------------------------------------------------------------------------------


def into(target: Array, result: Array) -> Array:
    """`result`, after writing it into `target`."""
    target[...] = result
    return result.copy()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda a, b, g: into(a, g * b), "argument a was written into"),
        (lambda a, b, g: into(g, g * b), "the upstream gradient was written into"),
    ],
    ids=["writes-input", "writes-upstream"],
)
def test_a_gradient_with_a_side_effect_is_caught(wrong: Callable[..., Array], text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        gradcheck(product(grad_a=wrong), X, Y)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            lambda a, b, g: (g * b).astype(np.float32),
            r"a gradient is float32 \(3, 4\), but .* float64 \(3, 4\)",
        ),
        (lambda a, b, g: (g * b)[:2], r"a gradient is float64 \(2, 4\), but .* float64 \(3, 4\)"),
    ],
    ids=["narrows", "reshapes"],
)
def test_a_gradient_of_another_kind_is_refused_by_the_engine(wrong: Callable[..., Array], text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        gradcheck(product(grad_a=wrong), X, Y)


def test_a_forward_that_writes_its_input_is_caught() -> None:
    with pytest.raises(AssertionError, match="argument x was written into"):
        gradcheck(of_one(lambda x: into(x, x * 2), lambda x, g: 2 * g), X)


def test_a_result_in_another_dtype_is_caught() -> None:
    with pytest.raises(AssertionError, match="the output is float32"):
        gradcheck(of_one(lambda x: x.astype(np.float32), lambda x, g: g.astype(np.float64)), X)


def test_randomness_is_caught() -> None:
    noise = itertools.count()
    with pytest.raises(AssertionError, match="a second run gave another output"):
        gradcheck(of_one(lambda x: x + next(noise), lambda x, g: g), X)
    with pytest.raises(AssertionError, match="a second run gave another gradient of x"):
        gradcheck(of_one(lambda x: x, lambda x, g: g + next(noise)), X)


def test_a_gradient_that_needs_another_ones_company_is_caught() -> None:
    """Work shared between vjps must be done by whichever runs first."""
    memory: list[Array] = []

    def first(a: Array, b: Array, g: Array) -> Array:
        memory[:] = [g]
        return g * b

    def second(a: Array, b: Array, g: Array) -> Array:
        return g * a if memory[0] is g else 0 * a

    with pytest.raises(AssertionError, match="the gradient of b is another one when no other is asked for"):
        gradcheck(product(first, second), X, Y)


def test_what_is_remembered_from_a_first_backward_is_caught() -> None:
    """Work shared between vjps must be done anew for another upstream gradient."""

    def multiply(a: Array, b: Array) -> Any:
        memory: list[Array] = []

        def grad_a(g: Array) -> Array:
            memory.append(g)
            return memory[0] * b

        return a * b, (grad_a, lambda g: g * a)

    with pytest.raises(AssertionError, match=r"second backward through the same graph.*gradient of a"):
        gradcheck(op(multiply), X, Y)


def test_gradients_that_share_memory_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that forgot to copy what two vjps both return."""
    monkeypatch.setattr(autograd, "_fresh", lambda g, leaving: [True] * len(leaving))
    both = np.ones_like(X)
    with pytest.raises(AssertionError, match="the gradient of a shares memory with the gradient of b"):
        gradcheck(product(lambda a, b, g: both, lambda a, b, g: both), X, Y)


on_the_emulated_gpu = pytest.mark.skipif("cudasim" not in usable_devices(), reason="the emulator needs g++")


@on_the_emulated_gpu
def test_a_gradient_that_is_wrong_on_a_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One part in a thousand: far more than float32 rounds, far less than would be seen in its own slopes."""
    from minidl.backend import cuda

    settings, x = GradcheckSettings(device="cudasim"), X
    assert gradcheck(ops.exp, x, settings=settings)
    mul = cuda.mul
    monkeypatch.setattr(cuda, "mul", lambda a, b: mul(mul(a, b), 1.001))
    assert gradcheck(ops.exp, x)
    with pytest.raises(AssertionError, match="the gradient of x on 'cudasim' is wrong"):
        gradcheck(ops.exp, x, settings=settings)


@on_the_emulated_gpu
def test_a_module_on_a_device() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    x = VALUES["normal"](np.random.default_rng(0), (2, 5, 6, 3))
    assert gradcheck(net, x, settings=GradcheckSettings(device="cudasim"))
    assert {p.device for p in net.parameters()} == {"cpu"}
