"""A run that is stopped at any step, in any way, and resumed, ends in the bits of one that never was.

Whatever a run may consist of is drawn: optimiser, schedule, moving average, clipping, augmentation, the
layers of the network, how the batches are made. So is the step at which it ends, and the way: by Ctrl-C,
after which a checkpoint of that very step is written, or so that all is lost since the last checkpoint.
"""

import functools
import json
import math
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import minidl as md
from minidl import nn, optim, streams
from minidl.data import Dataset, synthetic
from minidl.train import Recipe, callbacks, checkpoint
from minidl.train.run import Run

EPOCHS, STEPS, BATCH = 3, 3, 5  # the last batch of an epoch has 3 images


class Net(md.Model):
    """A convolution, with or without batch norm and dropout, and a classifier."""

    def __init__(self, batch_norm: bool = True, dropout: float = 0.3) -> None:
        self.input_shape, self.num_classes = (6, 6, 3), 3
        self.conv = nn.Conv2d(3, 4, 3, bias=not batch_norm)
        self.bn = nn.BatchNorm2d(4, activation="relu") if batch_norm else nn.ReLU()
        self.drop = nn.Dropout(dropout)
        self.gap = nn.GlobalAvgPool()
        self.out = nn.Linear(4, 3)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return self.out(self.gap(self.drop(self.bn(self.conv(x)))))


class Killed(Exception):
    """The process is gone, as far as one test in one process can have it."""


class End(callbacks.Callback):
    """Sets how batches are prepared; ends the run at one of its steps; keeps the Run."""

    def __init__(self, prefetch: int, workers: int, step: int = 0, by: str = "") -> None:
        self.prefetch, self.workers, self.step, self.by = prefetch, workers, step, by
        self.run: Any = None

    def begin(self, run: Run) -> None:
        self.run = run
        run.train.prefetch, run.train.workers = self.prefetch, self.workers

    def step_end(self, run: Run, loss: float) -> None:
        if run.epoch * STEPS + run.batch == self.step:
            if self.by == "kill":
                raise Killed
            signal.raise_signal(signal.SIGINT)


Build = Callable[[Any], Any]  # of the parameters an optimiser, of an optimiser a schedule
OPTIMIZERS: dict[str, Build] = {
    "SGD": lambda params: optim.SGD(params, 0.1),
    "SGD with momentum": lambda params: optim.SGD(params, 0.1, momentum=0.9, weight_decay=1e-3),
    "SGD with Nesterov": lambda params: optim.SGD(params, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda params: optim.Adam(params, 0.01, weight_decay=1e-3),
    "AdamW": lambda params: optim.AdamW(params, 0.01, weight_decay=0.1),
    "RMSprop": lambda params: optim.RMSprop(params, 0.01, momentum=0.9),
}
SCHEDULES: dict[str, Callable[..., optim.Schedule]] = {
    "StepLR": functools.partial(optim.StepLR, step_size=2),
    "MultiStepLR": functools.partial(optim.MultiStepLR, milestones=[1, 2, 5]),
    "ExponentialLR": functools.partial(optim.ExponentialLR, staircase=False),
    "CosineLR": functools.partial(optim.CosineLR, total_steps=7),
    "OneCycleLR": functools.partial(optim.OneCycleLR, max_lr=0.1, total_steps=8),
    "Warmup": lambda optimizer, per: optim.Warmup(
        optimizer, 2, optim.CosineLR(optimizer, 6, per=per), 0.1, per=per
    ),
}
AUGMENTATIONS = ("", "flip", "pad_crop(1)+flip")


def grouped(optimizer: Build, params: Any) -> Any:
    """An optimiser with two groups of parameters that differ in everything they can."""
    first, *others = params
    groups = [{"params": [first], "lr_factor": 2.0, "weight_decay": 0.01}, {"params": others}]
    return optimizer(groups)


@dataclass(frozen=True)
class Case:
    """What a run consists of."""

    optimizer: str = "SGD with momentum"
    groups: bool = False
    schedule: str | None = None
    per: str = "step"
    ema_decay: float | None = None
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    augment: str = ""
    batch_norm: bool = True
    dropout: float = 0.3
    preprocess: str | None = None
    prefetch: int = 2
    workers: int = 1

    def options(self) -> dict[str, Any]:
        """Of `fit`."""
        optimizer = OPTIMIZERS[self.optimizer]
        made = None
        if self.schedule is not None:
            made = functools.partial(SCHEDULES[self.schedule], per=self.per)
        return {
            "optimizer": functools.partial(grouped, optimizer) if self.groups else optimizer,
            "schedule": made,
            "recipe": Recipe(
                schedule="constant",
                ema_decay=self.ema_decay,
                clip_norm=self.clip_norm,
                label_smoothing=self.label_smoothing,
                preprocess=self.preprocess,
            ),
            "augment": self.augment,
        }

    def net(self) -> Net:
        return Net(self.batch_norm, self.dropout)


CASES = st.builds(
    Case,
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    groups=st.booleans(),
    schedule=st.sampled_from([None, *sorted(SCHEDULES)]),
    per=st.sampled_from(["step", "epoch"]),
    ema_decay=st.sampled_from([None, 0.5]),
    clip_norm=st.sampled_from([None, 0.1]),
    label_smoothing=st.sampled_from([0.0, 0.1]),
    augment=st.sampled_from(AUGMENTATIONS),
    batch_norm=st.booleans(),
    dropout=st.sampled_from([0.0, 0.3]),
    preprocess=st.sampled_from([None, "mean(per='pixel')"]),
    prefetch=st.sampled_from([0, 1, 3]),
    workers=st.sampled_from([1, 2]),
)


@pytest.fixture(autouse=True, scope="module")
def _quick():
    """One thread, for arrays of a few numbers; and what reaches the disk is tested elsewhere."""
    threads = md.get_num_threads()
    md.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
    md.set_num_threads(threads)


@functools.cache
def images() -> Dataset:
    return synthetic(15, 5, shape=(6, 6, 3), num_classes=3)


def train(net: Net, case: Case, end: End, others: Any = (), **options: Any) -> Any:
    return net.fit(
        images(),
        epochs=EPOCHS,
        batch_size=BATCH,
        verbose=False,
        callbacks=[*others, end],
        **{"validation": 2 / 15, **case.options(), **options},
    )


def outcome(net: Net, end: End, case: Case) -> dict[str, bytes | str]:
    """Everything a run leaves, in a form that `==` compares bit by bit; the seconds it took aside."""
    run = end.run
    parts = {"weights": net.state_dict(), "optimizer": run.optimizer.state_dict()}
    parts["fitted"] = md.data.transforms.split_arrays(net.preprocess)[1]
    if run.schedule is not None:
        parts["schedule"] = run.schedule.state_dict()
    if run.ema is not None:
        parts["ema"] = run.ema.state_dict()
    history = {key: value for key, value in run.history.history.items() if key != "seconds"}
    found: dict[str, bytes | str] = {
        "history": json.dumps(history),
        "streams": json.dumps(streams.get_state()),
    }
    for part, state in parts.items():
        for key, value in state.items():
            found[f"{part} {key}"] = value.tobytes() if isinstance(value, np.ndarray) else repr(value)
    return found


def unbroken(case: Case, others: Any = ()) -> dict[str, bytes | str]:
    """What a run leaves that nothing stops."""
    md.manual_seed(1)
    net, end = case.net(), End(case.prefetch, case.workers)
    train(net, case, end, others, seed=2)
    return outcome(net, end, case)


def broken(
    case: Case, step: int, by: str, minutes: float | None, others: Callable[[], Any] = tuple
) -> dict[str, bytes | str]:
    """What a run leaves that ends at `step` in the way `by`, and goes on in what could be another process."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"checkpoint": Path(folder) / "c", "checkpoint_minutes": minutes, "seed": 2}
        md.manual_seed(1)
        net = case.net()
        try:
            history = train(net, case, End(case.prefetch, case.workers, step, by), others(), **options)
            assert history.interrupted
            last = checkpoint.latest(options["checkpoint"])
            assert last.name.endswith(f"-batch-{step - step // STEPS * STEPS or STEPS:05d}.safetensors")
        except Killed:
            assert by == "kill"
        md.manual_seed(77)  # what another process begins with
        net, end = case.net(), End(2 - case.prefetch // 2, 3 - case.workers)
        train(net, case, end, others(), resume=True, **options | {"seed": 3})
        return outcome(net, end, case)


def check_same(found: dict[str, bytes | str], expected: dict[str, bytes | str]) -> None:
    assert list(found) == list(expected)
    assert [key for key in found if found[key] != expected[key]] == []


# every optimiser and every schedule at least once, whatever is drawn
@given(
    case=CASES,
    step=st.integers(1, EPOCHS * STEPS),
    by=st.sampled_from(["ctrl-c", "kill"]),
    minutes=st.sampled_from([None, 0.0]),
)
@example(Case("SGD", schedule="StepLR", augment="flip"), 1, "ctrl-c", None)
@example(Case("SGD with momentum", True, "MultiStepLR", ema_decay=0.5), 2, "kill", 0.0)
@example(Case("SGD with Nesterov", schedule="ExponentialLR", augment="pad_crop(1)+flip"), 3, "ctrl-c", None)
@example(Case("Adam", True, "CosineLR", clip_norm=0.1, preprocess="mean(per='pixel')"), 5, "ctrl-c", None)
@example(Case("AdamW", True, "OneCycleLR", ema_decay=0.5, augment="flip"), 8, "kill", None)
@example(Case("RMSprop", False, "Warmup", per="epoch", ema_decay=0.5, augment="flip"), 7, "ctrl-c", None)
@example(Case("RMSprop", True, "Warmup", label_smoothing=0.1), 9, "ctrl-c", None)
def test_a_stopped_run_resumes_to_the_same_bits(case: Case, step: int, by: str, minutes: float | None):
    check_same(broken(case, step, by, minutes), unbroken(case))


@settings(max_examples=8)
@given(case=CASES)
def test_two_runs_of_one_seed_are_identical(case: Case):
    check_same(unbroken(case), unbroken(case))


def test_no_optimizer_and_no_schedule_is_left_out():
    """A new one must be entered above."""
    offered = {name: value for name in optim.__all__ if isinstance(value := getattr(optim, name), type)}
    kinds = {name for name, value in offered.items() if issubclass(value, optim.Optimizer)} - {"Optimizer"}
    assert {name.split()[0] for name in OPTIMIZERS} == kinds
    assert set(SCHEDULES) == {n for n, v in offered.items() if issubclass(v, optim.Schedule)} - {"Schedule"}


class Stop(callbacks.EarlyStopping):
    """As the first: it stops after the second epoch, because nothing can improve by so much."""

    def epoch_end(self, run: Run) -> None:
        super().epoch_end(run)
        run.stop = run.stop or run.epoch == 2


CALLBACKS: dict[str, Callable[[], Any]] = {
    "EarlyStopping": lambda: [callbacks.EarlyStopping("loss", patience=1), Stop("val_loss", patience=1)],
    # nothing is ten times as good as the first epoch: the rate falls after the second and the third
    "ReduceOnPlateau": lambda: [callbacks.ReduceOnPlateau("val_accuracy", 0.5, patience=1, threshold=9.0)],
}


@pytest.mark.parametrize(
    ("name", "step"),
    [
        *(("EarlyStopping", step) for step in range(3, 7)),
        *(("ReduceOnPlateau", step) for step in range(3, 10)),
    ],
)
@pytest.mark.parametrize("by", ["ctrl-c", "kill"])
def test_callbacks_go_on_in_the_midst_of_an_epoch(name: str, by: str, step: int):
    case, others = Case(ema_decay=0.5, augment="flip"), CALLBACKS[name]
    expected = unbroken(case, others())
    check_same(broken(case, step, by, 0.0, others), expected)
    done = len(json.loads(str(expected["history"]))["loss"])
    assert done == (2 if name == "EarlyStopping" else EPOCHS)
    if name == "ReduceOnPlateau":
        assert math.isclose(float(str(expected["optimizer lr"])), 0.1 * 0.5**2)


def test_the_best_model_is_not_overwritten_in_the_midst_of_the_next_epoch(tmp_path: Path):
    """A resume in an epoch must not take its weights for those of the epoch before, were that the best."""
    case, best = Case(), tmp_path / "best.safetensors"
    make = lambda: [callbacks.BestCheckpoint(best, "val_accuracy")]  # noqa: E731
    history = json.loads(str(unbroken(case, make())["history"]))
    assert max(history["val_accuracy"]) == history["val_accuracy"][0]  # so the first epoch stays the best
    expected = best.read_bytes()
    for step in (4, 5, 6):
        best.unlink()
        broken(case, step, "ctrl-c", None, make)
        assert best.read_bytes() == expected
