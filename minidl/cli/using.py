"""`minidl evaluate` and `minidl predict`: what finished runs can do."""

from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

import minidl
from minidl.cli import confusions, members
from minidl.cli.building import fitted, fitted_images, lasting, load_data, result_text
from minidl.cli.members import Member
from minidl.cli.options import (
    batch_option,
    data_dir_option,
    device_option,
    fit_images_option,
    image_size_option,
    limit_option,
    skip_broken_option,
    writable,
)
from minidl.errors import DataError

TOP = 5  # classes that `predict` prints


def _sides(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """`--scales 256,288` as numbers."""
    try:
        sides = None if text is None else tuple(int(word) for word in text.split(","))
    except ValueError:
        sides = (0,)
    if sides is not None and min(sides) < 1:
        raise click.BadParameter(f"{text!r} is no list of shorter sides in pixels, such as 256,288")
    return sides


crops_option = click.option(
    "--crops",
    type=click.Choice(["1", "10", "144"]),
    default="1",
    help="Average over so many crops of each image: 10 as for AlexNet, 144 as for GoogLeNet.",
)
scales_option = click.option(
    "--scales",
    metavar="S,S",
    callback=_sides,
    help="Average over whole images with these shorter sides, and their mirrors.",
)
weights_option = click.option(
    "--weights",
    type=click.Choice(["raw", "ema"]),
    help="The weights of a run's last checkpoint, or their moving average, instead of the final ones.",
)


@click.command()
@click.argument("runs", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--data", metavar="NAME", help="Another data set than the run's.")
@data_dir_option
@image_size_option
@skip_broken_option
@batch_option
@limit_option
@device_option
@fit_images_option
@crops_option
@scales_option
@weights_option
@click.option("--confusion", is_flag=True, help="Print which classes are taken for which.")
@click.option(
    "--confusion-csv",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=writable,
    help="Write how often each class is taken for each to a CSV file.",
)
@click.option("--per-class", is_flag=True, help="Print the accuracy on each class.")
def evaluate(
    runs: tuple[Path, ...],
    crops: str,
    scales: tuple[int, ...] | None,
    weights: Literal["raw", "ema"] | None,
    confusion: bool,
    confusion_csv: Path | None,
    per_class: bool,
    device: str | None,
    batch_size: int | None,
    **asked: Any,
) -> None:
    """Test the models of one RUN or several on the test images; of several also their ensemble.

    A RUN is a run's folder, a model file, a checkpoint or a folder of checkpoints (the last counts).
    The data set is that of the first run.
    """
    views = _views(crops, scales)
    found = members.load(runs, weights, device)
    used = _settings(found, asked)
    options = {key: used[key] for key in ("image_size", "skip_broken")}
    dataset = load_data(used["data"], used["data_dir"], used["limit"], **options)
    dataset = _suited(dataset, found, used["fit_images"], cut=bool(views))
    result = minidl.Ensemble([each.model for each in found]).evaluate(
        dataset,
        **({"batch_size": batch_size} if batch_size else {}),
        **views,
        confusion=confusion or per_class or confusion_csv is not None,
        each=True,
    )
    if len(found) > 1:
        for each, alone in zip(found, result["members"], strict=True):
            click.echo(f"{each.path}: {_numbers(alone)}")
        click.echo(f"ensemble of {len(found)}: {_numbers(result)}")
    click.echo(result_text(result, dataset, used["limit"]))
    if per_class:
        confusions.echo_per_class(result["per_class"], dataset.classes)
    if confusion:
        confusions.echo(result["confusion"], dataset.classes)
    if confusion_csv is not None:
        confusions.write(confusion_csv, result["confusion"], dataset.classes)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True)
@device_option
@fit_images_option
@crops_option
@scales_option
@weights_option
def predict(
    run: Path,
    images: tuple[Path, ...],
    device: str | None,
    fit_images: bool,
    crops: str,
    scales: tuple[int, ...] | None,
    weights: Literal["raw", "ema"] | None,
) -> None:
    """Print the most probable classes of each of the IMAGES, by the model of RUN.

    RUN is a run's folder, a model file, a checkpoint or a folder of checkpoints (the last counts).
    """
    from minidl.data.pictures import read_image

    views = _views(crops, scales)
    (member,) = members.load([run], weights, device)
    fit_images = fit_images or (member.config is not None and member.config["fit_images"])
    for path in images:
        image = fitted_images(read_image(path), member.model, f"{path}", fit_images, bool(views))
        probabilities = member.model.predict(image, **views)[0]
        if len(images) > 1:
            click.echo(path)
        for k in np.argsort(-probabilities, kind="stable")[:TOP]:
            click.echo(f"{probabilities[k]:.4f}  {k if member.classes is None else member.classes[k]}")


def _views(crops: str, scales: tuple[int, ...] | None) -> dict[str, Any]:
    """The views that are asked for, as arguments of `Model.predict`; {} for the image as it is."""
    if crops != "1" and scales is not None:
        raise click.UsageError("--crops and --scales exclude each other: --scales shows the whole image")
    if scales is not None:
        return {"scales": scales}
    return {} if crops == "1" else {"crops": int(crops)}


def _settings(found: list[Member], asked: dict[str, Any]) -> dict[str, Any]:
    """How to load the data that is asked for, or else the first run's; a run's size, limit and treatment of
    broken pictures are for its own data alone.

    DataError if none is asked for and no model lies in a run's folder.
    """
    config = next((each.config for each in found if each.config is not None), {})
    if not config and asked["data"] is None:
        paths = ", ".join(f"{each.path}" for each in found)
        lie = "lies" if len(found) == 1 else "lie"
        raise DataError(f"{paths} {lie} in no run folder, which would name the data set; give --data")
    data = config["data"] if asked["data"] is None else lasting(asked["data"])
    theirs = config if data == config.get("data") else {}
    return {
        "data": data,
        **{key: asked[key] or config.get(key) for key in ("data_dir", "fit_images")},
        **{key: asked[key] or theirs.get(key) for key in ("limit", "image_size", "skip_broken")},
    }


def _suited(dataset: Any, found: list[Member], fit_images: bool, *, cut: bool) -> Any:
    """The data set with images that fit all the models.  DataError unless it has their classes."""
    for each in found:
        if each.count not in (None, dataset.num_classes):
            raise DataError(
                f"{each.path} was trained on {each.count} classes{each.data} but {dataset.name} has "
                f"{dataset.num_classes}"
            )
        channels, first = each.model.input_shape[2], found[0].model.input_shape[2]
        if channels != first:
            raise DataError(
                f"{found[0].path} takes images of {first} channels but {each.path} of {channels}; test them "
                "one by one"
            )
        dataset = fitted(dataset, each.model, fit_images, cut)
    return dataset


def _numbers(result: dict[str, float]) -> str:
    return f"loss {result['loss']:.4f}, top 5 {result['top5']:.4f}, accuracy {result['accuracy']:.4f}"
