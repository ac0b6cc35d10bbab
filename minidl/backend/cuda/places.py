"""Where arrays that are walked together have their elements, for the kernels: see kernels/places.cuh."""

import functools
from collections.abc import Sequence

import numpy as np

from minidl.backend import Array, is_array
from minidl.errors import ShapeError

_AXES = 8  # kAxes in places.cuh
_DTYPE = np.dtype([("axes", "i4"), ("size", "i4", _AXES), ("step", "i4", (3, _AXES))])

Shape = tuple[int, ...]


def places(shape: Shape, *operands: Array | float) -> np.ndarray:
    """How to find the elements of `operands` (at most three), each broadcast to `shape`.  -> a struct Places

    A number has no place. ShapeError for more than eight axes that cannot be merged.
    """
    return _places(shape, tuple((a.shape, _steps(a)) if is_array(a) else None for a in operands))


def _steps(array: Array) -> Shape:
    """How far apart neighbours lie along each axis, in elements."""
    return tuple(stride // array.itemsize for stride in array.strides)


@functools.lru_cache(maxsize=4096)  # the layers of a network ask the same in every step
def _places(shape: Shape, arrays: tuple[tuple[Shape, Shape] | None, ...]) -> np.ndarray:
    steps = [_broadcast(shape, *array) if array else (0,) * len(shape) for array in arrays]
    axes = _merge([(n, *(s[axis] for s in steps)) for axis, n in enumerate(shape)])
    if len(axes) > _AXES:
        raise ShapeError(
            f"an array of shape {shape} has {len(axes)} axes that do not lie behind one another in memory; "
            f"on this device kernels walk over at most {_AXES}"
        )
    found = np.zeros(1, _DTYPE)
    found["axes"] = len(axes)
    for i, (n, *along) in enumerate(axes):
        found["size"][0, i] = n
        found["step"][0, : len(along), i] = along
    found.flags.writeable = False
    return found


def _broadcast(shape: Shape, own: Shape, steps: Shape) -> Shape:
    """The steps of an array over `shape`: 0 where it is repeated."""
    lead = len(shape) - len(own)
    return (0,) * lead + tuple(0 if n == 1 else step for n, step in zip(own, steps))


def _merge(axes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """(size, step of each array) per axis, those left out that have one element, and those joined that go on
    where the one after them ends."""
    merged: list[tuple[int, ...]] = []
    for axis in axes:
        if axis[0] == 1:
            continue
        before = merged[-1] if merged else None
        if before and all(outer == axis[0] * inner for outer, inner in zip(before[1:], axis[1:])):
            merged[-1] = (before[0] * axis[0], *axis[1:])
        else:
            merged.append(axis)
    return merged or [(1,) + (0,) * (len(axes[0]) - 1 if axes else 3)]
