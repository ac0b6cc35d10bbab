"""What every phase is given: the setting it runs in, and the report it writes."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")
Figures = dict[str, Any]


class Setting(NamedTuple):
    """Where minidl computes, and whether on shapes that the emulator can bear."""

    device: str
    tiny: bool

    @property
    def gpu(self) -> bool:
        """Whether there is a GPU: the emulator is "cudasim"."""
        return self.device != "cudasim"

    @property
    def torch_device(self) -> str:
        """Where PyTorch computes."""
        return "cuda" if self.gpu else "cpu"


class Report:
    """A phase's part of the file of results: a line of JSON for each thing found, written at once.

    until  when (by time.time()) the phase should come to its end
    """

    def __init__(self, phase: str, path: Path, until: float = math.inf) -> None:
        self.phase, self.path, self.until = phase, path, until

    def record(self, what: str, measure: Callable[[], Figures]) -> Figures:
        """Write down what `measure` returns, or that it failed, and return it."""
        start = time.time()
        try:
            figures = measure()
        except Exception as error:
            figures = {"passed": False, "failure": f"{type(error).__name__}: {error}"}
        self.write(what, figures, time.time() - start)
        return figures

    def write(self, what: str, figures: Figures, seconds: float = 0.0) -> None:
        """Write down figures, and print them unless they say no more than that all is well."""
        line = {"phase": self.phase, "what": what, **figures, "seconds": round(seconds, 3)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if not figures.get("passed") and "status" not in figures:
            print(f"{what}: {in_words(figures)}", flush=True)

    def in_time(self, items: Sequence[Item]) -> Iterator[Item]:
        """The items, as long as there is time; how many are left out is written down."""
        for i, item in enumerate(items):
            if time.time() > self.until:
                self.write("out of time", {"left_out": len(items) - i})
                return
            yield item


def in_words(figures: Figures) -> str:
    """Figures on one line."""
    for key in ("failure", "text"):
        if key in figures:
            return figures[key].partition("\n")[0]
    words = (
        f"{key} {value:.4g}" if type(value) is float else f"{key} {value}"
        for key, value in figures.items()
        if key != "headline"
    )
    return ", ".join(words)
