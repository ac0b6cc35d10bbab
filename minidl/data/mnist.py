"""MNIST: 60,000 + 10,000 grey images of handwritten digits, 28x28, from the official idx files.

LeCun, Cortes and Burges, "The MNIST database of handwritten digits". An idx file is two zero bytes, a type
byte (8: unsigned bytes), the number of axes, each axis as a big-endian 32-bit integer, then the array in
row-major order.
"""

import math
import os

import numpy as np

from minidl.data import fetch, sources
from minidl.data.dataset import Dataset, Split
from minidl.data.inflate import GZIP, inflate
from minidl.errors import DataError

_CLASSES = tuple("0123456789")
_UNSIGNED_BYTES = b"\x00\x00\x08"
_LONGEST_HEADER = 4 + 4 * 255  # bytes
_LARGEST = 60_000 * 28 * 28  # bytes of the array in the largest official file


def mnist(root: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """MNIST from ROOT/mnist.  train (60000, 28, 28, 1), test (10000, 28, 28, 1), uint8, 0 the background

    root: the folder of the data sets; default $MINIDL_DATA, else the user's cache. Missing files are
    downloaded unless `download` is false. DataError for a missing or damaged file.
    """
    source = sources.SOURCES["mnist"]
    folder = fetch.locate(source, root, download)
    arrays = [
        _idx(data, path.name, axes)
        for (path, data), axes in zip(fetch.read_all(source, folder), (3, 1, 3, 1))
    ]
    train_images, train_labels, test_images, test_labels = arrays
    train = Split(train_images[..., np.newaxis], train_labels)
    return Dataset("mnist", _CLASSES, train, test=Split(test_images[..., np.newaxis], test_labels))


def _idx(data: bytes, name: str, axes: int) -> np.ndarray:
    """The array in a gzipped idx file.  DataError if it is not one of unsigned bytes with that many axes."""
    complaint = f"{name}: is no gzip file, or not a whole one"
    header = inflate(data, _LONGEST_HEADER, complaint, GZIP)
    if header[:3] != _UNSIGNED_BYTES or len(header) < 4 or len(header) < 4 + 4 * header[3]:
        raise DataError(f"{name}: is no idx file of unsigned bytes; it begins with {header[:4].hex()}")
    shape = tuple(int(length) for length in np.frombuffer(header, ">u4", count=header[3], offset=4))
    start, size = 4 + 4 * len(shape), math.prod(shape)
    if len(shape) != axes or not 0 < size <= _LARGEST:
        raise DataError(
            f"{name}: its header announces an array {shape}, expected {axes} axes and 1 to {_LARGEST:,} bytes"
        )
    content = inflate(data, start + size + 1, complaint, GZIP)
    if len(content) != start + size:
        follow = "more" if len(content) > start + size else f"{len(content) - start:,}"
        raise DataError(f"{name}: its header announces {size:,} bytes, {shape}, but {follow} follow")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
