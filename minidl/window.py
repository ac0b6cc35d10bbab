"""Geometry of a sliding window: kernel, stride, padding, dilation, and the output they give.

Convolutions and pools of every backend take a `Window`. It is computed and checked once, at the door, so that
kernels can trust it. Floor division drops what a last incomplete step would need; `ceil_mode` keeps that
step, as a window that hangs over the edge (PyTorch's rule).
"""

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minidl.errors import ShapeError

Pair = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Window:
    """A window of `kernel` taps moved over an image of (H, W) = `size`; every pair is (rows, columns).

    Output row i, tap a reads input row i * stride - padding[0][0] + a * dilation; reads outside the image are
    padding.
    """

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    output: tuple[int, int]

    @property
    def taps(self) -> int:
        """How many elements of one channel a window covers: KH * KW."""
        return self.kernel[0] * self.kernel[1]

    @property
    def pointwise(self) -> bool:
        """Whether every output pixel reads the input pixel of its own place and no other."""
        return (
            self.taps == 1
            and self.stride == (1, 1)
            and self.padding == ((0, 0), (0, 0))
            and self.output == self.size
        )


def pair(value: Pair, op: str, name: str, least: int = 1) -> tuple[int, int]:
    """`value` as (rows, columns): an integer stands for both.

    ValueError below `least` or for anything else.
    """
    if type(value) is int and value >= least:  # the usual case, for this is called for every op
        return value, value
    both: Any = (value, value) if _is_int(value) else value
    if (
        isinstance(both, str)
        or not isinstance(both, Sequence)
        or len(both) != 2
        or not all(map(_is_int, both))
    ):
        raise ValueError(f"{op}: {name} is {value!r}; give an integer or a pair of integers (rows, columns)")
    rows, columns = operator.index(both[0]), operator.index(both[1])
    if min(rows, columns) < least:
        raise ValueError(f"{op}: {name} is {value!r}, it must be at least {least}")
    return rows, columns


def window(
    op: str,
    size: tuple[int, int],
    kernel_size: Pair,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Window:
    """The checked geometry of `op` on an image of (H, W) = `size`.

    `padding` is 0, p, (rows, columns), ((top, bottom), (left, right)), "valid" (none) or "same" (TensorFlow's
    rule: the output is ceil(size / stride), the odd row or column of padding comes last). In `ceil_mode` a
    window larger than the image still gives one output, if it hangs over by less than a stride.  ShapeError
    when the window does not fit even once.
    """
    asked = _Asked(repr((op, size, kernel_size, stride, padding, dilation, ceil_mode)))
    asked.arguments = op, size, kernel_size, stride, padding, dilation, ceil_mode
    return _checked(asked)


class _Asked(str):
    """The text of `window`'s arguments, by which they are remembered: as keys, 1, True and 1.0 are equal."""

    arguments: tuple[Any, ...]


@functools.lru_cache(maxsize=4096)  # the layers of a network ask the same in every step
def _checked(asked: _Asked) -> Window:
    op, size, kernel_size, stride, padding, dilation, ceil_mode = asked.arguments
    kernel, steps = pair(kernel_size, op, "kernel_size"), pair(stride, op, "stride")
    spread = pair(dilation, op, "dilation")
    sides = _sides(op, size, kernel, steps, spread, padding)
    output = []
    for axis, letter in enumerate("HW"):
        span = (kernel[axis] - 1) * spread[axis] + 1
        room = size[axis] + sum(sides[axis]) - span
        if room < 0 and not (ceil_mode and room > -steps[axis]):
            raise ShapeError(
                f"{op}: a window of {span} (kernel_size {kernel}, dilation {spread}) does not fit into "
                f"{letter} = {size[axis]} with padding {sides[axis]}; the image (H, W) is {size}. Use larger "
                "images or more padding"
            )
        steps_taken, left_over = divmod(room, steps[axis])
        if ceil_mode and left_over and (steps_taken + 1) * steps[axis] < size[axis] + sides[axis][0]:
            # the last window hangs over the edge, but starts inside the image or its left padding
            steps_taken += 1
        output.append(steps_taken + 1)
    return Window(size, kernel, steps, sides, spread, (output[0], output[1]))


def _sides(
    op: str,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: Padding,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """`padding` in any of its forms as ((top, bottom), (left, right))."""
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding != "same":
            raise ValueError(f"{op}: padding is {padding!r}; the names are 'same' and 'valid'")
        total = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, k, s, d in zip(size, kernel, stride, dilation)
        ]
        return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
    if (
        isinstance(padding, Sequence)
        and len(padding) == 2
        and all(isinstance(side, Sequence) for side in padding)
    ):
        (top, bottom), (left, right) = (pair(side, op, "padding", 0) for side in padding)  # type: ignore[arg-type]
        return (top, bottom), (left, right)
    rows, columns = pair(padding, op, "padding", 0)  # type: ignore[arg-type]
    return (rows, rows), (columns, columns)


def _is_int(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
