"""Callbacks: what they write and decide, in an unbroken run and in one that is killed and resumed."""

import json
import math
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import minidl as md
from minidl import nn, optim
from minidl.data import Dataset
from minidl.errors import DataError
from minidl.train import History, Recipe, fit
from minidl.train.callbacks import (
    BestCheckpoint,
    Callback,
    CSVLogger,
    EarlyStopping,
    JSONLines,
    LearningRate,
    ReduceOnPlateau,
    TensorBoard,
    improvements,
)
from tests.train.conftest import Tiny

EPOCHS = 5
STEPS = 3  # 54 images in batches of 20


class Killed(Exception):
    """Not an error of a callback, and not Ctrl-C, after which `end` would still be called."""


class Kill(Callback):
    """Ends the process, as far as a test can, at the end of an epoch or in the middle of it."""

    def __init__(self, epoch, in_the_middle=False):
        self.epoch, self.in_the_middle = epoch, in_the_middle

    def step_end(self, run, loss):
        if self.in_the_middle and run.epoch == self.epoch - 1:
            raise Killed

    def epoch_end(self, run):
        if run.epoch == self.epoch:
            raise Killed


class NoStep(Callback):
    """Fails the test if anything is trained."""

    def step_end(self, run, loss):
        raise AssertionError("a step was taken")


class KillWithCheckpoints(Callback):
    """Ends the process in the second step of an epoch, after a checkpoint of the first."""

    def __init__(self, epoch):
        self.epoch = epoch

    def begin(self, run):
        run.checkpoint_minutes = 0.0

    def step_end(self, run, loss):
        if (run.epoch, run.batch) == (self.epoch - 1, 2):
            raise Killed


def train(data, folder, callbacks, **options):
    """A new Tiny after its training; the same each time.  -> (model, history)"""
    md.manual_seed(4)
    model = Tiny()
    history = model.fit(
        data,
        **{"epochs": EPOCHS, "batch_size": 20, "seed": 5, "verbose": False, "resume": True}
        | {"checkpoint": folder, "callbacks": callbacks}
        | options,
    )
    return model, history.history


KILLS = {
    "between checkpoint and callback": lambda callbacks, epoch: [Kill(epoch), *callbacks],
    "after the callback": lambda callbacks, epoch: [*callbacks, Kill(epoch)],
    "in the middle of the next epoch": lambda callbacks, epoch: [*callbacks, Kill(epoch + 1, True)],
    "with a checkpoint of there": lambda callbacks, epoch: [*callbacks, KillWithCheckpoints(epoch + 1)],
}
every_kill = pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS.keys())


def train_with_kills(data, folder, make, kill, **options):
    """`train`, killed twice on the way; make() gives the callbacks of each process."""
    for epoch in (2, 3):
        callbacks = kill(make(), epoch)
        with pytest.raises(Killed):
            train(data, folder, callbacks, **options)
        for each in callbacks:  # a process that dies closes its files
            if isinstance(each, TensorBoard):
                each.end(None)
    return train(data, folder, make(), **options)


def constant(lr=0.05):
    """Options of fit: an optimiser without a schedule."""
    return {"optimizer": lambda params: optim.SGD(params, lr, momentum=0.9)}


def run_with(history, epoch=None, **others):
    """A run that stands after the last epoch of `history`."""
    epoch = len(next(iter(history.values()))) if epoch is None else epoch
    others = {"stop": False, "schedule": None, "callbacks": [], "validation": [], **others}
    return SimpleNamespace(history=History(history), epoch=epoch, batch=0, **others)


@pytest.mark.parametrize(
    ("monitor", "values", "threshold", "expected"),
    [
        ("val_loss", [3, 2, 2, 1], 0.0, [True, True, False, True]),
        ("accuracy", [0.3, 0.2, 0.3, 0.4], 0.0, [True, False, False, True]),
        ("val_accuracy", [0.5, 0.54, 0.56], 0.1, [True, False, True]),
        ("loss", [1.0, 0.95, 0.89, 0.85], 0.1, [True, False, True, False]),
        ("loss", [-1.0, -1.05, -1.2], 0.1, [True, False, True]),
        ("loss", [math.nan, 2, math.nan, 3, 1], 0.0, [False, True, False, False, True]),
    ],
)
def test_which_epochs_are_better_than_all_before(monitor, values, threshold, expected):
    assert improvements(run_with({monitor: values}), monitor, "Test", threshold) == expected


@pytest.mark.parametrize("make", [EarlyStopping, ReduceOnPlateau, lambda m: BestCheckpoint("best", m)])
def test_an_unknown_monitor_is_refused(tiny, data: Dataset, make):
    callback = make("val_f1")
    with pytest.raises(
        ValueError,
        match=r"^\w+: monitor is 'val_f1'; the history has loss, accuracy, val_loss, val_accuracy, seconds: ",
    ) as caught:
        tiny.fit(data, epochs=1, verbose=False, callbacks=[NoStep(), callback], **constant())
    assert str(caught.value).startswith(type(callback).__name__)


@pytest.mark.parametrize("make", [EarlyStopping, ReduceOnPlateau, lambda: BestCheckpoint("best")])
def test_a_default_monitor_without_validation_is_refused_with_its_cure(tiny, data: Dataset, make):
    options = {"epochs": 1, "verbose": False, "validation": None, **constant()}
    with pytest.raises(
        ValueError,
        match=r"^\w+: monitor is 'val_\w+'; the history has loss, accuracy, seconds: give fit validation=",
    ):
        tiny.fit(data, callbacks=[NoStep(), make()], **options)
    tiny.fit(data, callbacks=[EarlyStopping("loss"), ReduceOnPlateau("accuracy")], **options)


@pytest.mark.parametrize("make", [CSVLogger, JSONLines, BestCheckpoint])
def test_a_folder_that_does_not_exist_is_told_before_the_first_step(tiny, data: Dataset, tmp_path, make):
    path = tmp_path / "no" / "file"
    text = (
        rf"^{make.__name__}: the folder of {path} does not exist; make {path.parent} first, or give another"
    )
    with pytest.raises(FileNotFoundError, match=text):
        tiny.fit(data, epochs=1, verbose=False, callbacks=[NoStep(), make(path)])
    path.parent.mkdir()
    tiny.fit(data, epochs=1, verbose=False, callbacks=[make(path)])
    assert path.exists()


@pytest.mark.parametrize("make", [EarlyStopping, ReduceOnPlateau])
@pytest.mark.parametrize("patience", [0, 2.5, math.inf, math.nan])
def test_patience_is_a_number_of_epochs(make, patience):
    with pytest.raises(ValueError, match=f"{make.__name__}: patience is {patience}, it must be a whole"):
        make(patience=patience)


def test_the_hooks_are_called_in_order(tiny, data: Dataset):
    calls = []

    class Watch(Callback):
        def begin(self, run):
            calls.append("begin")

        def step_end(self, run, loss):
            assert type(loss) is float
            calls.append(("step", round(run.schedule.count / STEPS, 2)))

        def epoch_end(self, run):
            calls.append(("epoch", run.epoch))

        def end(self, run):
            calls.append("end")

    tiny.fit(data, epochs=1, batch_size=20, verbose=False, callbacks=[Watch()])
    assert calls == ["begin", ("step", 0.33), ("step", 0.67), ("step", 1.0), ("epoch", 1), "end"]


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@every_kill
def test_tables_have_every_epoch_once_after_a_resume(data: Dataset, tmp_path, kill):
    def make():
        return [JSONLines(tmp_path / "log.jsonl"), CSVLogger(tmp_path / "log.csv")]

    _, history = train_with_kills(data, tmp_path / "c", make, kill)
    rows = lines_of(tmp_path / "log.jsonl")
    assert [list(row) for row in rows] == [["epoch", *history, "lr"]] * EPOCHS
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert {key: [row[key] for row in rows] for key in history} == history
    assert (tmp_path / "log.csv").read_text().splitlines()[1:] == [
        ",".join(map(str, [i + 1, *row])) for i, row in enumerate(zip(*history.values()))
    ]
    train(data, tmp_path / "whole", [JSONLines(tmp_path / "whole.jsonl")])
    assert without_seconds(rows) == without_seconds(lines_of(tmp_path / "whole.jsonl"))


def test_tables_of_a_run_killed_after_its_last_checkpoint_are_completed(data: Dataset, tmp_path):
    tables = [JSONLines(tmp_path / "log.jsonl"), CSVLogger(tmp_path / "log.csv")]
    with pytest.raises(Killed):
        train(data, tmp_path / "c", [Kill(2), *tables], epochs=2)
    train(data, tmp_path / "c", tables, epochs=2)
    assert len(lines_of(tmp_path / "log.jsonl")) == 2
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_json_lines_hold_the_rate_that_the_next_epoch_begins_with(data: Dataset, tmp_path):
    halves = {"schedule": lambda o: optim.StepLR(o, 1, gamma=0.5)}
    train(data, None, [JSONLines(tmp_path / "log")], epochs=3, resume=False, **constant(0.08), **halves)
    assert [row["lr"] for row in lines_of(tmp_path / "log")] == [0.04, 0.02, 0.01]


def test_json_lines_write_null_for_what_json_has_no_number_for(tmp_path):
    run = run_with({"loss": [1.0, math.inf, math.nan]}, optimizer=SimpleNamespace(lr=0.5))
    JSONLines(tmp_path / "log").begin(run)  # nothing is known of the rates before this resume
    text = (tmp_path / "log").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert [(row["loss"], row["lr"]) for row in lines_of(tmp_path / "log")] == [
        (1.0, None),
        (None, None),
        (None, 0.5),
    ]


def test_json_lines_of_an_earlier_run_are_replaced(data: Dataset, tmp_path):
    for epochs, lr in ((3, 0.3), (1, 0.1)):
        train(data, None, [JSONLines(tmp_path / "log")], epochs=epochs, resume=False, **constant(lr))
    assert [(row["epoch"], row["lr"]) for row in lines_of(tmp_path / "log")] == [(1, 0.1)]


@pytest.mark.parametrize(
    "content",
    ["epoch,loss\n1,2\n", '{"epoch": 1}\n', "[1, 2]\n", "\xff", "[" * 100_000],
    ids=lambda text: text[:9],
)
def test_json_lines_leave_a_file_of_someone_else_alone(tiny, data: Dataset, tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=r"JSONLines: line 1 of .*notes.txt is none of its own; give another"):
        tiny.fit(data, epochs=1, verbose=False, callbacks=[JSONLines(path)])
    assert path.read_text(encoding="latin-1") == content


def scalars_of(folder):
    """tag -> [(step, value) ...] in a folder's event files, read as TensorBoard does.

    A record is its length (8 bytes), a checksum (4), the event, a checksum (4). A session's start hides what
    came before it with the same step or a later one.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + size])
            at += 16 + size
            if event.session_log.status == SessionLog.START:
                found = {tag: [p for p in points if p[0] < event.step] for tag, points in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@every_kill
def test_tensorboard_has_every_epoch_and_step_once_after_a_resume(data: Dataset, tmp_path, kill):
    pytest.importorskip("tensorboardX", reason="tensorboardX is missing: pip install minidl[tensorboard]")
    train(data, tmp_path / "c1", [TensorBoard(tmp_path / "whole")])
    _, history = train_with_kills(data, tmp_path / "c2", lambda: [TensorBoard(tmp_path / "killed")], kill)
    epochs = scalars_of(tmp_path / "killed" / "epochs")
    assert list(epochs) == [*history, "lr"]
    for key, values in history.items():
        assert epochs[key] == [(i + 1, np.float32(value)) for i, value in enumerate(values)]
    assert epochs["lr"] == scalars_of(tmp_path / "whole" / "epochs")["lr"]
    steps = scalars_of(tmp_path / "killed" / "steps")["step_loss"]
    assert [step for step, _ in steps] == list(range(1, EPOCHS * STEPS + 1))
    assert steps == scalars_of(tmp_path / "whole" / "steps")["step_loss"]


def test_tensorboard_hides_an_earlier_run_in_its_folder(data: Dataset, tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is missing: pip install minidl[tensorboard]")
    train(data, tmp_path / "c1", [Kill(2), board := TensorBoard(tmp_path / "t")][::-1], epochs=1)
    board.begin(run_with({"loss": []}, epoch=0, train=[None] * STEPS))
    board.step_end(None, 0.5)
    board.end(None)
    assert scalars_of(tmp_path / "t" / "steps") == {"step_loss": [(1, 0.5)]}


def test_tensorboard_names_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # its import fails
    with pytest.raises(
        ImportError, match=r"TensorBoard needs tensorboardX: pip install minidl\[tensorboard\]"
    ):
        TensorBoard(tmp_path)


@every_kill
def test_early_stopping_stops_in_the_same_epoch_after_a_resume(data: Dataset, tmp_path, kill):
    def make():
        return [EarlyStopping("loss", patience=3)]

    frozen = constant(lr=0.0)  # the loss goes up and down with the dropout alone
    _, history = train(data, tmp_path / "whole", make(), epochs=30, **frozen)
    assert 4 <= len(history["loss"]) < 30
    _, resumed = train_with_kills(data, tmp_path / "c", make, kill, epochs=30, **frozen)
    assert resumed["loss"] == history["loss"]
    last = len(history["loss"])
    with pytest.raises(Killed):
        train(data, tmp_path / "last", [Kill(last), *make()], epochs=30, **frozen)
    _, resumed = train(data, tmp_path / "last", make(), epochs=30, **frozen)
    assert len(resumed["loss"]) == last


def test_early_stopping_does_not_take_back_the_stop_of_another():
    run = run_with({"val_loss": [3, 2, 1]}, stop=True)
    EarlyStopping().epoch_end(run)
    assert run.stop


def plateau_course(values, epochs=None, **options):
    """The learning rate after each epoch, from 1.0 on."""
    run = run_with({"val_loss": []}, epoch=0, optimizer=SimpleNamespace(lr=1.0))
    callback = ReduceOnPlateau(**options)
    rates = []
    callback.begin(run)
    for value in values:
        run.history.append({"val_loss": value})
        run.epoch += 1
        callback.epoch_end(run)
        rates.append(run.optimizer.lr)
    return rates


@pytest.mark.parametrize(
    ("values", "options", "rates"),
    [
        ([5, 4, 3, 2, 1], {"patience": 1}, [1, 1, 1, 1, 1]),
        ([5, 5, 5, 5, 5], {"patience": 2}, [1, 1, 0.1, 0.1, 0.01]),
        ([5, 5, 4, 4, 4], {"patience": 2}, [1, 1, 1, 1, 0.1]),
        ([5, 5, 5, 4, 5], {"patience": 1}, [1, 0.1, 0.01, 0.01, 0.001]),
        ([5, 6, 6, 5, 5], {"patience": 2, "factor": 0.5}, [1, 1, 0.5, 0.5, 0.25]),  # the best stays 5
        ([5, 5, 5, 5], {"patience": 1, "factor": 0.5, "min_lr": 0.3}, [1, 0.5, 0.3, 0.3]),
        ([5, 5, 5], {"patience": 1, "min_lr": 2.0}, [1, 1, 1]),  # a rate below min_lr is not raised
        ([5, 4.8, 4.4], {"patience": 1, "threshold": 0.1}, [1, 0.1, 0.1]),
    ],
)
def test_reduce_on_plateau_reduces_after_patience_epochs(values, options, rates):
    assert plateau_course(values, **options) == pytest.approx(rates, rel=1e-12)


@every_kill
def test_reduce_on_plateau_is_exact_after_a_resume(data: Dataset, tmp_path, kill):
    rates: list[float] = []

    class Watch(Callback):
        def step_end(self, run, loss):
            rates.append(run.optimizer.lr)

    def make():  # no loss is better by 90 %: a reduction every other epoch
        return [ReduceOnPlateau("loss", factor=0.5, patience=2, threshold=0.9)]

    whole, _ = train(data, tmp_path / "whole", [*make(), Watch()], **constant(0.08))
    assert rates == [rate for rate in (0.08, 0.08, 0.08, 0.04, 0.04) for _ in range(STEPS)]
    resumed, _ = train_with_kills(data, tmp_path / "c", make, kill, **constant(0.08))
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(resumed.state_dict()[name], value)


def test_reduce_on_plateau_refuses_a_schedule(tiny, data: Dataset):
    with pytest.raises(
        ValueError,
        match=r"ReduceOnPlateau: the run's schedule OneCycleLR would overwrite .*; give fit an opt",
    ):
        tiny.fit(data, epochs=1, verbose=False, callbacks=[ReduceOnPlateau()])
    free = Recipe(schedule="constant")
    tiny.fit(data, epochs=1, verbose=False, callbacks=[ReduceOnPlateau()], recipe=free)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 1.0}, "factor is 1.0, it must lie in 0 <= factor < 1"),
        ({"factor": -0.1}, "factor is -0.1"),
        ({"min_lr": -1.0}, "min_lr is -1.0"),
        ({"threshold": math.nan}, "threshold is nan"),
    ],
)
def test_reduce_on_plateau_refuses_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=f"ReduceOnPlateau: {message}"):
        ReduceOnPlateau(**options)


def rates_said(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("learning rate")]


def test_the_learning_rate_is_told_with_its_reason(tiny, data: Dataset, capsys):
    options = {"epochs": 2, "batch_size": 20}
    halves = {"schedule": lambda o: optim.StepLR(o, 1, gamma=0.5)}
    tiny.fit(data, **options, **constant(0.1), **halves, callbacks=[LearningRate()])
    assert rates_said(capsys) == [
        "learning rate 0.1 (0.5 ** 0: after 0 epochs)",
        "learning rate 0.05 (0.5 ** 1: after 1 epoch)",
        "learning rate 0.025 (0.5 ** 2: after 2 epochs)",
    ]
    tiny.fit(data, **options, **constant(0.1), callbacks=[LearningRate()])
    assert rates_said(capsys) == ["learning rate 0.1 (constant)"] * 3
    tiny.fit(data, **options, **constant(0.1), callbacks=[LearningRate()], verbose=False)
    assert rates_said(capsys) == []


def test_the_learning_rate_is_told_on_a_plateau_and_after_a_resume(data: Dataset, capsys, tmp_path):
    def make():
        return [ReduceOnPlateau("loss", patience=1, threshold=0.9), LearningRate()]

    expected = [
        "learning rate 0.05 (constant)",
        "learning rate 0.05 (constant)",
        "learning rate 0.005 (reduced on plateau of loss, 1 so far)",
        "learning rate 0.0005 (reduced on plateau of loss, 2 so far)",
    ]
    train(data, tmp_path, make(), epochs=2, verbose=True, **constant())
    assert rates_said(capsys) == expected[:3]
    train(data, tmp_path, make(), epochs=3, verbose=True, **constant())
    assert rates_said(capsys) == expected[2:]


@every_kill
@pytest.mark.parametrize(("monitor", "ema_decay"), [("val_loss", None), ("val_accuracy", 0.5)])
def test_the_best_epochs_model_is_kept_through_kills(data: Dataset, tmp_path, kill, monitor, ema_decay):
    options = {"recipe": Recipe(lr=0.05, ema_decay=ema_decay), "validation": data.test}
    _, history = train(data, tmp_path / "c1", [BestCheckpoint(tmp_path / "whole", monitor)], **options)
    killed = BestCheckpoint(tmp_path / "killed", monitor)
    train_with_kills(data, tmp_path / "c2", lambda: [killed], kill, **options)
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
    best = max(history[monitor]) if monitor == "val_accuracy" else min(history[monitor])
    assert history[monitor].index(best) == 1  # an epoch with a kill, and not the last
    found = Tiny.load(tmp_path / "killed").evaluate(data.test)[monitor.removeprefix("val_")]
    assert found == pytest.approx(best, rel=1e-5)


def test_a_worse_epoch_does_not_replace_the_best(data: Dataset, tmp_path):
    written = []

    class Counting(Tiny):
        def save(self, path):
            written.append(path)

    run = run_with({"val_accuracy": []}, epoch=0, model=Counting(), ema=None)
    callback = BestCheckpoint(tmp_path / "best")
    counts = []
    for value in (0.2, 0.4, 0.3, 0.4, 0.5):
        run.history.append({"val_accuracy": value})
        callback.epoch_end(run)
        counts.append(len(written))
    assert counts == [1, 2, 2, 2, 3]


def test_a_best_model_that_was_deleted_is_told(data: Dataset, tmp_path, capsys):
    run = run_with({"val_accuracy": [0.5, 0.4]}, model=Tiny(), ema=None, say=print)
    BestCheckpoint(tmp_path / "best").begin(run)
    assert "best is missing; only an epoch better than all" in capsys.readouterr().out


def test_the_best_checkpoint_needs_a_model_that_saves(data: Dataset, tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(TypeError, match="BestCheckpoint: a Sequential has no save; make it a"):
        fit(net, data, verbose=False, callbacks=[BestCheckpoint(tmp_path / "best")])
