"""agree accepts what rounding can explain, in any order of summation, and nothing else.

So in the output and in every gradient, under every plan, on every device.
"""

from typing import Any

import numpy as np
import pytest

from minidl import backend, ops, streams
from minidl.autograd import Tensor, no_grad
from minidl.backend import plans
from minidl.errors import DeviceError
from minidl.recording import op
from minidl.testing import agree, reference
from minidl.testing.bounds import gamma
from minidl.testing.strategies import (
    ArrayCase,
    BatchNormCase,
    Case,
    ConcatCase,
    Conv2dCase,
    CrossEntropyCase,
    LinearCase,
    PairCase,
    usable_devices,
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


LINEAR = LinearCase(x=normal(3, 200), weight=normal(200, 4, seed=1), bias=normal(4, seed=2))


def linear(x: Any, weight: Any, bias: Any = None) -> np.ndarray:
    return x @ weight + bias


def named(fn: Any, name: str) -> Any:
    """fn under the name of the op it stands in for."""
    fn.__name__ = name
    return fn


def test_any_order_of_the_sum_agrees() -> None:
    def backwards(x: Any, weight: Any, bias: Any) -> np.ndarray:
        return x[:, ::-1] @ weight[::-1] + bias

    def one_by_one(x: Any, weight: Any, bias: Any) -> np.ndarray:
        total = bias + np.zeros((len(x), weight.shape[1]), x.dtype)
        for d in range(x.shape[1]):
            total += x[:, d : d + 1] * weight[d]
        return total

    for fn in (linear, backwards, one_by_one):
        assert agree(named(fn, "linear"), LINEAR)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, weight, bias: x @ weight,
        lambda x, weight, bias: x[:, 1:] @ weight[1:] + bias,
        lambda x, weight, bias: (x @ weight + bias) * x.dtype.type(1 + 1e-4),
        lambda x, weight, bias: np.where(np.eye(3, 4, 2) > 0, 0, x @ weight + bias),
        lambda x, weight, bias: (x.astype(np.float16) @ weight.astype(np.float16)).astype(x.dtype) + bias,
        lambda x, weight, bias: x @ weight + bias + np.where(np.eye(3, 4) > 0, np.nan, 0).astype(x.dtype),
    ],
    ids=["no-bias", "a-term-less", "factor", "one-element", "half-precision", "nan"],
)
def test_what_rounding_does_not_explain_is_caught(wrong: Any) -> None:
    with pytest.raises(AssertionError, match="further from the reference than rounding explains"):
        agree(named(wrong, "linear"), LINEAR)


def test_float32_sums_do_not_pass_as_float64() -> None:
    def narrow(x: Any, weight: Any, bias: Any) -> np.ndarray:
        return linear(*(array.astype(np.float32) for array in (x, weight, bias))).astype(x.dtype)

    fn = named(narrow, "linear")
    assert agree(fn, LINEAR, dtypes=[np.float32])
    with pytest.raises(AssertionError, match=r"linear \(float64 on cpu\): output: \d+ of 12 elements"):
        agree(fn, LINEAR)


def test_a_row_of_padding_too_many_is_caught() -> None:
    case = Conv2dCase(
        x=normal(1, 5, 5, 2), weight=normal(3, 3, 2, 2, seed=1), bias=None, options={"padding": 1}
    )

    def shifted(x: Any, weight: Any, bias: Any, padding: int) -> Tensor:
        return ops.conv2d(x, weight, bias, padding=((2, 0), (1, 1)))

    with pytest.raises(AssertionError, match="rounding explains"):
        agree(named(shifted, "conv2d"), case)


def test_a_variance_by_cancellation_is_caught() -> None:
    x = 1000 + normal(4, 3, 3, 2)
    case = BatchNormCase(
        x=x,
        gamma=np.ones(2),
        beta=np.zeros(2),
        running_mean=np.zeros(2),
        running_var=np.ones(2),
        options={"training": True},
    )

    def in_one_pass(x: Any, gamma: Any, beta: Any, *_: Any, training: bool) -> np.ndarray:
        mean = x.mean((0, 1, 2))
        var = np.abs((x * x).mean((0, 1, 2)) - mean * mean)
        return (gamma * (x - mean) / np.sqrt(var + x.dtype.type(1e-5)) + beta).astype(x.dtype)

    assert agree(ops.batch_norm, case)
    with pytest.raises(AssertionError, match=r"batch_norm \(float32 on cpu\): output"):
        agree(named(in_one_pass, "batch_norm"), case)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            lambda x, weight, bias: linear(x, weight, bias).astype(np.float64),
            r"output is float64 \(3, 4\), expected float32",
        ),
        (
            lambda x, weight, bias: linear(x, weight, bias).T,
            r"output is float32 \(4, 3\), expected float32 \(3, 4\)",
        ),
    ],
)
def test_dtype_and_shape(wrong: Any, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        agree(named(wrong, "linear"), LINEAR)


def test_the_text_names_the_worst_element_and_the_case() -> None:
    def one_off(x: Any, weight: Any, bias: Any) -> np.ndarray:
        y = linear(x, weight, bias)
        y[2, 1] += 1
        y[0, 0] += x.dtype.type(0.5)
        return y

    with pytest.raises(
        AssertionError, match=r"2 of 12 elements .*\n.*worst element \[2, 1\]: found .* error 1, bound"
    ):
        agree(named(one_off, "linear"), LINEAR)


def test_an_op_of_ones_own() -> None:
    case = ArrayCase(x=normal(5, 7), options={"scale": 3.0})

    def total(x: np.ndarray, scale: float) -> np.ndarray:
        return x.sum(1) * x.dtype.type(scale)

    def naive(x: np.ndarray, scale: float) -> np.ndarray:
        return reference.mul(reference.sum(x, 1), scale)

    def bound(u: float, x: np.ndarray, scale: float) -> np.ndarray:
        return gamma(x.shape[1] + 1, u) * scale * np.abs(x).sum(1)

    with pytest.raises(ValueError, match="agree: nothing is known about total; pass reference= and bound="):
        agree(total, case)
    assert agree(total, case, reference=naive, bound=bound)
    with pytest.raises(AssertionError, match="rounding explains"):
        agree(lambda x, scale: total(x, scale) + x.dtype.type(1e-3), case, reference=naive, bound=bound)


# --- gradients ----------------------------------------------------------------------------------------------


@op
def bent(x: backend.Array, *, bend: Any) -> Any:
    """x itself; its gradient is bent on the way back."""
    return x.copy(), (bend,)


def bent_linear(bend: Any) -> Any:
    """ops.linear with another gradient of the weight."""
    return named(lambda x, weight, bias: ops.linear(x, bent(weight, bend=bend), bias), "linear")


@pytest.mark.parametrize(
    "bend",
    [
        lambda g: -g,
        lambda g: 0 * g,
        lambda g: 2 * g,
        lambda g: g / 3,
        lambda g: g * g.dtype.type(1 + 1e-4),
        lambda g: g[::-1],
        lambda g: np.where(np.eye(200, 4) > 0, 0, g),
        lambda g: np.where(np.eye(200, 4, -7) > 0, np.nan, g),
        lambda g: np.ones_like(g),
        lambda g: g.astype(np.float16).astype(g.dtype),
        lambda g: g + np.sqrt(np.finfo(g.dtype).eps),
    ],
    ids=[
        "sign",
        "zero",
        "twice",
        "a-third",
        "factor",
        "reversed",
        "elements-missing",
        "nan",
        "ones",
        "half-precision",
        "half-the-digits",
    ],
)
def test_wrong_gradients_are_caught(bend: Any) -> None:
    with pytest.raises(
        AssertionError, match=r"linear \(float32 on cpu\): gradient of weight: \d+ of 800 elem"
    ):
        agree(bent_linear(bend), LINEAR)


def test_a_gradient_with_the_digits_of_float32_does_not_pass_as_float64() -> None:
    fn = bent_linear(lambda g: g.astype(np.float32).astype(g.dtype))
    assert agree(fn, LINEAR, dtypes=[np.float32])
    with pytest.raises(AssertionError, match=r"linear \(float64 on cpu\): gradient of weight"):
        agree(fn, LINEAR)


@pytest.mark.parametrize(
    ("name", "k", "case"),
    [
        ("add", 1, PairCase(a=normal(3, 4), b=normal(4, seed=1))),
        ("sub", 0, PairCase(a=normal(3, 1), b=normal(3, 4, seed=1))),
        ("mul", 0, PairCase(a=normal(3), b=normal(2, 3, seed=1))),
        ("div", 1, PairCase(a=normal(2, 3), b=2 + np.abs(normal(3, seed=1)))),
        ("pow", 1, PairCase(a=2 + np.abs(normal(2, 3)), b=normal(3, seed=1))),
        ("maximum", 0, PairCase(a=normal(3), b=normal(3, seed=1))),
        ("sigmoid", 0, ArrayCase(x=normal(3, 2))),
        ("tanh", 0, ArrayCase(x=normal(3, 2))),
        ("softmax", 0, ArrayCase(x=normal(3, 4))),
        ("log_softmax", 0, ArrayCase(x=normal(3, 4))),
        ("mean", 0, ArrayCase(x=normal(3, 4))),
        ("matmul", 1, PairCase(a=normal(2, 3, 4), b=normal(4, 5, seed=1))),
        ("getitem", 0, ArrayCase(x=normal(3), options={"index": np.array([1, 1, 2])})),
        ("cross_entropy", 0, CrossEntropyCase(logits=normal(2, 3), labels=np.array([2, 0]))),
        ("dropout", 0, ArrayCase(x=normal(4, 5), options={"p": 0.5, "training": True})),
        (
            "batch_norm",
            1,
            BatchNormCase(
                x=normal(3, 1, 2, 2),
                gamma=normal(2),
                beta=normal(2),
                running_mean=normal(2),
                running_var=np.ones(2),
                options={"training": True},
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hundred_thousandth_is_caught_in_every_kind_of_op(name: str, k: int, case: Case) -> None:
    """Far less than a dropped term, and still more than rounding explains."""

    def slightly_wrong(*inputs: Any, **options: Any) -> Tensor:
        changed = list(inputs)
        changed[k] = bent(inputs[k], bend=lambda g: g * g.dtype.type(1 + 1e-5))
        return getattr(ops, name)(*changed, **options)

    assert agree(getattr(ops, name), case)
    with pytest.raises(AssertionError, match=rf"{name} \(float32 on cpu\): gradient of \w+: .* further from"):
        agree(named(slightly_wrong, name), case)


def test_the_text_names_the_argument_its_worst_element_and_the_case() -> None:
    def bend(g: np.ndarray) -> np.ndarray:
        changed = g.copy()
        changed[0] += 0.5
        changed[2] -= 1
        return changed

    def second_part_wrong(arrays: list[Any], axis: int) -> Tensor:
        return ops.concat([arrays[0], bent(arrays[1], bend=bend)], axis=axis)

    case = ConcatCase(arrays=[normal(2), np.zeros(3)], options={"axis": 0})
    upstream = r"-?\d\.\d+"
    with pytest.raises(
        AssertionError,
        match=r"agree: concat \(float32 on cpu\): gradient of arrays\[1\]: 2 of 3 elements are further from "
        r"the reference than rounding explains\n"
        rf"  worst element \[2\]: found {upstream}, reference {upstream}, error 1, bound 1.18e-38\n"
        r"  for ConcatCase\(arrays=\[array\(.*\], axis=0\)",
    ):
        agree(named(second_part_wrong, "concat"), case)


def test_a_gradient_that_is_missing_is_caught() -> None:
    def cut(x: Any, weight: Any, bias: Any) -> Tensor:
        return ops.linear(x, weight.detach() if isinstance(weight, Tensor) else weight, bias)

    with pytest.raises(AssertionError, match=r"linear \(float32 on cpu\): weight got no gradient"):
        agree(named(cut, "linear"), LINEAR)
    with pytest.raises(
        AssertionError, match=r"does not depend on x, weight, bias: nothing was recorded\n  for LinearCase"
    ):
        agree(named(no_grad()(ops.linear), "linear"), LINEAR)


def test_an_output_that_is_wrong_only_when_recorded_is_caught() -> None:
    def on_tensors(x: Any, weight: Any, bias: Any) -> Tensor:
        return ops.linear(x, weight, None if isinstance(x, Tensor) else bias)

    with pytest.raises(AssertionError, match=r"linear \(float32 on cpu\): recorded output: \d+ of 12"):
        agree(named(on_tensors, "linear"), LINEAR)


def test_gradients_of_options_are_compared_too() -> None:
    case = BatchNormCase(
        x=normal(2, 2, 2, 1),
        gamma=np.ones(1),
        beta=np.zeros(1),
        running_mean=np.zeros(1),
        running_var=np.ones(1),
        options={"training": False, "residual": normal(2, 2, 2, 1, seed=1)},
    )

    def wrong(*inputs: Any, residual: Any, **options: Any) -> Tensor:
        return ops.batch_norm(*inputs, residual=bent(residual, bend=lambda g: -g), **options)

    assert agree(ops.batch_norm, case)
    with pytest.raises(AssertionError, match="gradient of residual: 8 of 8 elements"):
        agree(named(wrong, "batch_norm"), case)


def test_random_streams_start_anew_and_go_on_as_if_nothing_had_happened() -> None:
    case = ArrayCase(x=normal(4, 5), options={"p": 0.5, "training": True})
    streams.manual_seed(7)
    ops.dropout(case.x, 0.5, training=True)
    before = streams.get_state()
    assert agree(ops.dropout, case)
    assert streams.get_state() == before


@op
def centred(x: backend.Array, *, scale: float) -> Any:
    """scale * (x - mean of x)"""

    def grad_x(g: np.ndarray) -> np.ndarray:
        return x.dtype.type(scale) * (g - g.mean())

    return x.dtype.type(scale) * (x - x.mean()), (grad_x,)


def test_gradients_of_an_op_of_ones_own() -> None:
    def naive(x: np.ndarray, scale: float) -> np.ndarray:
        return reference.mul(reference.sub(x, reference.mean(x)), scale)

    def bound(u: float, x: np.ndarray, scale: float) -> np.ndarray:
        return gamma(x.size + 4, u) * scale * (np.abs(x) + np.abs(x).mean())

    def naive_gradients(g: np.ndarray, x: np.ndarray, scale: float) -> tuple[np.ndarray]:
        return (naive(g, scale),)  # a symmetric matrix is its own transpose

    def gradient_bound(u: float, g: np.ndarray, x: np.ndarray, scale: float) -> tuple[np.ndarray]:
        return (bound(u, g, scale),)

    case = ArrayCase(x=normal(5, 7), options={"scale": 3.0})
    known = {"reference": naive, "bound": bound}
    assert agree(centred, case, **known, gradients=(naive_gradients, gradient_bound))

    def off_by_a_constant(x: Any, scale: float) -> Tensor:
        return centred(bent(x, bend=lambda g: g + g[0, 0]), scale=scale)

    assert agree(off_by_a_constant, case, **known)
    with pytest.raises(
        AssertionError, match=r"off_by_a_constant \(float32 on cpu\): gradient of x: 35 of 35 elements"
    ):
        agree(off_by_a_constant, case, **known, gradients=(naive_gradients, gradient_bound))
    with pytest.raises(ValueError, match="the reference has 0 gradients, but 1 arrays can have one: x"):
        agree(centred, case, **known, gradients=(lambda *_, **__: (None,), lambda *_, **__: (None,)))


# --- plans and devices --------------------------------------------------------------------------------------

POINTWISE = Conv2dCase(x=normal(1, 3, 3, 2), weight=normal(1, 1, 2, 2, seed=1), bias=normal(2))
THREE = Conv2dCase(x=normal(1, 3, 3, 2), weight=normal(3, 3, 2, 2, seed=1), bias=None, options={"padding": 1})


def the_plan() -> str:
    """What force_plan says at the moment."""
    forced = plans.forced(plans.NAMES)
    assert forced is not None
    return forced.name


@pytest.mark.parametrize(
    ("case", "expected"),
    [(POINTWISE, ["auto", "pointwise", "im2col"]), (THREE, ["auto", "winograd", "im2col"])],
    ids=["pointwise", "3x3"],
)
def test_every_plan_runs_that_differs_from_the_others(case: Conv2dCase, expected: list[str]) -> None:
    seen = []

    def conv2d(*inputs: Any, **options: Any) -> Tensor:
        seen.append(the_plan())
        return ops.conv2d(*inputs, **options)

    assert agree(conv2d, case, dtypes=[np.float32])
    assert seen == [plan for plan in expected for _ in range(2)]  # once on arrays, once on Tensors
    seen.clear()
    assert agree(conv2d, case, dtypes=[np.float32], plans=["direct"])
    assert set(seen) == {"direct"}


def test_an_op_wrong_under_one_plan_is_caught() -> None:
    def conv2d(x: Any, weight: Any, bias: Any) -> Tensor:
        return ops.conv2d(x, weight, bias if the_plan() == "auto" else None)

    assert agree(conv2d, POINTWISE, plans=["auto"])
    with pytest.raises(AssertionError, match=r"conv2d \(float32 on cpu, plan pointwise\): output: \d+ of 18"):
        agree(conv2d, POINTWISE)


def test_a_gradient_wrong_under_one_plan_is_caught() -> None:
    def conv2d(x: Any, weight: Any, bias: Any) -> Tensor:
        bend = (lambda g: g) if the_plan() == "auto" else (lambda g: g.transpose(0, 1, 3, 2))
        return ops.conv2d(x, bent(weight, bend=bend), bias)

    assert agree(conv2d, POINTWISE, plans=["auto"])
    with pytest.raises(
        AssertionError, match=r"conv2d \(float32 on cpu, plan pointwise\): gradient of weight"
    ):
        agree(conv2d, POINTWISE)


def test_devices() -> None:
    assert "cpu" in usable_devices()
    assert agree(ops.conv2d, THREE, devices=usable_devices())
    with pytest.raises(DeviceError, match="device 'abacus' is not available"):
        agree(ops.conv2d, THREE, devices=["abacus"])


def test_every_usable_device_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second device, which is the first one under another name."""
    asked = []

    def asarray(value: Any, device: str) -> np.ndarray:
        asked.append(device)
        return np.asarray(value)

    monkeypatch.setattr(backend, "check_device", lambda name: name)
    monkeypatch.setattr(backend, "asarray", asarray)
    assert usable_devices() == ["cpu", "cudasim", "cuda"]
    assert agree(ops.relu, ArrayCase(x=normal(3)), dtypes=[np.float32])
    assert list(dict.fromkeys(asked)) == ["cpu", "cudasim", "cuda"]
