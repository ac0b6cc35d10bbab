"""Kill a run anywhere, resume it, and the bits are those of a run that was never killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minidl import nn, optim
from minidl.data import Dataset
from minidl.errors import CheckpointError
from minidl.train import Recipe, checkpoint
from minidl.train.callbacks import Callback, CSVLogger

# A run of four epochs of three steps each, with every kind of state; it kills itself in the middle of step
# `kill`, if asked.
RUN = """
import os, signal, sys
import minidl as md
from minidl import nn, optim
from minidl.data import synthetic
from minidl.train import Recipe

class Net(md.Model):
    def __init__(self):
        self.input_shape, self.num_classes = (8, 8, 3), 3
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6, activation="relu")
        self.drop = nn.Dropout(0.3)
        self.gap = nn.GlobalAvgPool()
        self.out = nn.Linear(6, 3)
    def forward(self, x):
        return self.out(self.gap(self.drop(self.bn(self.conv(x)))))

folder, kill = sys.argv[1], int(sys.argv[2])
md.set_num_threads(1)
net = Net()
steps = 0
def count(module, inputs, output):
    global steps
    steps += net.training
    if steps == kill:
        os.kill(os.getpid(), signal.SIGKILL)
net.out.register_forward_hook(count)
recipe = Recipe("rmsprop", 0.01, momentum=0.9, schedule="cosine", ema_decay=0.9, label_smoothing=0.1,
                augment="crop+flip")
net.fit(synthetic(66, 10, shape=(8, 8, 3), num_classes=3), epochs=4, batch_size=20, seed=7, recipe=recipe,
        verbose=False, checkpoint=folder, resume=True)
net.save(os.path.join(folder, "final.safetensors"))
"""


def run(folder: Path, kill: int = 0) -> int:
    return subprocess.run(
        [sys.executable, "-c", RUN, str(folder), str(kill)], check=False, timeout=300
    ).returncode


def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path):
    assert run(tmp_path / "whole") == 0
    expected = (tmp_path / "whole" / "final.safetensors").read_bytes()
    # in the first epoch; at the start, in the middle and at the end of a later one; and twice in one run
    for name, kills in (("first", [2]), ("start", [4]), ("middle", [8]), ("end", [9]), ("twice", [5, 5])):
        for kill in kills:
            assert run(tmp_path / name, kill) == -signal.SIGKILL
            assert not list((tmp_path / name).glob("final*"))
        assert run(tmp_path / name) == 0
        assert (tmp_path / name / "final.safetensors").read_bytes() == expected, name


QUICK = {"batch_size": 20, "verbose": False, "seed": 3}


def test_the_last_two_are_kept(tiny, data: Dataset, tmp_path: Path):
    tiny.fit(data, epochs=4, checkpoint=tmp_path, **QUICK)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "epoch-0003.safetensors",
        "epoch-0004.safetensors",
    ]
    assert checkpoint.latest(tmp_path) == tmp_path / "epoch-0004.safetensors"


def test_history_and_epochs_go_on(tiny, data: Dataset, tmp_path: Path):
    first = tiny.fit(data, epochs=2, checkpoint=tmp_path, **QUICK).history
    history = tiny.fit(data, epochs=3, checkpoint=tmp_path, resume=True, **QUICK).history
    assert len(history["loss"]) == 3
    assert history["loss"][:2] == first["loss"]


def test_resuming_a_finished_run_trains_no_more(tiny, data: Dataset, tmp_path: Path):
    tiny.fit(data, epochs=2, checkpoint=tmp_path, **QUICK)
    before = tiny.state_dict()
    tiny.fit(data, epochs=2, checkpoint=tmp_path, resume=True, **QUICK)
    for name, value in tiny.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_used_folder_without_resume_is_refused(tiny, data: Dataset, tmp_path: Path):
    tiny.fit(data, epochs=1, checkpoint=tmp_path, **QUICK)
    with pytest.raises(
        CheckpointError, match=r"holds a run already \(epoch-0001.safetensors\); pass resume=True"
    ):
        tiny.fit(data, epochs=1, checkpoint=tmp_path, **QUICK)


def test_resume_without_a_checkpoint_starts_and_says_so(tiny, data: Dataset, tmp_path: Path, capsys):
    tiny.fit(data, epochs=1, checkpoint=tmp_path / "new", resume=True, batch_size=20)
    assert "no checkpoint in" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_still_works(
    tiny, data: Dataset, tmp_path: Path, damage: str
):
    tiny.fit(data, epochs=3, checkpoint=tmp_path, **QUICK)
    newest = tmp_path / "epoch-0003.safetensors"
    content = bytearray(newest.read_bytes())
    content[-100] ^= 4
    newest.write_bytes(
        {"truncated": content[:-50], "flipped": content, "empty": b"", "text": b"hello " * 99}[damage]
    )
    before = tiny.state_dict()
    with pytest.raises(CheckpointError, match=r"epoch-0003\.safetensors") as caught:
        tiny.fit(data, epochs=3, checkpoint=tmp_path, resume=True, **QUICK)
    assert "epoch-0002.safetensors, delete the damaged file and resume again" in caught.value.__notes__[0]
    for name, value in tiny.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    newest.unlink()
    assert len(tiny.fit(data, epochs=3, checkpoint=tmp_path, resume=True, **QUICK).history["loss"]) == 3


def test_a_checkpoint_of_another_kind_of_run_is_refused(tiny, data: Dataset, tmp_path: Path):
    tiny.fit(data, epochs=1, checkpoint=tmp_path, **QUICK)
    tiny.reset()
    before = tiny.state_dict()
    with pytest.raises(CheckpointError, match=r"holds model, optimizer, schedule, but this run has .*ema"):
        tiny.fit(data, epochs=2, checkpoint=tmp_path, resume=True, recipe=Recipe(ema_decay=0.9), **QUICK)
    with pytest.raises(CheckpointError, match="began with optimizer = adam and cannot go on with sgd"):
        tiny.fit(data, epochs=2, checkpoint=tmp_path, resume=True, recipe=Recipe("sgd"), **QUICK)
    for name, value in tiny.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"batch_size": 7}, "batch_size = 20 and cannot go on with 7"),
        ({"validation": None}, "training images = 54 and cannot go on with 60"),
        ({"recipe": Recipe(lr=0.5)}, r"lr = 0\.0025 and cannot go on with 0\.5"),
        ({"augment": "flip"}, r"augment = None and cannot go on with flip\(\)"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(
    tiny, data: Dataset, tmp_path: Path, change: dict, text: str
):
    tiny.fit(data, epochs=1, checkpoint=tmp_path, **QUICK)
    with pytest.raises(CheckpointError, match=text):
        tiny.fit(data, **{"epochs": 2, "checkpoint": tmp_path, "resume": True, **QUICK, **change})


def test_another_network_is_refused_before_anything_changes(tiny, data: Dataset, tmp_path: Path):
    tiny.fit(data, epochs=1, checkpoint=tmp_path, **QUICK)
    other = type(tiny)()
    other.extra = nn.Linear(2, 2)
    optimizer = optim.Adam(other.parameters(), 0.9)
    with pytest.raises(CheckpointError, match=r"epoch-0001\.safetensors: .* missing extra\.weight"):
        other.fit(
            data,
            epochs=2,
            checkpoint=tmp_path,
            resume=True,
            optimizer=optimizer,
            recipe=Recipe(lr=2.5e-3),
            **QUICK,
        )
    assert optimizer.lr == pytest.approx(2.5e-3 / 25)  # where the recipe's schedule starts


def test_what_a_kill_in_the_middle_of_a_write_leaves_is_cleared_away(tiny, data: Dataset, tmp_path: Path):
    (tmp_path / ".epoch-0001.safetensors.abc").write_bytes(b"half")
    tiny.fit(data, epochs=1, checkpoint=tmp_path, **QUICK)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-0000.safetensors", "epoch-0001.safetensors"]


def test_a_row_that_a_kill_kept_from_the_table_is_written_on_resume(tiny, data: Dataset, tmp_path: Path):
    class Killed(Callback):
        def epoch_end(self, run: object) -> None:
            raise ZeroDivisionError

    folder = tmp_path / "c"
    with pytest.raises(ZeroDivisionError):
        tiny.fit(data, epochs=1, checkpoint=folder, callbacks=[Killed()], **QUICK)
    tiny.fit(
        data, epochs=1, checkpoint=folder, resume=True, callbacks=[CSVLogger(tmp_path / "m.csv")], **QUICK
    )
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 2


def test_a_moving_average_is_what_a_finished_run_resumes_to(tiny, data: Dataset, tmp_path: Path):
    options = {"epochs": 1, "checkpoint": tmp_path, "recipe": Recipe(ema_decay=0.9), **QUICK}
    tiny.fit(data, **options)
    averaged = tiny.state_dict()
    tiny.reset()
    tiny.fit(data, resume=True, **options)
    for name, value in tiny.state_dict().items():
        np.testing.assert_array_equal(value, averaged[name])


def test_a_model_file_is_no_checkpoint(tiny, tmp_path: Path):
    tiny.save(tmp_path / "epoch-0001.safetensors")
    with pytest.raises(CheckpointError, match=r"it is no checkpoint"):
        checkpoint.load(tmp_path / "epoch-0001.safetensors")


def test_a_crash_while_writing_leaves_the_last_good_checkpoint(
    tiny, data: Dataset, tmp_path: Path, monkeypatch
):
    tiny.fit(data, epochs=1, checkpoint=tmp_path, **QUICK)
    with monkeypatch.context() as patched:
        patched.setattr(
            os, "replace", lambda a, b: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(OSError, match="No space left"):
            tiny.fit(data, epochs=2, checkpoint=tmp_path, resume=True, **QUICK)
    assert checkpoint.latest(tmp_path).name == "epoch-0001.safetensors"
    assert json.dumps(checkpoint.load(checkpoint.latest(tmp_path))[1]["history"])
    assert len(tiny.fit(data, epochs=2, checkpoint=tmp_path, resume=True, **QUICK).history["loss"]) == 2
