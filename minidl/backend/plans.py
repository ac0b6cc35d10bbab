"""Which algorithm a convolution runs: named, shown and forced through here, chosen by each backend.

A backend's own choice looks at shapes and dtype alone, so a run repeats exactly. A table of measured plans
(`use_table`; minidl/train/tune.py makes one) takes its place for the passes it holds, and `force_plan`
overrules both wherever the forced plan is valid. Each pass has `settle` say what it runs, and `watching` sees
it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from minidl.window import Window

NAMES = ("auto", "pointwise", "direct", "winograd", "im2col")

_forced = "auto"
_table: Mapping[str, str] = {}
_watchers: "list[Callable[[Pass, Plan], None]]" = []


class Pass(NamedTuple):
    """One pass of a convolution: what a plan is chosen for.

    which     "forward", "grad_x" or "grad_weight"
    channels  of the images; filters: of the outputs
    """

    which: str
    window: Window
    dtype: np.dtype
    groups: int
    channels: int
    filters: int
    images: int

    def __str__(self) -> str:
        """All of it in words, the key of a table of measured plans."""
        w = self.window
        size, kernel, stride, dilation = (f"{a}x{b}" for a, b in (w.size, w.kernel, w.stride, w.dilation))
        return (
            f"{self.which} {self.images}x{size}x{self.channels}, {kernel} to {self.filters}, "
            f"stride {stride}, padding {w.padding}, dilation {dilation}, groups {self.groups}, {self.dtype}"
        )


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


def use_table(table: Mapping[str, str]) -> None:
    """From now on passes in `table`, the words of a `Pass` -> a plan's name, run that plan; {} ends it."""
    global _table
    _table = dict(table)


def forced(valid: tuple[str, ...]) -> Plan | None:
    """The forced plan if it is one of the `valid` ones, else None."""
    return Plan(_forced, "forced by force_plan") if _forced in valid else None


def settle(work: Pass, valid: tuple[str, ...], usual: Plan) -> Plan:
    """What a pass runs: the forced plan, the measured one, or the backend's usual choice; told to those who
    watch, with a forced plan that does not fit in the reason."""
    plan = forced(valid) or _measured(work, valid) or usual
    if _watchers:
        told = plan
        if _forced not in ("auto", plan.name):
            told = replace(plan, reason=f"{_forced} is forced but not valid here; as usual, {plan.reason}")
        for see in _watchers:
            see(work, told)
    return plan


def _measured(work: Pass, valid: tuple[str, ...]) -> Plan | None:
    name = _table.get(str(work)) if _table else None
    return Plan(name, "the fastest when measured") if name in valid else None


@contextmanager
def watching(see: Callable[[Pass, Plan], None]) -> Iterator[None]:
    """Inside, see(work, plan) is called whenever a convolution computes: which pass, and what runs."""
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.remove(see)
