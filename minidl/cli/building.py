"""What several commands need: a model by its name, data that fits it, the result of a test in words."""

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np

import minidl
from minidl.data.rows import Rows
from minidl.errors import DataError, ShapeError


def zoo() -> ModuleType:
    """The package of the models."""
    return importlib.import_module("minidl_models")


def build(name: str, arguments: dict[str, Any]) -> Any:
    """The model of that name.  ClickException for an unknown name, or for arguments it does not take."""
    try:
        return zoo().create(name, **arguments)
    except (TypeError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def build_for(name: str, arguments: dict[str, Any], dataset: Any, fit_images: bool) -> Any:
    """The model of that name for a data set: its version for that set, or else one with as many classes.

    In the second case it also gets as many channels, unless images are fitted to the model.
    """
    taken = inspect.signature(getattr(zoo(), name, build)).parameters
    if "dataset" in taken:
        try:
            return zoo().create(name, **{"dataset": dataset.name, **arguments})
        except (
            TypeError,
            ValueError,
        ):  # no version for this set, or a wrong argument, which the call below reports
            pass
    suits = {"num_classes": dataset.num_classes}
    if not fit_images:
        suits["in_channels"] = dataset.image_shape[2]
    return build(name, {**{key: value for key, value in suits.items() if key in taken}, **arguments})


def lasting(name: str) -> str:
    """The name of a data set; of a folder or file its whole path, for a run may go on from another folder."""
    return str(Path(name).resolve()) if name not in minidl.data.names() and Path(name).exists() else name


def load_data(
    name: str,
    root: str | Path | None,
    limit: int | None = None,
    *,
    image_size: int | None = None,
    skip_broken: bool | None = None,
) -> Any:
    """A data set, cut to the first `limit` images of each split; of a folder, which is sorted by class, to so
    many from its begin to its end.

    image_size and skip_broken are for a folder of images: their size, and whether to leave out broken ones.
    """
    options: dict[str, Any] = {"size": image_size} if image_size else {}
    if skip_broken:
        options["errors"] = "skip"
    dataset = minidl.data.load(name, root=root, **options)
    if limit is None:
        return dataset
    train, test = (_some(part, limit) for part in (dataset.train, dataset.test))
    return minidl.data.Dataset(dataset.name, dataset.classes, train, test)


def _some(part: Any, limit: int) -> Any:
    """A split of `limit` images at most."""
    if isinstance(part.images, np.ndarray) or limit >= len(part):
        return minidl.data.Split(part.images[:limit], part.labels[:limit])
    spread = np.linspace(0, len(part) - 1, limit).astype(np.int64)
    return minidl.data.Split(Rows(part.images, spread), part.labels[spread])


def fitted(dataset: Any, model: Any, fit_images: bool, cut: bool = False) -> Any:
    """The data set with images that fit the model, see `fitted_images`."""
    train, test = (
        minidl.data.Split(fitted_images(part.images, model, dataset.name, fit_images, cut), part.labels)
        for part in (dataset.train, dataset.test)
    )
    return minidl.data.Dataset(dataset.name, dataset.classes, train, test)


def fitted_images(
    images: np.ndarray, model: Any, where: str, fit_images: bool, cut: bool = False
) -> np.ndarray:
    """Images that fit the model.  (N, H, W, C) -> (N, H, W, C of the model)

    The channels are made to fit here, the size batch by batch through the model's preprocessing, so that
    a data set does not grow in memory; `cut` tells that crops of any image will fit. ShapeError naming
    --fit-images without it.
    """
    if model.input_shape is None:
        return images
    h, w, c = images.shape[1:]
    size, channels = tuple(model.input_shape[:2]), model.input_shape[2]
    preprocess = model.preprocess or {}
    any_size = model.smallest is not None and min(h, w) >= model.smallest
    if c == channels and (cut or any_size or (h, w) == size or "resize" in preprocess):
        return images
    if not fit_images:
        raise ShapeError(
            f"{where}: images are {h}x{w}x{c} but the model takes {'x'.join(map(str, model.input_shape))}; "
            "--fit-images resizes them and repeats grey to three channels"
        )
    if c != channels and not isinstance(images, np.ndarray):
        raise DataError(
            f"{where}: the pictures of a folder are read in {c} channels, which --fit-images does not "
            f"change, but the model takes {channels}; choose another, or --set in_channels={c}"
        )
    if not cut:
        model.preprocess = {"resize": list(size), **preprocess}
    return minidl.data.transforms.fit_images(images, (h, w, channels))


def result_text(result: dict[str, float], dataset: Any, limit: int | None) -> str:
    """The result of a test, and on how many images it rests."""
    n = len(dataset.test)
    images = f"the first {n} images (--limit)" if n == limit else f"{n} images"
    return (
        f"test on {images}: loss {result['loss']:.4f}, top 5 {result['top5']:.4f}\ntest accuracy "
        f"{result['accuracy']:.4f}"
    )
