"""Measured plans: what is measured, the file, and the run that goes by it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import minidl as md
from minidl import cli, nn
from minidl.backend import cpu, plans
from minidl.errors import DataError
from minidl.train import read_table, tune, write_table


class Net(md.Model):
    input_shape = (16, 16, 3)
    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, activation="relu")
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return self.fc(md.ops.global_avg_pool(self.conv(self.stem(x))))


@pytest.fixture(autouse=True)
def no_table() -> Iterator[None]:
    yield
    plans.use_table({})


def let_im2col_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that the cost model never takes in float32 is measured as the fastest."""
    monkeypatch.setattr(cpu, "measure_plans", lambda work: {"direct": 2.0, "im2col": 1.0, "winograd": 3.0})


def plans_of_a_step(net: md.Model) -> dict[str, str]:
    seen: dict[str, str] = {}
    with plans.watching(lambda work, plan: seen.update({str(work): plan.name})):
        net.fit(
            np.zeros((4, 16, 16, 3), np.float32), np.arange(4) % 3,
            epochs=1, batch_size=4, validation=None, verbose=False,
        )  # fmt: skip
    return seen


def test_every_pass_of_a_step_is_measured_by_every_valid_plan() -> None:
    state, noted = md.streams.get_state(), []
    table = tune(Net(), 4, noted.append)
    assert list(table) == noted
    assert sorted(words.split(",")[0] for words in table) == [
        "forward 4x16x16x16", "forward 4x16x16x3", "grad_weight 4x16x16x16", "grad_weight 4x16x16x3",
        "grad_x 4x16x16x16",
    ]  # fmt: skip
    net = Net()
    md.streams.set_state(state)
    assert plans_of_a_step(net).keys() == table.keys()


def test_a_plan_is_measured_as_it_would_run() -> None:
    seen = []
    with plans.watching(lambda work, plan: seen.append((work, plan.name))):
        md.ops.conv2d(np.ones((2, 8, 8, 4), np.float32), np.ones((3, 3, 4, 8), np.float32), padding=1)
        work = seen.pop()[0]
        seconds = cpu.measure_plans(work, runs=2)
    assert set(seconds) == {"im2col", "direct", "winograd"}
    assert min(seconds.values()) > 0
    assert seen == [(work, name) for name in seconds for _ in range(3)]


def test_a_table_rules_the_passes_it_holds_but_not_a_forced_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    usual = plans_of_a_step(net)
    let_im2col_win(monkeypatch)
    table = tune(net, 4, lambda work: None)
    first = next(iter(table))
    plans.use_table({first: "im2col", "something else": "winograd"})
    assert plans_of_a_step(net) == usual | {first: "im2col"} != usual
    with md.force_plan("direct"):
        assert set(plans_of_a_step(net).values()) == {"direct"}
    plans.use_table({first: "pointwise"})  # not valid for a 3x3 window
    assert plans_of_a_step(net) == usual


def test_a_file_holds_it_and_says_what_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plans.json"
    table = {"forward 1x8x8x3": "direct"}
    write_table(path, table)
    assert read_table(path) == table
    assert json.loads(path.read_text())["threads"] == md.get_num_threads()
    monkeypatch.setattr(cpu, "plan_conditions", lambda: {"device": "cpu", "threads": 99, "lanes": 1})
    with pytest.raises(DataError, match=r"was made with threads = .*, here it is 99: measure anew with"):
        read_table(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no table of plans: Expecting"),
        ("[1]", "make one with `minidl warmup MODEL --tune"),
        ('{"plans": {}}', "make one with `minidl warmup MODEL --tune"),
        (None, "it names plans that do not exist; there are auto, pointwise, direct"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "plans.json"
    if content is None:
        write_table(path, {"forward": "guess"})
    else:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_table(path)


def test_the_command_measures_and_a_run_says_what_it_went_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_im2col_win(monkeypatch)
    file, run = tmp_path / "plans.json", tmp_path / "run"
    options = ["--tune", str(file), "--batch-size", "32"]
    result = CliRunner().invoke(cli.main, ["warmup", "resnet20", *options])
    assert result.exit_code == 0, result.output
    table = read_table(file)
    assert f"{len(table)} plans are in {file}" in result.output
    options = [
        "--epochs",
        "1",
        "--limit",
        "64",
        "--batch-size",
        "32",
        "--plans",
        str(file),
        "--out",
        str(run),
    ]
    ran: set[str] = set()
    with plans.watching(lambda work, plan: ran.add(plan.name) if str(work) in table else None):
        result = CliRunner().invoke(cli.main, ["train", "resnet20", *options, "--fit-images"])
    assert result.exit_code == 0, result.output
    assert json.loads((run / "config.json").read_text())["plans"] == table
    assert ran == {"im2col"}
    other = tmp_path / "other.json"
    write_table(other, dict.fromkeys(table, "direct"))
    again = ["train", "resnet20", "--out", str(run), "--resume"]
    result = CliRunner().invoke(cli.main, [*again, "--plans", str(other)])
    assert result.exit_code == 1
    assert "began with plans = " in result.output
    assert "leave it out" in " ".join(result.output.split())
    assert len(result.output) < 600  # not both tables
    file.unlink()
    ran.clear()
    with plans.watching(lambda work, plan: ran.add(plan.name) if str(work) in table else None):
        result = CliRunner().invoke(cli.main, [*again, "--epochs", "2"])
    assert result.exit_code == 0, result.output
    assert ran == {"im2col"}


def test_the_command_says_at_once_that_there_is_no_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.main, ["warmup", "nin", "--tune", str(tmp_path / "none" / "plans.json")])
    assert result.exit_code == 2
    assert "make it first" in result.output
