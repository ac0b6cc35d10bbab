"""SVHN from MATLAB files: small ones made by scipy, and real ones where $MINIDL_DATA has them."""

import io
import os
import sys
from hashlib import md5
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.io

from minidl.data import sources, svhn
from minidl.data.svhn import _records
from minidl.errors import DataError
from tests.data.conftest import svhn_file
from tests.fuzzing import check_reader

REAL = Path(os.environ.get("MINIDL_DATA", ""), "svhn")


def saved(x, y):
    file = io.BytesIO()
    scipy.io.savemat(file, {"X": x, "y": y})
    return file.getvalue()


def test_images_come_first_and_ten_is_zero(svhn_root, svhn_files):
    dataset = svhn(svhn_root, download=False)
    assert (dataset.name, dataset.classes, dataset.image_shape) == ("svhn", tuple("0123456789"), (32, 32, 3))
    for split, data in zip((dataset.train, dataset.test), svhn_files.values(), strict=True):
        x = scipy.io.loadmat(io.BytesIO(data))["X"]
        assert np.array_equal(split.images, np.moveaxis(x, 3, 0))
        assert split.labels.tolist() == [(i + 1) % 10 for i in range(x.shape[3])]
        assert split.images.flags.c_contiguous
        assert split.images.flags.writeable
    assert (len(dataset.train), len(dataset.test)) == (12, 7)


def test_extra_file_is_appended_to_the_training_split(svhn_root, svhn_files, monkeypatch):
    content = svhn_file(9, seed=1)
    extra = sources.File("extra_32x32.mat", len(content), md5(content).hexdigest())
    monkeypatch.setattr(sources, "SVHN_EXTRA", extra)
    text = (
        r"svhn: not in .*svhn: extra_32x32\.mat\. .*fetch http\S*/train_32x32\.mat, .*/extra_32x32\.mat into "
    )
    with pytest.raises(DataError, match=text):
        svhn(svhn_root, download=False, extra=True)
    (svhn_root / "svhn" / extra.name).write_bytes(content)
    plain, more = svhn(svhn_root), svhn(svhn_root, extra=True)
    assert (len(more.train), len(more.test)) == (21, 7)
    assert np.array_equal(more.train.images[:12], plain.train.images)
    assert np.array_equal(more.train.images[12:], _records(content, "x")[0])
    assert np.array_equal(more.train.labels[12:], _records(content, "x")[1])
    assert np.array_equal(more.test.images, plain.test.images)


@pytest.mark.parametrize("compressed", [False, True])
def test_every_sixth_image_of_a_single_file_is_for_the_test(tmp_path, compressed):
    content = svhn_file(20, seed=3, compressed=compressed)
    (tmp_path / "some.mat").write_bytes(content)
    dataset = svhn(path=tmp_path / "some.mat")
    images, labels = _records(content, "some.mat")
    assert np.array_equal(dataset.test.images, images[[5, 11, 17]])
    assert dataset.test.labels.tolist() == labels[[5, 11, 17]].tolist() == [6, 2, 8]
    rest = [i for i in range(20) if i not in (5, 11, 17)]
    assert np.array_equal(dataset.train.images, images[rest])
    assert dataset.train.labels.tolist() == labels[rest].tolist()


def test_path_and_extra_exclude_each_other(tmp_path):
    with pytest.raises(
        ValueError, match=r"svhn: extra=True belongs to the official files; with path= leave it"
    ):
        svhn(path=tmp_path / "some.mat", extra=True)


def test_path_must_be_a_file_of_enough_images(tmp_path, monkeypatch):
    path = tmp_path / "some.mat"
    for nothing in (path, tmp_path):
        with pytest.raises(
            DataError, match=rf"svhn: path {nothing} is no file; give a \.mat file of cropped"
        ):
            svhn(path=nothing)
    path.write_bytes(svhn_file(5, seed=0))
    with pytest.raises(DataError, match=r"some\.mat holds 5 images; at least 6 make two splits"):
        svhn(path=path)
    monkeypatch.setattr(Path, "read_bytes", Mock(side_effect=OSError(5, "Input/output error")))
    with pytest.raises(DataError, match=r"svhn: .*some\.mat cannot be read \(Input/output error\)"):
        svhn(path=path)
    monkeypatch.setattr(sys.modules["minidl.data.svhn"], "_LARGEST", 10)  # not the function of that name
    with open(path, "wb") as file:
        file.truncate(1 << 30)  # holes: nothing is written
    with pytest.raises(DataError, match=r"some\.mat is longer than any file of the format, 1,048,586 bytes"):
        svhn(path=path)


def test_damaged_official_file_is_named(svhn_root):
    path = svhn_root / "svhn" / "test_32x32.mat"
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"test_32x32\.mat: wrong checksum.*minidl data download svhn"):
        svhn(svhn_root)


ONES = np.ones((32, 32, 3, 6), np.uint8)
LABELS = np.ones((6, 1), np.uint8)


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (ONES.astype(np.float32), LABELS, r"X is float32 \(32, 32, 3, 6\), expected uint8 \(32, 32, 3, N\)"),
        (ONES[:, :, :1], LABELS, r"X is uint8 \(32, 32, 1, 6\), expected uint8 \(32, 32, 3, N\)"),
        (ONES[:, 0, 0], LABELS, r"X is uint8 \(32, 6\), expected"),
        (ONES, LABELS[1:], r"y has shape \(5, 1\), expected \(6, 1\), one label per image of X"),
        (ONES, LABELS.T, r"y has shape \(1, 6\), expected \(6, 1\)"),
        (ONES, np.array([[1], [10], [0], [1], [1], [1]]), r"record 2 has label 0, expected 1\.\.10"),
        (ONES, np.array([[1], [11], [0], [1], [1], [1]], "i2"), r"record 1 has label 11, expected 1\.\.10"),
        (ONES, np.array([[1], [1], [1], [1], [1.5], [1]]), r"record 4 has label 1\.5, expected 1\.\.10"),
        (ONES, np.array([[1], [np.nan], [1], [1], [1], [1]]), r"record 1 has label nan, expected 1\.\.10"),
    ],
)
def test_arrays_of_other_shapes_or_labels_are_named(tmp_path, x, y, text):
    path = tmp_path / "some.mat"
    path.write_bytes(saved(x, y))
    with pytest.raises(DataError, match=r"^some\.mat: " + text):
        svhn(path=path)


def test_labels_may_be_doubles(tmp_path):
    path = tmp_path / "some.mat"
    path.write_bytes(saved(ONES, LABELS * 10.0))
    assert svhn(path=path).train.labels.tolist() == [0] * 5


def test_a_single_image_has_lost_its_last_axis():
    images, labels = _records(saved(ONES[..., 0], LABELS[:1]), "x.mat")
    assert images.shape == (1, 32, 32, 3)
    assert labels.tolist() == [1]


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_are_read_or_refused(tmp_path, compressed):
    data = svhn_file(6, seed=0, compressed=compressed)
    assert check_reader(lambda path: svhn(path=path), data, path=tmp_path / "some.mat") > 0


@pytest.mark.skipif(
    not (REAL / "train_32x32_first1083.mat").is_file(), reason="needs a real file, in $MINIDL_DATA"
)
def test_a_real_file():
    path = REAL / "train_32x32_first1083.mat"
    dataset = svhn(path=path)
    assert (len(dataset.train), len(dataset.test)) == (903, 180)
    assert dataset.train.labels[:10].tolist() == [1, 9, 2, 3, 2, 9, 3, 3, 1, 3]
    images, labels = _records(path.read_bytes(), path.name)
    by_scipy = scipy.io.loadmat(path)
    assert np.array_equal(images, np.moveaxis(by_scipy["X"], 3, 0))
    assert np.array_equal(labels, by_scipy["y"][:, 0] % 10)


@pytest.mark.skipif(not (REAL / "test_32x32.mat").is_file(), reason="needs the real files, in $MINIDL_DATA")
def test_the_real_files():
    dataset = svhn(download=False)
    assert dataset.train.images.shape == (73257, 32, 32, 3)
    assert dataset.test.images.shape == (26032, 32, 32, 3)
