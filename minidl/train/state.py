"""A run's state in its checkpoint: what is kept, and how a run goes on from it."""

import json
import os
import time
from pathlib import Path
from typing import Any

from minidl import streams
from minidl.data import transforms
from minidl.errors import CheckpointError
from minidl.train import checkpoint as checkpoints
from minidl.train.run import Run


def save(run: Run) -> Path:
    """Write the run's checkpoint of now, after a whole step."""
    preprocess, fitted = transforms.split_arrays(getattr(run.model, "preprocess", None))
    parts = {
        "model": run.model._host_state(),
        "optimizer": run.optimizer.state_dict(),
        "preprocess": fitted,
    }
    if run.schedule is not None:
        parts["schedule"] = run.schedule.state_dict()
    if run.ema is not None:
        parts["ema"] = run.ema.state_dict()
    description: dict[str, Any] = {
        "model": _config(run),
        "parameters": [name for name, _ in run.model.named_parameters()],  # in the order of the averages
        "preprocess": preprocess,
        "history": run.history.history,
        "settings": run.settings,
        "streams": streams.get_state(),
    }
    if run.batch:
        description |= {
            "epoch streams": run.epoch_streams,
            "seen": run.seen.state_dict(),
            "seconds": time.perf_counter() - run.started,
        }
    assert run.folder is not None
    path = checkpoints.save(
        run.folder, run.epoch, parts, description, batch=run.batch, keep=run.checkpoint_keep
    )
    run.saved = time.monotonic()
    return path


def due(run: Run) -> bool:
    """Whether the last checkpoint is so old that another is due in the midst of an epoch."""
    minutes = run.checkpoint_minutes
    return run.folder is not None and minutes is not None and time.monotonic() - run.saved >= 60 * minutes


def restore(run: Run, path: os.PathLike[str]) -> None:
    """Put the run where the checkpoint left off.

    CheckpointError, and a model as it was, if it belongs to another kind of run.
    """
    parts, description = checkpoints.load(path)
    fitted = parts.pop("preprocess", {})
    _check(run, path, list(parts), description)
    holders: dict[str, Any] = {"optimizer": run.optimizer, "schedule": run.schedule, "ema": run.ema}
    try:
        run.model.check_state_dict(parts["model"])
        for name in parts:
            if name != "model":
                holders[name].load_state_dict(parts[name])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    run.model.load_state_dict(parts["model"])
    if description["preprocess"] is not None:
        vars(run.model)["preprocess"] = transforms.join_arrays(description["preprocess"], fitted)
    streams.set_state(description["streams"])
    run.epoch, run.history.history = description["epoch"], description["history"]
    run.batch = description["batch"]
    if run.batch:
        run.epoch_streams = description["epoch streams"]
        run.seen.load_state_dict(description["seen"])
        run.started = time.perf_counter() - description["seconds"]


def _check(run: Run, path: os.PathLike[str], parts: list[str], description: dict[str, Any]) -> None:
    """CheckpointError unless the checkpoint is one of such a run."""
    holders = {"optimizer": run.optimizer, "schedule": run.schedule, "ema": run.ema}
    expected = ["model", *(name for name, holder in holders.items() if holder is not None)]
    if sorted(parts) != sorted(expected):
        raise CheckpointError(
            f"{path} holds {', '.join(parts)}, but this run has {', '.join(expected)}; resume with the same "
            "optimizer, schedule and recipe as before"
        )
    for name, value in run.settings.items():
        before = description["settings"].get(name)
        if before != value:
            raise CheckpointError(
                f"{path}: the run began with {name} = {before} and cannot go on with {value}; resume with "
                "the same settings, or start another run from these weights"
            )
    if description["batch"] and description["epoch"] >= run.epochs:
        raise CheckpointError(
            f"{path} is in the midst of epoch {description['epoch'] + 1}, and cannot go on to the end of "
            f"epoch {run.epochs}; give epochs={description['epoch'] + 1} or more"
        )


def _config(run: Run) -> dict[str, Any] | None:
    """What builds the model again; None for a plain Module, or arguments that are no plain data."""
    config = getattr(run.model, "config", None)
    try:
        json.dumps(config)
    except TypeError:
        return None
    return config
