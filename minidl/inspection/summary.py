"""The layer table of a network as text."""

from minidl import nn
from minidl.errors import ShapeError
from minidl.inspection.four_branches import four_branch_rows, four_branch_text
from minidl.inspection.layers import layer_rows
from minidl.inspection.text import ruled


def summary(model: nn.Module, input_shape: tuple[int, int, int] | None = None) -> str:
    """The table as text: layer, kind, kernel/stride/padding, output shape, parameters, multiply-adds of one
    image, and totals. Auxiliary classifiers, which run in training alone, are one line. A network of
    GoogLeNet's modules gets the table of its paper as well.

    ShapeError when the model has no input_shape and none is given.
    """
    shape = input_shape or getattr(model, "input_shape", None)
    if shape is None:
        raise ShapeError(
            "summary: this model has no input_shape; set one (H, W, C), or call summary(input_shape=(H, W, "
            "C))"
        )
    rows = layer_rows(model, shape)
    total = sum(parameter.size for parameter in model.parameters())
    cells = [("layer", "kind", "kernel/stride/pad", "output", "parameters", "multiply-adds")]
    cells += [
        (r.path, r.kind, r.window, "x".join(map(str, r.output)), f"{r.params:,}", f"{r.macs:,}") for r in rows
    ]
    others = total - sum(r.params for r in rows)
    if others > 0:
        cells.append(("others", "", "", "training alone", f"{others:,}", ""))
    cells.append(("total", "", "", "", f"{total:,}", f"{sum(r.macs for r in rows):,}"))
    title = f"{type(model).__name__}, input {'x'.join(map(str, shape))}"
    lines = [title, *ruled(cells, left=4)]
    columns, modules = four_branch_rows(model, rows)
    if modules:
        lines += ["", four_branch_text(columns, modules)]
    return "\n".join(lines)
