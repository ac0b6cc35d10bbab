"""CIFAR-10 from official binary files: small ones made here, the real ones where $MINIDL_DATA has them."""

import os
from pathlib import Path

import numpy as np
import pytest

from minidl.data import cifar10
from minidl.errors import DataError


def test_records_become_channels_last_images(cifar_root, cifar_files):
    dataset = cifar10(cifar_root, download=False)
    assert dataset.name == "cifar10"
    assert dataset.classes == (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    assert dataset.image_shape == (32, 32, 3)
    assert (len(dataset.train), len(dataset.test)) == (25, 5)
    for split, name, first in ((dataset.train, "data_batch_2.bin", 5), (dataset.test, "test_batch.bin", 0)):
        for i in range(5):
            record = cifar_files[name][i * 3073 : (i + 1) * 3073]
            image, label = split[first + i]
            assert label == record[0]
            assert image[7, 3, 0] == record[1 + 7 * 32 + 3]
            assert image[31, 30, 2] == record[1 + 2 * 1024 + 31 * 32 + 30]
            assert sorted(image.ravel()) == sorted(record[1:])
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.images.flags.c_contiguous
    assert dataset.test.images.flags.writeable


def test_truncated_file_is_named(cifar_root):
    path = cifar_root / "cifar-10-batches-bin" / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:-1])
    text = r"data_batch_4\.bin: is 15,364 bytes long, the official file 15,365; delete it and load again"
    with pytest.raises(DataError, match=text):
        cifar10(cifar_root)


def test_flipped_bit_is_a_wrong_checksum(cifar_root):
    path = cifar_root / "cifar-10-batches-bin" / "test_batch.bin"
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)
    text = r"test_batch\.bin: wrong checksum, MD5 is \w{32}, the official file's \w{32}; delete it"
    with pytest.raises(DataError, match=text):
        cifar10(cifar_root)


def test_missing_file_without_download_says_what_to_do(cifar_root):
    (cifar_root / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    text = (
        r"cifar10: not in .*cifar-10-batches-bin: data_batch_3\.bin\. Call with download=True, "
        r"or fetch http.*/cifar-10-binary\.tar\.gz \(MD5 .*\) and unpack it in .*, "
        r"so that .*data_batch_1\.bin exists; or let root= or \$MINIDL_DATA name a folder"
    )
    with pytest.raises(DataError, match=text):
        cifar10(cifar_root, download=False)


def test_file_that_is_a_folder_is_named(cifar_root):
    path = cifar_root / "cifar-10-batches-bin" / "test_batch.bin"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"test_batch\.bin: cannot be read"):
        cifar10(cifar_root)


@pytest.mark.skipif(
    not Path(os.environ.get("MINIDL_DATA", ""), "cifar-10-batches-bin").is_dir(),
    reason="needs the real files, in $MINIDL_DATA",
)
def test_the_real_files():
    dataset = cifar10(download=False)
    assert dataset.train.images.shape == (50000, 32, 32, 3)
    assert np.bincount(dataset.train.labels).tolist() == [5000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert dataset.train.images[0, 0, 0].tolist() == [59, 62, 63]  # R, G, B of the frog's corner
    mean = dataset.train.images.mean(axis=(0, 1, 2)) / 255
    assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)  # the figures in common use
