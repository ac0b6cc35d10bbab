"""Data sets by name, as the command line asks for them."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidl.data import fetch, sources
from minidl.data.cifar import cifar10, cifar100
from minidl.data.dataset import Dataset
from minidl.data.digits import digits
from minidl.data.folder import image_folder
from minidl.data.mnist import mnist
from minidl.data.svhn import svhn
from minidl.data.synthetic import synthetic
from minidl.errors import DataError

_LOADERS: dict[str, Callable[..., Dataset]] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "digits": digits,
    "mnist": mnist,
    "svhn": svhn,
    "synthetic": synthetic,
}


def names() -> list[str]:
    """The names that `load` knows."""
    return list(_LOADERS)


def load(
    name: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    **options: Any,
) -> Dataset:
    """The data set of that name, in the folder of that path (`image_folder`), or in a .mat file (`svhn`).

    options: the loader's own, such as size=256 for a folder. DataError listing the names if there is none,
    for an option that the loader does not take, or as its loader says.
    """
    name = os.fspath(name)
    where: dict[str, Any]
    loader: Callable[..., Dataset]
    if name.endswith(".mat"):
        loader, where = svhn, {"path": name}
    elif name not in _LOADERS and (os.sep in name or os.path.isdir(name)):
        loader, where = image_folder, {"path": name}
    else:
        loader, where = _loader(name), {"root": root, "download": download}
    unknown = [option for option in options if option not in inspect.signature(loader).parameters]
    if unknown:
        raise DataError(f"{name}: there is no option {unknown[0]!r} for this data set")
    return loader(**where, **options)


def verify(name: str, root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Check the files of a data set against their official sizes and MD5s, and return their paths.

    A data set that needs no files has none. A file without a published checksum is checked by its size alone.
    DataError naming the first file that is missing or wrong.
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
        raise DataError(
            f"there is no data set {name!r}; the data sets are {', '.join(_LOADERS)}; or "
            "give the path of a folder of images"
        )
    return _LOADERS[name]
