"""A run's state in its checkpoint: what is kept, and how a run goes on from it."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from minidl import streams
from minidl.data import transforms
from minidl.errors import CheckpointError
from minidl.io.guard import shown
from minidl.train import checkpoint as checkpoints
from minidl.train.run import Run

_KEYS = ("settings", "history", "streams", "preprocess")  # besides those that `checkpoints.load` needs
_MIDWAY = ("epoch streams", "seen", "seconds")  # in the midst of an epoch
_CURE = "restore it from a copy, or delete it and go on from an older checkpoint"


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

    CheckpointError, and everything as it was, if it is damaged or belongs to another kind of run.
    """
    parts, description = checkpoints.load(path)
    fitted = parts.pop("preprocess", {})
    try:
        _check(run, Path(path), parts, description)
        preprocess = _preprocess(description, fitted)
        _load_holders(run, parts)  # the last that may fail, and then it has changed nothing
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except RecursionError as error:
        raise CheckpointError(f"{path}: its description nests too deep; {_CURE}") from error
    run.model.load_state_dict(parts["model"])
    if preprocess is not None:
        vars(run.model)["preprocess"] = preprocess
    streams.set_state(description["streams"])
    run.epoch, run.history.history = description["epoch"], description["history"]
    run.batch = description["batch"]
    if run.batch:
        run.epoch_streams = description["epoch streams"]
        run.seen.load_state_dict(description["seen"])
        run.started = time.perf_counter() - description["seconds"]


def _load_holders(run: Run, parts: checkpoints.Parts) -> None:
    """Continue optimiser, moving average and schedule.  CheckpointError, and none changed, if one cannot."""
    holders: dict[str, Any] = {"optimizer": run.optimizer, "ema": run.ema, "schedule": run.schedule}
    kept = [(each, dict(vars(each))) for each in (run.optimizer, run.ema) if each is not None]
    try:
        for name, holder in holders.items():  # the schedule last: it also sets the optimiser's rate
            if holder is not None:
                holder.load_state_dict(parts[name])
    except CheckpointError:
        for each, attributes in kept:
            vars(each).update(attributes)
        raise


def _check(run: Run, path: Path, parts: checkpoints.Parts, description: dict[str, Any]) -> None:
    """CheckpointError unless the checkpoint is one of such a run, and whole; nothing is changed."""
    holders = {"optimizer": run.optimizer, "schedule": run.schedule, "ema": run.ema}
    expected = ["model", *(name for name, holder in holders.items() if holder is not None)]
    if sorted(parts) != sorted(expected):
        raise CheckpointError(
            f"it holds {', '.join(parts)}, but this run has {', '.join(expected)}; resume with the same "
            "optimizer, schedule and recipe as before"
        )
    lacking = [key for key in (*_KEYS, *(_MIDWAY if description["batch"] else ())) if key not in description]
    if lacking:
        raise CheckpointError(f"its description has no {lacking[0]!r}; {_CURE}")
    _check_settings(run, description["settings"])
    _check_place(run, path, description)
    _check_history(run, description["history"], description["epoch"])
    _check_streams("streams", description["streams"])
    if description["batch"]:
        _check_streams("epoch streams", description["epoch streams"])
        _check_seen(run, description["seen"])
        if not _is_number(description["seconds"]) or not 0 <= description["seconds"] < math.inf:
            raise _wrong("seconds", description["seconds"], "a number of at least 0")
    for name, value in parts["model"].items():
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            raise _wrong(f"model/{name}", value, "an array of numbers")
    run.model.check_state_dict(parts["model"])


def _check_settings(run: Run, settings: Any) -> None:
    if type(settings) is not dict:
        raise _wrong("settings", settings, "a table")
    for name, value in run.settings.items():
        before = settings.get(name)
        if before != value:
            raise CheckpointError(
                f"the run began with {name} = {shown(before)} and cannot go on with {value}; resume with the "
                "same settings, or start another run from these weights"
            )


def _check_place(run: Run, path: Path, description: dict[str, Any]) -> None:
    """How far the run is: what the name of the file says, and no further than this run goes."""
    epoch, batch = description["epoch"], description["batch"]
    for key, value, said in zip(("epoch", "batch"), (epoch, batch), checkpoints.place(path), strict=True):
        if type(value) is not int or value != said:
            raise _wrong(key, value, f"{said}, as the name of the file says")
    if batch > len(run.train):
        raise _wrong("batch", batch, f"at most the {len(run.train)} of an epoch")
    if batch and epoch >= run.epochs:
        raise CheckpointError(
            f"it is in the midst of epoch {epoch + 1}, and cannot go on to the end of epoch {run.epochs}; "
            f"give epochs={epoch + 1} or more"
        )


def _check_history(run: Run, history: Any, epochs: int) -> None:
    """A row of all keys for each of the epochs."""
    held_out = [] if run.validation is None else ["val_loss", "val_accuracy"]
    keys = ["loss", "accuracy", *held_out, "seconds"] if epochs else []
    if type(history) is not dict or not set(keys) <= set(history):
        raise _wrong("history", history, f"a table with {', '.join(keys) or 'no epochs'}")
    for key, values in history.items():
        if type(values) is not list or len(values) != epochs or not all(map(_is_number, values)):
            raise _wrong(f"history of {key}", values, f"a list of {epochs} numbers, one per epoch")
    if epochs and not all(0 < seconds < math.inf for seconds in history["seconds"]):
        raise _wrong("history of seconds", history["seconds"], "a list of numbers above 0")


def _check_streams(key: str, state: Any) -> None:
    """That the random streams can be in such a state: they are put in it, and back."""
    now = streams.get_state()
    try:
        streams.set_state(state)
        sound = streams.get_state() == state
    except (LookupError, TypeError, ValueError, ArithmeticError):
        sound = False
    finally:
        streams.set_state(now)
    if not (
        sound
        and type(state["seed"]) is type(state["dropout_calls"]) is int
        and 0 <= state["seed"] < 2**32
        and 0 <= state["dropout_calls"] < 2**63
        # NumPy believes this one, and would read numbers beside its buffer of four
        and all(0 <= bits["buffer_pos"] <= 4 for bits in state["generators"].values())
    ):
        raise _wrong(key, state, "a state of the random streams")


def _check_seen(run: Run, seen: Any) -> None:
    """The sums over the epoch so far, as Metrics has them."""
    if type(seen) is not dict or set(seen) != set(run.seen.state_dict()):
        raise _wrong("seen", seen, f"a table with {', '.join(run.seen.state_dict())}")
    counts = [seen[key] for key in ("images", "first", "top5")]
    whole = all(type(count) is int and 0 <= count <= run.images for count in counts)
    if not whole or max(counts) > seen["images"] or not _is_number(seen["loss"]):
        raise _wrong("seen", seen, f"sums over at most {run.images} images")


def _preprocess(description: dict[str, Any], fitted: dict[str, Any]) -> dict[str, Any] | None:
    """The preprocessing with what was fitted, checked."""
    try:
        config = transforms.join_arrays(description["preprocess"], fitted)
        transforms.check_config(config)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{shown(error, 200)}; {_CURE}") from error
    return config


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold, not finite ones included."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _wrong(key: str, value: Any, expected: str) -> CheckpointError:
    return CheckpointError(f"{shown(repr(key))} is {shown(value)}, it must be {expected}; {_CURE}")


def _config(run: Run) -> dict[str, Any] | None:
    """What builds the model again; None for a plain Module, or arguments that are no plain data."""
    config = getattr(run.model, "config", None)
    try:
        json.dumps(config)
    except TypeError:
        return None
    return config
