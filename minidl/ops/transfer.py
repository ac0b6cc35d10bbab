"""From one device to another, with the gradient going back: what `Tensor.to` records."""

from typing import Any

from minidl import backend
from minidl.backend import Array
from minidl.recording import op


@op
def move(x: Array, device: str) -> Any:
    """x on another device; the gradient returns to x's own."""
    before = backend.device_of(x)

    def grad_x(g: Array) -> Array:
        return backend.asarray(g, before)

    return backend.asarray(x, device), (grad_x,)
