"""minidl against PyTorch: tests/peers/compare.py of a checkout, found and run."""

import json
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

COMPARE = Path(__file__).resolve().parents[2] / "tests" / "peers" / "compare.py"


class NoRace(LookupError):
    """What a race needs is not here."""


def check(names: Sequence[str]) -> None:
    """NoRace, saying what is missing, unless every one of these models can be raced here."""
    if not COMPARE.is_file():
        raise NoRace(
            f"against torch: there is no {COMPARE}, which does the comparison and comes with the repository, "
            "not with an installed minidl; clone it and pip install -e ."
        )
    if find_spec("torch") is None:
        raise NoRace("against torch: PyTorch is not installed; pip install torch (a CPU build)")
    cases = runpy.run_path(str(COMPARE))["CASES"]
    for name in names:
        if name not in cases:
            raise NoRace(
                f"against torch: there is no case for {name!r} in {COMPARE}; the cases are {', '.join(cases)}"
            )


def run(
    names: Sequence[str], *, training: bool, steps: int, threads: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Race these models, `say` every line that compare.py prints, and return its rows.

    ChildProcessError when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        words = [*names, "--pairs", str(steps), "--threads", str(threads), *([] if training else ["--infer"])]
        command = [sys.executable, str(COMPARE), *words, "--json", str(rows)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                say(line.rstrip("\n"))
        if process.returncode:
            raise ChildProcessError(f"{COMPARE} ended with code {process.returncode}; what it said is above")
        return json.loads(rows.read_text(encoding="utf-8"))
