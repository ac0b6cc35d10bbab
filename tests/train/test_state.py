"""Tests of minidl/train/state.py: checkpoints that are whole files with sound digests, and yet made up."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from minidl import streams
from minidl.data import Dataset, synthetic
from minidl.errors import CheckpointError
from minidl.io import load_arrays, save_arrays, weights
from minidl.train import History, Recipe, state
from minidl.train.callbacks import Callback
from minidl.train.metrics import Metrics
from minidl.train.run import Run
from tests.fuzzing import check_reader
from tests.train.conftest import Tiny

OPTIONS: dict[str, Any] = {
    "batch_size": 20,
    "verbose": False,
    "seed": 3,
    "epochs": 3,
    "recipe": Recipe("rmsprop", 0.01, momentum=0.9, schedule="exponential", ema_decay=0.9),
}


class Stop(Callback):
    """Ends a run in the midst of its second epoch."""

    def step_end(self, run: Any, loss: float) -> None:
        if (run.epoch, run.batch) == (1, 2):
            raise ZeroDivisionError


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of the end of an epoch, and one of its midst, by the same names as in a run."""
    folder = tmp_path_factory.mktemp("sound")
    data = synthetic(60, 20, shape=(8, 8, 3), num_classes=3)
    with pytest.raises(ZeroDivisionError):
        Tiny().fit(data, checkpoint=folder, checkpoint_minutes=0, callbacks=[Stop()], **OPTIONS)
    return {
        "end": folder / "epoch-0001.safetensors",
        "midst": folder / "epoch-0001-batch-00001.safetensors",
    }


def started(data: Dataset) -> Run:
    """A run that stands at its beginning, as `fit` makes it."""
    kept: list[Run] = []

    class Keep(Callback):
        def begin(self, run: Run) -> None:
            kept.append(run)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Tiny().fit(data, callbacks=[Keep()], **OPTIONS)
    return kept[0]


def everything(run: Run) -> list[Any]:
    """Whatever a resume could change, as plain data."""
    assert run.schedule is not None
    assert run.ema is not None
    states = [run.model.state_dict(), run.optimizer.state_dict(), run.ema.state_dict()]
    arrays = [{k: np.asarray(v).tobytes() for k, v in state.items()} for state in states]
    others = [run.schedule.state_dict(), streams.get_state(), vars(run.model).get("preprocess")]
    return [*arrays, *others, run.epoch, run.batch, run.history.history, run.seen.state_dict()]


def refused(run: Run, path: Path, text: str) -> None:
    """That a checkpoint is refused by an error with its name, and nothing has changed."""
    before = everything(run)
    with pytest.raises(CheckpointError, match=rf"{re.escape(str(path))}: .*{text}"):
        state.restore(run, path)
    assert everything(run) == before


def changed(description: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A copy with other values; a key is a path ("streams.seed"), and `...` for a value takes it away."""
    result = json.loads(json.dumps(description))
    for path, value in change.items():
        *outer, key = path.split(".") if not path.startswith("plain:") else ["plain", path[6:]]
        place = result
        for each in outer:
            place = place[each]
        place[key] = value
        if value is ...:
            del place[key]
    return result


NUMBERS = {"loss": [1.0], "accuracy": [0.5], "val_loss": [1.0], "val_accuracy": [0.5], "seconds": [1.0]}
PHILOX = "streams.generators.augment"


@pytest.mark.parametrize(
    ("where", "change", "text"),
    [
        ("end", {"settings": ...}, "its description has no 'settings'; restore it from a copy"),
        ("end", {"settings": [1]}, r"'settings' is \[1\], it must be a table"),
        (
            "end",
            {"settings.batch_size": "x" * 1000},
            r"the run began with batch_size = x{100}\.\.\. and cannot",
        ),
        ("end", {"history": ...}, "its description has no 'history'"),
        ("end", {"history": []}, r"'history' is \[\], it must be a table with loss, accuracy, val_loss"),
        ("end", {"history": {}}, "'history' is {}, it must be a table with loss"),
        ("end", {"history.loss": [1.0, 2.0]}, "'history of loss' is .*, it must be a list of 1 numbers"),
        ("end", {"history.val_loss": []}, r"'history of val_loss' is \[\], it must be a list of 1"),
        ("end", {"history.loss": [10**400]}, "'history of loss' is"),
        ("end", {"history.f1": [True]}, r"'history of f1' is \[True\]"),
        ("end", {"history.seconds": [0]}, r"'history of seconds' is \[0\], it must be .* above 0"),
        ("end", {"history": {**NUMBERS, "accuracy": 0.5}}, "'history of accuracy' is 0.5"),
        ("end", {"streams": ...}, "its description has no 'streams'"),
        ("end", {"streams": 3}, "'streams' is 3, it must be a state of the random streams"),
        ("end", {"streams.generators": []}, "'streams' is"),
        ("end", {"streams.seed": -1}, "'streams' is"),
        ("end", {"streams.seed": 3.0}, "'streams' is"),
        ("end", {"streams.dropout_calls": 2**64}, "'streams' is"),
        ("end", {f"{PHILOX}.state.key": [1]}, "'streams' is"),
        ("end", {f"{PHILOX}.state.counter": [1, 2, 3, -4]}, "'streams' is"),
        ("end", {f"{PHILOX}.buffer_pos": 10**6}, "'streams' is"),
        ("end", {f"{PHILOX}.buffer_pos": -9}, "'streams' is"),
        ("end", {"epoch": "1"}, "'epoch' is 1, it must be 1, as the name of the file says"),
        ("end", {"epoch": True}, "'epoch' is True, it must be 1"),
        ("end", {"epoch": -5}, "'epoch' is -5, it must be 1"),
        ("end", {"epoch": 2}, "'epoch' is 2, it must be 1"),
        ("end", {"batch": 1}, "its description has no 'epoch streams'"),
        ("end", {"batch": -1}, "its description has no 'epoch streams'"),
        ("midst", {"batch": 0}, "'batch' is 0, it must be 1"),
        ("midst", {"epoch streams": None}, "'epoch streams' is None, it must be a state"),
        ("midst", {"seen": ...}, "its description has no 'seen'"),
        ("midst", {"seen": 7}, "'seen' is 7, it must be a table with images, loss, first, top5"),
        ("midst", {"seen.images": "20"}, "'seen' is .*, it must be sums over at most 54 images"),
        ("midst", {"seen.first": 21}, "'seen' is .*, it must be sums"),
        ("midst", {"seen.loss": None}, "'seen' is .*, it must be sums"),
        ("midst", {"seconds": -1}, "'seconds' is -1, it must be a number of at least 0"),
        ("end", {"preprocess": ...}, "its description has no 'preprocess'"),
        ("end", {"preprocess": [1]}, "preprocess is a list, not a table"),
        ("end", {"preprocess": {"resize": [10**6, 10**6]}}, r"preprocess: resize is \[1000000, 1000000\]"),
        ("end", {"preprocess": {"lcn": {"size": [1, 2]}}}, "restore it from a copy"),
        ("end", {"preprocess": {"zca": 3}}, "preprocess: zca is 3"),
        ("end", {"plain:model/out.bias": [1, 2, 3]}, r"'model/out.bias' is \[1, 2, 3\], it must be an array"),
        ("end", {"plain:optimizer/lr": -1}, "RMSprop.load_state_dict: 'lr' is -1, it must lie in 0 <= lr"),
        ("end", {"plain:optimizer/lr": float("nan")}, "'lr' is nan, it must lie in"),
        ("end", {"plain:optimizer/lr": 10**400}, "'lr' is 10+, it must lie in"),
        ("end", {"plain:optimizer/decay": 1.0}, "'decay' is 1.0, it must lie in 0 <= decay < 1"),
        ("end", {"plain:optimizer/optimizer": ["RMSprop"]}, "'optimizer' is .*, it must be 'RMSprop'"),
        ("end", {"plain:optimizer/steps": [[1], 2]}, "'steps' is no array"),
        ("end", {"plain:optimizer/steps": [-1] * 5}, "'steps' has a number below 0"),
        ("end", {"plain:ema/decay": 1.5}, "EMA.load_state_dict: 'decay' is 1.5, it must lie in"),
        ("end", {"plain:ema/decay": True}, "EMA.load_state_dict: 'decay' is 'True', not a number"),
        ("end", {"plain:schedule/count": -3}, "ExponentialLR.load_state_dict: 'count' is -3, it must lie in"),
        ("end", {"plain:schedule/count": 1.5}, "'count' is 1.5, not a whole number"),
        ("end", {"plain:schedule/base_lr": float("inf")}, "'base_lr' is inf, it must lie in"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_checkpoint_that_someone_made_up_is_refused_and_changes_nothing(
    data: Dataset, tmp_path: Path, sound: dict[str, Path], where: str, change: dict[str, Any], text: str
):
    arrays, description = load_arrays(sound[where])
    path = tmp_path / sound[where].name
    save_arrays(path, arrays, changed(description, change))
    refused(started(data), path, text)


def test_a_checkpoint_under_another_name_is_refused(data: Dataset, tmp_path: Path, sound: dict[str, Path]):
    path = tmp_path / "epoch-0002.safetensors"
    path.write_bytes(sound["end"].read_bytes())
    refused(started(data), path, "'epoch' is 1, it must be 2, as the name of the file says")


def test_a_batch_beyond_the_epoch_is_refused(data: Dataset, tmp_path: Path, sound: dict[str, Path]):
    arrays, description = load_arrays(sound["midst"])
    path = tmp_path / "epoch-0001-batch-00004.safetensors"
    save_arrays(path, arrays, description | {"batch": 4})
    refused(started(data), path, "'batch' is 4, it must be at most the 3 of an epoch")


@pytest.mark.parametrize("where", ["end", "midst"])
def test_damaged_descriptions_in_sound_files(
    data: Dataset, tmp_path: Path, sound: dict[str, Path], where: str
):
    """Each is taken or refused by an error with the file's name, which changes nothing."""
    arrays, description = load_arrays(sound[where])
    path, run = tmp_path / sound[where].name, started(data)
    before, kept, now = everything(run), copy.copy(vars(run)), streams.get_state()
    model, optimizer = run.model.state_dict(), run.optimizer.state_dict()
    schedule, ema = run.schedule.state_dict(), run.ema.state_dict()

    def read(path: Path) -> None:
        text = path.read_bytes().decode(errors="replace")
        path.write_bytes(signed(arrays, text))
        try:
            state.restore(run, path)
        except CheckpointError as error:
            if str(path) not in str(error) or everything(run) != before:
                raise AssertionError(f"no name, or a change: {error}") from error
            raise
        vars(run).update(kept)
        run.history, run.seen = History(), Metrics()
        run.model.load_state_dict(model)
        vars(run.model).pop("preprocess", None)
        run.optimizer.load_state_dict(optimizer)
        run.ema.load_state_dict(ema)
        run.schedule.load_state_dict(schedule)
        streams.set_state(now)

    content = json.dumps(description).encode()
    assert check_reader(read, content, (CheckpointError,), path=path) > 0


def signed(arrays: dict[str, np.ndarray], text: str) -> bytes:
    """A file of minidl whose checksum belongs to whatever description."""
    entry = json.dumps({"sha256": weights._digest(arrays, text), "description": text})
    return safetensors.numpy.save(arrays, {"minidl": entry})
