"""Which algorithm a convolution runs: named, shown and forced through here, chosen by each backend.

A backend's own `choose` function looks at shapes and dtype alone, so a run repeats exactly. `force_plan`
overrules it wherever the forced plan is valid; everywhere else the usual one runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

NAMES = ("auto", "pointwise", "direct", "winograd", "im2col")

_forced = "auto"


@dataclass(frozen=True)
class Plan:
    """The algorithm for one convolution, and why it was chosen."""

    name: str
    reason: str


@contextmanager
def force_plan(name: str) -> Iterator[None]:
    """Inside, every convolution for which plan `name` is valid runs it; "auto" is the usual choice.
    ValueError for another name."""
    global _forced
    if name not in NAMES:
        raise ValueError(f"force_plan: there is no plan {name!r}; the plans are {', '.join(NAMES)}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def forced(valid: tuple[str, ...]) -> Plan | None:
    """The forced plan if it is one of the `valid` ones, else None."""
    return Plan(_forced, "forced by force_plan") if _forced in valid else None
