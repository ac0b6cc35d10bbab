"""Digits: 1,797 grey images of 8x8, embedded, so that everything can be tried without a network.

They are the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI
Machine Learning Repository, doi:10.24432/C50P49, licence CC BY 4.0, as scikit-learn ships them. digits.npz
holds the original values 0..16, written by tests/data/make_digits.py.
"""

import io
import os
from pathlib import Path

import numpy as np

from minidl.data import fetch
from minidl.data.dataset import Dataset, Split
from minidl.data.sources import File

_CLASSES = tuple("0123456789")
_FILE = File("digits.npz", 45_394, "35fa292850aefdac88ea117403394609")
_INK = 16  # the largest value in the file


def digits(root: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """The embedded digits.  train (1438, 8, 8, 1), test (359, 8, 8, 1), uint8, 0 the background

    The values 0..16 are scaled to 0..255. Every fifth image (index 4, 9, 14, ...) is in the test split.
    `root` and `download` are not used; they are there so that all data sets are called alike. DataError if
    the file of this installation is damaged.
    """
    content = fetch.read(Path(__file__).with_name(_FILE.name), _FILE, cure="; install minidl again")
    with np.load(io.BytesIO(content)) as arrays:
        values, labels = arrays["images"], arrays["labels"]
    images = np.round(values[..., np.newaxis] * (255 / _INK)).astype(np.uint8)
    is_test = np.arange(len(images)) % 5 == 4
    train = Split(images[~is_test], labels[~is_test])
    return Dataset("digits", _CLASSES, train, test=Split(images[is_test], labels[is_test]))
