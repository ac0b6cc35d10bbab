"""Compiling ahead: what is noted, what is kept, and what a user is told."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import minidl as md
from minidl import cli, nn
from minidl.backend import cpu
from minidl.backend.cpu import compile as compiling
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
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    compiling.cache_folder.cache_clear()
    yield tmp_path
    compiling.cache_folder.cache_clear()


def test_machine_code_is_kept_where_the_user_says_and_only_compilation_is_noted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plus_one, "__module__", f"{compiling.__package__}.here")
    noted: list[str] = []
    assert cpu.is_cold()
    with cpu.compilation(noted.append):
        assert compiling.compiled(plus_one)(1.0) == 2.0
        assert noted == ["plus_one"]
        assert compiling.compiled(plus_one)(2.0) == 3.0  # a new process would do so: read from the folder
    assert noted == ["plus_one"]
    assert not cpu.is_cold()
    assert folder in next(folder.rglob("*.nbi")).parents


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
    monkeypatch.setattr(cli, "_build", lambda name, arguments: built.append(name) or Net())
    result = CliRunner().invoke(cli.main, ["warmup", "one", "two"])
    assert result.exit_code == 0, result.output
    assert built == ["one", "two"]
    assert str(cpu.cache_folder()) in result.output
    CliRunner().invoke(cli.main, ["warmup"])
    assert tuple(built[2:]) == cli.COMMON
