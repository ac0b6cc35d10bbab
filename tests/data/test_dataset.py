"""Split and Dataset: what they hold, and that nothing wrong gets in."""

import numpy as np
import pytest

from minidl.data import Dataset, Split
from minidl.errors import DataError, ShapeError

IMAGES = np.arange(3 * 4 * 5 * 2, dtype=np.uint8).reshape(3, 4, 5, 2)
LABELS = np.array([0, 2, 1])


def test_split_holds_images_and_int64_labels():
    split = Split(IMAGES, LABELS.astype(np.uint8))
    assert len(split) == 3
    assert split.images is IMAGES
    assert split.labels.dtype == np.int64
    image, label = split[np.int64(1)]
    assert np.array_equal(image, IMAGES[1])
    assert label == 2
    assert type(label) is int
    assert [label for _, label in split] == [0, 2, 1]
    assert repr(split) == "Split(3 images of 4x5x2 uint8)"


def test_take_copies():
    images, labels = Split(IMAGES, LABELS).take(np.array([2, 0, 2]))
    assert np.array_equal(images, IMAGES[[2, 0, 2]])
    assert labels.tolist() == [1, 0, 1]
    assert not np.shares_memory(images, IMAGES)


def test_an_array_in_a_file_stays_there(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    split = Split(mapped, LABELS)
    assert split.images is mapped
    images, labels = split.take(np.array([2, 0]))
    assert type(images) is np.ndarray
    assert np.array_equal(images, IMAGES[[2, 0]])
    assert labels.tolist() == [1, 0]
    assert np.shares_memory(split[1][0], mapped)
    assert isinstance(Split(split.images[:2], LABELS[:2]).images, np.memmap)
    assert Dataset("three", "abc", split, split).image_shape == (4, 5, 2)


def test_any_array_like_may_hold_the_images():
    class Squares:
        """Grey squares, each of the shade of its number, which are made when they are asked for."""

        shape, dtype = (3, 4, 5, 1), np.dtype(np.uint8)

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return self.take(np.arange(3)[index])

        def take(self, indices, axis=0):
            return np.broadcast_to(
                np.asarray(indices, np.uint8)[..., None, None, None], (*indices.shape, 4, 5, 1)
            )

    images = Squares()
    split = Split(images, LABELS)
    assert split.images is images
    assert split.take(np.array([2, 1]))[0][:, 0, 0, 0].tolist() == [2, 1]
    assert repr(split) == "Split(3 images of 4x5x1 uint8)"
    images.shape = (3, 4, 5)
    with pytest.raises(ShapeError, match=r"shape is \(3, 4, 5\), expected \(N, H, W, C\)"):
        Split(images, LABELS)
    images.shape, images.dtype = (3, 4, 5, 1), np.dtype(np.int32)
    with pytest.raises(DataError, match="dtype is int32, expected uint8"):
        Split(images, LABELS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_images_become_float32(dtype):
    assert Split(IMAGES.astype(dtype), LABELS).images.dtype == np.float32


@pytest.mark.parametrize(
    ("images", "error", "text"),
    [
        (IMAGES[:0], DataError, r"shape \(0, 4, 5, 2\) holds no images"),
        ([], DataError, "holds no images"),
        (
            IMAGES[..., 0],
            ShapeError,
            r"shape is \(3, 4, 5\), expected \(N, H, W, C\).*images\[\.\.\., None\]",
        ),
        (IMAGES[:, :, :0], ShapeError, r"shape is \(3, 4, 0, 2\)"),
        (np.uint8(3), ShapeError, r"shape is \(\)"),
        (IMAGES.astype(np.int64), DataError, r"images: dtype is int64, expected uint8.*astype\(np.uint8\)"),
        (IMAGES > 3, DataError, "images: dtype is bool"),
    ],
)
def test_wrong_images_are_refused(images, error, text):
    with pytest.raises(error, match=text):
        Split(images, LABELS)


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([0.0, 2.0, 1.0], DataError, r"labels: dtype is float64, expected integer.*astype\(np.int64\)"),
        ([True, False, True], DataError, "labels: dtype is bool"),
        (["cat", "dog", "cat"], DataError, "labels: dtype is <U3"),
        ([0, 1], ShapeError, r"labels: shape is \(2,\), expected \(3,\), one per image"),
        (np.eye(3), ShapeError, r"labels: shape is \(3, 3\).*argmax"),
        ([0, -1, 1], DataError, r"labels\[1\] is -1, out of range: expected 0 or more"),
    ],
)
def test_wrong_labels_are_refused(labels, error, text):
    with pytest.raises(error, match=text):
        Split(IMAGES, labels)


def test_label_beyond_the_classes_is_refused():
    with pytest.raises(DataError, match=r"labels\[1\] is 2, out of range: expected 0\.\.1"):
        Split(IMAGES, LABELS, num_classes=2)


def test_dataset_knows_its_classes_and_image_shape():
    dataset = Dataset("three", ["a", "b", "c"], Split(IMAGES, LABELS), Split(IMAGES[:1], LABELS[:1]))
    assert dataset.classes == ("a", "b", "c")
    assert dataset.num_classes == 3
    assert dataset.image_shape == (4, 5, 2)


def test_dataset_refuses_a_label_without_a_class():
    with pytest.raises(DataError, match=r"two test: labels\[1\] is 2, out of range: expected 0\.\.1"):
        Dataset("two", ["a", "b"], Split(IMAGES[:1], LABELS[:1]), Split(IMAGES, LABELS))


def test_dataset_refuses_splits_of_different_shapes():
    with pytest.raises(ShapeError, match=r"train has images of shape \(4, 5, 2\), test of \(4, 5, 1\)"):
        Dataset("odd", ["a", "b", "c"], Split(IMAGES, LABELS), Split(IMAGES[..., :1], LABELS))
