"""The `minidl` command: train, evaluate, predict, summary, bench, models, warmup, data.

Each command turns its options into a few calls of the public interface, the same a program would make, and
prints what they return. A user's mistake becomes one line on stderr and exit code 1; a traceback means a bug
in minidl. Models are found by name in the package `minidl_models` when a command runs: the engine does not
know its zoo.
"""

import dataclasses
import importlib
import inspect
import json
import math
import shlex
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np

import minidl
from minidl import backend
from minidl.backend import plans
from minidl.errors import CheckpointError, DataError, DeviceError, DTypeError, ShapeError
from minidl.train import runfolder
from minidl.train.runfolder import RunFolder

USER_ERRORS = (ShapeError, DTypeError, DeviceError, DataError, CheckpointError, FloatingPointError, OSError)
DEFAULTS = {"data": "digits", "seed": 0, "device": "cpu", "fit_images": False}  # the recipe has the others
TOP = 5  # classes that `predict` prints
COMMON = ("nin", "googlenet", "resnet18")  # between them they run the kernels of the whole zoo


class Commands(click.Group):
    """A group of commands whose user errors are one line each."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output went away: click ends quietly
            raise
        except USER_ERRORS as error:
            raise click.ClickException("; ".join([str(error), *getattr(error, "__notes__", [])])) from error


def _settings(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """The `--set name=value` options as keyword arguments; a value is JSON, or else text."""
    constants = {"True": True, "False": False, "None": None, "none": None}
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{text!r} is not of the form name=value")
        try:
            settings[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            settings[name.replace("-", "_")] = constants.get(value, value)
    return settings


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


FOLDER = click.Path(file_okay=False, path_type=Path)
model_settings = click.option(
    "--set",
    "arguments",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_settings,
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
    "--limit", type=click.IntRange(min=1), metavar="N", help="Use the first N images of each split alone."
)
device_option = click.option("--device", metavar="D", help="Where to compute (else cpu).")
fit_images_option = click.option(
    "--fit-images", is_flag=True, help="Resize images to the model's size and repeat grey to three channels."
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(minidl.__version__, prog_name="minidl")
def main() -> None:
    """Train convolutional networks from the papers, and use them."""


@main.command()
@click.argument("model")
@click.option("--data", metavar="NAME", help="The data set (else digits, which needs no download).")
@data_dir_option
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Passes over the training images.")
@batch_option
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    callback=_finite,
    help="Learning rate, at its peak where a schedule moves it.",
)
@limit_option
@model_settings
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    metavar="S",
    help="What every random number follows from (else 0).",
)
@device_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run's folder (else runs/MODEL-DATA, numbered when that is taken).",
)
@click.option("--resume", is_flag=True, help="Continue the run in the folder from its last checkpoint.")
@fit_images_option
@click.option(
    "--plans",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="FILE",
    help="Convolve by the plans measured there (see minidl warmup --tune), not by those predicted.",
)
def train(model: str, out: Path | None, resume: bool, **asked: Any) -> None:
    """Train MODEL and test it.

    Whatever is not given comes from the model's recipe for the data. The run's folder holds config.json,
    metrics.csv, log.txt, checkpoint/ and the final weights in model.safetensors.
    """
    from minidl.train import read_table

    asked["data_dir"] = asked["data_dir"] and str(asked["data_dir"].resolve())
    asked = {"model": model, **asked, "fit_images": asked["fit_images"] or None}
    asked["plans"] = asked["plans"] and read_table(asked["plans"])
    name = f"{model}-{asked['data'] or DEFAULTS['data']}"
    folder = None
    if resume:
        folder = RunFolder(out) if out is not None else runfolder.latest(name)
        if folder.used():
            config = runfolder.continued(folder, asked)
            if _finished(folder, config):
                return
        else:
            click.echo(f"no run in {folder.path} to resume: starting from the beginning")
            folder = None
    elif out is not None:
        runfolder.check_unused(RunFolder(out))
    if folder is None:
        defaults = {key: value for key, value in DEFAULTS.items() if asked[key] is None}
        config = {"minidl": minidl.__version__, **asked, **defaults}
    _run(config, folder, out, name)


def _finished(folder: RunFolder, config: dict[str, Any]) -> bool:
    """Print the result of a run that has all its epochs; False if there is more to train."""
    result = config.get("result")
    if result is None or config["epochs"] > result["epochs"]:
        return False
    click.echo(f"{folder.path} is finished: {result['epochs']} epochs")
    click.echo(f"test accuracy {result['accuracy']:.4f}")
    return True


def _run(config: dict[str, Any], folder: RunFolder | None, out: Path | None, name: str) -> None:
    """Train by `config`, in `folder` if the run has begun there, and else in a new one; then test."""
    from minidl.train.callbacks import CSVLogger

    plans.use_table(config.get("plans") or {})
    dataset, model, recipe = _prepare(config)
    settings = {key: value for key, value in config.items() if key != "result"}
    settings.update(epochs=recipe.epochs, batch_size=recipe.batch_size, lr=recipe.lr)
    settings.update(classes=list(dataset.classes), threads=minidl.get_num_threads())
    begun = folder is not None
    if begun and config["threads"] != settings["threads"]:
        click.echo(
            f"begun on {config['threads']} threads: with {settings['threads']} the last bits will differ"
        )
    folder = folder or runfolder.claim(out, name)
    click.echo(f"run folder {folder.path}")
    try:
        history = model.fit(
            dataset,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            recipe=recipe,
            callbacks=[
                runfolder.ConfigFile(folder, settings),
                CSVLogger(folder.metrics),
                runfolder.LogFile(folder),
            ],
            checkpoint=folder.checkpoint,
            resume=begun,
        )
    except USER_ERRORS:
        if not begun:
            folder.give_up()
        raise
    if history.interrupted:
        command = f"minidl train {config['model']} --out {shlex.quote(str(folder.path))} --resume"
        raise click.ClickException(f"interrupted; go on with {command}")
    model.save(folder.weights)
    result = model.evaluate(dataset)
    folder.write_config({**settings, "result": {"epochs": len(history.history["loss"]), **result}})
    text = _result_text(result, dataset, config["limit"])
    folder.write_log(text)
    click.echo(text)


def _prepare(config: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The data set, model and recipe that a run's settings stand for."""
    from minidl.train import default_for

    minidl.set_default_device(config["device"])
    minidl.manual_seed(config["seed"])
    dataset = _load(config["data"], config["data_dir"], config["limit"])
    model = _build_for(config["model"], config["arguments"], dataset, config["fit_images"])
    dataset = _fitted(dataset, model, config["fit_images"])
    given = {key: config[key] for key in ("epochs", "batch_size", "lr") if config[key] is not None}
    return dataset, model, dataclasses.replace(default_for(model, dataset.name), **given)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", metavar="NAME", help="Another data set than the run's.")
@data_dir_option
@batch_option
@limit_option
@device_option
@fit_images_option
def evaluate(
    run: Path,
    data: str | None,
    data_dir: Path | None,
    batch_size: int | None,
    limit: int | None,
    device: str | None,
    fit_images: bool,
) -> None:
    """Test the model of the run folder RUN on the test images."""
    config, model = _trained(RunFolder(run), device)
    limit = limit or config["limit"]
    dataset = _load(data or config["data"], data_dir or config["data_dir"], limit)
    if dataset.num_classes != len(config["classes"]):
        raise DataError(
            f"{run} was trained on {len(config['classes'])} classes ({config['data']}) but "
            f"{dataset.name} has {dataset.num_classes}"
        )
    dataset = _fitted(dataset, model, fit_images or config["fit_images"])
    result = model.evaluate(dataset, **({"batch_size": batch_size} if batch_size else {}))
    click.echo(_result_text(result, dataset, limit))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True)
@device_option
@fit_images_option
def predict(run: Path, images: tuple[Path, ...], device: str | None, fit_images: bool) -> None:
    """Print the most probable classes of each of the IMAGES, by the model of the run folder RUN."""
    from minidl.data.pictures import read_image

    config, model = _trained(RunFolder(run), device)
    for path in images:
        image = _fitted_images(read_image(path), model, f"{path}", fit_images or config["fit_images"])
        probabilities = model.predict(image)[0]
        if len(images) > 1:
            click.echo(path)
        for k in np.argsort(-probabilities, kind="stable")[:TOP]:
            click.echo(f"{probabilities[k]:.4f}  {config['classes'][k]}")


@main.command()
@click.argument("model")
@model_settings
def summary(model: str, arguments: dict[str, Any]) -> None:
    """Print the layers of MODEL: kernel, stride and padding, output shape, parameters, multiply-adds."""
    click.echo(_build(model, arguments).summary())


@main.command()
@click.argument("networks", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images per step (else 64 of up to 64x64 pixels, 8 of larger).",
)
@click.option(
    "--size",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Rows and columns of an image (else the model's).",
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Steps to time."
)
@click.option("--infer", is_flag=True, help="Forward passes in evaluation mode instead of training steps.")
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Threads to compute with (else all)."
)
@click.option("--layers", is_flag=True, help="Also print the layers: plan, ms, GF/s, share of the step.")
@model_settings
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write all figures there too.",
)
@click.option(
    "--against",
    type=click.Choice(["torch"]),
    help="Then race PyTorch; in a checkout of minidl, with torch installed.",
)
def bench(
    networks: tuple[str, ...],
    threads: int | None,
    arguments: dict[str, Any],
    json_file: Path | None,
    against: str | None,
    **options: Any,
) -> None:
    """Measure how fast MODELs train on random images.

    A line for each: the median step after two to warm up, images and operations a second, what part that is
    of NumPy's matmul in the same run, and the most memory its arrays took. The race against PyTorch has
    batches, sizes and variants of its own, those of tests/peers/compare.py.
    """
    from minidl.inspection import bench as benchmark
    from minidl.inspection import race

    if json_file is not None and not json_file.parent.is_dir():
        raise click.BadParameter(f"there is no folder {json_file.parent}; make it first", param_hint="--json")
    try:  # set in any case, for then NumPy's matmul has as many
        minidl.set_num_threads(threads or minidl.get_num_threads())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--threads") from error
    builds = {name: partial(_build, name, arguments) for name in networks}
    try:
        benchmark.run(builds, **options, json_file=json_file, against=against, say=click.echo)
    except race.NoRace as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("networks", metavar="[MODEL[:VARIANT]]...", nargs=-1)
@click.option("--compare", is_flag=True, help="Side by side, and as ratios to the first.")
def models(networks: tuple[str, ...], compare: bool) -> None:
    """List the models (or these) with their variants, parameters, multiply-adds, year and paper.

    Parameters are those without auxiliary classifiers, multiply-adds those of one image. A variant is built
    by --set variant=VARIANT, or, where it has the form name=value, by --set with that.
    """
    from minidl.inspection.comparison import listing, side_by_side

    if compare and not networks:
        raise click.UsageError("--compare needs models, such as: minidl models --compare alexnet googlenet")
    if not compare:
        profiles = [p for network in networks or _zoo().names() for p in _profiles(network)]
        click.echo(listing(profiles))
        return
    profiles = [_profiles(network)[0] for network in networks]
    click.echo(side_by_side(profiles))
    for remark in importlib.import_module("minidl_models.counts").remarks([p.name for p in profiles]):
        click.echo(f"\n{remark}")


def _profiles(network: str) -> list[Any]:
    """The variants of a model, or the one that MODEL:VARIANT names.  ClickException if there is none."""
    from minidl.inspection.comparison import Profile

    name, _, wanted = network.partition(":")
    try:
        entry = _zoo().entry(name)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if wanted and wanted not in entry.variants:
        raise click.ClickException(
            f"{name} has no variant {wanted!r}; its variants are {', '.join(entry.variants)}"
        )
    counts = importlib.import_module("minidl_models.counts").read()[name]
    labels = [wanted] if wanted else list(entry.variants)
    return [Profile(name, label, entry.paper, entry.year, **counts[label]) for label in labels]


@main.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--tune",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Then measure the plans of each convolution, for train --plans FILE.",
)
@batch_option
def warmup(names: tuple[str, ...], tune: Path | None, batch_size: int | None) -> None:
    """Compile now what training MODELs (else those in common use) would compile in its first minute.

    The machine code is kept in $MINIDL_CACHE, or the user's cache folder, until minidl changes. The plans are
    measured for steps of B images (else 64), and for this machine and number of threads.
    """
    from tqdm import tqdm

    if tune is not None and not tune.parent.is_dir():
        raise click.BadParameter(f"there is no folder {tune.parent}; make it first", param_hint="--tune")
    from minidl.train import tune as measure
    from minidl.train import warmup as compile_for
    from minidl.train import write_table

    device = backend.of(np.empty(0))
    for name in names or COMMON:
        with minidl.nn.init.blank(), tqdm(unit=" kernels", desc=f"compiling for {name}") as bar:
            compile_for(_build(name, {}), partial(_advance, bar))
    click.echo(f"the machine code is in {device.cache_folder()}")
    if tune is None:
        return
    table: dict[str, str] = {}
    for name in names or COMMON:
        with minidl.nn.init.blank(), tqdm(unit=" passes", desc=f"measuring {name}") as bar:
            table |= measure(_build(name, {}), batch_size or 64, partial(_advance, bar))
    write_table(tune, table)
    click.echo(f"{len(table)} plans are in {tune}")


def _advance(bar: Any, done: str) -> None:
    bar.set_postfix_str(done, refresh=False)
    bar.update()


@main.group(cls=Commands)
def data() -> None:
    """List, download, check and look at the data sets."""


@data.command("list")
@data_dir_option
def data_list(data_dir: Path | None) -> None:
    """List the data sets, and the folder they are looked for in."""
    from minidl.data.fetch import resolve_root

    _table({name: _headline(getattr(minidl.data, name)) for name in minidl.data.names()})
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
    """Check the files of a data set against the official checksums."""
    _report(name, minidl.data.verify(name, data_dir), "is as published")


@data.command("show")
@click.argument("name")
@data_dir_option
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True)
@click.option(
    "--columns", type=click.IntRange(1, 100), default=10, show_default=True, help="Images per class."
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The PNG (else NAME.png)."
)
def data_show(name: str, data_dir: Path | None, split: str, columns: int, out: Path | None) -> None:
    """Write a picture of the first images of each class, one row per class."""
    from minidl.data import pictures

    dataset = minidl.data.load(name, root=data_dir)
    part = getattr(dataset, split)
    grid = pictures.class_grid(part.images, part.labels, dataset.num_classes, columns)
    out = out or Path(f"{name}.png")
    pictures.write_image(out, grid)
    for row, title in enumerate(dataset.classes, start=1):
        click.echo(f"row {row}: {title}")
    click.echo(f"{out}: {grid.shape[1]} x {grid.shape[0]} pixels")


def _zoo() -> ModuleType:
    return importlib.import_module("minidl_models")


def _build(name: str, arguments: dict[str, Any]) -> Any:
    """The model of that name.  ClickException for an unknown name, or for arguments it does not take."""
    try:
        return _zoo().create(name, **arguments)
    except (TypeError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _build_for(name: str, arguments: dict[str, Any], dataset: Any, fit_images: bool) -> Any:
    """The model of that name for a data set: its version for that set, or else one with as many classes.

    In the second case it also gets as many channels, unless images are fitted to the model.
    """
    taken = inspect.signature(getattr(_zoo(), name, _build)).parameters
    if "dataset" in taken:
        try:
            return _zoo().create(name, **{"dataset": dataset.name, **arguments})
        except (
            TypeError,
            ValueError,
        ):  # no version for this set, or a wrong argument, which the call below reports
            pass
    suits = {"num_classes": dataset.num_classes}
    if not fit_images:
        suits["in_channels"] = dataset.image_shape[2]
    return _build(name, {**{key: value for key, value in suits.items() if key in taken}, **arguments})


def _trained(folder: RunFolder, device: str | None) -> tuple[dict[str, Any], Any]:
    """The settings of a finished run, and its model on `device` or else where it was trained."""
    config = folder.read_config()
    if "result" not in config or not folder.weights.exists():
        raise CheckpointError(
            f"{folder.path} has no final weights: the run is not finished; minidl train --resume finishes it"
        )
    minidl.set_default_device(device or config["device"])
    return config, minidl.Model.load(folder.weights)


def _load(name: str, root: str | Path | None, limit: int | None) -> Any:
    """A data set, cut to the first `limit` images of each split."""
    dataset = minidl.data.load(name, root=root)
    if limit is None:
        return dataset
    train, test = (
        minidl.data.Split(part.images[:limit], part.labels[:limit]) for part in (dataset.train, dataset.test)
    )
    return minidl.data.Dataset(dataset.name, dataset.classes, train, test)


def _fitted(dataset: Any, model: Any, fit_images: bool) -> Any:
    """The data set with images that fit the model."""
    train, test = (
        minidl.data.Split(_fitted_images(part.images, model, dataset.name, fit_images), part.labels)
        for part in (dataset.train, dataset.test)
    )
    return minidl.data.Dataset(dataset.name, dataset.classes, train, test)


def _fitted_images(images: np.ndarray, model: Any, where: str, fit_images: bool) -> np.ndarray:
    """Images that fit the model.  (N, H, W, C) -> (N, H, W, C of the model)

    The channels are made to fit here, the size batch by batch through the model's preprocessing, so that
    a data set does not grow in memory. ShapeError naming --fit-images without it.
    """
    if model.input_shape is None:
        return images
    h, w, c = images.shape[1:]
    size, channels = tuple(model.input_shape[:2]), model.input_shape[2]
    preprocess = model.preprocess or {}
    any_size = model.smallest is not None and min(h, w) >= model.smallest
    if c == channels and (any_size or (h, w) == size or "resize" in preprocess):
        return images
    if not fit_images:
        raise ShapeError(
            f"{where}: images are {h}x{w}x{c} but the model takes {'x'.join(map(str, model.input_shape))}; "
            "--fit-images resizes them and repeats grey to three channels"
        )
    model.preprocess = {"resize": list(size), **preprocess}
    return minidl.data.transforms.fit_images(images, (h, w, channels))


def _result_text(result: dict[str, float], dataset: Any, limit: int | None) -> str:
    """The result of a test, and on how many images it rests."""
    n = len(dataset.test)
    images = f"the first {n} images (--limit)" if n == limit else f"{n} images"
    return (
        f"test on {images}: loss {result['loss']:.4f}, top 5 {result['top5']:.4f}\ntest accuracy "
        f"{result['accuracy']:.4f}"
    )


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
