"""How a run ends: Ctrl-C and SIGTERM between two steps, with a checkpoint of it; and when one is due."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.data import Dataset
from minidl.train import Recipe, checkpoint
from minidl.train.callbacks import Callback

QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 20, "seed": 3}
STEPS = 3  # 54 images in batches of 20
HANDLED = (signal.SIGINT, signal.SIGTERM)


class Raise(Callback):
    """Sends this process signals after one of its steps, and counts the steps."""

    def __init__(self, step: int, *numbers: int) -> None:
        self.step, self.numbers = step, numbers
        self.steps = 0

    def step_end(self, run: Any, loss: float) -> None:
        self.steps += 1
        if self.steps == self.step:
            for number in self.numbers:
                signal.raise_signal(number)


@pytest.fixture
def handlers():
    """Handlers of the user's own; -> the signals they got.  They have to be in place after the test too."""
    got: list[int] = []
    own = lambda number, frame: got.append(number)  # noqa: E731
    before = {number: signal.signal(number, own) for number in HANDLED}
    yield got
    found = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert found == dict.fromkeys(HANDLED, own)


@pytest.mark.usefixtures("handlers")
def test_ctrl_c_ends_the_run_after_its_step_with_a_checkpoint_of_it(tiny, data: Dataset, tmp_path, capsys):
    ctrl_c = Raise(5, signal.SIGINT)
    history = tiny.fit(data, **QUICK, checkpoint=tmp_path, callbacks=[ctrl_c])
    out, err = capsys.readouterr()
    assert history.interrupted
    assert len(history.history["loss"]) == 1
    assert ctrl_c.steps == 5
    assert "stopping after this step; Ctrl-C again stops at once" in err
    last = tmp_path / "epoch-0001-batch-00002.safetensors"
    assert (
        f"interrupted after 1 of 3 epochs and 2 of 3 batches; the model keeps the weights it has now; go on "
        f"with resume=True from {last}" in out
    )
    for name, value in checkpoint.read_model(last)[1].items():
        np.testing.assert_array_equal(tiny.state_dict()[name], value)
    assert tiny.predict(data.test.images).shape == (20, 3)
    tiny.fit(data, **QUICK, checkpoint=tmp_path, resume=True)
    out, err = capsys.readouterr()
    assert f"resuming after epoch 1 and 2 of 3 batches of the next from {last}" in out
    assert re.search(r"epoch 2/3:\s+74%.* 40/54 \[00:00", err)  # the bar begins there


@pytest.mark.usefixtures("handlers")
def test_ctrl_c_without_a_checkpoint_folder(tiny, data: Dataset, capsys):
    history = tiny.fit(data, **QUICK, callbacks=[Raise(2, signal.SIGINT)])
    assert history.interrupted
    assert (
        "0 of 3 epochs and 2 of 3 batches; the model keeps the weights it has now\n"
        in capsys.readouterr().out
    )


@pytest.mark.usefixtures("handlers")
def test_a_quiet_run_says_nothing(tiny, data: Dataset, capsys):
    tiny.fit(data, **QUICK, callbacks=[Raise(2, signal.SIGINT)], verbose=False)
    assert capsys.readouterr() == ("", "")


def test_the_second_ctrl_c_is_a_keyboard_interrupt(handlers, tiny, data: Dataset, tmp_path):
    ctrl_c = Raise(5, signal.SIGINT, signal.SIGINT)
    tiny.eval()
    with pytest.raises(KeyboardInterrupt):
        tiny.fit(data, **QUICK, checkpoint=tmp_path, callbacks=[ctrl_c])
    assert handlers == []
    assert checkpoint.latest(tmp_path).name == "epoch-0001.safetensors"  # it did not wait for one
    assert not any(module.training for module in tiny.modules())


def test_sigterm_is_handed_on_after_the_checkpoint(handlers, tiny, data: Dataset, tmp_path):
    class Look(Callback):
        def end(self, run: Any) -> None:
            assert handlers == []

    history = tiny.fit(data, **QUICK, checkpoint=tmp_path, callbacks=[Raise(4, signal.SIGTERM), Look()])
    assert history.interrupted
    assert handlers == [signal.SIGTERM]
    assert checkpoint.latest(tmp_path).name == "epoch-0001-batch-00001.safetensors"


def test_sigterm_without_a_checkpoint_folder_does_not_wait(handlers, tiny, data: Dataset):
    history = tiny.fit(data, **QUICK, callbacks=[Raise(2, signal.SIGTERM)])
    assert handlers == [signal.SIGTERM]
    assert not history.interrupted


@pytest.mark.usefixtures("handlers")
def test_a_signal_at_the_end_of_an_epoch_finds_its_checkpoint_written(tiny, data: Dataset, tmp_path):
    class Late(Callback):
        def epoch_end(self, run: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    assert tiny.fit(data, **QUICK, checkpoint=tmp_path, callbacks=[Late()]).interrupted
    assert checkpoint.latest(tmp_path).name == "epoch-0001.safetensors"


@pytest.mark.usefixtures("handlers")
def test_a_signal_after_the_last_epoch_interrupts_nothing(tiny, data: Dataset, tmp_path):
    class Late(Callback):
        def epoch_end(self, run: Any) -> None:
            if run.epoch == run.epochs:
                signal.raise_signal(signal.SIGINT)

    options = {**QUICK, "checkpoint": tmp_path, "recipe": Recipe(ema_decay=0.5)}
    assert not tiny.fit(data, **options, callbacks=[Late()]).interrupted
    averaged = checkpoint.read_model(checkpoint.latest(tmp_path), "ema")[1]
    np.testing.assert_array_equal(tiny.state_dict()["out.weight"], averaged["out.weight"])


@pytest.mark.usefixtures("handlers")
def test_validation_is_left_too_and_done_again(tiny, data: Dataset, tmp_path):
    validated = []

    def hook(*_: Any) -> None:
        if not tiny.training:
            validated.append(1)
        if validated == [1]:
            signal.raise_signal(signal.SIGINT)

    many = (np.zeros((300, 8, 8, 3), np.uint8), np.zeros(300, np.int64))  # two batches
    handle = tiny.out.register_forward_hook(hook)
    options = {**QUICK, "checkpoint": tmp_path, "validation": many, "verbose": False}
    assert tiny.fit(data, **options).interrupted
    assert len(validated) == 1
    assert checkpoint.latest(tmp_path).name == "epoch-0000-batch-00003.safetensors"
    handle.remove()
    assert len(tiny.fit(data, **options, resume=True).history["val_loss"]) == 3


@pytest.mark.usefixtures("handlers")
def test_a_finished_epoch_takes_the_place_of_what_was_written_in_its_midst(tiny, data: Dataset, tmp_path):
    tiny.fit(data, **QUICK, checkpoint=tmp_path, callbacks=[Raise(5, signal.SIGINT)])
    names = ["epoch-0000.safetensors", "epoch-0001-batch-00002.safetensors", "epoch-0001.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert checkpoint.latest(tmp_path).name == names[1]
    tiny.fit(data, **QUICK, checkpoint=tmp_path, resume=True)
    names = ["epoch-0002.safetensors", "epoch-0003.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.usefixtures("handlers")
def test_fewer_epochs_than_the_one_under_way_are_refused(tiny, data: Dataset, tmp_path):
    tiny.fit(data, **QUICK, checkpoint=tmp_path, callbacks=[Raise(5, signal.SIGINT)])
    text = r"epoch-0001-batch-00002\.safetensors: it is in the midst of epoch 2, .* give epochs=2 or more"
    with pytest.raises(ValueError, match=text):
        tiny.fit(data, **QUICK | {"epochs": 1}, checkpoint=tmp_path, resume=True)


def test_in_another_thread_no_handler_is_touched(handlers, tiny, data: Dataset, tmp_path):
    found = []

    class Look(Callback):
        def step_end(self, run: Any, loss: float) -> None:
            found.extend(signal.getsignal(number) for number in HANDLED)

    own = [signal.getsignal(number) for number in HANDLED]
    thread = threading.Thread(target=lambda: tiny.fit(data, **QUICK, checkpoint=tmp_path, callbacks=[Look()]))
    thread.start()
    thread.join()
    assert found == own * 3 * STEPS
    assert handlers == []


def test_a_signal_that_is_ignored_stays_ignored(tiny, data: Dataset, tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        options = {**QUICK, "checkpoint": tmp_path}
        assert not tiny.fit(data, **options, callbacks=[Raise(1, signal.SIGINT)]).interrupted
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("handlers")
def test_an_error_leaves_the_handlers_as_they_were(tiny, data: Dataset):
    class Broken(Callback):
        def step_end(self, run: Any, loss: float) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tiny.fit(data, **QUICK, callbacks=[Broken()])


SLEEPER = """
import sys
import minidl as md
from minidl.train.callbacks import Callback
from tests.train.conftest import Tiny

class Wait(Callback):
    def step_end(self, run, loss):
        if run.epoch == 1 and run.batch == 2:
            print("now", flush=True)
            sys.stdin.read(1)  # until the signal has come

Tiny().fit(md.data.synthetic(60, 20, shape=(8, 8, 3), num_classes=3), epochs=3, batch_size=20,
           checkpoint=sys.argv[1], callbacks=[Wait()])
print("never reached after SIGTERM, but after Ctrl-C")
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_a_process_that_is_asked_to_end(tmp_path: Path, number: int, status: int):
    """A whole process; a shell shows the status of one that SIGTERM ended as 143."""
    child = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for line in child.stdout:
        if line == "now\n":
            break
    child.send_signal(number)
    out, _ = child.communicate("x", timeout=100)
    assert child.returncode == status
    last = tmp_path / "epoch-0001-batch-00002.safetensors"
    assert "interrupted after 1 of 3 epochs and 2 of 3 batches; " in out
    assert f"go on with resume=True from {last}\n" in out
    assert ("never reached" in out) == (number == signal.SIGINT)
    assert checkpoint.latest(tmp_path) == last
    checkpoint.load(last)


@pytest.mark.usefixtures("handlers")
def test_the_seconds_of_an_epoch_are_those_of_its_parts(tiny, data: Dataset, tmp_path, monkeypatch):
    now = 0.0

    class Tick(Raise):
        def step_end(self, run: Any, loss: float) -> None:
            nonlocal now
            now += 10.0
            super().step_end(run, loss)

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    options = {**QUICK, "checkpoint": tmp_path}
    tiny.fit(data, **options, callbacks=[Tick(5, signal.SIGINT)])
    now += 1e6  # until it is resumed
    history = tiny.fit(data, **options, callbacks=[Tick(0)], resume=True)
    assert history.history["seconds"] == [30.0, 30.0, 30.0]


class Clock(Callback):
    """A clock that a step moves on by so many seconds, while the time of day jumps to and fro."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now, self.seconds = 1000.0, seconds
        self.written: list[str] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "time", lambda: -1e9 if int(self.now) % 2 else 1e12)

    def step_end(self, run: Any, loss: float) -> None:
        self.written.append(checkpoint.latest(run.folder).stem)
        self.now += self.seconds


def test_a_checkpoint_is_due_after_so_many_minutes(tiny, data: Dataset, tmp_path, monkeypatch):
    clock = Clock(monkeypatch, 41.0)  # so after every second step, and at the end of an epoch
    tiny.fit(data, **QUICK, checkpoint=tmp_path, checkpoint_minutes=1.0, callbacks=[clock])
    midway = [f"epoch-000{epoch}-batch-00002" for epoch in range(3)]
    starts = [f"epoch-000{epoch}" for epoch in range(3)]
    assert clock.written == [name for a, b in zip(starts, midway, strict=True) for name in (a, a, b)]


def test_without_minutes_there_is_none_in_an_epoch(tiny, data: Dataset, tmp_path, monkeypatch):
    clock = Clock(monkeypatch, 1e6)
    tiny.fit(data, **QUICK, checkpoint=tmp_path, callbacks=[clock])
    assert clock.written == [f"epoch-000{step // STEPS}" for step in range(9)]


def test_nothing_that_is_kept_depends_on_the_time_of_day(tiny, data: Dataset, tmp_path, monkeypatch):
    """The same run in another year; only how long it took may differ."""
    found = []
    start = tiny.state_dict()
    for name, today in (("a", 0.0), ("b", 4e9)):
        tiny.load_state_dict(start)
        monkeypatch.setattr(time, "time", lambda today=today: today)
        tiny.fit(data, **QUICK, checkpoint=tmp_path / name)
        parts, description = checkpoint.load(tmp_path / name / "epoch-0003.safetensors")
        description["history"].pop("seconds")
        found.append((json.dumps(description), {k: v.tobytes() for k, v in parts["model"].items()}))
    assert found[0] == found[1]


def test_lost_weights_do_not_take_the_place_of_good_ones(tiny, data: Dataset, tmp_path):
    class Break(Callback):
        def step_end(self, run: Any, loss: float) -> None:
            run.model.conv.weight.data[...] = np.nan

    with pytest.raises(FloatingPointError, match=r"conv\.weight is not finite after batch 1 of epoch 1\."):
        tiny.fit(data, **QUICK, checkpoint=tmp_path, checkpoint_minutes=0, callbacks=[Break()])
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0000.safetensors"]


class Brittle(nn.Module):
    """Passes on what it gets; in evaluation, nan for a batch with a large number."""

    def forward(self, x: md.Tensor) -> md.Tensor:
        return x * np.nan if not self.training and x.numpy().max() > 10 else x


def test_a_validation_loss_that_breaks_in_the_second_batch_alone(tiny, data: Dataset):
    """In evaluation alone, too: the raw weights in training mode, or the first batch, would tell nothing."""
    tiny.pool = nn.Sequential(tiny.pool, Brittle())
    images = np.zeros((300, 8, 8, 3), np.float32)  # two batches
    images[280] = 1e4
    text = r"the validation loss is nan in epoch 1; the first .* is that of pool\.1 \(Brittle\)\. Train with"
    with pytest.raises(FloatingPointError, match=text):
        tiny.fit(data, **QUICK, validation=(images, np.zeros(300, np.int64)), verbose=False)
    assert tiny.training


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_statistics_that_are_lost_are_found_in_evaluation(tiny, data: Dataset, ema_decay: float | None):
    class Lose(Callback):
        def step_end(self, run: Any, loss: float) -> None:
            run.model.bn.running_var[...] = np.nan

    text = r"validation loss is nan in epoch 1; the first .* is that of bn \(BatchNorm2d\)\. Train"
    with pytest.raises(FloatingPointError, match=text):
        tiny.fit(data, **QUICK, recipe=Recipe(ema_decay=ema_decay), callbacks=[Lose()], verbose=False)


def test_averages_that_are_lost_are_found_among_the_averages(tiny, data: Dataset):
    class Lose(Callback):
        def step_end(self, run: Any, loss: float) -> None:
            run.ema.averages[0][...] = np.nan

    text = r"the first .* is that of conv \(Conv2d\), whose weights are not finite\. Train"
    with pytest.raises(FloatingPointError, match=text):
        tiny.fit(data, **QUICK, recipe=Recipe(ema_decay=0.5), callbacks=[Lose()], verbose=False)
    assert all(np.isfinite(value).all() for value in tiny.state_dict().values())  # not the averages


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"checkpoint_minutes": 5}, "checkpoint_minutes=5 needs checkpoint="),
        ({"checkpoint_minutes": -1, "checkpoint": "c"}, "checkpoint_minutes is -1, it must be at least 0"),
        ({"checkpoint_minutes": float("nan"), "checkpoint": "c"}, "checkpoint_minutes is nan, it must be"),
        ({"checkpoint_keep": 0, "checkpoint": "c"}, "checkpoint_keep is 0, it must be at least 1"),
    ],
)
def test_bad_options(tiny, data: Dataset, tmp_path, monkeypatch, options: dict, text: str):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=text):
        tiny.fit(data, **QUICK, **options)
    assert os.listdir(tmp_path) == []
