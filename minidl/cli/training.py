"""`minidl train`: a run from its options to its folder, begun or continued."""

import shlex
from pathlib import Path
from typing import Any

import click

import minidl
from minidl.backend import plans
from minidl.cli.building import build_for, fitted, lasting, load_data, result_text
from minidl.cli.options import (
    DEFAULTS,
    as_one_line,
    batch_option,
    data_dir_option,
    device_option,
    fields,
    finite,
    fit_images_option,
    image_size_option,
    limit_option,
    model_settings,
    skip_broken_option,
)
from minidl.train import lock, runfolder
from minidl.train.runfolder import RunFolder

MINUTES = 10.0  # of training that a kill costs at most


@click.command()
@click.argument("model")
@click.option(
    "--data",
    metavar="NAME",
    help="The data set (else digits, which needs no download), or a folder of images: see minidl data list.",
)
@data_dir_option
@image_size_option
@skip_broken_option
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Passes over the training images.")
@batch_option
@click.option(
    "--recipe",
    metavar="NAME",
    help="How to train: paper, as the model's authors did, or default (the default).",
)
@click.option(
    "--override",
    metavar="FIELD=VALUE",
    multiple=True,
    callback=fields,
    help="Another value of a field of the recipe, such as weight_decay=0.0005; may be repeated.",
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    callback=finite,
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

    Whatever is not given comes from the recipe; config.json says what was used. The run's folder also holds
    metrics.csv, log.txt, checkpoint/, the best epoch's weights in best.safetensors and the final ones in
    model.safetensors.
    """
    from minidl.train import read_table

    asked["data_dir"] = asked["data_dir"] and str(asked["data_dir"].resolve())
    asked = {"model": model, **asked, "fit_images": asked["fit_images"] or None}
    asked |= {"override": asked["override"] or None, "skip_broken": asked["skip_broken"] or None}
    asked["data"] = asked["data"] and lasting(asked["data"])
    asked["plans"] = asked["plans"] and read_table(asked["plans"])
    name = f"{model}-{Path(str(asked['data'] or DEFAULTS['data'])).stem}"
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
    plans.use_table(config.get("plans") or {})
    dataset, model, recipe = _prepare(config)
    used = {key: value for key, value in config.items() if key != "result"}
    used.update(epochs=recipe.epochs, batch_size=recipe.batch_size, lr=recipe.lr, trained_by=recipe.as_data())
    used.update(classes=list(dataset.classes), threads=minidl.get_num_threads())
    begun = folder is not None
    if begun and config["threads"] != used["threads"]:
        click.echo(f"begun on {config['threads']} threads: with {used['threads']} the last bits will differ")
    folder = folder or runfolder.claim(out, name)
    with lock.held(folder.path, click.echo):
        click.echo(f"run folder {folder.path}")
        _train_and_test(used, folder, begun, (dataset, model, recipe))


def _train_and_test(
    used: dict[str, Any], folder: RunFolder, begun: bool, prepared: tuple[Any, Any, Any]
) -> None:
    """Train, or go on with a run that has begun, and write into its folder what came out."""
    from minidl.train.callbacks import BestCheckpoint, CSVLogger, LearningRate

    dataset, model, recipe = prepared
    try:
        history = model.fit(
            dataset,
            recipe=recipe,
            callbacks=[
                runfolder.ConfigFile(folder, used),
                CSVLogger(folder.metrics),
                runfolder.LogFile(folder),
                BestCheckpoint(folder.best),
                LearningRate(),
            ],
            checkpoint=folder.checkpoint,
            checkpoint_minutes=MINUTES,
            resume=begun,
        )
    except Exception as error:
        if not begun:
            folder.give_up()
        if isinstance(error, ValueError):  # a setting that only the images prove wrong
            raise as_one_line(error) from error
        raise
    if history.interrupted:
        command = f"minidl train {used['model']} --out {shlex.quote(str(folder.path))} --resume"
        raise click.ClickException(f"interrupted; go on with {command}")
    model.save(folder.weights)
    result = model.evaluate(dataset)
    text = result_text(result, dataset, used["limit"])
    folder.write_log(text)
    folder.write_config({**used, "result": {"epochs": len(history.history["loss"]), **result}})
    click.echo(text)


def _prepare(config: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The data set, model and recipe that a run's settings stand for."""
    minidl.set_default_device(config["device"])
    minidl.manual_seed(config["seed"])
    dataset = load_data(
        config["data"],
        config["data_dir"],
        config["limit"],
        image_size=config.get("image_size"),
        skip_broken=config.get("skip_broken"),
    )
    model = build_for(config["model"], config["arguments"], dataset, config["fit_images"])
    dataset = fitted(dataset, model, config["fit_images"])
    return dataset, model, _recipe(config, model, dataset.name)


def _recipe(config: dict[str, Any], model: Any, dataset_name: str) -> Any:
    """The recipe of a run: the one it began with, or the one asked for, with what is overridden."""
    from minidl.train import Recipe, choose

    given = {key: config[key] for key in ("epochs", "batch_size", "lr") if config[key] is not None}
    try:
        if "trained_by" in config:
            return Recipe(**config["trained_by"]).overridden(given)
        chosen = choose(config.get("recipe"), model, dataset_name)
        chosen = chosen.overridden({**(config.get("override") or {}), **given})
        chosen.check(model)
        return chosen
    except (TypeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
