"""Data sets by name, as the command line asks for them."""

import os
from collections.abc import Callable
from pathlib import Path

from minidl.data import fetch, sources
from minidl.data.cifar import cifar10
from minidl.data.dataset import Dataset
from minidl.data.digits import digits
from minidl.data.mnist import mnist
from minidl.data.synthetic import synthetic
from minidl.errors import DataError

_LOADERS: dict[str, Callable[..., Dataset]] = {
    "cifar10": cifar10,
    "digits": digits,
    "mnist": mnist,
    "synthetic": synthetic,
}


def names() -> list[str]:
    """The names that `load` knows."""
    return list(_LOADERS)


def load(name: str, root: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """The data set of that name.  DataError listing the names if there is none, or as its loader says."""
    return _loader(name)(root=root, download=download)


def verify(name: str, root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Check the files of a data set against their official sizes and MD5s, and return their paths.

    A data set that needs no files has none. DataError naming the first file that is missing or wrong.
    """
    _loader(name)
    source = sources.SOURCES.get(name)
    if source is None:
        return []
    folder = fetch.locate(source, root, download=False)
    for _ in fetch.read_all(source, folder):
        pass
    return [folder / file.name for file in source.files]


def download(name: str, root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Download the files of a data set that are missing or wrong, and return the paths of all.

    A data set that needs no files has none. DataError saying how to do it by hand if that fails.
    """
    _loader(name)
    source = sources.SOURCES.get(name)
    if source is None:
        return []
    place = fetch.resolve_root(root)
    fetch.fetch(source, place)
    return [place / source.folder / file.name for file in source.files]


def _loader(name: str) -> Callable[..., Dataset]:
    if name not in _LOADERS:
        raise DataError(f"there is no data set {name!r}; the data sets are {', '.join(_LOADERS)}")
    return _LOADERS[name]
