"""MNIST from gzipped idx files: small ones made here, and the real ones where $MINIDL_DATA has them."""

import gzip
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minidl.data import mnist
from minidl.data.mnist import _idx
from minidl.errors import DataError
from tests.fuzzing import check_reader


def test_idx_files_become_images_with_a_channel(mnist_root, mnist_arrays):
    dataset = mnist(mnist_root, download=False)
    train_images, train_labels, test_images, test_labels = mnist_arrays.values()
    assert (dataset.name, dataset.num_classes, dataset.image_shape) == ("mnist", 10, (28, 28, 1))
    assert np.array_equal(dataset.train.images[..., 0], train_images)
    assert np.array_equal(dataset.test.images[..., 0], test_images)
    assert np.array_equal(dataset.train.labels, train_labels)
    assert np.array_equal(dataset.test.labels, test_labels)
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.images.flags.writeable


def test_truncated_file_is_named(mnist_root):
    path = mnist_root / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: is 100 bytes long, the official file"):
        mnist(mnist_root)


def test_flipped_bit_is_a_wrong_checksum(mnist_root):
    path = mnist_root / "mnist" / "train-labels-idx1-ubyte.gz"
    data = bytearray(path.read_bytes())
    data[-1] ^= 128
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: wrong checksum"):
        mnist(mnist_root)


def test_missing_files_without_download_lists_every_address(mnist_root):
    (mnist_root / "mnist" / "train-images-idx3-ubyte.gz").unlink()
    text = (
        r"mnist: not in .*mnist: train-images-idx3-ubyte\.gz\. .*or fetch http\S*/train-images\S*, "
        r"http\S*/train-labels\S*, http\S*/t10k-images\S*, http\S*/t10k-labels\S* into "
    )
    with pytest.raises(DataError, match=text):
        mnist(mnist_root, download=False)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"no gzip", "is no gzip file, or not a whole one"),
        (gzip.compress(bytes(100))[:-9], "is no gzip file, or not a whole one"),
        (gzip.compress(b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0"), "is no idx file of unsigned bytes; .* 00000d01"),
        (gzip.compress(b"\0\0\x08\x03\0\0"), "is no idx file of unsigned bytes"),
        (gzip.compress(b"\0\0\x08"), "is no idx file of unsigned bytes; it begins with 000008"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcd"), r"its header announces 5 bytes, \(5,\), but 4 follow"),
        (
            gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcdef"),
            r"its header announces 5 bytes, \(5,\), but more follow",
        ),
        (
            gzip.compress(b"\0\0\x08\x02\0\0\0\x05\0\0\0\x01abcde"),
            r"its header announces an array \(5, 1\), expected 1 axes and 1 to",
        ),
        (
            gzip.compress(b"\0\0\x08\x01\0\0\0\0"),
            r"its header announces an array \(0,\), expected 1 axes and 1 to",
        ),
        (
            gzip.compress(b"\0\0\x08\x01\xff\xff\xff\xff" + bytes(10**6)),
            r"its header announces an array \(4294967295,\), expected 1 axes and 1 to 47,040,000 bytes",
        ),
    ],
    ids=[
        "no gzip",
        "cut",
        "not of bytes",
        "no sizes",
        "three bytes",
        "too short",
        "too long",
        "axes",
        "empty",
        "huge",
    ],
)
def test_file_in_another_format_is_named(install, mnist_files, content, text):
    root = install("mnist", mnist_files | {"t10k-labels-idx1-ubyte.gz": content})
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: " + text):
        mnist(root)


def test_bytes_behind_the_array_are_not_decompressed(install, mnist_files):
    bomb = gzip.compress(b"\0\0\x08\x01\0\0\0\x04" + bytes(200 << 20), compresslevel=1)
    root = install("mnist", mnist_files | {"t10k-labels-idx1-ubyte.gz": bomb})
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"announces 4 bytes, \(4,\), but more follow"):
            mnist(root)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("index", "axes"), [(0, 3), (1, 1)])
def test_damaged_idx_files_are_read_or_refused(mnist_files, index, axes):
    data = list(mnist_files.values())[index]
    assert check_reader(lambda data: _idx(data, "x.gz", axes), data) > 0


def test_damaged_arrays_in_whole_gzip_files_are_read_or_refused(mnist_files):
    data = gzip.decompress(next(iter(mnist_files.values())))
    assert check_reader(lambda data: _idx(gzip.compress(data, 1), "x.gz", 3), data) > 0


@pytest.mark.skipif(
    not Path(os.environ.get("MINIDL_DATA", ""), "mnist").is_dir(),
    reason="needs the real files, in $MINIDL_DATA",
)
def test_the_real_files():
    dataset = mnist(download=False)
    assert dataset.train.images.shape == (60000, 28, 28, 1)
    assert dataset.test.images.shape == (10000, 28, 28, 1)
    assert dataset.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert dataset.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert dataset.train.images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)  # the figure in common use
