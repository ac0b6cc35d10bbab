"""Rows of images: indexed as an array is, read only where asked, never copied whole."""

import mmap
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl.data import Split
from minidl.data.rows import Lazy, Rows, as_images, in_memory, take

IMAGES = np.arange(6 * 4 * 5 * 2, dtype=np.uint8).reshape(6, 4, 5, 2)
ORDER = np.array([5, 0, 3, 3])


class Counting(Lazy):
    """Images that count how often each was read."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.shape, self.dtype = images, images.shape, images.dtype
        self.read: list[int] = []

    def _read(self, rows: np.ndarray) -> np.ndarray:
        self.read += rows.tolist()
        return self.images[rows]


def peak(function: Callable[[], Any]) -> int:
    """The most bytes that a call has at once."""
    tracemalloc.start()
    function()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        np.int64(2),
        [1, 2],
        np.array([3, 0, 0, -1]),
        [],
        np.array([True, False, True, False]),
        slice(1, 3),
        slice(None, None, -2),
        slice(9, 12),
    ],
)
def test_they_are_indexed_as_an_array_is(index):
    expected = IMAGES[ORDER][index if not isinstance(index, list) else np.array(index, int)]
    for rows in (Rows(IMAGES, ORDER), Rows(Rows(IMAGES, np.arange(6)), ORDER)):
        got = rows[index]
        assert isinstance(got, Rows) == isinstance(index, slice)
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        assert np.array_equal(np.asarray(got), expected)


def test_they_look_like_an_array():
    rows = Rows(IMAGES, ORDER)
    assert (len(rows), rows.shape, rows.ndim, rows.dtype) == (4, (4, 4, 5, 2), 4, np.uint8)
    assert np.array_equal(rows.take(ORDER[1:3], axis=0), IMAGES[[5, 3]])
    assert [int(image[0, 0, 0]) for image in rows] == [200, 0, 120, 120]
    assert np.asarray(rows, np.float64).dtype == np.float64
    assert repr(rows) == "Rows(4 images of 4x5x2 uint8)"


def test_what_is_taken_can_be_written_to():
    got = Rows(IMAGES, ORDER).take([0])
    assert not np.shares_memory(got, IMAGES)
    got[...] = 0


@pytest.mark.parametrize(
    ("use", "error", "text"),
    [
        (lambda rows: rows[4], IndexError, "out of bounds"),
        (lambda rows: rows[[0, 9]], IndexError, "out of bounds"),
        (lambda rows: rows[1.5], TypeError, "float"),
        (lambda rows: rows[:, 0], IndexError, "index has 2 axes, only the first can be indexed before"),
        (lambda rows: rows[np.array([True])], IndexError, "boolean"),
        (lambda rows: rows.take([0], axis=1), ValueError, "axis is 1, images are taken along axis 0"),
        (lambda rows: np.array(rows, copy=False), ValueError, "copy is False, but images that are read"),
    ],
)
def test_wrong_indices_are_refused(use, error, text):
    with pytest.raises(error, match=text):
        use(Rows(IMAGES, ORDER))


def test_only_what_is_asked_for_is_read():
    images = Counting(IMAGES)
    rows = images[::-1][1:][[0, 1]]
    assert images.read == [4, 3]
    assert np.array_equal(rows, IMAGES[[4, 3]])


def test_rows_of_rows_keep_one_list_of_indices():
    rows = Rows(IMAGES, np.arange(6))
    for _ in range(3):
        rows = rows[1:]
    assert rows.images is IMAGES
    assert rows.indices.tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    "view",
    [
        lambda images: images,
        lambda images: images.transpose(0, 2, 3, 1),
        lambda images: images[:, :, ::-1],
        lambda images: images[::2],
        lambda images: images.view(np.uint8)[..., 1:-3].view(">f4"),
    ],
    ids=["plain", "transposed", "flipped", "strided", "misaligned"],
)
def test_taking_a_few_never_copies_the_rest(view):
    images = view(np.random.default_rng(0).random((100, 8, 32, 32), np.float32))
    rows = np.array([3, 49, 7])
    got = take(images, rows)
    assert got.flags.c_contiguous
    assert np.array_equal(got, images[rows], equal_nan=True)
    assert peak(lambda: take(images, rows)) < 3 * got.nbytes < images.nbytes / 4


def test_what_is_mapped_from_a_file_is_told_from_what_is_in_memory(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(IMAGES.tobytes())
    mapped = np.memmap(path, np.uint8, "r", shape=IMAGES.shape)
    with path.open("rb") as file:
        other = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    for images in (mapped, mapped[2:], np.asarray(mapped)[..., ::-1], other.reshape(IMAGES.shape)):
        assert not in_memory(images)
    for images in (IMAGES, IMAGES[1:].T, mapped.copy(), mapped[[0, 1]]):
        assert in_memory(images)
    assert as_images(mapped) is mapped
    assert not in_memory(Rows(IMAGES, ORDER))
    masked = np.ma.MaskedArray(IMAGES)
    assert type(as_images(masked)) is np.ndarray


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2"])
def test_floats_in_a_file_become_float32_a_batch_at_a_time(tmp_path, dtype):
    floats = np.random.default_rng(0).random((200, 16, 16, 3)).astype(dtype)
    np.save(tmp_path / "images.npy", floats)
    labels = np.zeros(200, int)
    split = Split(np.load(tmp_path / "images.npy", mmap_mode="r"), labels)
    rows = np.array([7, 3])
    images, _ = split.take(rows)
    assert split.images.dtype == images.dtype == split[0][0].dtype == np.float32
    assert images.dtype.isnative
    assert np.array_equal(images, floats[rows].astype(np.float32))
    again = Split(np.load(tmp_path / "images.npy", mmap_mode="r"), labels)
    assert peak(lambda: (Split(again.images[2:], labels[2:]), again.take(rows))) < floats.nbytes / 4
