"""SVHN: digits of house numbers in street photographs, colour images of 32x32, from the official files.

Netzer, Wang, Coates, Bissacco, Wu and Ng 2011, "Reading Digits in Natural Images with Unsupervised Feature
Learning", the cropped digits (format 2). A file is a MATLAB file with X (32, 32, 3, N), uint8, and the labels
y (N, 1), where 10 stands for the digit 0; class k is the digit k here. The page they come from says: for
non-commercial use only.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from minidl.data import fetch, sources
from minidl.data.dataset import Dataset, Split
from minidl.data.mat import read_arrays
from minidl.errors import DataError

_CLASSES = tuple("0123456789")
_IMAGE = (32, 32, 3)
_ZERO = 10  # the label of the digit 0
_LARGEST = 531_131 * 32 * 32 * 3  # bytes of X in the largest official file, extra_32x32.mat
_TEST_EVERY = 6  # of a single file: about the share of the test split in MNIST and CIFAR


def svhn(
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    *,
    path: str | os.PathLike[str] | None = None,
    extra: bool = False,
) -> Dataset:
    """SVHN's cropped digits from ROOT/svhn.  train (73257, 32, 32, 3), test (26032, 32, 32, 3), uint8

    root: the folder of the data sets; default $MINIDL_DATA, else the user's cache. Missing files are
    downloaded unless `download` is false.
    path: read this one file in the same format instead, of any length and unchecked by size and MD5. Every
    sixth image (index 5, 11, 17, ...) is in the test split; `root` and `download` are not used.
    extra: append the 531,131 easier images of the extra file to the training split (some 5 GB of memory while
    they are read).
    DataError for a missing or damaged file, ValueError for `path` together with `extra`.
    """
    if path is not None:
        if extra:
            raise ValueError("svhn: extra=True belongs to the official files; with path= leave it out")
        return _single_file(Path(path))
    source = sources.SOURCES["svhn"]
    if extra:
        source = replace(source, files=(*source.files, sources.SVHN_EXTRA))
    folder = fetch.locate(source, root, download)
    parts = [_records(data, file.name) for file, data in fetch.read_all(source, folder)]
    images, labels = zip(*parts, strict=True)
    train, test = [0, 2] if extra else [0], 1  # the files in the order of their table
    joined = Split(np.concatenate([images[i] for i in train]), np.concatenate([labels[i] for i in train]))
    return Dataset("svhn", _CLASSES, joined, test=Split(images[test], labels[test]))


def _single_file(path: Path) -> Dataset:
    """The data set in one file: five of six images to train on, the sixth to test."""
    if not path.is_file():
        raise DataError(f"svhn: path {path} is no file; give a .mat file of cropped digits (format 2)")
    largest = _LARGEST + (1 << 20)  # uncompressed, with the labels and headers
    if path.stat().st_size > largest:
        raise DataError(f"svhn: {path} is longer than any file of the format, {largest:,} bytes")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"svhn: {path} cannot be read ({error.strerror})") from error
    images, labels = _records(data, path.name)
    if len(images) < _TEST_EVERY:
        raise DataError(f"svhn: {path} holds {len(images)} images; at least {_TEST_EVERY} make two splits")
    is_test = np.arange(len(images)) % _TEST_EVERY == _TEST_EVERY - 1
    train = Split(images[~is_test], labels[~is_test])
    return Dataset("svhn", _CLASSES, train, test=Split(images[is_test], labels[is_test]))


def _records(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) and labels (N,) of one file."""
    arrays = read_arrays(data, name, ("X", "y"), _LARGEST)
    x, y = arrays["X"], arrays["y"]
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or x.shape[:3] != _IMAGE:
        raise DataError(f"{name}: X is {x.dtype} {x.shape}, expected uint8 (32, 32, 3, N)")
    images = x.reshape(*_IMAGE, -1, order="F").transpose(3, 0, 1, 2)  # MATLAB drops a last axis of length 1
    if y.shape != (len(images), 1):
        raise DataError(
            f"{name}: y has shape {y.shape}, expected ({len(images)}, 1), one label per image of X"
        )
    labels = y[:, 0]
    wrong = ~np.isin(labels, np.arange(1, _ZERO + 1))
    if wrong.any():
        index = int(wrong.argmax())
        raise DataError(f"{name}: record {index} has label {labels[index]}, expected 1..{_ZERO}")
    return np.ascontiguousarray(images), labels.astype(np.int64) % _ZERO
