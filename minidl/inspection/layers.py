"""The layers of a network as they run: what each does to the shape, what it learns, and what it costs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import nn
from minidl.autograd import Tensor, no_grad


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
