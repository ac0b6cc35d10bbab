"""Which pixels a sliding window reads, and by which output pixels a pixel is read: both gradients of a
convolution are convolutions themselves, on every device.

With a stride s the output pixels that read an input pixel differ by the remainder of its place modulo s; each
remainder ("phase") is a small dense convolution with the taps that hit it.
"""

import functools
from typing import Any

from minidl.window import Window


@functools.lru_cache(maxsize=1024)
def taps(window: Window) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the window's taps read, relative to stride * output index: rows (KH,), columns (KW,)."""
    rows, columns = (
        tuple(a * d - p[0] for a in range(k))
        for k, d, p in zip(window.kernel, window.dilation, window.padding)
    )
    return rows, columns


@functools.lru_cache(maxsize=1024)
def phases(window: Window) -> Any:
    """Per remainder of (row, column) modulo the stride: (the slices of such pixels, those of the taps that
    read them, where those output pixels lie: rows, columns).

    Input row r = remainder + i * stride is read through tap a by output row (r + padding - a * dilation) /
    stride = i + offset. Taps come in falling order, so that offsets rise, in equal steps.
    """
    axes = []
    for axis in (0, 1):
        kernel, stride, dilation, before = (
            window.kernel[axis],
            window.stride[axis],
            window.dilation[axis],
            window.padding[axis][0],
        )
        axis_phases = []
        for remainder in range(min(stride, window.size[axis])):
            hits = [a for a in reversed(range(kernel)) if (remainder + before - a * dilation) % stride == 0]
            offsets = tuple((remainder + before - a * dilation) // stride for a in hits)
            axis_phases.append((slice(remainder, None, stride), _every(hits) if hits else None, offsets))
        axes.append(axis_phases)
    return [
        ((slice(None), pixels, across), (hits, over), rows, columns)
        for pixels, hits, rows in axes[0]
        for across, over, columns in axes[1]
    ]


def _every(indices: list[int]) -> slice:
    """The slice that takes equally spaced, falling indices."""
    step = indices[1] - indices[0] if len(indices) > 1 else -1
    stop = indices[-1] + step
    return slice(indices[0], None if stop < 0 else stop, step)
