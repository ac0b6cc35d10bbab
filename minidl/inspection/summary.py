"""The layer table of a network: what each layer does to the shape, what it learns, and what it costs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import nn
from minidl.autograd import Tensor, no_grad
from minidl.errors import ShapeError


@dataclass(frozen=True)
class Row:
    """One layer that ran.  window: kernel/stride/padding; output: shape without N; macs: of one image"""

    path: str
    kind: str
    window: str
    output: tuple[int, ...]
    params: int
    macs: int


def layer_rows(model: nn.Module, input_shape: tuple[int, int, int]) -> list[Row]:
    """A row per layer in the order they run on one image of `input_shape` (H, W, C).

    Found by running it once in evaluation mode.
    """
    rows: list[Row] = []

    def append_row(path: str) -> nn.Hook:
        return lambda module, inputs, output: rows.append(_row(path, module, output))

    handles = [
        module.register_forward_hook(append_row(path))
        for path, module in model.named_modules()
        if next(module.children(), None) is None
    ]
    first = next(model.parameters(), None)
    image = np.zeros((1, *input_shape), np.float32 if first is None else first.dtype)
    try:
        with no_grad(), nn.mode(model, False):
            model(Tensor(image))
    finally:
        for handle in handles:
            handle.remove()
    return rows


def summary(model: nn.Module, input_shape: tuple[int, int, int] | None = None) -> str:
    """The table as text: layer, kind, kernel/stride/padding, output shape, parameters, multiply-adds of one
    image, and totals.

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
    cells.append(("total", "", "", "", f"{total:,}", f"{sum(r.macs for r in rows):,}"))
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 4 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))
        ).rstrip()
        for line in cells
    ]
    rule = "-" * max(map(len, lines))
    title = f"{type(model).__name__}, input {'x'.join(map(str, shape))}"
    return "\n".join([title, rule, lines[0], rule, *lines[1:-1], rule, lines[-1]])


def multiply_adds(module: nn.Module, output: tuple[int, ...]) -> int:
    """Multiply-adds of one convolution or linear layer for one image; 0 for the others.

    output: shape without N.
    """
    if isinstance(module, nn.Conv2d):
        return int(np.prod(output[:2])) * module.weight.size
    return module.weight.size if isinstance(module, nn.Linear) else 0


def _row(path: str, module: nn.Module, output: Any) -> Row:
    shape = (output[0] if isinstance(output, tuple) else output).shape[1:]
    params = sum(value.size for value in vars(module).values() if isinstance(value, nn.Parameter))
    return Row(path, type(module).__name__, _window(module), shape, params, multiply_adds(module, shape))


def _window(module: nn.Module) -> str:
    """kernel/stride/padding of a layer that slides a window, as 3x3/2/1."""
    if not hasattr(module, "kernel_size") or not hasattr(module, "stride"):
        return ""
    padding = module.padding if isinstance(module.padding, str) else _pair_text(module.padding)  # type: ignore[attr-defined]
    extra = " ceil" if getattr(module, "ceil_mode", False) else ""
    groups = getattr(module, "groups", 1)
    return f"{_pair_text(module.kernel_size, always=True)}/{_pair_text(module.stride)}/{padding}{extra}" + (
        f" groups {groups}" if groups > 1 else ""
    )


def _pair_text(value: object, always: bool = False) -> str:
    """3 -> "3" (or "3x3" if `always`), (1, 7) -> "1x7", ((0, 1), (0, 1)) -> "(0,1)x(0,1)"."""
    if isinstance(value, (tuple, list)):
        parts = [f"({v[0]},{v[1]})" if isinstance(v, (tuple, list)) else str(v) for v in value]
        return parts[0] if parts[0] == parts[1] and not always else "x".join(parts)
    return f"{value}x{value}" if always else str(value)
