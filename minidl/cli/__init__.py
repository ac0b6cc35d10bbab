"""The `minidl` command: train, evaluate, predict, summary, bench, models, warmup, data.

Each command turns its options into a few calls of the public interface, the same a program would make, and
prints what they return. A user's mistake becomes one line on stderr and exit code 1; a traceback means a bug
in minidl. Models are found by name in the package `minidl_models` when a command runs: the engine does not
know its zoo.
"""

import click

import minidl
from minidl.cli import data, looking, training, using
from minidl.cli.options import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(minidl.__version__, prog_name="minidl")
def main() -> None:
    """Train convolutional networks from the papers, and use them."""


for command in (
    training.train,
    using.evaluate,
    using.predict,
    looking.summary,
    looking.bench,
    looking.models,
    looking.warmup,
    data.data,
):
    main.add_command(command)
