"""Checkpoints: everything a run needs to go on exactly, one file each.

A folder holds epoch-0003.safetensors and its like, the last few of them, and at times one that was written
in the midst of an epoch: epoch-0003-batch-00120.safetensors, of the fourth. Each has the parameters and
batch-norm statistics, the optimiser, schedule and moving average, the random streams, how far the run is, the
history, and what the model is and how it wants its images, so that it can be evaluated by itself. A damaged
one is refused, never skipped silently.
"""

import operator
import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minidl.errors import CheckpointError
from minidl.io import load_arrays, save_arrays
from minidl.io.guard import shown

KEEP = 2  # one to go on from, and the one before it in case the disk damages that
Parts = dict[str, dict[str, Any]]  # name -> flat dict of arrays and plain values
_NAME = re.compile(r"epoch-(\d+)(?:-batch-(\d+))?\.safetensors")


def save(
    folder: str | os.PathLike[str],
    epoch: int,
    parts: Parts,
    description: dict[str, Any],
    *,
    batch: int = 0,
    keep: int = KEEP,
) -> Path:
    """Write the state after `epoch` epochs and `batch` batches of the next, then drop the oldest files.

    What stays: the last `keep` files of finished epochs, and the newest file if it is of an unfinished one.
    CheckpointError, naming the last good checkpoint, which is as it was, if the file cannot be written.
    """
    target = Path(folder)
    arrays: dict[str, np.ndarray] = {}
    plain: dict[str, Any] = {}
    for part, state in parts.items():
        for key, value in state.items():
            (arrays if isinstance(value, np.ndarray) else plain)[f"{part}/{key}"] = value
    path = target / f"epoch-{epoch:04d}{f'-batch-{batch:05d}' if batch else ''}.safetensors"
    target.mkdir(parents=True, exist_ok=True)
    whole = {**description, "epoch": epoch, "batch": batch, "parts": list(parts), "plain": plain}
    try:
        save_arrays(path, arrays, whole)
    except OSError as error:
        last = latest(folder)
        before = f"The last good checkpoint is {last}" if last else "There is no checkpoint before it"
        raise CheckpointError(
            f"{error.strerror or error}. {before}; the model keeps the weights it has now. Go on with "
            "resume=True"
        ) from error
    found = all_of(folder)
    finished = [each for each in found if place(each)[1] == 0]
    unfinished = [each for each in found[:-1] if each not in finished]
    torn = target.glob(".epoch-*.safetensors.*")  # by a kill in the middle of a write
    for old in (*finished[:-keep], *unfinished, *torn):
        old.unlink(missing_ok=True)
    return path


def load(path: str | os.PathLike[str]) -> tuple[Parts, dict[str, Any]]:
    """(parts, description) as given to `save`.

    CheckpointError that names the file, and another that is left, if it is damaged.
    """
    try:
        arrays, description = load_arrays(path)
        parts: Parts = {part: {} for part in description["parts"]}
        _ = description["epoch"], description["batch"]
        for key, value in {**arrays, **description["plain"]}.items():
            part, name = key.split("/", 1)
            parts[part][name] = value
    except CheckpointError as error:
        others = [other for other in all_of(Path(path).parent) if other != Path(path)]
        if others:
            error.add_note(
                f"to go on from the checkpoint before it, {others[-1]}, delete the damaged file and resume "
                f"again"
            )
        raise
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else shown(error, 200)
        raise CheckpointError(f"{path} holds arrays, but it is no checkpoint ({reason})") from error
    return parts, description


def read_model(
    path: str | os.PathLike[str], weights: Literal["raw", "ema"] = "raw"
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(description, arrays) of the model in a checkpoint, as `Model.save` writes them.

    weights  "raw", those the optimiser changes, or "ema", their moving average

    ValueError for other weights; CheckpointError if the file is damaged, or the run had no moving average, or
    the file does not say how its model is built.
    """
    if weights not in ("raw", "ema"):
        raise ValueError(f"read_model: weights is {weights!r}; it may be 'raw' or 'ema'")
    parts, description = load(path)
    model = description.get("model")
    if model is None:
        raise CheckpointError(
            f"{path} does not say how its model is built: it is no minidl.Model, or its arguments were no "
            "plain data; build it as then, and load it with fit(..., checkpoint=..., resume=True)"
        )
    if weights == "ema" and "ema" not in parts:
        raise CheckpointError(
            f"{path} has no moving average of the weights: the run's recipe had no ema_decay; take the "
            "weights themselves, 'raw'"
        )
    try:
        arrays: dict[str, np.ndarray] = dict(parts["model"])
        if weights == "ema":
            for i, name in enumerate(description["parameters"]):
                arrays[name] = parts["ema"][f"average.{i}"]
        fitted = {f"preprocess/{name}": array for name, array in parts["preprocess"].items()}
        whole = {"format": "minidl-model", "model": model, "preprocess": description["preprocess"]}
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} does not hold a whole model (it lacks {shown(error)})") from error
    return whole, arrays | fitted


def all_of(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a folder, the furthest last."""
    return sorted(
        (path for path in Path(folder).glob("epoch-*.safetensors") if _NAME.fullmatch(path.name)), key=place
    )


def latest(folder: str | os.PathLike[str]) -> Path | None:
    """The furthest checkpoint in a folder, or None."""
    return next(reversed(all_of(folder)), None)


def check_options(
    folder: str | os.PathLike[str] | None, resume: bool, minutes: float | None, keep: int
) -> None:
    """ValueError for what `fit` cannot do with checkpoints; and see check_unused."""
    for name, given in (("resume=True", resume), (f"checkpoint_minutes={minutes}", minutes is not None)):
        if given and folder is None:
            raise ValueError(f"fit: {name} needs checkpoint=, the folder to go on from")
    if minutes is not None and not minutes >= 0:
        raise ValueError(f"fit: checkpoint_minutes is {minutes}, it must be at least 0, or None for none")
    if operator.index(keep) < 1:
        raise ValueError(f"fit: checkpoint_keep is {keep}, it must be at least 1")
    if folder is not None and not resume:
        check_unused(folder)


def check_unused(folder: str | os.PathLike[str]) -> None:
    """CheckpointError when a run has left a checkpoint in the folder."""
    last = latest(folder)
    if last is not None:
        raise CheckpointError(
            f"fit: checkpoint={str(folder)!r} holds a run already ({last.name}); pass resume=True to go on "
            "with it, or another folder"
        )


def place(path: Path) -> tuple[int, int]:
    """(epochs, batches of the next) that are done in a checkpoint, by its name."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)
