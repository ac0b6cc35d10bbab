"""MNIST: 60,000 + 10,000 grey images of handwritten digits, 28x28, from the official idx files.

LeCun, Cortes and Burges, "The MNIST database of handwritten digits". An idx file is two zero bytes, a type
byte (8: unsigned bytes), the number of axes, each axis as a big-endian 32-bit integer, then the array in
row-major order.
"""

import gzip
import math
import os
import zlib

import numpy as np

from minidl.data import fetch, sources
from minidl.data.dataset import Dataset, Split
from minidl.errors import DataError

_CLASSES = tuple("0123456789")
_UNSIGNED_BYTES = b"\x00\x00\x08"


def mnist(root: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """MNIST from ROOT/mnist.  train (60000, 28, 28, 1), test (10000, 28, 28, 1), uint8, 0 the background

    root: the folder of the data sets; default $MINIDL_DATA, else the user's cache. Missing files are
    downloaded unless `download` is false. DataError for a missing or damaged file.
    """
    source = sources.SOURCES["mnist"]
    folder = fetch.locate(source, root, download)
    arrays = [_idx(data, path.name) for path, data in fetch.read_all(source, folder)]
    train_images, train_labels, test_images, test_labels = arrays
    train = Split(train_images[..., np.newaxis], train_labels)
    return Dataset("mnist", _CLASSES, train, test=Split(test_images[..., np.newaxis], test_labels))


def _idx(data: bytes, name: str) -> np.ndarray:
    """The array in a gzipped idx file.  DataError if it is not one of unsigned bytes."""
    try:
        content = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: is no gzip file, or not a whole one ({error})") from error
    if content[:3] != _UNSIGNED_BYTES or len(content) < 4 + 4 * content[3]:
        raise DataError(f"{name}: is no idx file of unsigned bytes; it begins with {content[:4].hex()}")
    axes = content[3]
    shape = [int(length) for length in np.frombuffer(content, ">u4", count=axes, offset=4)]
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if len(values) != math.prod(shape):
        raise DataError(
            f"{name}: its header announces {math.prod(shape):,} bytes, {tuple(shape)}, but "
            f"{len(values):,} follow"
        )
    return values.reshape(shape).copy()  # writeable, and free of the decompressed bytes
