"""Direct convolution in float32: the micro-kernel over the images themselves, without columns.

Under one row of a window lie KW neighbouring pixels, whose channels are one run of KW*C numbers; the next
output pixel's run starts `stride` pixels on. That is just what the micro-kernel reads (microkernel.py): a
tile is a few neighbouring output pixels by a panel of filters, its sum the KH runs of the window.

    correlate          C = output pixels x filters,  A = src in place,  B = weight, packed
    correlate_weight   C = one tap's channels x filters,  A = src, one pixel a term,  B = g, packed

Each thread takes strips of output rows (strips.py). Panel after panel passes over a strip, and of a panel
only as many rows at a time as stay in a core's own cache. A pointwise convolution is the same without rows:
its pixels are cut into lines.

Bound by: arithmetic; a pointwise one of few channels by writing its output.
"""

import numba
import numpy as np
from numba import prange

from minidl.backend.cpu import memory
from minidl.backend.cpu.compile import compiled
from minidl.backend.cpu.instructions import copy_numbers
from minidl.backend.cpu.microkernel import (
    Panels,
    choose_panels,
    lanes,
    multiply_tile,
    pack,
    padded,
    registers,
    tile_code,
)
from minidl.backend.cpu.strips import Geometry, geometry, place_strip, segments
from minidl.backend.cpu.threads import get_num_threads
from minidl.backend.cpu.transpose import transpose_code

_SHARED_SUMS = 1 << 18  # numbers of a weight gradient from which threads share it out instead of copying it
_PANEL_NUMBERS = 1 << 17  # of a panel that are read at a time: a good part of a core's own cache


def correlate(
    src: np.ndarray,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    stride: tuple[int, int],
    weight: np.ndarray,
    bias: np.ndarray | None,
    relu: bool,
    out: np.ndarray,
) -> None:
    """out[n, i, j] = act(sum over taps a, b of src[n, i*stride + rows[a], j*stride + columns[b]] @ weight[a,
    b] + bias)

    src (N, H, W, C), weight (taps, taps, C, F), out (N, OH, OW, F), all float32; the channels of a pixel are
    neighbours in src and out, weight may be any view. Reads outside src are zeros.
    """
    count = get_num_threads()
    g, runs, length = geometry(src, rows, columns, stride, out, count)
    panels = choose_panels(g.filters, g.wide)
    _correlate(
        tile_code(),
        lanes(),
        memory.address(src),
        g,
        *segments(runs, length, _PANEL_NUMBERS // (panels.vectors * lanes())),
        _packed(weight, panels),
        panels.vectors,
        panels.rows,
        padded(bias, g.filters),
        int(relu),
        memory.address(out),
        _scratch(g, count, g.strip * g.wide * panels.vectors * lanes()),
    )


def correlate_weight(
    src: np.ndarray, rows: tuple[int, ...], columns: tuple[int, ...], stride: tuple[int, int], g: np.ndarray
) -> np.ndarray:
    """sum over n, i, j of src[n, i*stride + rows[a], j*stride + columns[b]]^T @ g[n, i, j]

    -> (taps, taps, C, F), as `correlate`. A large sum is shared out among the threads by filters; of a small
    one each thread makes its own from a share of the lines, and they are added in order.
    """
    count = get_num_threads()
    shape, runs, length = geometry(src, rows, columns, stride, g, count, summing=True)
    depth, filters = len(runs) * length, shape.filters
    panels = choose_panels(filters, length)
    many = -(-filters // (panels.vectors * lanes())) >= count
    parts, shares = (1, count) if many and depth * filters >= _SHARED_SUMS else (count, 1)
    sums = memory.empty((parts, depth, registers(filters)), np.float32)
    _correlate_weight(
        tile_code(),
        lanes(),
        memory.address(src),
        shape,
        runs,
        length,
        memory.address(g),
        panels.vectors,
        panels.rows,
        shares,
        memory.empty((count, shape.strip * shape.wide * registers(filters)), np.float32),
        sums,
        _scratch(shape, count),
    )
    total = memory.added(sums)[:, :filters]
    return total.reshape(len(rows), len(columns), shape.channels, filters)


def _packed(weight: np.ndarray, panels: Panels) -> np.ndarray:
    """The filters as panels: tap after tap, channel after channel."""
    *outer, step, column_step = memory.distances(weight)
    a, b, channels, filters = weight.shape
    packed = memory.empty((a * b * channels * registers(filters),), np.float32)
    pack(
        transpose_code(lanes()),
        lanes(),
        memory.address(weight),
        memory.places((a, b), tuple(outer)),
        channels,
        step,
        filters,
        column_step,
        panels.vectors,
        packed,
    )
    return packed


def _scratch(g: Geometry, workers: int, results: int = 0) -> np.ndarray:
    """For each worker some results, and the copy of a strip.  (workers, numbers)"""
    rows = (g.strip - 1) * g.stride_h + g.reach_h
    columns = (g.wide - 1) * g.stride_w + g.reach_w
    return memory.empty((workers, results + rows * columns * g.pitch), np.float32)


@compiled(parallel=True)
def _correlate(  # type: ignore[no-untyped-def]
    tile, lane_count, src, g, runs, length, group, panels, vectors, most, bias, relu, out, scratch
):
    """Strips among the threads; panels, `group` runs of their rows, lines and tiles of a strip."""
    wide = vectors * lane_count
    depth = len(runs) * length
    results = (g.tall + g.strips - 1) // g.strips * g.wide * wide
    for unit in prange(g.images * g.strips):
        image, strip = unit // g.strips, unit % g.strips
        first, last = strip * g.tall // g.strips, (strip + 1) * g.tall // g.strips
        mine = scratch[numba.get_thread_id()]
        start, pixel, row = place_strip(src, g, image, first, last, 0, g.channels, mine[results:])
        for panel in range(0, g.filters, wide):
            count = min(wide, g.filters - panel)
            registers = (count + lane_count - 1) // lane_count
            ragged = count < registers * lane_count
            b = panels.ctypes.data + 4 * panel * depth
            b_row = registers * lane_count
            add = bias.ctypes.data + 4 * panel
            for run in range(0, len(runs), group):
                count_runs = min(group, len(runs) - run)
                b_run = b + 4 * run * length * b_row
                final = run + count_runs == len(runs)
                for i in range(first, last):
                    line = min(g.wide, g.last - i * g.wide)
                    done = 0
                    for part in range((line + most - 1) // most, 0, -1):
                        rows = (line - done + part - 1) // part
                        a = start + 4 * ((i - first) * g.stride_h * row + done * g.stride_w * pixel)
                        to = image * g.out_image + i * g.out_row + done * g.out_pixel + panel
                        c, pitch = out + 4 * to, g.out_pixel
                        if ragged:
                            c, pitch = mine.ctypes.data + 4 * ((i - first) * g.wide + done) * wide, wide
                        before, before_row = (c, pitch) if run > 0 else (add, 0)
                        multiply_tile(
                            tile, rows, registers, a, g.stride_w * pixel, 1, runs.ctypes.data + 8 * run,
                            count_runs, length, b_run, b_row, c, pitch, before, before_row,
                            relu if final else 0,
                        )  # fmt: skip
                        done += rows
            if ragged:
                for i in range(first, last):
                    for j in range(min(g.wide, g.last - i * g.wide)):
                        to = image * g.out_image + i * g.out_row + j * g.out_pixel + panel
                        made = mine.ctypes.data + 4 * ((i - first) * g.wide + j) * wide
                        copy_numbers(out + 4 * to, made, count)


@compiled(parallel=True)
def _correlate_weight(  # type: ignore[no-untyped-def]
    tile, lane_count, src, g, runs, length, grad, vectors, most, shares, packed, sums, scratch
):
    """sums[part] of a part of all strips, or the panels of a share: the terms of a strip are packed, then a
    block of channels at a time is multiplied by them.
    """
    wide = vectors * lane_count
    parts, _, pitch = sums.shape
    units = g.images * g.strips
    tallest = (g.tall + g.strips - 1) // g.strips
    panel_count = (g.filters + wide - 1) // wide
    for worker in prange(parts * shares):
        part, share = worker // shares, worker % shares
        panels, copied = packed[worker], scratch[worker]
        offsets = np.empty(tallest, np.int64)
        first_panel, last_panel = share * panel_count // shares, (share + 1) * panel_count // shares
        low = part * units // parts
        for unit in range(low, (part + 1) * units // parts):
            image, strip = unit // g.strips, unit % g.strips
            first, last = strip * g.tall // g.strips, (strip + 1) * g.tall // g.strips
            terms = min(last * g.wide, g.last) - first * g.wide
            at = 0
            for panel in range(first_panel, last_panel):
                f = panel * wide
                count = min(wide, g.filters - f)
                at += _pack_terms(lane_count, grad, g, image, first, terms, f, count, panels[at:])
            for block in range(0, g.channels, g.block):
                channels = min(g.block, g.channels - block)
                start, pixel, row = place_strip(src, g, image, first, last, block, channels, copied)
                lines, line = last - first, g.wide
                if g.stride_h * row == g.wide * g.stride_w * pixel:
                    lines, line = 1, terms  # rows follow one another: one long line
                for i in range(lines):
                    offsets[i] = i * g.stride_h * row
                span = channels if g.block < g.channels else length
                at = 0
                for panel in range(first_panel, last_panel):
                    f = panel * wide
                    registers = (min(wide, g.filters - f) + lane_count - 1) // lane_count
                    for r in range(len(runs)):
                        done = 0
                        for tiles in range((span + most - 1) // most, 0, -1):
                            rows = (span - done + tiles - 1) // tiles
                            to = part * sums.shape[1] + r * length + block + done
                            c = sums.ctypes.data + 4 * (to * pitch + f)
                            multiply_tile(
                                tile, rows, registers, start + 4 * (runs[r] + done), 1, g.stride_w * pixel,
                                offsets.ctypes.data, lines, line, panels.ctypes.data + 4 * at,
                                registers * lane_count, c, pitch, c if unit > low else 0, pitch, 0,
                            )  # fmt: skip
                            done += rows
                    at += terms * registers * lane_count
        if low == (part + 1) * units // parts:
            sums[part] = 0


@compiled
def _pack_terms(lane_count, grad, g, image, first, terms, f, count, panel):  # type: ignore[no-untyped-def]
    """panel = grad's filters f .. f + count at `terms` pixels from row `first` on; how many numbers it is."""
    width = (count + lane_count - 1) // lane_count * lane_count
    done = 0
    while done < terms:
        line = min(g.wide, terms - done)
        place = image * g.out_image + (first + done // g.wide) * g.out_row + f
        start, target = grad + 4 * place, panel.ctypes.data + 4 * done * width
        for t in range(line):
            copy_numbers(target + 4 * t * width, start + 4 * t * g.out_pixel, count)
        done += line
    if count < width:
        for t in range(terms):
            panel[t * width + count : (t + 1) * width] = 0
    return terms * width
