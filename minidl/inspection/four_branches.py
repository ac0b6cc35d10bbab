"""A network of modules with four branches, in the columns of the paper that introduced them: table 1 of
Szegedy et al. 2014, arXiv:1409.4842.

Such a module is an `nn.Concat` of the branches 1x1; 1x1 and a window; 1x1 and another window; pool and 1x1.
The table is read off the modules: every network that is made of these alone has one, no other has.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from minidl import nn
from minidl.inspection.layers import Row
from minidl.inspection.text import ruled

K = 1024  # the paper's unit of weights: 159K are 163,328

_COUNTED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.GlobalAvgPool)


@dataclass(frozen=True)
class TableRow:
    """A convolution (with the 1x1 in front of it, if any), a pool, a module, or a linear layer.

    window: patch size/stride; output: shape without N; depth: layers with weights, one behind another;
    widths: channels in the columns that depend on the modules, or None; weights: no biases, no batch norms;
    macs: of one image
    """

    name: str
    window: str
    output: tuple[int, ...]
    depth: int
    widths: tuple[int | None, ...]
    weights: int
    macs: int


def four_branch_rows(model: nn.Module, layers: Sequence[Row]) -> tuple[tuple[str, ...], list[TableRow]]:
    """(titles of the widths, rows) for a network and the rows of its layer table, in the order they run.

    Both are empty unless it has `Concat`s, all with four such branches and the same windows.
    """
    modules = dict(model.named_modules())
    branches = {path: _convolutions(block) for path, block in modules.items() if isinstance(block, nn.Concat)}
    titles = {_titles(convs) for convs in branches.values()}
    if len(titles) != 1 or () in titles:
        return (), []
    (columns,) = titles
    rows: list[TableRow] = []
    for path, inside in _grouped(layers, branches):
        module = modules[path]
        weighing = [modules[layer.path] for layer in inside if layer.macs]
        weights = sum(m.weight.size for m in weighing if isinstance(m, (nn.Conv2d, nn.Linear)))
        macs = sum(layer.macs for layer in inside)
        if path in branches:
            widths = tuple(conv.out_channels for conv in branches[path])
            output = (*inside[0].output[:2], sum(widths[i] for i in (0, 2, 4, 5)))
            rows.append(TableRow(path, "", output, 2, widths, weights, macs))
        elif isinstance(module, (nn.Linear, *_COUNTED)):
            name, window = path.removesuffix(".conv"), _window(inside[0], rows)
            row = TableRow(name, window, inside[0].output, len(weighing), (), weights, macs)
            rows.append(_merged(rows.pop(), row, columns) if _is_reduction(rows, module) else row)
    return columns, rows


def four_branch_text(columns: tuple[str, ...], rows: Sequence[TableRow]) -> str:
    """The table as text, with totals."""
    cells = [("type", "patch/stride", "output", "depth", *columns, "weights", "in K", "ops")]
    cells += [
        (
            row.name,
            row.window,
            "x".join(map(str, row.output)),
            str(row.depth),
            *(str(width or "") for width in row.widths or [None] * len(columns)),
            *_costs(row.weights, row.macs),
        )
        for row in rows
    ]
    totals = _costs(sum(row.weights for row in rows), sum(row.macs for row in rows))
    cells.append(("total", "", "", str(sum(row.depth for row in rows)), *[""] * len(columns), *totals))
    title = (
        "The same in the columns of table 1 of arXiv:1409.4842; weights without biases and batch norms, K = "
        f"{K}, ops are multiply-adds"
    )
    return "\n".join([title, *ruled(cells, left=3)])


def _costs(weights: int, macs: int) -> tuple[str, str, str]:
    return (f"{weights:,}", f"{weights / K:.1f}K", f"{macs / 1e6:.1f}M") if weights else ("", "", "")


def _convolutions(block: nn.Concat) -> list[nn.Conv2d]:
    """Its six convolutions; none if it has other branches."""
    kinds = [
        "".join("c" if isinstance(m, nn.Conv2d) else "p" for m in branch.modules() if isinstance(m, _COUNTED))
        for branch in block.children()
    ]
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    ones = [i for i, conv in enumerate(convs) if conv.kernel_size == (1, 1)]
    return convs if kinds == ["c", "cc", "cc", "pc"] and ones == [0, 1, 3, 5] else []


def _titles(convs: Sequence[nn.Conv2d]) -> tuple[str, ...]:
    """Of the columns of widths; empty if there are no six convolutions."""
    if not convs:
        return ()
    second, third = ("x".join(map(str, convs[i].kernel_size)) for i in (2, 4))
    return ("#1x1", f"#{second} reduce", f"#{second}", f"#{third} reduce", f"#{third}", "pool proj")


def _grouped(layers: Sequence[Row], blocks: Iterable[str]) -> Iterator[tuple[str, list[Row]]]:
    """(path, layers): of each block the layers inside, and every other layer by itself."""

    def owner(layer: Row) -> str:
        return next((path for path in blocks if layer.path.startswith(f"{path}.")), layer.path)

    return ((path, list(inside)) for path, inside in groupby(layers, owner))


def _window(layer: Row, rows: Sequence[TableRow]) -> str:
    """Patch size/stride, as 7x7/2; a global pool's patch is all there is."""
    if layer.kind == "GlobalAvgPool" and rows:
        return "x".join(map(str, rows[-1].output[:2])) + "/1"
    return "/".join(layer.window.split("/")[:2])


def _is_reduction(rows: Sequence[TableRow], module: nn.Module) -> bool:
    """Whether the last row is a 1x1 convolution in front of this one, which the paper counts with it."""
    return bool(rows) and rows[-1].window == "1x1/1" and isinstance(module, nn.Conv2d)


def _merged(reduction: TableRow, row: TableRow, columns: tuple[str, ...]) -> TableRow:
    """One row of both; the widths stand in the columns of the second window, if there are any for it."""
    title = "#" + row.window.partition("/")[0]
    at = columns.index(title) if title in columns else 0
    widths: list[int | None] = [None] * len(columns)
    if at:
        widths[at - 1 : at + 1] = reduction.output[-1], row.output[-1]
    return TableRow(
        row.name,
        row.window,
        row.output,
        reduction.depth + row.depth,
        tuple(widths),
        reduction.weights + row.weights,
        reduction.macs + row.macs,
    )
