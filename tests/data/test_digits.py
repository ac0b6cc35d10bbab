"""The embedded digits."""

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from minidl.data import digits as load_digits
from minidl.errors import DataError

DIGITS = sys.modules["minidl.data.digits"]  # the package shows the function under the module's name


def test_digits_are_split_by_index_and_scaled():
    dataset = load_digits()
    assert (dataset.name, dataset.num_classes, dataset.image_shape) == ("digits", 10, (8, 8, 1))
    assert (len(dataset.train), len(dataset.test)) == (1438, 359)
    assert dataset.train.labels[:8].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]  # the file begins 0, 1, ..., 9
    assert dataset.test.labels[:2].tolist() == [4, 9]
    # the first image's second row is 0 0 13 15 10 15 5 0 in the original
    assert dataset.train.images[0, 1, :, 0].tolist() == [0, 0, 207, 239, 159, 239, 80, 0]
    assert np.bincount(dataset.train.labels).min() > 100


def test_root_and_download_are_taken_and_ignored():
    assert len(load_digits("/nowhere", download=False).train) == 1438


def test_damaged_installation_is_named(tmp_path, monkeypatch):
    path = tmp_path / "digits.npz"
    shutil.copy(Path(DIGITS.__file__).with_name("digits.npz"), path)
    data = bytearray(path.read_bytes())
    data[1000] ^= 4
    path.write_bytes(data)
    monkeypatch.setattr(DIGITS, "__file__", str(tmp_path / "digits.py"))
    with pytest.raises(DataError, match=r"digits\.npz: wrong checksum.*; install minidl again"):
        load_digits()


def test_the_program_makes_the_file(tmp_path):
    pytest.importorskip("sklearn", reason="the program reads scikit-learn's copy")
    made = tmp_path / "digits.npz"
    runpy.run_path(str(Path(__file__).with_name("make_digits.py")))["main"](made)
    with np.load(made) as ours, np.load(Path(DIGITS.__file__).with_name("digits.npz")) as shipped:
        assert ours.files == shipped.files
        for name in ours.files:
            assert ours[name].dtype == shipped[name].dtype
            assert np.array_equal(ours[name], shipped[name])
