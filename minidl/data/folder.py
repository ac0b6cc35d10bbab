"""Data sets of one's own: a folder of image files for each class.

The files are listed once and read when a batch asks for them, in the loader's threads, so a data set may be
larger than memory by any factor.
"""

import itertools
import json
import operator
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from minidl.data.dataset import Dataset, Split
from minidl.data.pictures import decode
from minidl.data.rows import Lazy
from minidl.errors import DataError, ShapeError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")  # in any case

_STAND_INS = ("valid", "test")  # looked for, in this order, where there is no folder val
_AT_A_TIME = 4096  # files checked before the next are handed out
_SHOWN = 3  # skipped files named in the warning


class ImageFiles(Lazy):
    """Pictures in files, decoded when they are asked for.  (N, H, W, C) uint8

    files: their paths below `folder`. shape: (H, W, C). resized: whether they are cut and resized to it, see
    `pictures.decode`, or must have it already. skipped: (path, reason) of each file that was left out.

    A picture that cannot be read raises DataError where it is asked for, one of another shape ShapeError.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        files: Sequence[str],
        shape: tuple[int, int, int],
        *,
        resized: bool,
        skipped: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.folder, self.files, self.skipped = Path(folder), list(files), list(skipped)
        self.image_shape, self.dtype = shape, np.dtype(np.uint8)
        self.shape = (len(files), *shape)
        self.resized = resized

    def read(self, file: str) -> np.ndarray:
        """One picture by its path below the folder.  -> (H, W, C)"""
        path = self.folder / file
        h, w, c = self.image_shape
        image = decode(path, size=(h, w) if self.resized else None, channels=c)
        if image.shape != (h, w, c):
            raise ShapeError(
                f"{path} has {image.shape[0]}x{image.shape[1]} pixels, but the first image of the data set "
                f"{h}x{w}; give all one size with image_folder(..., size={min(h, w)}) or size=(H, W)"
            )
        return image

    def _read(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for image, row in zip(images, rows.tolist(), strict=True):
            image[...] = self.read(self.files[row])
        return images


def image_folder(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    train: str = "train",
    val: str = "val",
    errors: str = "raise",
    channels: int = 3,
) -> Dataset:
    """Pictures in PATH/train/CLASS/ and PATH/val/CLASS/ as a data set, read batch by batch.

    What lies in `val` is the test split; without a folder val, valid or else test is taken. Classes are the
    folders of `train`, sorted, under the names that PATH/classes.json gives ({"folder": "name"}), if there is
    one. Pictures are the .jpg, .jpeg, .png and .bmp files at any depth below, sorted; names that begin with a
    dot are passed over, and so are links to folders.

    size: an S cuts the middle square and resizes it to SxS, as if the shorter side were resized to S and the
    rest cut off; (H, W) does so for that shape, see `pictures.decode`. Pictures of that size stay as they
    are. None: all must have the size of the first. channels: 3, or 1 for grey. errors: "raise" a DataError
    when a picture is asked for that cannot be read; "skip" decodes every file now, leaves those out, says
    so in a warning, and keeps them in `split.images.skipped`.

    DataError for folders that do not make a data set, ValueError for options that are none.
    """
    pair = _check_options(size, errors, channels)
    root = Path(path)
    folders = _split_folders(root, train, val)
    listed = [_list_classes(folder) for folder in folders]
    names = [name for name, _ in listed[0]]
    unknown = [name for name, _ in listed[1] if name not in names]
    if unknown:
        raise DataError(
            f"{folders[1] / unknown[0]}: {folders[0]} has no class {unknown[0]!r}; remove the folder, or add "
            "images to train on"
        )
    titles = _titles(root, names)
    splits: list[Split] = []
    shape = None if pair is None else (*pair, channels)
    for folder, classes in zip(folders, listed, strict=True):
        files = [file for _, inside in classes for file in inside]
        labels = np.repeat([names.index(name) for name, _ in classes], [len(inside) for _, inside in classes])
        shape = shape or _first_shape(folder, files, errors, channels)
        images = ImageFiles(folder, files, shape, resized=pair is not None)
        splits.append(_readable(images, labels) if errors == "skip" else Split(images, labels))
    _warn_of_skipped(root, splits)
    return Dataset(Path(os.path.abspath(root)).name, titles, *splits)


def _check_options(size: Any, errors: str, channels: int) -> tuple[int, int] | None:
    """The size as (H, W) or None.  ValueError for options that are none."""
    if errors not in ("raise", "skip"):
        raise ValueError(f"image_folder: errors is {errors!r}; give 'raise' or 'skip'")
    if channels not in (1, 3):
        raise ValueError(f"image_folder: channels is {channels!r}; give 3, or 1 for grey")
    if size is None:
        return None
    try:
        h, w = (size, size) if np.ndim(size) == 0 else size
        h, w = operator.index(h), operator.index(w)
    except (TypeError, ValueError):
        h = w = 0
    if min(h, w) < 1:
        raise ValueError(f"image_folder: size is {size!r}; give a positive integer, (H, W), or None")
    return h, w


def _split_folders(root: Path, train: str, val: str) -> tuple[Path, Path]:
    """The folders of the two splits.  DataError unless both are there and not the same."""
    if not root.is_dir():
        raise DataError(
            f"{root}: there is no such folder" if not root.exists() else f"{root} is not a folder"
        )
    found: list[Path] = []
    for names in ((train,), (val, *_STAND_INS) if val == "val" else (val,)):
        folder = next((root / name for name in names if (root / name).is_dir()), None)
        if folder is None:
            there = ", ".join(_subfolders(root)) or "none"
            option = "train" if not found else "val"
            raise DataError(
                f"{root} has no folder {' or '.join(names)} (its folders: {there}); images are expected in "
                f"train/CLASS/ and val/CLASS/, or in folders of other names that {option}=... tells"
            )
        found.append(folder)
    if os.path.samefile(*found):
        raise DataError(f"{found[0]} and {found[1]} are one folder; test images must not be trained on")
    return found[0], found[1]


def _list_classes(folder: Path) -> list[tuple[str, list[str]]]:
    """(class, its files' paths below the split's folder), both sorted.  DataError for one without images."""
    classes = []
    for name in _subfolders(folder):
        files = []
        for place, inner, names in os.walk(folder / name, onerror=_cannot_list):
            inner[:] = [each for each in inner if not each.startswith(".")]
            files += [
                os.path.relpath(os.path.join(place, file), folder)
                for file in names
                if file.lower().endswith(SUFFIXES) and not file.startswith(".")
            ]
        if not files:
            raise DataError(
                f"{folder / name} holds no images ({', '.join(SUFFIXES)}); remove the folder or add some"
            )
        classes.append((name, sorted(files)))
    if not classes:
        raise DataError(f"{folder} holds no folders; it needs one for each class, with images in it")
    return classes


def _subfolders(folder: Path) -> list[str]:
    """The names of a folder's folders, sorted, but for hidden ones and links that lead back up."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        _cannot_list(error)
    here = folder.resolve()
    return [
        name
        for name in names
        if not name.startswith(".")
        and (folder / name).is_dir()
        and not here.is_relative_to((folder / name).resolve())
    ]


def _cannot_list(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from None


def _titles(root: Path, names: list[str]) -> list[str]:
    """What the classes are called: by classes.json, else as their folders."""
    path = root / "classes.json"
    if not path.exists():
        return names
    try:
        table = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(table, dict) or not all(isinstance(title, str) for title in table.values()):
        raise DataError(
            f'{path} must map the folders of classes to their names, as in {{"n01440764": "tench"}}'
        )
    missing = [name for name in names if name not in table]
    if missing:
        raise DataError(f"{path} has no name for the class folder {missing[0]!r}; add it or remove the file")
    titles = [table[name] for name in names]
    twice = next((title for title in titles if titles.count(title) > 1), None)
    if twice is not None:
        both = [name for name in names if table[name] == twice]
        raise DataError(f"{path} calls {both[0]!r} and {both[1]!r} both {twice!r}; names must differ")
    return titles


def _first_shape(folder: Path, files: list[str], errors: str, channels: int) -> tuple[int, int, int]:
    """(H, W, C) of the first picture, or of the first that can be read."""
    for file in files:
        try:
            h, w, c = decode(folder / file, channels=channels).shape
            return h, w, c
        except DataError:
            if errors == "raise":
                raise
    raise DataError(f"{folder}: none of the {len(files)} files in it can be read as an image")


def _readable(images: ImageFiles, labels: np.ndarray) -> Split:
    """The split without the files that cannot be read: all are, by as many threads as there are cores."""
    from concurrent.futures import ThreadPoolExecutor

    from tqdm import tqdm

    def reason(file: str) -> str:
        try:
            images.read(file)
        except DataError as error:
            return str(error).removeprefix(str(images.folder / file)).lstrip(": ")
        return ""

    reasons: list[str] = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(images), desc=f"checking {images.folder}", unit="img", leave=False, delay=2) as bar,
    ):
        for start in range(0, len(images), _AT_A_TIME):
            for each in pool.map(reason, images.files[start : start + _AT_A_TIME]):
                reasons.append(each)
                bar.update()
    good = [not each for each in reasons]
    skipped = [
        (str(images.folder / file), each) for file, each in zip(images.files, reasons, strict=True) if each
    ]
    if not any(good):
        path, each = skipped[0]
        raise DataError(f"{images.folder}: no image can be read; {path} {each}")
    kept = list(itertools.compress(images.files, good))
    shape = images.image_shape
    return Split(
        ImageFiles(images.folder, kept, shape, resized=images.resized, skipped=skipped), labels[good]
    )


def _warn_of_skipped(root: Path, splits: list[Split]) -> None:
    skipped = [each for split in splits for each in split.images.skipped]
    if skipped:
        shown = "; ".join(f"{path} {reason}" for path, reason in skipped[:_SHOWN])
        more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        total = sum(map(len, splits)) + len(skipped)
        warnings.warn(
            f"image_folder: {len(skipped)} of {total} images in {root} are left out: {shown}{more} (all are "
            "listed in train.images.skipped and test.images.skipped)",
            UserWarning,
            stacklevel=3,
        )
