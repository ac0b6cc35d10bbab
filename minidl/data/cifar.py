"""CIFAR-10: 50,000 + 10,000 colour images of 32x32 in ten classes, from the official binary files.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". A record is one label byte and 3,072
pixel bytes, the red plane before the green and the blue; the images are turned channels-last while they are
copied out.
"""

import os

import numpy as np

from minidl.data import fetch, sources
from minidl.data.dataset import Dataset, Split
from minidl.errors import DataError

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_C, _H, _W = 3, 32, 32
_RECORD = 1 + _C * _H * _W  # bytes


def cifar10(root: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """CIFAR-10 from ROOT/cifar-10-batches-bin.  train (50000, 32, 32, 3), test (10000, 32, 32, 3), uint8

    root: the folder of the data sets; default $MINIDL_DATA, else the user's cache. Missing files are
    downloaded unless `download` is false. DataError for a missing or damaged file.
    """
    source = sources.SOURCES["cifar10"]
    folder = fetch.locate(source, root, download)
    batches = [_records(data, path.name) for path, data in fetch.read_all(source, folder)]
    images, labels = zip(*batches, strict=True)
    train = Split(np.concatenate(images[:-1]), np.concatenate(labels[:-1]))
    return Dataset("cifar10", _CLASSES, train, test=Split(images[-1], labels[-1]))


def _records(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) and labels (N,) of one batch file."""
    if len(data) % _RECORD:
        raise DataError(f"{name}: {len(data):,} bytes are no whole number of records of {_RECORD} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
    planes = records[:, 1:].reshape(-1, _C, _H, _W)
    return planes.transpose(0, 2, 3, 1).copy(), records[:, 0]
