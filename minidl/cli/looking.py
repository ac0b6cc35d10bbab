"""`minidl summary`, `bench`, `models` and `warmup`: networks as they are, without training them."""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

import minidl
from minidl import backend
from minidl.cli.building import build, zoo
from minidl.cli.options import batch_option, model_settings, writable

COMMON = ("nin", "googlenet", "resnet18")  # between them they run the kernels of the whole zoo


@click.command()
@click.argument("model")
@model_settings
def summary(model: str, arguments: dict[str, Any]) -> None:
    """Print the layers of MODEL: kernel, stride and padding, output shape, parameters, multiply-adds."""
    click.echo(build(model, arguments).summary())


@click.command()
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
    callback=writable,
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

    try:  # set in any case, for then NumPy's matmul has as many
        minidl.set_num_threads(threads or minidl.get_num_threads())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--threads") from error
    builds = {name: partial(build, name, arguments) for name in networks}
    try:
        benchmark.run(builds, **options, json_file=json_file, against=against, say=click.echo)
    except race.NoRace as error:
        raise click.ClickException(str(error)) from error


@click.command()
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
        profiles = [p for network in networks or zoo().names() for p in _profiles(network)]
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
        entry = zoo().entry(name)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if wanted and wanted not in entry.variants:
        raise click.ClickException(
            f"{name} has no variant {wanted!r}; its variants are {', '.join(entry.variants)}"
        )
    counts = importlib.import_module("minidl_models.counts").read()[name]
    labels = [wanted] if wanted else list(entry.variants)
    return [Profile(name, label, entry.paper, entry.year, **counts[label]) for label in labels]


@click.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--tune",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=writable,
    help="Then measure the plans of each convolution, for train --plans FILE.",
)
@batch_option
def warmup(names: tuple[str, ...], tune: Path | None, batch_size: int | None) -> None:
    """Compile now what training MODELs (else those in common use) would compile in its first minute.

    The machine code is kept in $MINIDL_CACHE, or the user's cache folder, until minidl changes. The plans are
    measured for steps of B images (else 64), and for this machine and number of threads.
    """
    from tqdm import tqdm

    from minidl.train import tune as measure
    from minidl.train import warmup as compile_for
    from minidl.train import write_table

    device = backend.of(np.empty(0))
    for name in names or COMMON:
        with minidl.nn.init.blank(), tqdm(unit=" kernels", desc=f"compiling for {name}") as bar:
            compile_for(build(name, {}), partial(_advance, bar))
    click.echo(f"the machine code is in {device.cache_folder()}")
    if tune is None:
        return
    table: dict[str, str] = {}
    for name in names or COMMON:
        with minidl.nn.init.blank(), tqdm(unit=" passes", desc=f"measuring {name}") as bar:
            table |= measure(build(name, {}), batch_size or 64, partial(_advance, bar))
    write_table(tune, table)
    click.echo(f"{len(table)} plans are in {tune}")


def _advance(bar: Any, done: str) -> None:
    bar.set_postfix_str(done, refresh=False)
    bar.update()
