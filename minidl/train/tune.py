"""Measuring which plan is the fastest for each convolution of a network, and the file that keeps it.

A table holds for this machine and number of threads alone, so the file says for what it was made. What ran is
written down with the run: another table changes the last bits of every result.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import plans
from minidl.errors import DataError
from minidl.io import write_atomic
from minidl.nn import Module
from minidl.train.warmup import train_on_noise

_FORMAT = "minidl plans, version 1"


def tune(model: Module, batch_size: int, note: Callable[[str], None]) -> dict[str, str]:
    """The fastest plan of each pass of each convolution: the words of a `plans.Pass` -> the plan's name.

    A step of training on noise shows what there is to measure: the weights change, the random streams do not.
    `note` is called with each pass. ValueError for a model that does not say what images it takes.
    """
    device = backend.of(next(model.parameters()).data)
    seen: dict[plans.Pass, None] = {}
    with plans.watching(lambda work, plan: seen.setdefault(work)):
        train_on_noise(model, batch_size, batch_size)
    found = {}
    for work in seen:
        seconds = device.measure_plans(work)
        found[str(work)] = min(seconds, key=lambda name: seconds[name])
        note(str(work))
    return found


def write_table(path: Path, table: Mapping[str, str]) -> None:
    """Write a table of plans, and for what it was made."""
    content = {"format": _FORMAT, **_made_for(), "plans": dict(table)}
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())


def read_table(path: Path) -> dict[str, str]:
    """The table in a file.  DataError for another file, a damaged one, or one made for other conditions."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no table of plans: {error}") from None
    table = content.get("plans") if isinstance(content, dict) else None
    if not isinstance(table, dict) or content.get("format") != _FORMAT:
        raise DataError(f"{path} is no table of plans; make one with `minidl warmup MODEL --tune {path}`")
    for key, here in _made_for().items():
        if content.get(key) != here:
            raise DataError(
                f"{path} was made with {key} = {content.get(key)}, here it is {here}: measure anew with "
                f"`minidl warmup MODEL --tune {path}`, or leave the table out"
            )
    if not all(name in plans.NAMES for name in table.values()):
        raise DataError(
            f"{path} is damaged: it names plans that do not exist; there are {', '.join(plans.NAMES)}"
        )
    return table


def _made_for() -> dict[str, Any]:
    """What the fastest plans depend on besides the passes."""
    return backend.of(np.empty(0)).plan_conditions()
