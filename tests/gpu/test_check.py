"""check.py runs from end to end without a GPU; it sees what is wrong, and outlives what goes wrong.

What computes needs PyTorch (`pip install torch==2.13.0`) and g++, and is skipped without.
"""

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl.backend.cache import cache_folder

HERE = Path(__file__).resolve().parent

needs_torch_and_gcc = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or shutil.which("g++") is None,
    reason="comparing the emulator with PyTorch takes g++ and torch (pip install torch==2.13.0)",
)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the script by its name."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module


@pytest.fixture
def check(load: Any) -> ModuleType:
    return load("check")


@needs_torch_and_gcc
def test_it_runs_from_end_to_end_on_the_emulator(tmp_path: Path, check: ModuleType) -> None:
    found = tmp_path / "check.jsonl"
    words = ["--budget", "300", "--device", "cudasim", "--tiny", "--json", str(found)]
    command = [sys.executable, str(HERE / "check.py"), *words]
    kept = dict(os.environ, MINIDL_CACHE=str(cache_folder()))
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=kept)
    assert result.returncode == 0, result.stdout + result.stderr
    records = check.read(found)
    ends = {record["phase"]: record["status"] for record in records if "status" in record}
    assert ends == {phase.name: "passed" if phase.judges else "done" for phase in check.PHASES}
    assert not [record for record in records if record.get("passed") is False]


# ---- The phases --------------------------------------------------------------------------------------------

MODULES = {
    "hangs": "import time\ndef run(setting, report):\n    report.write('first', {})\n    time.sleep(600)\n",
    "fine": "def run(setting, report):\n    report.record('sum', lambda: {'passed': 1 + 1 == 2})\n",
    "wrong": "def run(setting, report):\n    report.record('sum', lambda: {'passed': False})\n",
    "fails": "def run(setting, report):\n    report.record('ratio', lambda: {'ratio': 1 / 0})\n",
    "raises": "raise ImportError('there is no such thing')\n",
    "dies": "import os\ndef run(setting, report):\n    os._exit(3)\n",
    "measures": "def run(setting, report):\n    report.record('speed', lambda: {'ratio': 0.5})\n",
}
STATUS = {
    "hangs": "OUT OF TIME",
    "fine": "passed",
    "wrong": "FAILED",
    "fails": "FAILED",
    "raises": "FAILED",
    "dies": "CRASHED (3)",
    "measures": "done",
}


@pytest.fixture
def _phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: ModuleType) -> None:
    """A phase of each kind; the one that hangs has little time."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    shares = {name: 1 if name == "hangs" else 100 for name in MODULES}
    made = [check.Phase(name, share, judges=name != "measures") for name, share in shares.items()]
    monkeypatch.setattr(check, "PHASES", tuple(made))


@pytest.mark.usefixtures("_phases")
def test_what_goes_wrong_is_written_down_and_the_next_phase_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: ModuleType
) -> None:
    path, said = tmp_path / "found.jsonl", list[str]()
    monkeypatch.setattr(md.backend, "check_device", lambda name: name)
    assert check.main(["--budget", "1200", "--json", str(path)], said.append) == 1
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert {record["phase"]: record["status"] for record in records if "status" in record} == STATUS
    failures = {record["phase"]: record["failure"] for record in records if "failure" in record}
    assert failures == {
        "fails": "ZeroDivisionError: division by zero",
        "raises": "ImportError: there is no such thing",
    }
    assert records[0] == {"phase": "hangs", "what": "first", "seconds": 0.0}
    assert "FAILED fails: ratio: ZeroDivisionError: division by zero" in said
    assert "    ratio speed 0.50" in said


@pytest.mark.parametrize("status", dict.fromkeys(STATUS.values()))
def test_only_phases_that_judge_decide(status: str, check: ModuleType) -> None:
    ends = [check.Outcome(check.Phase("name", 1, judges), status, 1.0, []).good for judges in (True, False)]
    assert ends == [status in ("passed", "done"), True]


@pytest.mark.parametrize("device", ["cuda", "cudasim"])
def test_a_device_that_is_not_there_is_told_at_once(
    device: str, check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise md.errors.DeviceError(f"device {name!r} is not available")

    monkeypatch.setattr(md.backend, "check_device", missing)
    said: list[str] = []
    assert check.main(["--budget", "1", "--device", device], said.append) == 2
    assert said == [f"device {device!r} is not available"]


def test_a_list_that_takes_too_long_is_left_and_said_to_be(
    tmp_path: Path, load: Any, check: ModuleType
) -> None:
    path = tmp_path / "found.jsonl"
    report = load("checks.report").Report("slow", path)
    done = []
    for item in report.in_time(range(5)):
        done.append(item)
        if item == 1:
            report.until = 0.0
    (record,) = check.read(path)
    assert done == [0, 1]
    assert record["left_out"] == 3
    phase = check.Phase("slow", 1, judges=True)
    assert check.judge(phase, [record], False, 0) == "OUT OF TIME"
    assert list(check.findings([record])) == ["3 left out"]


def test_the_summary_tells_the_worst_and_the_lowest(check: ModuleType) -> None:
    records = [
        {"what": "a", "passed": True, "bound": 1e-5, "errors": {"y": 1e-7, "grad 0": 3e-6}},
        {"what": "b", "passed": False, "bound": 1e-5, "errors": {"y": float("nan")}},
        {"what": "c", "passed": True, "bound": 2e-3, "errors": {"y": 1e-4}},
        {"what": "d", "passed": True},
        *({"what": f"row {i}", "ratio": ratio} for i, ratio in enumerate([0.5, 2, 1, 1, 1, 1, 1])),
        {"what": "e", "headline": "in a word"},
    ]
    assert list(check.findings(records)) == [
        "3 of 4 passed",
        "worst error nan, bound 1e-05 (b: y)",
        "worst error 1.0e-04, bound 2e-03 (c: y)",
        "ratio 1.00 on average of 7, lowest 0.50 (row 0)",
        "in a word",
    ]


# ---- What is compared --------------------------------------------------------------------------------------

ONE_WRONG = np.zeros((40, 50), np.float32)
ONE_WRONG[17, 31] = 0.01


@needs_torch_and_gcc
@pytest.mark.parametrize(
    ("ours", "wrong"),
    [
        (md.ops.sigmoid, []),
        (lambda x: md.ops.sigmoid(x) * 1.0001, ["y", "grad 0"]),
        (lambda x: md.ops.sigmoid(x) + ONE_WRONG, ["y"]),  # one number of 2,000
        (lambda x: md.ops.sigmoid(x) / ONE_WRONG * ONE_WRONG, ["y", "grad 0"]),  # NaN
        (lambda x: md.ops.sigmoid(x.detach()) + 0 * x, ["grad 0"]),
    ],
    ids=["right", "a factor", "one number", "nan", "the gradient"],
)
def test_what_is_wrong_is_seen(ours: Any, wrong: list[str], load: Any) -> None:
    agreement, torch = load("checks.agreement"), load("torch")
    setting = load("checks.report").Setting("cudasim", tiny=True)
    case = agreement.Case("sigmoid", ours, torch.sigmoid, (ONE_WRONG.shape,))
    found = agreement.agreement(case, setting)
    assert found["passed"] == (not wrong)
    assert [part for part, error in found["errors"].items() if not error <= found["bound"]] == wrong


@needs_torch_and_gcc
def test_another_shape_is_an_error(load: Any) -> None:
    agreement = load("checks.agreement")
    case = agreement.Case("sum", lambda x: md.ops.sum(x, axis=0), lambda x: x.sum(1), ((3, 4),))
    with pytest.raises(ValueError, match=r"shape"):
        agreement.agreement(case, load("checks.report").Setting("cudasim", tiny=True))


@needs_torch_and_gcc
def test_the_shapes_are_those_of_the_benchmark_networks(load: Any) -> None:
    convolutions, cases = load("checks.convolutions"), load("compare").CASES
    everything = set(convolutions.distinct(load("checks.report").Setting("cuda", tiny=False)))
    for name, case in cases.items():
        counts = convolutions.of_network(name, case.size)
        assert set(counts) <= everything
        macs = sum(each.macs() * count for each, count in counts.items())
        assert macs == pytest.approx(case.macs, rel=2e-3)  # which has the fully connected layer too
