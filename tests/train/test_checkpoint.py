"""Kill a run anywhere, resume it, and the bits are those of a run that was never killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl import nn, optim
from minidl.data import Dataset
from minidl.errors import CheckpointError
from minidl.io import save_arrays
from minidl.train import Recipe, checkpoint
from minidl.train.callbacks import Callback, CSVLogger

# A run of four epochs of three steps each, with every kind of state. If asked it kills itself in the middle
# of step `kill`, or at the `kill`th call of a function of os while a checkpoint is being written.
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

folder, kill, where, minutes = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
md.set_num_threads(1)
net = Net()
calls = 0
def count():
    global calls
    calls += 1
    if calls == kill:
        os.kill(os.getpid(), signal.SIGKILL)
if where == "step":
    net.out.register_forward_hook(lambda module, inputs, output: net.training and count())
else:
    function = getattr(os, where)
    setattr(os, where, lambda *args: (count(), function(*args), None)[-1])
recipe = Recipe("rmsprop", 0.01, momentum=0.9, schedule="cosine", ema_decay=0.9, label_smoothing=0.1,
                augment="crop+flip")
net.fit(synthetic(66, 10, shape=(8, 8, 3), num_classes=3), epochs=4, batch_size=20, seed=7, recipe=recipe,
        verbose=False, checkpoint=folder, checkpoint_minutes=minutes, resume=True)
kill = 0
net.save(os.path.join(folder, "final.safetensors"))
"""


def run(folder: Path, kill: int = 0, where: str = "step", minutes: float = 1e9) -> int:
    words = [sys.executable, "-c", RUN, str(folder), str(kill), where, str(minutes)]
    return subprocess.run(words, check=False, timeout=300).returncode


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The final file of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("whole") / "c"
    assert run(folder) == 0
    return (folder / "final.safetensors").read_bytes()


# in the first epoch; at the start, in the middle and at the end of a later one; and twice in one run
@pytest.mark.parametrize("kills", [[2], [4], [8], [9], [5, 5]], ids=str)
def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, expected: bytes, kills: list[int]):
    for kill in kills:
        assert run(tmp_path, kill) == -signal.SIGKILL
        assert not list(tmp_path.glob("final*"))
    assert run(tmp_path) == 0
    assert (tmp_path / "final.safetensors").read_bytes() == expected


# a checkpoint calls fsync for itself and then for its folder: at an odd call its file is not yet in its place
@pytest.mark.parametrize(
    "kills",
    [[("step", 5), ("step", 2)], [("fsync", 8)], [("replace", 7)], [("fsync", 9), ("fsync", 4)]],
    ids=str,
)
def test_a_run_with_a_checkpoint_at_each_step_resumes_to_the_same_bits(
    tmp_path: Path, expected: bytes, kills: list[tuple[str, int]]
):
    for where, kill in kills:
        assert run(tmp_path, kill, where, minutes=0) == -signal.SIGKILL
        assert "-batch-" in checkpoint.latest(tmp_path).name
    assert run(tmp_path, minutes=0) == 0
    assert (tmp_path / "final.safetensors").read_bytes() == expected


QUICK = {"batch_size": 20, "verbose": False, "seed": 3}


def test_the_last_two_are_kept(tiny, data: Dataset, tmp_path: Path):
    tiny.fit(data, epochs=4, checkpoint=tmp_path, **QUICK)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "epoch-0003.safetensors",
        "epoch-0004.safetensors",
    ]
    assert checkpoint.latest(tmp_path) == tmp_path / "epoch-0004.safetensors"


def test_as_many_are_kept_as_asked_for(tiny, data: Dataset, tmp_path: Path):
    tiny.fit(data, epochs=4, checkpoint=tmp_path, checkpoint_keep=3, checkpoint_minutes=0, **QUICK)
    assert [p.stem for p in sorted(tmp_path.iterdir())] == ["epoch-0002", "epoch-0003", "epoch-0004"]


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
        with pytest.raises(CheckpointError, match=r"No space left.*The last good .* is .*epoch-0001\.safe"):
            tiny.fit(data, epochs=2, checkpoint=tmp_path, resume=True, **QUICK)
    assert checkpoint.latest(tmp_path).name == "epoch-0001.safetensors"
    assert json.dumps(checkpoint.load(checkpoint.latest(tmp_path))[1]["history"])
    assert len(tiny.fit(data, epochs=2, checkpoint=tmp_path, resume=True, **QUICK).history["loss"]) == 2


# A child process in whose files no more than so many bytes fit, as if the disk were full.
FULL = """
import resource, signal, sys
import numpy as np
import minidl as md
from minidl.errors import CheckpointError
from minidl.train.callbacks import Callback
from tests.train.conftest import Tiny

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
class Fill(Callback):
    def step_end(self, run, loss):
        if run.epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
net = Tiny()
before = net.state_dict()
try:
    net.fit(md.data.synthetic(60, 20, shape=(8, 8, 3), num_classes=3), epochs=3, batch_size=20,
            checkpoint=sys.argv[1], callbacks=[Fill()], verbose=False)
except CheckpointError as error:
    print(error)
    assert all(np.isfinite(value).all() for value in net.state_dict().values())
    assert (net.state_dict()["out.weight"] != before["out.weight"]).all()
    assert net.predict(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 3)
"""


def test_a_full_disk_ends_the_run_and_harms_nothing(tiny, data: Dataset, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        check=True,
        timeout=300,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert "epoch-0002.safetensors cannot be written (File too large)" in done.stdout
    last = tmp_path / "epoch-0001.safetensors"
    assert f"The last good checkpoint is {last}; the model keeps the weights it has now" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0000.safetensors", last.name]
    assert len(tiny.fit(data, epochs=3, batch_size=20, checkpoint=tmp_path, resume=True).history["loss"]) == 3


def test_the_first_checkpoint_of_a_full_disk(tiny, data: Dataset, tmp_path: Path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*There is no checkpoint before it"):
        tiny.fit(data, epochs=1, checkpoint=tmp_path / "c", **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_before_batches_were_counted_is_named(tmp_path: Path):
    path = tmp_path / "epoch-0001.safetensors"
    save_arrays(path, {}, {"epoch": 1, "parts": [], "plain": {}})
    with pytest.raises(CheckpointError, match=r"it is no checkpoint \(it has no 'batch'\)"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("arrays", "changes"),
    [({"x": np.zeros(1)}, {}), ({}, {"parts": 3}), ({}, {"parts": [[]]}), ({}, {"plain": {"a/b": 1}})],
)
def test_a_description_that_nobody_wrote(tmp_path: Path, arrays: dict[str, np.ndarray], changes: dict):
    path = tmp_path / "epoch-0001.safetensors"
    save_arrays(path, arrays, {"epoch": 1, "batch": 0, "parts": [], "plain": {}} | changes)
    with pytest.raises(CheckpointError, match="holds arrays, but it is no checkpoint"):
        checkpoint.load(path)


@pytest.mark.parametrize("lack", ["part", "preprocess", "parameters"])
def test_a_checkpoint_without_a_whole_model(tmp_path: Path, lack: str):
    parts: dict[str, Any] = {"model": {}, "preprocess": {}, "ema": {}}
    description = {"model": {"name": "Tiny", "arguments": {}}, "preprocess": None, "parameters": ["x"]}
    parts.pop("model" if lack == "part" else "", None)
    description.pop(lack, None)
    path = checkpoint.save(tmp_path, 1, parts, description)
    with pytest.raises(CheckpointError, match=r"does not hold a whole model \(it lacks "):
        checkpoint.read_model(path, "ema")


def fitted(tiny: Any, data: Dataset, folder: Path, **options: Any) -> Path:
    """The checkpoint of a run that fitted its preprocessing to the images."""
    recipe = Recipe(preprocess="gcn+zca", **options)
    tiny.fit(data, epochs=1, checkpoint=folder, recipe=recipe, **QUICK)
    return checkpoint.latest(folder)


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_a_checkpoint_is_a_model_by_itself(tiny, data: Dataset, tmp_path: Path, weights: str):
    path = fitted(tiny, data, tmp_path, ema_decay=0.5)
    description, arrays = checkpoint.read_model(path, weights)
    assert sorted(description) == ["format", "model", "preprocess"]
    save_arrays(tmp_path / "model.safetensors", arrays, description)
    model = type(tiny).load(tmp_path / "model.safetensors")
    same = all((model.state_dict()[k] == v).all() for k, v in tiny.state_dict().items())
    assert same == (weights == "ema")  # which fit ends with
    if same:
        tiny.save(tmp_path / "tiny.safetensors")
        assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "tiny.safetensors").read_bytes()
        np.testing.assert_array_equal(model.predict(data.test.images), tiny.predict(data.test.images))


def test_the_fitted_preprocessing_is_in_the_checkpoint(tiny, data: Dataset, tmp_path: Path):
    fitted(tiny, data, tmp_path)
    expected = tiny.predict(data.test.images)
    other = type(tiny)()
    other.fit(data, epochs=1, checkpoint=tmp_path, resume=True, recipe=Recipe(preprocess="gcn+zca"), **QUICK)
    np.testing.assert_array_equal(other.predict(data.test.images), expected)


def test_weights_that_are_not_there(tiny, data: Dataset, tmp_path: Path):
    tiny.fit(data, epochs=1, checkpoint=tmp_path, **QUICK)
    path = checkpoint.latest(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"epoch-0001\.safetensors has no moving average of the weights"
    ):
        checkpoint.read_model(path, "ema")
    with pytest.raises(ValueError, match="weights is 'best'; it may be 'raw' or 'ema'"):
        checkpoint.read_model(path, "best")  # type: ignore[arg-type]


def test_a_model_that_cannot_be_described_still_has_checkpoints(data: Dataset, tmp_path: Path):
    class Odd(md.Model):
        def __init__(self, pool: Any) -> None:
            self.pool, self.flat, self.out = pool, nn.Flatten(), nn.Linear(48, 3)

        def forward(self, x: md.Tensor) -> md.Tensor:
            return self.out(self.flat(self.pool(x)))

    model = Odd(nn.MaxPool2d(2))
    model.fit(data, epochs=1, checkpoint=tmp_path, **QUICK)
    with pytest.raises(CheckpointError, match="does not say how its model is built"):
        checkpoint.read_model(checkpoint.latest(tmp_path))
    assert len(model.fit(data, epochs=2, checkpoint=tmp_path, resume=True, **QUICK).history["loss"]) == 2
