"""Softmax cross-entropy: large logits, ignored labels, weights, errors (test_proofs.py draws the rest)."""

from typing import Any

import numpy as np
import pytest

from minidl import ops
from minidl.autograd import Tensor, tensor
from minidl.errors import DataError, DTypeError, ShapeError
from minidl.testing import GradcheckSettings, agree, gradcheck
from minidl.testing.strategies import CrossEntropyCase

LOGITS = np.random.default_rng(0).standard_normal((4, 3))
LABELS = np.array([0, 2, 1, 2])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "none"},
        {"label_smoothing": 0.1, "ignore_index": 2, "class_weight": np.array([0.5, 2.0, 1.0])},
    ],
    ids=["plain", "none", "all-options"],
)
def test_gradients_element_by_element(options: dict[str, Any]) -> None:
    assert gradcheck(ops.cross_entropy, LOGITS, LABELS, settings=GradcheckSettings(full=True), **options)


def test_large_logits() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [0.0, 1e4, 1e4]])
    for label in range(3):
        assert agree(ops.cross_entropy, CrossEntropyCase(logits=logits, labels=np.array([label, label])))


def test_ignored_rows_receive_no_gradient() -> None:
    logits = tensor(LOGITS, requires_grad=True)
    ops.cross_entropy(logits, np.array([0, -1, 1, -1]), ignore_index=-1, label_smoothing=0.1).backward()
    assert logits.grad is not None
    assert np.all(logits.grad.data[[1, 3]] == 0)
    assert np.all(logits.grad.data[[0, 2]] != 0)


@pytest.mark.parametrize(
    "labels",
    [LABELS.tolist(), LABELS.astype(np.uint8), LABELS.astype(np.int32), Tensor(LABELS)],
    ids=["list", "uint8", "int32", "Tensor"],
)
def test_labels_of_any_integer_kind(labels: Any) -> None:
    assert ops.cross_entropy(LOGITS, labels).item() == ops.cross_entropy(LOGITS, LABELS).item()


def test_class_weights_may_be_integers() -> None:
    expected = ops.cross_entropy(LOGITS, LABELS, class_weight=[1.0, 2.0, 3.0]).item()
    assert ops.cross_entropy(LOGITS, LABELS, class_weight=[1, 2, 3]).item() == expected


def test_class_weights_may_be_a_tensor_or_a_list_of_any_float_type() -> None:
    logits = LOGITS.astype(np.float32)
    expected = ops.cross_entropy(logits, LABELS, class_weight=np.array([0.5, 2.0, 1.0], np.float32))
    for weight in ([0.5, 2.0, 1.0], np.array([0.5, 2.0, 1.0]), Tensor(np.array([0.5, 2.0, 1.0]))):
        found = ops.cross_entropy(logits, LABELS, class_weight=weight)
        assert found.dtype == np.float32
        assert found.item() == expected.item()


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([0, 3, 1, 2], DataError, r"labels\[1\] is 3, it must lie in 0 .. 2 for 3 classes"),
        ([0, 1, 1, -1], DataError, r"labels\[3\] is -1, it must lie in 0 .. 2"),
        (
            [0.0, 1.0, 1.0, 2.0],
            DTypeError,
            r"labels are float64, they must be integers \(class numbers 0 .. 2\).*astype",
        ),
        ([True, False, True, True], DTypeError, "labels are bool, they must be integers"),
        ([0, 1, 2], ShapeError, r"labels have shape \(3,\), they must be \(4,\) for logits \(4, 3\)"),
        ([[0], [1], [2], [0]], ShapeError, r"labels have shape \(4, 1\), they must be \(4,\)"),
    ],
)
def test_bad_labels(labels: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"cross_entropy: {text}"):
        ops.cross_entropy(LOGITS, np.array(labels))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"reduction": "max"}, ValueError, "reduction is 'max'; it may be 'mean', 'sum', 'none'"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing is 1.5, it must lie in 0 .. 1"),
        (
            {"class_weight": np.ones(2)},
            ShapeError,
            r"class_weight has shape \(2,\), it must be \(3,\) for logits \(4, 3\)",
        ),
        ({"class_weight": 2.0}, ShapeError, r"class_weight has shape \(\), it must be \(3,\)"),
        (
            {"class_weight": np.ones((1, 3))},
            ShapeError,
            r"class_weight has shape \(1, 3\), it must be \(3,\)",
        ),
        ({"class_weight": ["1", "2", "1"]}, DTypeError, "class_weight is <U1, it must hold numbers"),
        ({"class_weight": np.ones(3, bool)}, DTypeError, "class_weight is bool, it must hold numbers"),
        ({"class_weight": np.ones(3, complex)}, DTypeError, "class_weight is complex128, it must hold"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"cross_entropy: {text}"):
        ops.cross_entropy(LOGITS, LABELS, **options)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_mean_over_ignored_labels_only(label_smoothing: float) -> None:
    """0 / 0, as in PyTorch; the gradient is that of nothing all the same."""
    options: dict[str, Any] = {"ignore_index": 9, "label_smoothing": label_smoothing}
    logits = tensor(LOGITS, requires_grad=True)
    loss = ops.cross_entropy(logits, np.full(4, 9), **options)
    loss.backward()
    assert np.isnan(loss.item())
    assert logits.grad is not None
    np.testing.assert_array_equal(logits.grad.data, np.zeros((4, 3)))
    assert ops.cross_entropy(LOGITS, np.full(4, 9), reduction="sum", **options).item() == 0
    assert not ops.cross_entropy(LOGITS, np.full(4, 9), reduction="none", **options).data.any()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_mean_over_labels_without_weight(label_smoothing: float) -> None:
    """With smoothing the sum is positive, and the mean nan nevertheless; the rows that count show it."""
    logits = tensor(LOGITS, requires_grad=True)
    loss = ops.cross_entropy(
        logits,
        np.array([0, 9, 0, 9]),
        class_weight=[0, 1, 1],
        ignore_index=9,
        label_smoothing=label_smoothing,
    )
    loss.backward()
    assert np.isnan(loss.item())
    assert logits.grad is not None
    assert np.isnan(logits.grad.data[[0, 2]]).all()
    assert not logits.grad.data[[1, 3]].any()


def test_a_label_to_ignore_may_be_one_of_the_classes() -> None:
    counted = LABELS != 2
    found = ops.cross_entropy(LOGITS, LABELS, ignore_index=2).item()
    assert found == pytest.approx(ops.cross_entropy(LOGITS[counted], LABELS[counted]).item(), rel=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_by_hand(dtype: type) -> None:
    """p is 1/2, 0, 1/2; the loss of the label in the middle is 20000 + log 2."""
    logits = tensor(np.array([[1e4, -1e4, 1e4], [-1e4, -1e4, 1e4]], dtype), requires_grad=True)
    losses = ops.cross_entropy(logits, [1, 2], reduction="none")
    losses.backward(np.array([2, 1], dtype))
    assert logits.grad is not None
    np.testing.assert_allclose(losses.data, [2e4 + np.log(2), 0], rtol=np.finfo(dtype).eps)
    np.testing.assert_array_equal(logits.grad.data, [[1, -2, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((3,), r"logits have shape \(3,\), they must be \(N, K\)"),
        ((0, 3), "a batch of size 0 has no loss"),
        ((2, 0), r"logits have shape \(2, 0\): there are no classes"),
    ],
)
def test_logits_that_are_no_batch(shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ShapeError, match=f"cross_entropy: .*{text}"):
        ops.cross_entropy(np.zeros(shape), np.zeros(0, np.int64))


def test_minus_infinity_in_a_logit_that_is_not_asked_for() -> None:
    logits = tensor(np.array([[0.0, -np.inf], [np.nan, np.nan]]), requires_grad=True)
    loss = ops.cross_entropy(logits, np.array([0, 9]), ignore_index=9)
    loss.backward()
    assert loss.item() == 0
    np.testing.assert_array_equal(logits.grad.numpy(), np.zeros((2, 2)))
