"""The synthetic data set."""

import numpy as np
import pytest

from minidl import streams
from minidl.data import synthetic
from minidl.errors import DataError, ShapeError


def test_sizes_and_balance():
    dataset = synthetic(31, 9, shape=(6, 5, 2), num_classes=3)
    assert dataset.image_shape == (6, 5, 2)
    assert dataset.classes == ("class 0", "class 1", "class 2")
    assert (len(dataset.train), len(dataset.test)) == (31, 9)
    assert dataset.train.images.dtype == np.uint8
    assert sorted(np.bincount(dataset.train.labels)) == [10, 10, 11]


def test_same_seed_same_bits_and_no_stream_touched():
    before = streams.get_state()
    one, two, other = synthetic(20, 5), synthetic(20, 5), synthetic(20, 5, seed=1)
    assert np.array_equal(one.train.images, two.train.images)
    assert np.array_equal(one.test.labels, two.test.labels)
    assert not np.array_equal(one.train.images, other.train.images)
    assert streams.get_state() == before


def test_classes_can_be_learned_from_train_and_found_in_test():
    dataset = synthetic(200, 100)
    train = dataset.train.images.astype(np.float32).reshape(200, -1)
    test = dataset.test.images.astype(np.float32).reshape(100, -1)
    means = np.stack([train[dataset.train.labels == k].mean(axis=0) for k in range(10)])
    nearest = ((test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == dataset.test.labels).mean() > 0.95


def test_wrong_sizes_are_refused():
    with pytest.raises(ShapeError, match=r"shape is \(8, 8\), expected \(H, W, C\)"):
        synthetic(shape=(8, 8))
    with pytest.raises(DataError, match="n_train is 10, n_test 0, num_classes 10; each must be at least 1"):
        synthetic(10, 0)
