"""Checkpoints: everything a run needs to go on exactly, one file per epoch.

A folder holds epoch-0003.safetensors and its like, the last two of them. Each has the parameters and
batch-norm statistics, the optimiser, schedule and moving average, the random streams, the epoch and the
history. A damaged one is refused, never skipped silently.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from minidl.errors import CheckpointError
from minidl.io import load_arrays, save_arrays

KEEP = 2  # one to go on from, and the one before it in case the disk damages that
_NAME = re.compile(r"epoch-(\d+)\.safetensors")


def save(
    folder: str | os.PathLike[str], epoch: int, parts: dict[str, dict[str, Any]], description: dict[str, Any]
) -> Path:
    """Write the state after `epoch` epochs, then drop the oldest files.

    `parts`: name -> flat dict of arrays and plain values.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    plain: dict[str, Any] = {}
    for part, state in parts.items():
        for key, value in state.items():
            (arrays if isinstance(value, np.ndarray) else plain)[f"{part}/{key}"] = value
    path = target / f"epoch-{epoch:04d}.safetensors"
    save_arrays(path, arrays, {**description, "epoch": epoch, "parts": list(parts), "plain": plain})
    for old in (*all_of(folder)[:-KEEP], *target.glob(".epoch-*.safetensors.*")):
        old.unlink()  # the second kind was left by a kill in the middle of a write
    return path


def load(path: str | os.PathLike[str]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """(parts, description) as given to `save`.

    CheckpointError that names the file, and another that is left, if it is damaged.
    """
    try:
        arrays, description = load_arrays(path)
        parts: dict[str, dict[str, Any]] = {part: {} for part in description["parts"]}
        for key, value in {**arrays, **description["plain"]}.items():
            part, name = key.split("/", 1)
            parts[part][name] = value
    except KeyError as error:
        raise CheckpointError(f"{path} holds arrays, but it is no checkpoint (it has no {error})") from error
    except CheckpointError as error:
        others = [other for other in all_of(Path(path).parent) if other != Path(path)]
        if others:
            error.add_note(
                f"to go on from the checkpoint before it, {others[-1]}, delete the damaged file and resume "
                f"again"
            )
        raise
    return parts, description


def all_of(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [
        (int(match[1]), path)
        for path in Path(folder).glob("epoch-*.safetensors")
        if (match := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]


def latest(folder: str | os.PathLike[str]) -> Path | None:
    """The newest checkpoint in a folder, or None."""
    return next(reversed(all_of(folder)), None)
