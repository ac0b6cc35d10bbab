"""Compiling ahead: what is noted, what is kept, and what a user is told."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from click.testing import CliRunner

import minidl as md
from minidl import cli, nn
from minidl.backend import cpu
from minidl.backend.cpu import compile as compiling
from minidl.cli import looking
from minidl.train import warmup


class Net(md.Model):
    input_shape = (8, 8, 3)
    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, activation="relu")
        self.fc = nn.Linear(4, 3)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return self.fc(md.ops.global_avg_pool(self.conv(x)))


def plus_one(x: float) -> float:
    return x + 1


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been started."""
    commands: list[list[str]] = []

    def popen(command: list[str], **options: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(kill=lambda: None, communicate=lambda: None)

    monkeypatch.setattr(subprocess, "Popen", popen)
    return commands


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[list[str]]) -> Iterator[Path]:
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    monkeypatch.setattr(plus_one, "__module__", f"{compiling.__package__}.here")

    def clear() -> None:
        compiling.cache_folder.cache_clear()
        compiling._start_ahead.cache_clear()

    clear()
    yield tmp_path
    clear()


def test_machine_code_is_kept_where_the_user_says_and_only_compilation_is_noted(folder: Path) -> None:
    noted: list[str] = []
    assert cpu.is_cold()
    with cpu.compilation(noted.append):
        assert compiling.compiled(plus_one)(1.0) == 2.0
        assert noted == ["plus_one"]
        assert compiling.compiled(plus_one)(2.0) == 3.0  # a new process would do so: read from the folder
    assert noted == ["plus_one"]
    assert not cpu.is_cold()
    assert folder in next(folder.rglob("*.nbi")).parents


def test_one_other_process_compiles_meanwhile(
    folder: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 2)
    compiling.compiled(plus_one)(1.0)
    compiling.compiled(plus_one)(1)
    assert [command[-1] for command in started] == ["minidl.backend.cpu.ahead"]


@pytest.mark.parametrize("why", ["something is kept", "another was first", "there is one core"])
def test_no_other_process_is_started(
    folder: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 1 if why == "there is one core" else 2)
    if why != "there is one core":
        cpu.cache_folder().mkdir(parents=True)
        (cpu.cache_folder() / ("ahead" if why == "another was first" else "kernel.nbi")).touch()
    compiling.compiled(plus_one)(1.0)
    assert started == []


def test_the_other_process_compiles_what_a_step_needs() -> None:
    program = """
import numpy as np
from minidl import nn, ops, optim
from minidl.autograd import tensor
from minidl.backend.cpu import ahead, direct, elementwise, norm, pool, winograd
from minidl.backend.cpu.dropout import _dropout
for kernel in ahead.kernels():
    kernel()
made = [direct._correlate_weight, winograd._correlate_weight, pool._max_pool_grad, norm._column_sums,
        norm._normalize_grad, elementwise._relu_grad, _dropout]
before = [kernel.signatures.copy() for kernel in made]
assert all(before)
net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, activation="relu"), nn.MaxPool2d(2),
                    nn.Conv2d(8, 8, 3, padding=1, activation="relu"), nn.Conv2d(8, 8, 1), nn.ReLU(),
                    nn.Dropout())
ops.mean(net(tensor(np.ones((16, 64, 64, 3), np.float32)))).backward()
optim.SGD(net.parameters(), lr=0.1, momentum=0.9).step()
assert [kernel.signatures for kernel in made] == before
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_state_of_the_source_has_its_own_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cpu.cache_folder()
    assert before.parent == folder / "kernels"
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"edited")
    compiling.cache_folder.cache_clear()
    assert cpu.cache_folder() != before


def test_nothing_is_left_to_compile_and_the_streams_stay() -> None:
    before = md.streams.get_state()
    warmup(Net(), lambda kernel: None)
    noted: list[str] = []
    with cpu.compilation(noted.append):
        net = Net()
        md.streams.set_state(before)
        net.fit(
            np.zeros((4, 8, 8, 3), np.float32),
            np.arange(4) % 3,
            epochs=1,
            batch_size=2,
            validation=None,
            verbose=False,
        )
    assert noted == []
    md.streams.set_state(before)
    warmup(Net(), noted.append)
    assert noted == []


def test_a_model_must_say_what_it_takes() -> None:
    net = Net()
    net.input_shape = None
    with pytest.raises(ValueError, match=r"Net does not say what it takes; set its input_shape"):
        warmup(net, print)


def test_fit_says_why_the_first_step_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = np.zeros((4, 8, 8, 3), np.float32), np.arange(4) % 3
    Net().fit(*data, epochs=1, batch_size=2, validation=None)
    assert "compiling" not in capsys.readouterr().out
    monkeypatch.setattr(cpu, "is_cold", lambda: True)
    Net().fit(*data, epochs=1, batch_size=2, validation=None)
    assert "compiling for this processor, once" in capsys.readouterr().out


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(looking, "build", lambda name, arguments: built.append(name) or Net())
    result = CliRunner().invoke(cli.main, ["warmup", "one", "two"])
    assert result.exit_code == 0, result.output
    assert built == ["one", "two"]
    assert str(cpu.cache_folder()) in result.output
    CliRunner().invoke(cli.main, ["warmup"])
    assert tuple(built[2:]) == looking.COMMON
