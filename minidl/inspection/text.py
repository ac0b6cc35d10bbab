"""Tables as text."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """One line per row, columns as wide as their widest cell: `left` of them to the left, the others to the
    right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def ruled(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """The same, with rules around the first row, which has the titles, and above the last, the totals."""
    lines = aligned(rows, left)
    rule = "-" * max(map(len, lines))
    return [rule, lines[0], rule, *lines[1:-1], rule, lines[-1]]
