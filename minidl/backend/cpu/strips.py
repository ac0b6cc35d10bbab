"""The part of an image that a thread computes at a time, for direct.py: shapes and distances, and its copy.

A strip is some rows of output pixels; what the window sees below them fills a good part of a core's own
cache. The strips of an image are as equal as its rows allow, and all threads get as many. Where the window
reaches beyond the image, that part is copied into a frame of zeros; so is one whose pixels lie a power of two
apart, where too many would share one place in the cache. Everything else is read where it lies, whatever the
distances of its pixels.
"""

from typing import NamedTuple

import numpy as np

from minidl.backend.cpu import memory
from minidl.backend.cpu.compile import compiled
from minidl.backend.cpu.instructions import clear_numbers, copy_numbers

_STRIP_BYTES = 1 << 19  # of the image below a strip
_LINE = 24  # pixels of a pointwise convolution's line: a multiple of all tiles
_TERMS = 192  # output pixels whose products are summed at a time for a weight gradient
_CHANNELS = 256  # of a pixel that are copied at a time there, where it has more


class Geometry(NamedTuple):
    """Shapes, and the distances between neighbours in memory (in elements), of one pass.

    held: pixels of an image; tall, wide: output rows and columns; last: output pixels of an image (its last
    line may be shorter);
    reach_h, reach_w: input rows and columns that a window spans; top, left: where the first one starts;
    strips: how many to an image; pitch: between pixels in a strip's copy, 0 for no copy;
    block: channels that are copied at a time for a weight gradient
    """

    images: int
    height: int
    width: int
    held: int
    channels: int
    src_image: int
    src_row: int
    src_pixel: int
    tall: int
    wide: int
    last: int
    filters: int
    out_image: int
    out_row: int
    out_pixel: int
    stride_h: int
    stride_w: int
    top: int
    left: int
    reach_h: int
    reach_w: int
    strips: int
    pitch: int
    block: int

    @property
    def strip(self) -> int:
        """Output rows of the tallest strip."""
        return -(-self.tall // self.strips)

    @property
    def copied(self) -> int:
        """Numbers of a strip's copy."""
        rows = (self.strip - 1) * self.stride_h + self.reach_h
        columns = (self.wide - 1) * self.stride_w + self.reach_w
        return memory.line(rows * columns * self.pitch)


def geometry(
    shape: tuple[int, ...],
    pitches: tuple[int, ...],
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    stride: tuple[int, int],
    out_shape: tuple[int, ...],
    out_pitches: tuple[int, ...],
    threads: int,
    summing: bool = False,
) -> tuple[Geometry, np.ndarray, int]:
    """(geometry, where the runs of a window start, the length of a run), for float32 images of that shape and
    those pitches in bytes."""
    src_steps, out_steps = (tuple(pitch // 4 for pitch in steps) for steps in (pitches, out_pitches))
    n, h, w, c = shape
    tall, wide, filters = out_shape[1:]
    src_image, src_row, src_pixel, _ = src_steps
    out_image, out_row, out_pixel, _ = out_steps
    reach_h, reach_w = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    top, left = rows[0], columns[0]
    held, last = h * w, tall * wide
    even = all(
        image == row * lines and row == pixel * line
        for (image, row, pixel, _), (_, lines, line, _) in ((src_steps, shape), (out_steps, out_shape))
    )
    if len(rows) == len(columns) == 1 and top == left == 0 and stride == (1, 1) and even:
        held = last = n * last  # all pixels are one image, cut into lines
        n, wide = 1, min(_LINE, last)
        tall, src_row, out_row = -(-last // wide), wide * src_pixel, wide * out_pixel
        h, w = tall, wide
    inside = (
        top >= 0
        and left >= 0
        and (tall - 1) * stride[0] + top + reach_h <= h
        and (wide - 1) * stride[1] + left + reach_w <= w
    )
    pitch, block = 0, c
    if summing and c > _CHANNELS:  # a column of pixels lies on as many pages
        block = -(-c // -(-c // _CHANNELS))
        pitch = block + 16
    elif not inside or stride[1] * src_pixel % 1024 == 0:
        pitch = c if c < 64 else c + 16 * (stride[1] * c % 256 == 0)
    pixel = pitch or src_pixel
    row = ((wide - 1) * stride[1] + reach_w) * pitch or src_row
    together = pixel == c and reach_w == len(columns)
    offsets = np.add.outer((np.array(rows) - top) * row, (np.array(columns) - left) * pixel)
    runs, length = (offsets[:, 0].copy(), reach_w * c) if together else (offsets.reshape(-1), c)
    if summing:
        least = -(-tall // max(1, _TERMS // wide))
    else:
        row_bytes = 4 * c * (wide * stride[1] + reach_w) * stride[0]
        least = -(-tall // max(1, _STRIP_BYTES // row_bytes - reach_h + 1))
    strips = _even_strips(n, tall, least, threads)
    g = Geometry(
        *(n, h, w, held, c, src_image, src_row, src_pixel, tall, wide, last, filters),
        *(out_image, out_row, out_pixel, *stride, top, left, reach_h, reach_w, strips, pitch, block),
    )
    return g, runs, length


def segments(runs: np.ndarray, length: int, terms: int) -> tuple[np.ndarray, int, int]:
    """(runs, length, runs at a time): the same terms in runs of at most `terms`, where equal cuts give that.

    The rows of a panel that so many terms read stay in a core's own cache while a strip passes over them.
    """
    least = -(-length // terms)
    parts = next((n for n in range(least, 2 * least + 1) if length % n == 0), 1)
    length //= parts
    if parts > 1:
        runs = np.add.outer(runs, np.arange(parts) * length).reshape(-1)
    return runs, length, max(1, terms // length)


def _even_strips(images: int, tall: int, least: int, threads: int) -> int:
    """Strips of an image: at least so many, and such that all threads get as many of them."""
    strips = least
    while images * strips % threads and strips < tall:
        strips += 1
    return strips


@compiled
def _copy_strip(src, g, image, first, last, block, channels, strip):  # type: ignore[no-untyped-def]
    """strip = the part of an image under output rows first .. last, zeros beyond the image.

    Of `channels` channels from `block` on.
    """
    columns = (g.wide - 1) * g.stride_w + g.reach_w
    together = g.pitch == g.src_pixel == channels
    at = 0
    for i in range(first * g.stride_h + g.top, (last - 1) * g.stride_h + g.top + g.reach_h):
        low = max(0, min(columns, -g.left))
        high = max(low, min(columns, min(g.width, g.held - i * g.width) - g.left))
        if not 0 <= i < g.height:
            low = high = columns
        source = src + 4 * (image * g.src_image + i * g.src_row + g.left * g.src_pixel + block)
        target = strip.ctypes.data + 4 * at
        clear_numbers(target, low * g.pitch)
        if together:
            copy_numbers(target + 4 * low * channels, source + 4 * low * channels, (high - low) * channels)
        else:
            for j in range(low, high):
                copy_numbers(target + 4 * j * g.pitch, source + 4 * j * g.src_pixel, channels)
        clear_numbers(target + 4 * high * g.pitch, (columns - high) * g.pitch)
        at += columns * g.pitch


@compiled
def place_strip(src, g, image, first, last, block, channels, space):  # type: ignore[no-untyped-def]
    """(address of the first pixel under output rows first .. last, distances of its pixels and rows).

    Of `channels` channels from `block` on, where they lie or copied into `space`.
    """
    if g.pitch:
        _copy_strip(src, g, image, first, last, block, channels, space)
        return space.ctypes.data, g.pitch, ((g.wide - 1) * g.stride_w + g.reach_w) * g.pitch
    place = (first * g.stride_h + g.top) * g.src_row + g.left * g.src_pixel + block
    return src + 4 * (image * g.src_image + place), g.src_pixel, g.src_row
