"""What the commands share: the group that reports user errors, and the options that several have."""

import json
import math
from pathlib import Path
from typing import Any

import click

from minidl.errors import CheckpointError, DataError, DeviceError, DTypeError, ShapeError

USER_ERRORS = (ShapeError, DTypeError, DeviceError, DataError, CheckpointError, FloatingPointError, OSError)
DEFAULTS = {"data": "digits", "seed": 0, "device": "cpu", "fit_images": False}  # the recipe has the others


class Commands(click.Group):
    """A group of commands whose user errors are one line each."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output went away: click ends quietly
            raise
        except USER_ERRORS as error:
            raise as_one_line(error) from error


def as_one_line(error: Exception) -> click.ClickException:
    """What an error says, its notes included, without a traceback."""
    return click.ClickException("; ".join([str(error), *getattr(error, "__notes__", [])]))


def settings(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """The `--set name=value` options as keyword arguments; a value is JSON, or else text."""
    return _assignments(texts, {"True": True, "False": False, "None": None, "none": None})


def fields(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """The same of `--override`, where "none" is a text."""
    return _assignments(texts, {"True": True, "False": False, "None": None})


def _assignments(texts: tuple[str, ...], constants: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{text!r} is not of the form name=value")
        try:
            found[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            found[name.replace("-", "_")] = constants.get(value, value)
    return found


def finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """The number that an option gives, if any; infinity and nan are refused."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


def writable(ctx: click.Context, param: click.Parameter, file: Path | None) -> Path | None:
    """The file that an option names for a result, if any; refused where its folder is not there.

    Before anything is computed: the result would be lost.
    """
    if file is not None and not file.parent.is_dir():
        raise click.BadParameter(f"there is no folder {file.parent}; make it first")
    return file


FOLDER = click.Path(file_okay=False, path_type=Path)
model_settings = click.option(
    "--set",
    "arguments",
    metavar="NAME=VALUE",
    multiple=True,
    callback=settings,
    help="An argument of the model, such as batch_norm=true; may be repeated.",
)
data_dir_option = click.option(
    "--data-dir",
    type=FOLDER,
    metavar="DIR",
    help="Folder of the data sets (else $MINIDL_DATA, else the user's cache).",
)
batch_option = click.option("--batch-size", type=click.IntRange(min=1), metavar="B", help="Images per step.")
limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Use the first N images of each split alone (of a folder N of all its classes).",
)
device_option = click.option("--device", metavar="D", help="Where to compute (else cpu).")
fit_images_option = click.option(
    "--fit-images", is_flag=True, help="Resize images to the model's size and repeat grey to three channels."
)
image_size_option = click.option(
    "--image-size",
    type=click.IntRange(min=1),
    metavar="PX",
    help="For a folder of images: resize their shorter side to PX pixels and cut out the middle square.",
)
skip_broken_option = click.option(
    "--skip-broken", is_flag=True, help="For a folder of images: leave out pictures that cannot be read."
)
