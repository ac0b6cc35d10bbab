"""What holds for every op of `minidl.ops`: no op can be added without an example here.

float32 stays float32, inputs stay as they were, the layout in memory makes no difference, a batch is its
images one by one, numbers are never NaN because a kernel read what it had not written (conftest.py poisons
fresh memory).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl import ops, streams
from minidl.autograd import Tensor, no_grad
from minidl.testing.strategies import VALUES


def normal(*shape: int) -> np.ndarray:
    return VALUES["normal"](np.random.default_rng(sum(shape)), shape)


def positive(*shape: int) -> np.ndarray:
    return VALUES["positive"](np.random.default_rng(sum(shape)), shape)


Example = tuple[tuple[np.ndarray, ...], Callable[..., Tensor]]
IMAGE = (2, 5, 6, 4)

# The float arrays that have gradients, and the call that takes them.
EXAMPLES: dict[str, Example] = {
    "add": ((normal(3, 4), normal(4)), ops.add),
    "sub": ((normal(3, 4), normal(3, 1)), ops.sub),
    "mul": ((normal(3, 4), normal(4)), ops.mul),
    "div": ((normal(3, 4), positive(4)), ops.div),
    "pow": ((positive(3, 4), normal(4)), ops.pow),
    "maximum": ((normal(3, 4), normal(4)), ops.maximum),
    "minimum": ((normal(3, 4), normal(4)), ops.minimum),
    "neg": ((normal(3, 4),), ops.neg),
    "abs": ((normal(3, 4),), ops.abs),
    "exp": ((normal(3, 4),), ops.exp),
    "log": ((positive(3, 4),), ops.log),
    "sqrt": ((positive(3, 4),), ops.sqrt),
    "clip": ((normal(3, 4),), lambda x: ops.clip(x, -0.5, 0.5)),
    "cast": ((normal(3, 4),), lambda x: ops.cast(x, dtype=x.dtype)),
    "where": ((normal(3, 4), normal(4)), lambda a, b: ops.where(np.eye(3, 4) > 0, a, b)),
    "relu": ((normal(3, 4),), ops.relu),
    "sigmoid": ((normal(3, 4),), ops.sigmoid),
    "tanh": ((normal(3, 4),), ops.tanh),
    "softmax": ((normal(3, 4),), ops.softmax),
    "log_softmax": ((normal(3, 4),), ops.log_softmax),
    "matmul": ((normal(3, 4), normal(4, 2)), ops.matmul),
    "linear": ((normal(3, 4), normal(4, 2), normal(2)), ops.linear),
    "sum": ((normal(3, 4),), lambda x: ops.sum(x, axis=1)),
    "mean": ((normal(3, 4),), lambda x: ops.mean(x, axis=1)),
    "max": ((normal(3, 4),), lambda x: ops.max(x, axis=1)),
    "reshape": ((normal(3, 4),), lambda x: ops.reshape(x, (-1, 2, 2))),
    "transpose": ((normal(3, 4, 2),), lambda x: ops.transpose(x, (0, 2, 1))),
    "flatten": ((normal(*IMAGE),), ops.flatten),
    "concat": ((normal(3, 4), normal(3, 2)), lambda a, b: ops.concat([a, b])),
    "pad": ((normal(3, 4),), lambda x: ops.pad(x, ((0, 0), (1, 2)), value=0.1)),
    "getitem": ((normal(3, 4),), lambda x: ops.getitem(x, (slice(None), [2, 0, 2]))),
    "conv2d": (
        (normal(*IMAGE), normal(3, 3, 2, 6), normal(6)),
        lambda *arrays: ops.conv2d(*arrays, groups=2, stride=2, padding="same", activation="relu"),
    ),
    "max_pool2d": ((normal(*IMAGE),), lambda x: ops.max_pool2d(x, 3, stride=2, padding=1)),
    "avg_pool2d": ((normal(*IMAGE),), lambda x: ops.avg_pool2d(x, 3, stride=2, ceil_mode=True)),
    "adaptive_avg_pool2d": ((normal(*IMAGE),), lambda x: ops.adaptive_avg_pool2d(x, (2, 4))),
    "global_avg_pool": ((normal(*IMAGE),), ops.global_avg_pool),
    "batch_norm": (
        (normal(*IMAGE), normal(4), normal(4), normal(*IMAGE)),
        lambda x, gamma, beta, residual: ops.batch_norm(
            x,
            gamma,
            beta,
            np.zeros(4, x.dtype),
            np.ones(4, x.dtype),
            training=True,
            activation="relu",
            residual=residual,
        ),
    ),
    "local_response_norm": (
        (normal(*IMAGE),),
        lambda x: ops.local_response_norm(x, 3, alpha=0.5, divide_alpha=False),
    ),
    "dropout": ((normal(3, 4),), lambda x: _seeded_dropout(x)),
    "cross_entropy": ((normal(3, 4),), lambda x: ops.cross_entropy(x, [0, 3, 1], label_smoothing=0.1)),
}
# Ops that look at the whole batch, or at the place in it, as what they are for one image.
IMAGE_BY_IMAGE: dict[str, Example] = EXAMPLES | {
    "where": ((normal(3, 4), normal(4)), lambda a, b: ops.where(a.data > 0, a, b)),
    "dropout": ((normal(3, 4),), lambda x: ops.dropout(x, 0.5, training=False)),
    "batch_norm": (
        (normal(*IMAGE), normal(4), normal(4)),
        lambda x, *vectors: ops.batch_norm(x, *vectors, np.zeros(4), np.ones(4), training=False),
    ),
    "cross_entropy": (
        (normal(3, 4),),
        lambda x: ops.cross_entropy(x, np.ones(len(x), int), reduction="none"),
    ),
}

every_op = pytest.mark.parametrize("name", EXAMPLES)


def _seeded_dropout(x: Any) -> Tensor:
    streams.manual_seed(5)
    return ops.dropout(x, 0.5, training=True)


def run(
    call: Callable[..., Tensor], arrays: Any, upstream: np.ndarray | None = None
) -> tuple[Tensor, list[np.ndarray]]:
    """The output, and the gradients for an upstream of varied values (or the given one)."""
    tensors = [Tensor(array, requires_grad=True) for array in arrays]
    y = call(*tensors)
    g = np.linspace(-1, 2, y.size).reshape(y.shape).astype(y.dtype) if upstream is None else upstream
    y.backward(Tensor(g))
    gradients = [t.grad.data for t in tensors if t.grad is not None]
    assert len(gradients) == len(tensors)
    return y, gradients


def test_every_op_has_an_example() -> None:
    assert sorted(EXAMPLES) == sorted(ops.__all__)


@every_op
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_op_changes_the_dtype(name: str, dtype: type) -> None:
    arrays, call = EXAMPLES[name]
    y, gradients = run(call, [array.astype(dtype) for array in arrays])
    assert y.dtype == dtype
    assert isinstance(y.data, np.ndarray)
    for gradient in gradients:
        assert gradient.dtype == dtype
        assert isinstance(gradient, np.ndarray)


@every_op
def test_inputs_and_upstream_stay_as_they_were(name: str) -> None:
    arrays, call = EXAMPLES[name]
    copies = [array.copy() for array in arrays]
    with no_grad():
        shape = call(*(Tensor(array) for array in arrays)).shape
    upstream = np.linspace(-1, 2, int(np.prod(shape))).reshape(shape)
    before = upstream.copy()
    run(call, arrays, upstream)
    np.testing.assert_array_equal(upstream, before)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def _transposed(array: np.ndarray) -> np.ndarray:
    """The same values, first axis fastest in memory."""
    return np.asfortranarray(array)


def _sliced(array: np.ndarray) -> np.ndarray:
    """The same values, a slice of the channels of a wider array."""
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1] + 1), np.nan, array.dtype)
    wide[..., 1::2] = array
    return wide[..., 1::2]


def _reversed(array: np.ndarray) -> np.ndarray:
    """The same values, running backwards through memory."""
    return np.ascontiguousarray(array[::-1])[::-1]


@every_op
@pytest.mark.parametrize("layout", [_transposed, _sliced, _reversed])
def test_the_layout_in_memory_makes_no_difference(
    name: str, layout: Callable[[np.ndarray], np.ndarray]
) -> None:
    arrays, call = EXAMPLES[name]
    y, gradients = run(call, arrays)
    g = layout(np.linspace(-1, 2, y.size).reshape(y.shape)) if y.ndim else None
    other_y, other_gradients = run(call, [layout(array) for array in arrays], g)
    # Equal to rounding: BLAS may sum in another order.
    np.testing.assert_allclose(other_y.data, y.data, rtol=1e-13)
    for other, gradient in zip(other_gradients, gradients, strict=True):
        np.testing.assert_allclose(other, gradient, rtol=1e-13, atol=1e-14)


@every_op
def test_a_batch_of_one(name: str) -> None:
    """Every image alone gives what it gives in company."""
    arrays, call = IMAGE_BY_IMAGE[name]
    n = len(arrays[0])
    whole = call(*map(Tensor, arrays)).data
    for image in range(n):
        # Operands with an axis for the images are cut, parameters are not.
        cut = [array[image : image + 1] if len(array) == n else array for array in arrays]
        np.testing.assert_allclose(call(*map(Tensor, cut)).data, whole[image : image + 1], rtol=1e-13)


@every_op
def test_nothing_is_recorded_without_a_gradient(name: str) -> None:
    arrays, call = EXAMPLES[name]
    assert not call(*(Tensor(array) for array in arrays)).requires_grad
    with no_grad():
        assert not call(*(Tensor(array, requires_grad=True) for array in arrays)).requires_grad


@every_op
def test_every_subset_of_the_inputs_may_want_a_gradient(name: str) -> None:
    arrays, call = EXAMPLES[name]
    y, gradients = run(call, arrays)
    upstream = Tensor(np.linspace(-1, 2, y.size).reshape(y.shape))
    for wanted in range(len(arrays)):
        tensors = [Tensor(array, requires_grad=i == wanted) for i, array in enumerate(arrays)]
        call(*tensors).backward(upstream)
        assert [t.grad is not None for t in tensors] == [i == wanted for i in range(len(arrays))]
        grad = tensors[wanted].grad
        assert grad is not None
        np.testing.assert_array_equal(grad.data, gradients[wanted])
