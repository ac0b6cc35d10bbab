"""The folder of one training run: what was asked, how it went, where it stands, and what came out.

    config.json         model, data and settings, each with the value that was used; at last the result too
    metrics.csv         one line per epoch
    log.txt             the layer table, one line per epoch, the result
    checkpoint/         the state that a killed run continues from
    best.safetensors    the model of the epoch with the highest val_accuracy
    model.safetensors   the final weights; nothing in it depends on the clock

config.json is the one file that decides: a folder is a run if it has one, and the run is finished once a
result stands in it. So the result is written last, after the weights and the log. Every file is replaced as a
whole, so that no kill leaves half a line; while a run works in the folder, .lock keeps others out.
"""

import contextlib
import itertools
import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from minidl.errors import CheckpointError
from minidl.io import write_atomic
from minidl.io.guard import shown
from minidl.train import lock
from minidl.train.callbacks import Callback

if TYPE_CHECKING:
    from minidl.train.run import Run

RUNS = Path("runs")  # where runs without a folder of their own go, below the current folder
Types = dict[str, tuple[type, ...]]  # key -> what its value may be
KEYS: Types = {  # what the command line needs of a config.json
    "model": (str,),
    "data": (str,),
    "arguments": (dict,),
    "seed": (int,),
    "device": (str,),
    "data_dir": (str, NoneType),
    "limit": (int, NoneType),
    "fit_images": (bool, NoneType),
    "classes": (list,),
    "epochs": (int,),
    "threads": (int,),
}
OPTIONAL: Types = {  # what else it looks at
    "batch_size": (int, NoneType),
    "lr": (int, float, NoneType),
    "image_size": (int, NoneType),
    "skip_broken": (bool, NoneType),
    "recipe": (str, NoneType),
    "override": (dict, NoneType),
    "trained_by": (dict,),
    "plans": (dict, NoneType),
    "result": (dict, NoneType),
}
RESULT: Types = {"epochs": (int,), "accuracy": (int, float)}
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    NoneType: "null",
}
FREE = ("epochs", "device", "data_dir")  # what may differ when a run continues: how far, and where


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, by name; `made` tells that `claim` made the folder itself."""

    path: Path
    made: bool = False

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    def used(self) -> bool:
        """Whether anything is there already, besides a lock."""
        if not self.path.is_dir():
            return self.path.exists()
        return any(path.name != lock.NAME for path in self.path.iterdir())

    def read_config(self) -> dict[str, Any]:
        """What config.json holds.  CheckpointError when the folder has none, or a damaged one."""
        try:
            config = json.loads(self.config.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(f"{self.path} is not a run folder: it has no config.json") from None
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.config} is damaged: {error}") from None
        if not isinstance(config, dict):
            raise CheckpointError(f"{self.config} is damaged: it does not hold a table of settings")
        self._check(config, KEYS | {key: types for key, types in OPTIONAL.items() if key in config})
        for name in config["classes"]:
            self._check({"classes": name}, {"classes": (str,)}, "a name in ")
        if config.get("result") is not None:
            self._check(config["result"], RESULT, "the result's ")
        return config

    def _check(self, table: dict[str, Any], expected: Types, where: str = "") -> None:
        """CheckpointError unless the table has the expected keys with values of their types."""
        for key, types in expected.items():
            if key not in table:
                raise CheckpointError(f"{self.config} is damaged: it lacks {where}{key!r}")
            if type(table[key]) not in types:  # a bool is no number
                raise CheckpointError(
                    f"{self.config} is damaged: {where}{key!r} is {shown(table[key])}, it must be "
                    f"{' or '.join(_WORDS[each] for each in types)}"
                )

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replace config.json in one step, so that a kill leaves the old one or the new one."""
        write_atomic(self.config, (json.dumps(config, indent=2, allow_nan=False) + "\n").encode())

    def give_up(self) -> None:
        """Remove a folder that `claim` made when its run could not start; one with a checkpoint stays."""
        if self.checkpoint.exists():
            return
        self.config.unlink(missing_ok=True)
        if self.made:
            with contextlib.suppress(OSError):  # something else lies in it: leave it
                (self.path / lock.NAME).unlink(missing_ok=True)
                self.path.rmdir()

    def write_log(self, text: str) -> None:
        """Add lines to log.txt, unless a run that was killed right then has added them already."""
        before = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        if not before.endswith(text + "\n"):
            write_atomic(self.log, f"{before}{text}\n".encode())


def claim(out: Path | None, name: str) -> RunFolder:
    """Make the folder of a new run: `out`, or else runs/NAME, and when that is taken runs/NAME-2, -3, ...

    FileExistsError when `out` holds anything. Two runs that start together by default get two folders.
    """
    if out is not None:
        run = RunFolder(out)
        check_unused(run)
        made = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        return RunFolder(out, made)
    for number in itertools.count(max(_numbers(name), default=0) + 1):
        path = _numbered(name, number)
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # another run took it a moment ago
            continue
        return RunFolder(path, made=True)
    raise AssertionError("unreachable: the numbers never end")


def latest(name: str) -> RunFolder:
    """The last run that `claim` made for this name; runs/NAME if there is none yet."""
    return RunFolder(_numbered(name, max(_numbers(name), default=1)))


def check_unused(run: RunFolder) -> None:
    """FileExistsError when the folder holds anything."""
    if run.used():
        raise FileExistsError(
            f"{run.path} is in use already; --resume continues the run in it, --out names another folder"
        )


def continued(run: RunFolder, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings a run continues with: those it began with, but how far and where as in `asked`.

    `asked` holds what the user gave, None where nothing was; CheckpointError where it contradicts the run.
    """
    config = run.read_config()
    for key, value in asked.items():
        began = config.get(key)
        if value is None:
            continue
        if isinstance(value, dict):  # model arguments: those that were given must be as they were
            value = {**(began or {}), **value}
        if key in FREE:
            config[key] = value
        elif value != began:
            raise CheckpointError(
                f"{run.path} began with {key} = {_short(began)} and cannot go on with {_short(value)}: leave "
                "it out, or start a new run in another folder"
            )
    return config


def _short(value: Any) -> str:
    """For a message: a table of plans would fill the screen."""
    return textwrap.shorten(str(value), 120, placeholder=" ...")


class ConfigFile(Callback):
    """Writes config.json when training begins, and not before: a resume that fails leaves the old one."""

    def __init__(self, folder: RunFolder, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, settings

    def begin(self, run: "Run") -> None:
        self.folder.write_config(self.settings)


class LogFile(Callback):
    """Writes the layer table and one line per epoch to log.txt, those of a killed run before included."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def begin(self, run: "Run") -> None:
        if not self.folder.log.exists() and hasattr(run.model, "summary"):
            self.folder.write_log(run.model.summary())
        self._write_missing(run)

    def epoch_end(self, run: "Run") -> None:
        self._write_missing(run)

    def _write_missing(self, run: "Run") -> None:
        lines = self.folder.log.read_text(encoding="utf-8").splitlines() if self.folder.log.exists() else []
        written = sum(line.startswith("epoch ") for line in lines)
        for epoch in range(written + 1, run.epoch + 1):
            self.folder.write_log(run.line(epoch))


def _numbered(name: str, number: int) -> Path:
    return RUNS / (name if number == 1 else f"{name}-{number}")


def _numbers(name: str) -> list[int]:
    """The numbers taken by this name's folders; the plain name counts as 1."""
    pattern = re.compile(re.escape(name) + r"(?:-([1-9][0-9]*))?")
    found = (pattern.fullmatch(path.name) for path in RUNS.glob("*"))
    return [int(match[1] or 1) for match in found if match]
