"""Checks minidl's CUDA backend on a machine with an NVIDIA GPU and PyTorch, and measures it there.

    python tests/gpu/check.py --budget 540 --json check.jsonl
    python tests/gpu/check.py --budget 240 --device cudasim --tiny         # end to end without a GPU
    python tests/gpu/check.py --budget 120 --only convolutions layers

The phases are the modules of checks/. Each runs in a process of its own, for an illegal address ends all CUDA
work of a process, and has a deadline: its share of the budget, and what the phases before it left of theirs.
One that fails or runs out of time is recorded as that, and the next one runs.

The JSON file gets a line for each thing found, as soon as it is there: "phase", "what", "seconds" and the
figures; "passed" where something is judged, and "failure", the error, where there was one. The line of a
phase itself says "status". A short table comes last. Exit status 1 if something is wrong in a phase that
judges, or if it could not finish.

Needs NumPy, torch, CuPy, and g++ for the emulator, but nothing else that minidl may import; and of this
repository minidl, minidl_models, kernels and tests. Without $MINIDL_CACHE, what the emulator builds is kept
in a temporary folder.
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from checks.report import Report, Setting, in_words

HERE = Path(__file__).resolve().parent

SHOWN = 10  # failures in the summary
LISTED = 6  # ratios that are all told; of more the mean and the lowest


class Phase(NamedTuple):
    """A module with run(setting, report), and what part of the budget it gets beside the others.

    judges  whether what fails there is an error in minidl
    """

    module: str
    share: float
    judges: bool

    @property
    def name(self) -> str:
        """The module's own name."""
        return self.module.rpartition(".")[2]


PHASES = (
    Phase("checks.machine", 2, judges=False),
    Phase("checks.operations", 2, judges=True),
    Phase("checks.convolutions", 3, judges=True),
    Phase("checks.determinism", 3, judges=True),
    Phase("checks.curves", 1.5, judges=True),
    Phase("checks.layers", 3, judges=False),
    Phase("checks.steps", 4, judges=False),
)


class Outcome(NamedTuple):
    """How a phase ended: "passed" (or "done", where nothing is judged), or what went wrong."""

    phase: Phase
    status: str
    seconds: float
    records: list[dict[str, Any]]

    @property
    def good(self) -> bool:
        """Whether minidl is in order as far as this phase can say."""
        return self.status in ("passed", "done") or not self.phase.judges


def run(phases: Sequence[Phase], setting: Setting, path: Path, budget: float) -> list[Outcome]:
    """Run the phases one after the other, and tell how each ended; all is in the file as well."""
    end = time.time() + budget
    outcomes = []
    for i, phase in enumerate(phases):
        share = phase.share / sum(later.share for later in phases[i:])
        print(f"-- {phase.name}", flush=True)
        outcomes.append(run_phase(phase, setting, path, max(1.0, share * (end - time.time()))))
    return outcomes


def run_phase(phase: Phase, setting: Setting, path: Path, seconds: float) -> Outcome:
    """Run one phase in a process of its own, and end that when its time is over."""
    start = time.time()
    until = start + 0.9 * seconds  # when it is to stop by itself
    process = multiprocessing.get_context("spawn").Process(target=work, args=(phase, setting, path, until))
    process.start()
    process.join(seconds)
    killed = process.is_alive()
    if killed:
        process.kill()
        process.join()
    records = [record for record in read(path) if record["phase"] == phase.name]
    status = judge(phase, records, killed, process.exitcode)
    outcome = Outcome(phase, status, time.time() - start, records)
    Report(phase.name, path).write("the phase", {"status": status}, outcome.seconds)
    return outcome


def work(phase: Phase, setting: Setting, path: Path, until: float) -> None:
    """What the process of a phase does."""
    report = Report(phase.name, path, until)
    try:
        import_module(phase.module).run(setting, report)
    except Exception as error:
        traceback.print_exc()
        report.write("outside of a check", {"passed": False, "failure": f"{type(error).__name__}: {error}"})


def judge(phase: Phase, records: Sequence[dict[str, Any]], killed: bool, exit_code: int | None) -> str:
    """How a phase ended, from what it has written down."""
    if any(record.get("passed") is False for record in records):
        return "FAILED"
    if killed or any("left_out" in record for record in records):
        return "OUT OF TIME"
    if exit_code:
        return f"CRASHED ({exit_code})"
    return "passed" if phase.judges else "done"


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of the file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The first failures, and the table."""
    failed = [r for outcome in outcomes for r in outcome.records if r.get("passed") is False]
    for record in failed[:SHOWN]:
        yield f"FAILED {record['phase']}: {record['what']}: {in_words(record)}"
    if len(failed) > SHOWN:
        yield f"and {len(failed) - SHOWN} more"
    for outcome in outcomes:
        yield f"{outcome.phase.name:13} {outcome.status:13} {outcome.seconds:6.1f} s"
        yield from (f"    {finding}" for finding in findings(outcome.records))


def findings(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A phase in few words: how many checks passed, the worst error under each bound, the ratios."""
    judged = [record for record in records if "passed" in record]
    if judged:
        yield f"{sum(record['passed'] for record in judged)} of {len(judged)} passed"
    for bound in sorted({record["bound"] for record in judged if "bound" in record}):
        errors = [
            (error, record["what"], part)
            for record in judged
            if record.get("bound") == bound
            for part, error in record["errors"].items()
        ]
        error, what, part = max(errors, key=lambda each: (math.isnan(each[0]), each[0]))
        yield f"worst error {error:.1e}, bound {bound:.0e} ({what}: {part})"
    ratios = {record["what"]: record["ratio"] for record in records if "ratio" in record}
    if len(ratios) > LISTED:
        lowest = min(ratios, key=lambda what: ratios[what])
        mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
        yield f"ratio {mean:.2f} on average of {len(ratios)}, lowest {ratios[lowest]:.2f} ({lowest})"
    elif ratios:
        yield "ratio " + ", ".join(f"{what} {ratio:.2f}" for what, ratio in ratios.items())
    yield from (record["headline"] for record in records if "headline" in record)
    yield from (f"{record['left_out']} left out" for record in records if "left_out" in record)


@contextmanager
def cache() -> Iterator[None]:
    """A folder for what is built, if none is named."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("MINIDL_CACHE", folder)
        yield


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Check minidl's CUDA backend against PyTorch, and time both."
    )
    names = [phase.name for phase in PHASES]
    parser.add_argument(
        "--budget", type=float, required=True, metavar="SECONDS", help="for all phases together"
    )
    parser.add_argument("--json", type=Path, help="the file that gets a line for all that is found")
    parser.add_argument("--device", choices=("cuda", "cudasim"), default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="few and small shapes, as the emulator needs them"
    )
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="PHASE", help=", ".join(names)
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None, say: Callable[[str], Any] = print) -> int:
    """The exit status: 2 where there is no such device."""
    from minidl import backend, errors  # once its folder is on the path

    options = arguments(words)
    phases = [phase for phase in PHASES if phase.name in options.only]
    try:
        backend.check_device(options.device)
    except errors.DeviceError as error:
        say(str(error))
        return 2
    with cache(), tempfile.TemporaryDirectory() as folder:
        path = options.json or Path(folder) / "check.jsonl"
        path.write_text("", encoding="utf-8")
        outcomes = run(phases, Setting(options.device, options.tiny), path, options.budget)
    for line in summary(outcomes):
        say(line)
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.path[1:1] = [str(HERE.parents[1]), str(HERE.parent / "peers")]  # which the phases' processes get too
    sys.exit(main())
