"""Checks and small rules that several ops share: broadcasting, axes, images."""

from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.errors import DTypeError, ShapeError


def unbroadcast(g: Array, shape: tuple[int, ...]) -> Array:
    """Undo NumPy's broadcasting: sum g over every axis along which an input of `shape` was repeated."""
    if g.shape == shape:
        return g
    xp = backend.of(g)
    leading = g.ndim - len(shape)
    repeated = tuple(range(leading)) + tuple(
        leading + i for i, n in enumerate(shape) if n == 1 and g.shape[leading + i] != 1
    )
    return xp.reshape(xp.sum(g, axis=repeated), shape)


def check_float(op: str, *arrays: Array) -> None:
    """DTypeError unless all arrays are float32 or float64.

    Complex ones are here only while gradcheck takes a complex step.
    """
    for array in arrays:
        if array.dtype not in (np.float32, np.float64, np.complex128):
            raise DTypeError(
                f"{op}: it computes in float32 or float64, not {array.dtype}; use .to(dtype='float32')"
            )


def check_broadcast(op: str, a: Array, b: Array, names: tuple[str, str] = ("a", "b")) -> None:
    """ShapeError unless the two shapes broadcast."""
    for m, n in zip(reversed(a.shape), reversed(b.shape)):
        if m != n and 1 not in (m, n):
            raise ShapeError(
                f"{op}: {names[0]} of shape {a.shape} and {names[1]} of shape {b.shape} do not broadcast: "
                f"axes are compared from the last one, and {m} meets {n}"
            )


def axes_of(op: str, ndim: int, axis: Any) -> tuple[int, ...]:
    """`axis` (None, an integer or several) as distinct axes counted from 0.  ShapeError outside the array."""
    given = range(ndim) if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = []
    for a in given:
        if not -ndim <= a < ndim:
            raise ShapeError(f"{op}: axis {a} is outside an array with {ndim} axes")
        axes.append(a % ndim)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{op}: axis {axis} names an axis twice")
    return tuple(axes)


def one_axis(op: str, ndim: int, axis: Any) -> int:
    """`axis` counted from 0.  ShapeError unless it is one axis of the array."""
    axes = axes_of(op, ndim, axis)
    if len(axes) != 1 or axis is None:
        raise ShapeError(f"{op}: axis is {axis}; give one axis of the {ndim}")
    return axes[0]


def check_image(op: str, x: Array, channels: int | None = None, source: str = "") -> None:
    """ShapeError unless x is a non-empty batch of images (N, H, W, C).

    `channels`, if given, is how many there must be, and `source` says who asks for that many.
    """
    check_float(op, x)
    if x.ndim != 4:
        cure = "; a single image needs a batch axis: x.reshape(1, H, W, C)" if x.ndim == 3 else ""
        raise ShapeError(f"{op}: x has shape {x.shape}, it must be (N, H, W, C){cure}")
    if x.shape[0] == 0:
        raise ShapeError(
            f"{op}: x has shape {x.shape}: a batch of size 0; drop empty batches before the network"
        )
    if 0 in x.shape:
        raise ShapeError(f"{op}: x has shape {x.shape}: an image without pixels or channels")
    if channels is not None and x.shape[3] != channels:
        cure = ""
        if x.shape[1] == channels:
            cure = (
                ". It looks like (N, C, H, W): minidl's images are channels-last, use x.transpose(0, 2, 3, 1)"
            )
        raise ShapeError(f"{op}: x has {x.shape[3]} channels (last axis of {x.shape}) but {source}{cure}")
