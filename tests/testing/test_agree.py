"""agree accepts what rounding can explain, in any order of summation, and nothing else."""

from typing import Any

import numpy as np
import pytest

from minidl import ops
from minidl.autograd import Tensor
from minidl.testing import agree, reference
from minidl.testing.bounds import gamma
from minidl.testing.strategies import ArrayCase, BatchNormCase, Conv2dCase, LinearCase


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
    with pytest.raises(AssertionError, match=r"linear \(float64\): \d+ of 12 elements"):
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
    with pytest.raises(AssertionError, match=r"batch_norm \(float32\)"):
        agree(named(in_one_pass, "batch_norm"), case)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            lambda x, weight, bias: linear(x, weight, bias).astype(np.float64),
            r"returned float64 \(3, 4\), expected float32",
        ),
        (
            lambda x, weight, bias: linear(x, weight, bias).T,
            r"returned float32 \(4, 3\), expected float32 \(3, 4\)",
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
