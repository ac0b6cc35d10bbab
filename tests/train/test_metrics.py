"""Loss and accuracies over batches."""

import numpy as np
import pytest

from minidl.train.metrics import Metrics


def counted(logits: list[list[float]], labels: list[int]) -> Metrics:
    total = Metrics()
    total.update(1.5, np.array(logits), np.array(labels))
    return total


def test_batches_count_by_their_images():
    total = counted([[0, 1], [1, 0], [1, 0]], [1, 1, 0])
    total.update(0.5, np.array([[1.0, 0.0]]), np.array([0]))
    assert total.loss == pytest.approx((3 * 1.5 + 0.5) / 4)
    assert total.accuracy == 3 / 4


def test_top_five():
    scores = [9, 8, 7, 6, 5, 4, 3.0]
    assert [counted([scores], [k]).top5 for k in range(7)] == [1, 1, 1, 1, 1, 0, 0]


def test_ties_go_to_the_lower_class_as_in_argmax():
    dead = [[0.0] * 10] * 10
    total = counted(dead, list(range(10)))
    assert total.accuracy == 0.1
    assert total.top5 == 0.5


def test_nan_is_no_hit():
    total = counted([[np.nan] * 3], [0])
    assert (total.accuracy, total.top5) == (0, 0)


def test_confusion_has_true_classes_in_rows():
    total = Metrics(confusion=True)
    total.update(0.0, np.array([[1, 0, 0], [0, 1, 0.0]]), np.array([0, 0]))
    total.update(0.0, np.array([[0, 1, 1.0], [0, 0, 1]]), np.array([1, 1]))
    np.testing.assert_array_equal(total.confusion, [[1, 1, 0], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(total.per_class, [0.5, 0.5, np.nan])


def test_nan_is_taken_for_no_class():
    total = Metrics(confusion=True)
    total.update(0.0, np.array([[np.nan, 1.0], [np.nan, np.nan], [1.0, 0.0]]), np.array([0, 0, 0]))
    np.testing.assert_array_equal(total.confusion, [[1, 0], [0, 0]])
    assert total.per_class[0] == total.accuracy == 1 / 3


def test_confusion_is_not_counted_unless_asked_for():
    assert counted([[0, 1]], [1]).confusion.size == 0
