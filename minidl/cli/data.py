"""`minidl data`: the data sets, their files, and what they look like."""

import inspect
from pathlib import Path
from typing import Any

import click

import minidl
from minidl.cli.building import load_data
from minidl.cli.options import Commands, data_dir_option, image_size_option, writable


@click.group(cls=Commands)
def data() -> None:
    """List, download, check and look at the data sets."""


@data.command("list")
@data_dir_option
def data_list(data_dir: Path | None) -> None:
    """List the data sets, and the folder they are looked for in."""
    from minidl.data.fetch import resolve_root

    official = {name: _headline(getattr(minidl.data, name)) for name in minidl.data.names()}
    own = {"FOLDER": _headline(minidl.data.image_folder), "FILE.mat": "A file in the format of svhn's."}
    _table({**official, **own})
    click.echo(f"ROOT is {resolve_root(data_dir)}")


@data.command("download")
@click.argument("name")
@data_dir_option
def data_download(name: str, data_dir: Path | None) -> None:
    """Fetch the files of a data set, with their checksums."""
    _report(name, minidl.data.download(name, data_dir), "is here")


@data.command("verify")
@click.argument("name")
@data_dir_option
def data_verify(name: str, data_dir: Path | None) -> None:
    """Check the files of a data set against the official sizes and checksums."""
    from minidl.data.sources import SOURCES

    files = minidl.data.verify(name, data_dir)
    bare = SOURCES[name].without_checksum if files else []
    note = f" ({', '.join(bare)}: size checked; no checksum is published)" if bare else ""
    _report(name, files, f"is as published{note}")


def _augmentation(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    """What `--augment` asks for, if anything."""
    try:
        return None if text is None else minidl.data.transforms.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@data.command("show")
@click.argument("name")
@data_dir_option
@image_size_option
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True)
@click.option(
    "--columns", type=click.IntRange(1, 100), default=10, show_default=True, help="Images per class."
)
@click.option(
    "--augment",
    metavar="[TEXT]",
    is_flag=False,
    flag_value="crop+flip",
    callback=_augmentation,
    help="Show one image per class and random variants of it, by TEXT or else by crop+flip.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    metavar="S",
    help="What the variants follow from.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=writable,
    help="The PNG (else NAME.png).",
)
def data_show(
    name: str,
    data_dir: Path | None,
    image_size: int | None,
    split: str,
    columns: int,
    augment: Any,
    seed: int,
    out: Path | None,
) -> None:
    """Write a picture of the first images of each class, one row per class.

    With --augment a row is the class's first image and what random changes make of it: give TEXT as training
    takes it, such as "random_crop(28)+flip+colour_jitter(hue=0.1)".
    """
    from minidl.data import pictures

    dataset = load_data(name, data_dir, image_size=image_size)
    part = getattr(dataset, split)
    if augment is None:
        grid = pictures.class_grid(part.images, part.labels, dataset.num_classes, columns)
    else:
        grid = pictures.variant_grid(part.images, part.labels, dataset.num_classes, columns, augment, seed)
    out = out or Path(f"{dataset.name}.png")
    pictures.write_image(out, grid)
    for row, title in enumerate(dataset.classes, start=1):
        click.echo(f"row {row}: {title}")
    click.echo(f"{out}: {grid.shape[1]} x {grid.shape[0]} pixels")


def _report(name: str, files: list[Path], state: str) -> None:
    """One line per file of a data set."""
    for file in files:
        click.echo(file)
    click.echo(f"{name} {state}" if files else f"{name} needs no files")


def _headline(function: Any) -> str:
    """The first line of a docstring, without the shapes behind it."""
    return (inspect.getdoc(function) or "").partition("\n")[0].partition("  ")[0]


def _table(rows: dict[str, str]) -> None:
    """Names and what they stand for, in two columns."""
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        click.echo(f"{name:{width}}  {text}".rstrip())
