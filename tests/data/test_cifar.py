"""CIFAR-10 and -100 from binary files: small ones made here, the real ones where $MINIDL_DATA has them."""

import os
from pathlib import Path

import numpy as np
import pytest

from minidl.data import cifar, cifar10, cifar100
from minidl.errors import DataError
from tests.fuzzing import check_reader


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


def test_label_out_of_range_names_the_record(install, cifar_files):
    batch = bytearray(cifar_files["data_batch_2.bin"])
    batch[3 * 3073] = 10
    root = install("cifar10", cifar_files | {"data_batch_2.bin": bytes(batch)})
    with pytest.raises(DataError, match=r"^data_batch_2\.bin: record 3 has label 10, expected 0\.\.9$"):
        cifar10(root)


@pytest.mark.parametrize("content", [b"", bytes(3072)])
def test_incomplete_record_is_named(install, cifar_files, content):
    root = install("cifar10", cifar_files | {"test_batch.bin": content})
    text = rf"test_batch\.bin: {len(content):,} bytes are no whole number of records of 3073 bytes"
    with pytest.raises(DataError, match=text):
        cifar10(root)


@pytest.mark.parametrize(("labels", "column", "number"), [("fine", 1, 100), ("coarse", 0, 20)])
def test_cifar100_has_two_labels_per_record(cifar100_root, cifar100_files, labels, column, number):
    dataset = cifar100(cifar100_root, download=False, labels=labels)
    assert (dataset.name, dataset.num_classes, dataset.image_shape) == ("cifar100", number, (32, 32, 3))
    assert (len(dataset.train), len(dataset.test)) == (10, 5)
    for split, data in zip((dataset.train, dataset.test), cifar100_files.values(), strict=True):
        for i, (image, label) in enumerate(split):
            record = data[i * 3074 : (i + 1) * 3074]
            assert label == record[column]
            assert image[7, 3, 0] == record[2 + 7 * 32 + 3]
            assert image[31, 30, 2] == record[2 + 2 * 1024 + 31 * 32 + 30]


def test_cifar100_class_names_are_in_their_official_order(cifar100_root):
    fine = cifar100(cifar100_root).classes
    assert len(set(fine)) == 100
    assert list(fine) == sorted(fine)
    assert (fine[0], fine[1], fine[47], fine[99]) == ("apple", "aquarium_fish", "maple_tree", "worm")
    coarse = cifar100(cifar100_root, labels="coarse").classes
    assert len(set(coarse)) == 20
    assert list(coarse) == sorted(coarse)
    assert (coarse[0], coarse[9], coarse[19]) == (
        "aquatic_mammals",
        "large_man-made_outdoor_things",
        "vehicles_2",
    )


def test_cifar100_labels_of_another_kind_are_refused(cifar100_root):
    text = r"cifar100: labels is 'super', expected \"fine\" \(100 classes\) or \"coarse\" \(20\)"
    with pytest.raises(ValueError, match=text):
        cifar100(cifar100_root, labels="super")


@pytest.mark.parametrize(("column", "largest"), [(0, 19), (1, 99)])
@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_cifar100_both_labels_are_checked(install, cifar100_files, column, largest, labels):
    content = bytearray(cifar100_files["train.bin"])
    content[4 * 3074 + column] = largest + 1
    root = install("cifar100", cifar100_files | {"train.bin": bytes(content)})
    text = rf"^train\.bin: record 4 has label {largest + 1}, expected 0\.\.{largest}$"
    with pytest.raises(DataError, match=text):
        cifar100(root, labels=labels)


@pytest.mark.parametrize("name", ["cifar_files", "cifar100_files"])
def test_damaged_records_are_read_or_refused(request, name):
    data = list(request.getfixturevalue(name).values())[-1]
    classes = (cifar._CLASSES,) if name == "cifar_files" else (cifar._COARSE, cifar._FINE)
    assert check_reader(lambda data: cifar._records(data, "x.bin", classes), data) > 0


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


@pytest.mark.skipif(
    not Path(os.environ.get("MINIDL_DATA", ""), "cifar-100-binary").is_dir(),
    reason="needs the real files, in $MINIDL_DATA",
)
def test_the_real_cifar100():
    dataset = cifar100(download=False)
    assert np.bincount(dataset.train.labels).tolist() == [500] * 100
    assert np.bincount(dataset.test.labels).tolist() == [100] * 100
    mean = dataset.train.images.mean(axis=(0, 1, 2)) / 255
    assert mean == pytest.approx([0.5071, 0.4865, 0.4409], abs=1e-4)  # the figures in common use
