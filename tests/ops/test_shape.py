"""Rearrangements: every kind of index, views and their versions, errors (test_proofs.py draws the rest)."""

from typing import Any

import numpy as np
import pytest

from minidl import ops
from minidl.autograd import tensor
from minidl.errors import ShapeError
from minidl.testing import GradcheckSettings, agree, gradcheck
from minidl.testing.strategies import ArrayCase


def test_getitem_by_a_mask() -> None:
    x = np.arange(6.0).reshape(2, 3)
    assert gradcheck(ops.getitem, x, x % 2 == 0)


@pytest.mark.parametrize("axis", [-1, 3, 0])
def test_large_parts_among_them_a_view_and_an_empty_one(axis: int) -> None:
    x = np.arange(2.0 * 40 * 40 * 12, dtype=np.float32).reshape(2, 40, 40, 12)
    parts = [x, x[..., 2:7], x[..., :0], x[:, ::-1]] if axis else [x, x[:0], x[:, ::-1]]
    made = ops.concat(parts, axis=axis).numpy()
    np.testing.assert_array_equal(made, np.concatenate(parts, axis))


INDEX_KINDS = pytest.mark.parametrize(
    "kind",
    [
        np.array,
        list,
        tuple,
        lambda numbers: tensor(np.array(numbers)),
        lambda numbers: np.array(numbers, np.uint8),
    ],
    ids=["array", "list", "tuple", "Tensor", "uint8"],
)


@INDEX_KINDS
def test_an_element_taken_twice_receives_both_gradients(kind: Any) -> None:
    index = (kind([1, 1, 2]),)
    for take in (lambda x: x[index], lambda x: ops.getitem(x, index)):
        x = tensor(np.arange(3.0), requires_grad=True)
        take(x).backward(np.array([1.0, 10.0, 100.0]))
        assert x.grad is not None
        np.testing.assert_array_equal(x.grad.data, [0, 11, 100])


def test_repeated_indices_among_slices() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    for index in (
        (slice(None), [2, 0, 2]),
        ([1, 1], slice(None, None, -1), [-1, 3]),
        (..., range(2)),
        (0, None, [0, -3]),
    ):
        assert gradcheck(ops.getitem, x, index, settings=GradcheckSettings(full=True, allow_zero=True))


@pytest.mark.parametrize(
    "index", [slice(None, None, -1), (slice(3, 0, -2), slice(None, None, -3)), (..., slice(-1, None, -1))]
)
def test_slices_that_run_backwards(index: Any) -> None:
    x = np.arange(20.0).reshape(4, 5)
    t = tensor(x, requires_grad=True)
    y = t[index]
    y.backward(10 * x[index])
    assert t.grad is not None
    np.testing.assert_array_equal(y.data, x[index])
    np.testing.assert_array_equal(t.grad.data, np.where(np.isin(x, x[index]), 10 * x, 0))


@pytest.mark.parametrize("mask", [[True, False], np.array([True, False]), tensor(np.array([True, False]))])
def test_a_mask_of_rows(mask: Any) -> None:
    x = tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    y = x[mask, 1:]
    y.backward(np.array([[5.0, 7.0]]))
    assert x.grad is not None
    np.testing.assert_array_equal(y.data, [[1, 2]])
    np.testing.assert_array_equal(x.grad.data, [[0, 5, 7], [0, 0, 0]])


def test_an_empty_index_takes_nothing() -> None:
    for index in ([], (), slice(2, 2), np.zeros(2, bool)):
        x = tensor(np.ones((2, 3)), requires_grad=True)
        y = x[index]
        np.testing.assert_array_equal(y.data, np.ones((2, 3))[index])
        y.backward(np.ones(y.shape))
        assert x.grad is not None
        assert x.grad.data.sum() == y.size


def test_an_index_that_changes_afterwards_does_not_move_the_gradient() -> None:
    x, index = tensor(np.arange(3.0), requires_grad=True), np.array([0, 0])
    y = x[index]
    index[:] = 2
    y.backward(np.array([1.0, 10.0]))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, [11, 0, 0])


@pytest.mark.parametrize("shape", [(6, 4), (-1,), (2, -1, 2), 24, (2, 3, 4, 1)])
def test_reshape(shape: Any) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    assert agree(ops.reshape, ArrayCase(x=x, options={"shape": shape}))
    assert gradcheck(ops.reshape, x, shape)
    assert gradcheck(lambda x: ops.reshape(ops.transpose(x), shape), x)  # not contiguous: a copy


def test_methods_are_the_ops() -> None:
    x = tensor(np.arange(6.0).reshape(1, 2, 3))
    assert x.reshape(3, 2).shape == x.reshape((3, 2)).shape == (3, 2)
    assert x.transpose(2, 0, 1).shape == x.transpose((2, 0, 1)).shape == (3, 1, 2)
    assert x.transpose().shape == (3, 2, 1)
    assert x.flatten().shape == (1, 6)
    assert x[0, ..., 1:].shape == (2, 2)


def test_a_view_shares_the_version_counter() -> None:
    """exp keeps its result; writing into a view of that result is writing into it."""
    x = tensor(np.ones(4), requires_grad=True)
    y = ops.exp(x)
    y.detach().reshape(2, 2)[0, 0] = 5.0
    with pytest.raises(RuntimeError, match="exp keeps for its gradient was written in place"):
        y.backward(np.ones(4))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda x: ops.reshape(x, (4, 2)),
            r"reshape: x of shape \(2, 3\) has 6 elements, they do not fit shape \(4, 2\)",
        ),
        (lambda x: ops.reshape(x, (-1, -1)), r"reshape: .* do not fit shape \(-1, -1\)"),
        (lambda x: ops.reshape(x, (4, -1)), r"reshape: .* do not fit shape \(4, -1\)"),
        (
            lambda x: ops.transpose(x, (0,)),
            r"transpose: axes \(0,\) must name all 2 axes of x, shape \(2, 3\)",
        ),
        (lambda x: ops.transpose(x, (0, 0)), r"transpose: axis \(0, 0\) names an axis twice"),
        (lambda x: ops.transpose(x, (0, 2)), "transpose: axis 2 is outside an array with 2 axes"),
        (lambda x: ops.flatten(x[0, 0]), r"flatten: x has shape \(\), it needs a batch axis"),
        (lambda x: ops.concat([]), "concat: no tensors given"),
        (
            lambda x: ops.concat([x, x[:1]], axis=1),
            r"concat: tensor 1 has shape \(1, 3\), tensor 0 has \(2, 3\).*but axis 1",
        ),
        (lambda x: ops.concat([x, x[0]]), r"concat: tensor 1 has shape \(3,\), tensor 0 has \(2, 3\)"),
        (lambda x: ops.concat([x, x], axis=2), "concat: axis 2 is outside an array with 2 axes"),
        (lambda x: ops.concat([x, x], axis=None), "concat: axis is None; give one axis of the 2"),
        (
            lambda x: ops.pad(x, ((1, 1),)),
            r"pad: widths \(\(1, 1\),\) must hold a pair .* for each axis of x, shape \(2, 3\)",
        ),
        (lambda x: ops.pad(x, ((1, 1), (-1, 0))), r"pad: widths .* must hold a pair \(before, after\) >= 0"),
    ],
)
def test_bad_arguments(call: Any, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        call(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (3, "index 3 is out of bounds"),
        ([0, -4], "index -4 is out of bounds"),
        ((0, 0), "too many indices"),
        ([True, False], "boolean index did not match"),
        (1.0, "arrays used as indices must be of integer"),
        ([0.5], "arrays used as indices must be of integer"),
        (np.array([]), "arrays used as indices must be of integer"),
        ("a", "arrays used as indices must be of integer"),
        ([[0], [0, 1]], "inhomogeneous shape"),
    ],
)
def test_an_index_that_does_not_fit(index: Any, text: str) -> None:
    for take in (lambda x: x[index], lambda x: ops.getitem(x, index)):
        with pytest.raises(IndexError, match=rf"getitem: x has shape \(3,\): .*{text}"):
            take(tensor(np.zeros(3)))
