"""Networks in a list and side by side, as text, from what is known of them: nothing is built or run."""

from collections.abc import Sequence
from dataclasses import dataclass

from minidl.inspection.text import aligned


@dataclass(frozen=True)
class Profile:
    """What a network is and costs.

    input_shape: (H, W, C); parameters: without auxiliary classifiers; macs: multiply-adds of one image;
    layers: convolutions and linear layers
    """

    name: str
    variant: str
    paper: str
    year: int
    input_shape: tuple[int, ...]
    parameters: int
    macs: int
    layers: int


def listing(profiles: Sequence[Profile]) -> str:
    """A line for each network."""
    cells = [("model", "variant", "parameters", "multiply-adds", "year", "paper")]
    cells += [(p.name, p.variant, f"{p.parameters:,}", f"{p.macs:,}", str(p.year), p.paper) for p in profiles]
    numbers = aligned([row[:5] for row in cells], left=2)
    return "\n".join(f"{line}  {row[5]}" for line, row in zip(numbers, cells))


def side_by_side(profiles: Sequence[Profile]) -> str:
    """A column for each network, with ratios to the first."""
    first = profiles[0]
    rows = [
        ("", *(p.name for p in profiles)),
        ("variant", *(p.variant for p in profiles)),
        ("year", *(str(p.year) for p in profiles)),
        ("input", *("x".join(map(str, p.input_shape)) for p in profiles)),
        ("layers with weights", *(str(p.layers) for p in profiles)),
        ("parameters", *(f"{p.parameters:,}" for p in profiles)),
        ("  to the first's", *(_ratio(p.parameters, first.parameters) for p in profiles)),
        ("multiply-adds", *(f"{p.macs:,}" for p in profiles)),
        ("  to the first's", *(_ratio(p.macs, first.macs) for p in profiles)),
    ]
    return "\n".join(aligned(rows, left=1))


def _ratio(found: int, first: int) -> str:
    """2.2, or 1/8.7 for what is less."""
    return f"1/{first / found:.1f}" if found < first else f"{found / first:.1f}"
