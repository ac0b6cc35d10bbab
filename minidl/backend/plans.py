"""Which algorithm a convolution runs: named, shown and forced through here, chosen by each backend.

A backend's own `choose` function looks at shapes and dtype alone, so a run repeats exactly. `force_plan`
overrules it wherever the forced plan is valid; everywhere else the usual one runs. Each pass tells `noted`
what it is about to run, and `watching` sees it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

NAMES = ("auto", "pointwise", "direct", "winograd", "im2col")

_forced = "auto"
_watchers: "list[Callable[[str, Plan], None]]" = []


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


@contextmanager
def watching(see: Callable[[str, Plan], None]) -> Iterator[None]:
    """Inside, see(pass, plan) is called whenever a convolution computes: pass is "forward", "grad_x" or
    "grad_weight", plan what runs."""
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.remove(see)


def noted(which: str, plan: Plan) -> Plan:
    """`plan`, told to those who watch as what pass `which` runs; a forced plan that does not fit is in the
    reason."""
    if _watchers:
        told = plan
        if _forced not in ("auto", plan.name):
            told = replace(plan, reason=f"{_forced} is forced but not valid here; as usual, {plan.reason}")
        for see in _watchers:
            see(which, told)
    return plan
