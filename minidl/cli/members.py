"""The trained models that `minidl evaluate` and `minidl predict` are given: run folders and files."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import minidl
from minidl.errors import CheckpointError, DataError
from minidl.train import checkpoint
from minidl.train.runfolder import RunFolder


@dataclass
class Member:
    """A model, where it comes from, and the settings of its run, if it lies in a run's folder."""

    path: Path
    config: dict[str, Any] | None
    model: Any

    @property
    def classes(self) -> Sequence[str] | None:
        """The names of its classes, if its run tells."""
        return None if self.config is None else self.config["classes"]

    @property
    def count(self) -> int | None:
        """K; None if unknown."""
        return self.model.num_classes if self.classes is None else len(self.classes)

    @property
    def data(self) -> str:
        """For a message: what its classes are those of."""
        return "" if self.config is None else f" ({self.config['data']})"


def load(paths: Sequence[Path], weights: Literal["raw", "ema"] | None, device: str | None) -> list[Member]:
    """The models of run folders, model files, checkpoints and folders of checkpoints.

    They compute on `device`, or else where the first run was trained. weights: "raw" or "ema", those of a
    run's last checkpoint, or of the checkpoint given. CheckpointError for what is none of these, DataError,
    naming both, for models of different classes.
    """
    found = [_locate(path, weights) for path in paths]
    configs = [config for _, config in found if config is not None]
    minidl.set_default_device(device or (configs[0]["device"] if configs else "cpu"))
    members = [
        Member(path, config, minidl.Model.load(file, weights))
        for path, (file, config) in zip(paths, found, strict=True)
    ]
    for member in members[1:]:
        _check_classes(members[0], member)
    return members


def _locate(path: Path, weights: str | None) -> tuple[Path, dict[str, Any] | None]:
    """(the file of weights, the settings of its run, if any)"""
    if path.is_file():
        return path, _settings_of(path)
    folder = RunFolder(path)
    last = checkpoint.latest(path)
    if last is not None and not _is_run(folder):  # what fit(checkpoint=...) leaves
        return last, _settings_of(last)
    config = folder.read_config()
    if weights is not None:
        last = checkpoint.latest(folder.checkpoint)
        if last is None:
            raise CheckpointError(f"{path} has no checkpoint with its {weights} weights; leave out --weights")
        return last, config
    if "result" not in config or not folder.weights.exists():
        raise CheckpointError(
            f"{path} has no final weights: the run is not finished; minidl train --resume finishes it, "
            "--weights raw takes those of its last checkpoint"
        )
    return folder.weights, config


def _settings_of(file: Path) -> dict[str, Any] | None:
    """The settings of the run that a file of weights belongs to, if it lies in a run's folder.

    Other programs keep a config.json of their own beside a model file: that is none.
    """
    parent = Path(os.path.abspath(file)).parent
    for place in (parent, parent.parent) if parent.name == "checkpoint" else (parent,):
        if _is_run(folder := RunFolder(place)):
            return folder.read_config()
    return None


def _is_run(folder: RunFolder) -> bool:
    """Whether there is a config.json, and it is one of ours."""
    try:
        config = json.loads(folder.config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and "minidl" in config


def _check_classes(first: Member, other: Member) -> None:
    """DataError unless both were trained on the same classes, as far as they tell."""
    if None not in (first.count, other.count) and first.count != other.count:
        raise DataError(
            f"{first.path} was trained on {first.count} classes{first.data} but {other.path} on {other.count}"
            f"{other.data}; only models of the same classes can be averaged"
        )
    if first.classes is None or other.classes is None:
        return
    for k, (name, theirs) in enumerate(zip(first.classes, other.classes, strict=True)):
        if name != theirs:
            raise DataError(
                f"{first.path} and {other.path} were trained on other classes: class {k} is {name!r}"
                f"{first.data} in the first but {theirs!r}{other.data} in the second"
            )
