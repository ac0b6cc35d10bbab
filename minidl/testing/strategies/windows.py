"""Sliding windows: kernel, stride, dilation and padding are drawn, the image's size follows."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Draw = st.DrawFn


@dataclass(frozen=True)
class WindowDraw:
    """A window as an op takes it, on images of (H, W) = `size`; without ceil_mode it gives `output`."""

    size: tuple[int, int]
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: Any
    dilation: tuple[int, int]
    output: tuple[int, int]


def kernels(max_kernel: int = 3) -> st.SearchStrategy[tuple[int, int]]:
    """Kernel sizes up to `max_kernel` on either side, and the long ones of the Inceptions (1x7 and 7x1)."""
    sides = range(1, max_kernel + 1)
    return st.sampled_from([*((kh, kw) for kh in sides for kw in sides), (1, 7), (7, 1)])


@st.composite
def windows(
    draw: Draw,
    *,
    max_kernel: int = 3,
    max_stride: int = 3,
    max_dilation: int = 2,
    max_output: int = 3,
    spare: int = 2,
) -> WindowDraw:
    """Windows of every kind: strides below and above the kernel, dilation, rows left over, all paddings.

    Drawn are the kernel, the steps, the outputs and the rows left over; the image's size follows. Padding
    exceeds what a window can hang over the edge by up to `spare`; with 0 every window touches the image, as
    pools need it.
    """
    kernel = draw(kernels(max_kernel))
    stride = draw(st.tuples(*[st.integers(1, max_stride)] * 2))
    dilation = draw(st.tuples(*[st.integers(1, max_dilation)] * 2))
    output = draw(st.tuples(*[st.integers(1, max_output)] * 2))
    form = draw(st.sampled_from((0, "valid", "same", "int", "pair", "sides")))
    if form == "same":  # ceil(size / stride) outputs
        h, w = (o * s - draw(st.integers(0, s - 1)) for o, s in zip(output, stride, strict=True))
        return WindowDraw((h, w), kernel, stride, "same", dilation, output)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padded = [
        (o - 1) * s + span + draw(st.integers(0, s - 1))
        for o, s, span in zip(output, stride, spans, strict=True)
    ]
    padding, sides = draw(_paddings(form, padded, [span - 1 + spare for span in spans]))
    h, w = (rows - sum(side) for rows, side in zip(padded, sides, strict=True))
    return WindowDraw((h, w), kernel, stride, padding, dilation, output)


@st.composite
def _paddings(
    draw: Draw, form: Any, padded: list[int], limits: list[int]
) -> tuple[Any, list[tuple[int, int]]]:
    """Padding in the given form, and its sides; it leaves at least one row and column of the padded image."""
    if form in (0, "valid"):
        return form, [(0, 0), (0, 0)]
    most = [min(limit, (rows - 1) // 2) for limit, rows in zip(limits, padded, strict=True)]  # on both sides
    if form == "int":
        p = draw(st.integers(0, min(most)))
        return p, [(p, p), (p, p)]
    if form == "pair":
        ph, pw = (draw(st.integers(0, m)) for m in most)
        return (ph, pw), [(ph, ph), (pw, pw)]
    before = [draw(st.integers(0, min(limit, rows - 1))) for limit, rows in zip(limits, padded, strict=True)]
    after = [
        draw(st.integers(0, min(limit, rows - 1 - b)))
        for limit, rows, b in zip(limits, padded, before, strict=True)
    ]
    sides = list(zip(before, after, strict=True))
    return tuple(sides), sides
