"""Small data sets in the official formats, with the table of checksums that belongs to them."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest

from minidl.data import sources

Install = Callable[[str, dict[str, bytes]], Path]
NOWHERE = "http://127.0.0.1:9/"  # the discard port: nothing listens


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A function that writes `files`, makes them the official ones of a data set and returns the root."""

    def install(name: str, files: dict[str, bytes]) -> Path:
        table = tuple(sources.File(file, len(data), md5(data).hexdigest()) for file, data in files.items())
        source = replace(sources.SOURCES[name], url=NOWHERE, files=table)
        monkeypatch.setitem(sources.SOURCES, name, source)
        (tmp_path / source.folder).mkdir()
        for file, data in files.items():
            (tmp_path / source.folder / file).write_bytes(data)
        return tmp_path

    return install


@pytest.fixture
def cifar_files() -> dict[str, bytes]:
    """Six batch files of five records each: a label byte, then the red, green and blue planes."""
    rng = np.random.default_rng(0)
    names = [file.name for file in sources.SOURCES["cifar10"].files]
    records = rng.integers(0, 256, (len(names), 5, 3073), dtype=np.uint8)
    records[:, :, 0] = np.arange(5 * len(names)).reshape(len(names), 5) % 10
    return {name: batch.tobytes() for name, batch in zip(names, records, strict=True)}


@pytest.fixture
def cifar_root(install: Install, cifar_files: dict[str, bytes]) -> Path:
    """A root folder that holds a small CIFAR-10; downloads find nobody."""
    return install("cifar10", cifar_files)


@pytest.fixture
def mnist_arrays() -> dict[str, np.ndarray]:
    """Six training images with labels, four test images with theirs, by file name."""
    rng = np.random.default_rng(1)
    shapes = [(6, 28, 28), (6,), (4, 28, 28), (4,)]
    arrays = [rng.integers(0, 256 if len(shape) == 3 else 10, shape, dtype=np.uint8) for shape in shapes]
    return dict(zip([file.name for file in sources.SOURCES["mnist"].files], arrays, strict=True))


@pytest.fixture
def mnist_files(mnist_arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The arrays as gzipped idx files: 0, 0, the type, the number of axes, big-endian lengths, the values."""
    files = {}
    for name, array in mnist_arrays.items():
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        files[name] = gzip.compress(header + array.tobytes(), mtime=0)
    return files


@pytest.fixture
def mnist_root(install: Install, mnist_files: dict[str, bytes]) -> Path:
    """A root folder that holds a small MNIST; downloads find nobody."""
    return install("mnist", mnist_files)
