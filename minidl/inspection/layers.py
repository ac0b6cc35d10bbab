"""The layers of a network as they run: what each does to the shape, what it learns, and what it costs."""

from dataclasses import dataclass

import numpy as np

from minidl import nn
from minidl.autograd import no_grad
from minidl.inspection.watch import Call, Watch


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
    image = nn.as_input(model, np.zeros((1, *input_shape), np.float32))
    with no_grad(), nn.mode(model, False), Watch(model) as watch:
        model(image)
    return [_row(call, call.module) for call in watch.calls if call.module is not None]


def _row(call: Call, module: nn.Module) -> Row:
    params = sum(value.size for value in vars(module).values() if isinstance(value, nn.Parameter))
    return Row(call.path, call.kind, _window(module), call.output[1:], params, call.macs)


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
