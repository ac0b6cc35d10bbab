"""Small data sets in the official formats, with the table of checksums that belongs to them."""

import gzip
import io
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
        bare = sources.SOURCES[name].without_checksum  # stay so
        table = tuple(
            sources.File(file, len(data), None if file in bare else md5(data).hexdigest())
            for file, data in files.items()
        )
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
def cifar100_files() -> dict[str, bytes]:
    """Ten training records and five to test: the coarse label, the fine label, then the planes."""
    rng = np.random.default_rng(2)
    files = {}
    for file, n in zip(sources.SOURCES["cifar100"].files, (10, 5), strict=True):
        records = rng.integers(0, 256, (n, 3074), dtype=np.uint8)
        records[:, 0], records[:, 1] = 19 - np.arange(n), 99 - np.arange(n)
        files[file.name] = records.tobytes()
    return files


@pytest.fixture
def cifar100_root(install: Install, cifar100_files: dict[str, bytes]) -> Path:
    """A root folder that holds a small CIFAR-100; downloads find nobody."""
    return install("cifar100", cifar100_files)


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


def svhn_file(n: int, seed: int, compressed: bool = True) -> bytes:
    """`n` random images in a .mat file as scipy writes it, the labels 1, 2, ..., 10 (the digit 0), 1, ..."""
    import scipy.io

    x = np.random.default_rng(seed).integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
    y = (np.arange(n, dtype=np.uint8)[:, np.newaxis] % 10) + 1
    file = io.BytesIO()
    scipy.io.savemat(file, {"X": x, "y": y}, do_compression=compressed)
    return file.getvalue()


@pytest.fixture
def svhn_files() -> dict[str, bytes]:
    """Twelve training images and seven to test."""
    names = [file.name for file in sources.SOURCES["svhn"].files]
    return {name: svhn_file(n, seed=n) for name, n in zip(names, (12, 7), strict=True)}


@pytest.fixture
def svhn_root(install: Install, svhn_files: dict[str, bytes]) -> Path:
    """A root folder that holds a small SVHN; downloads find nobody."""
    return install("svhn", svhn_files)
