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

import functools
from typing import Any

import numba
import numpy as np
from numba import prange

from minidl.backend.cpu import memory
from minidl.backend.cpu.compile import compiled
from minidl.backend.cpu.instructions import clear_numbers, copy_numbers, numbers_at
from minidl.backend.cpu.microkernel import (
    choose_panels,
    lanes,
    multiply_tile,
    pack,
    pack_jobs,
    pad,
    registers,
    tile_code,
)
from minidl.backend.cpu.strips import Geometry, geometry, place_strip, segments
from minidl.backend.cpu.threads import add_parts, get_num_threads, use_threads
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
    adding: bool = False,
) -> None:
    """out[n, i, j] = act(sum over taps a, b of src[n, i*stride + rows[a], j*stride + columns[b]] @ weight[a,
    b] + bias)

    src (N, H, W, C), weight (taps, taps, C, F), out (N, OH, OW, F), all float32; the channels of a pixel are
    neighbours in src and out, weight may be any view. Reads outside src are zeros. `adding`: the sum is added
    to what is in out, instead of the bias.
    """
    bias = None if bias is None else memory.contiguous(bias)
    fixed, numbers = _correlate_shapes(
        *(src.shape, src.strides, rows, columns, stride, weight.shape, weight.strides, out.shape),
        *(out.strides, get_num_threads(), lanes()),
    )
    _correlate(
        *fixed,
        memory.address(src),
        memory.address(weight),
        0 if bias is None else memory.address(bias),
        int(relu),
        memory.address(out),
        int(adding),
        memory.workspace(numbers),
    )


@functools.lru_cache(maxsize=4096)  # the layers of a network ask the same in every step
def _correlate_shapes(
    shape: tuple[int, ...],
    pitches: tuple[int, ...],
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    stride: tuple[int, int],
    weight_shape: tuple[int, ...],
    weight_pitches: tuple[int, ...],
    out_shape: tuple[int, ...],
    out_pitches: tuple[int, ...],
    threads: int,
    lane_count: int,
) -> tuple[tuple[Any, ...], int]:
    """(the arguments of `_correlate` that depend on shapes alone, how many numbers of workspace it takes)

    Pitches are in bytes, as `strides`.
    """
    g, runs, length = geometry(shape, pitches, rows, columns, stride, out_shape, out_pitches, threads)
    panels = choose_panels(g.filters, g.wide)
    wide = panels.vectors * lane_count
    *outer, step, column_step = (pitch // 4 for pitch in weight_pitches)
    taps = memory.places(weight_shape[:2], tuple(outer))
    packed = memory.line(taps.size * g.channels * registers(g.filters))
    sizes = packed, memory.line(registers(g.filters)), memory.line(g.strip * g.wide * wide), g.copied
    fixed = (
        *(tile_code(), transpose_code(lane_count), lane_count, tuple(g)),
        *segments(runs, length, _PANEL_NUMBERS // wide),
        *(panels.vectors, panels.rows, taps, (step, column_step), sizes, threads),
    )
    return fixed, sizes[0] + sizes[1] + threads * (sizes[2] + sizes[3])


def correlate_weight(
    src: np.ndarray, rows: tuple[int, ...], columns: tuple[int, ...], stride: tuple[int, int], g: np.ndarray
) -> np.ndarray:
    """sum over n, i, j of src[n, i*stride + rows[a], j*stride + columns[b]]^T @ g[n, i, j]

    -> (taps, taps, C, F), as `correlate`. A large sum is shared out among the threads by filters; of a small
    one each thread makes its own from a share of the lines, and they are added in order.
    """
    fixed, depth, pitch, numbers = _weight_shapes(
        src.shape, src.strides, rows, columns, stride, g.shape, g.strides, get_num_threads(), lanes()
    )
    sums = memory.empty((depth, pitch), np.float32)
    _correlate_weight(*fixed, memory.address(src), memory.address(g), sums, memory.workspace(numbers))
    filters = g.shape[3]
    return sums[:, :filters].reshape(len(rows), len(columns), src.shape[3], filters)


@functools.lru_cache(maxsize=4096)
def _weight_shapes(
    shape: tuple[int, ...],
    pitches: tuple[int, ...],
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    stride: tuple[int, int],
    out_shape: tuple[int, ...],
    out_pitches: tuple[int, ...],
    threads: int,
    lane_count: int,
) -> tuple[tuple[Any, ...], int, int, int]:
    """(the arguments of `_correlate_weight` that depend on shapes alone, rows and numbers to a row of its
    sums, how many numbers of workspace it takes)
    """

    def cut(workers: int) -> tuple[Geometry, np.ndarray, int]:
        return geometry(shape, pitches, rows, columns, stride, out_shape, out_pitches, workers, summing=True)

    g, runs, length = cut(1)
    depth, pitch = len(runs) * length, registers(g.filters)
    panels = choose_panels(g.filters, length)
    many = -(-g.filters // (panels.vectors * lane_count)) >= threads
    parts, shares = (1, threads) if many and depth * g.filters >= _SHARED_SUMS else (threads, 1)
    g, runs, length = cut(parts)  # as many strips for all of them
    sizes = memory.line(depth * pitch), memory.line(g.strip * g.wide * pitch), g.copied
    fixed = (
        *(tile_code(), lane_count, tuple(g), runs, length, panels.vectors, panels.rows),
        *(parts, shares, sizes),
    )
    return fixed, depth, pitch, (parts - 1) * sizes[0] + threads * (sizes[1] + sizes[2])


@compiled(parallel=True)
def _correlate(  # type: ignore[no-untyped-def]
    tile, transpose, lane_count, shapes, runs, length, group, vectors, most, taps, steps, sizes, threads, src,
    weight, bias, relu, out, adding, space,
):  # fmt: skip
    """Strips among the threads; panels, `group` runs of their rows, lines and tiles of a strip.

    space: the filters as panels, tap after tap and channel after channel; the bias; for each thread the
    results of a ragged panel, and the copy of a strip.
    """
    use_threads(threads)
    g = Geometry(*shapes)
    wide = vectors * lane_count
    depth = len(runs) * length
    panels, added = space[: sizes[0]], space[sizes[0] : sizes[0] + sizes[1]]
    scratch = space[sizes[0] + sizes[1] :]
    pad(bias, g.filters, added)
    for job in prange(pack_jobs(len(taps), g.channels, g.filters, steps[1], wide)):
        pack(
            job, transpose, lane_count, weight, taps, g.channels, steps[0], g.filters, steps[1], wide, panels
        )
    for unit in prange(g.images * g.strips):
        image, strip = unit // g.strips, unit % g.strips
        first, last = strip * g.tall // g.strips, (strip + 1) * g.tall // g.strips
        mine = scratch[numba.get_thread_id() * (sizes[2] + sizes[3]) :]
        start, pixel, row = place_strip(src, g, image, first, last, 0, g.channels, mine[sizes[2] :])
        for panel in range(0, g.filters, wide):
            count = min(wide, g.filters - panel)
            registers = (count + lane_count - 1) // lane_count
            ragged = count < registers * lane_count
            b = panels.ctypes.data + 4 * panel * depth
            b_row = registers * lane_count
            add = added.ctypes.data + 4 * panel
            if ragged and adding:
                _copy_panel(out, g, image, first, last, panel, count, mine.ctypes.data, wide, True)
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
                        before, before_row = (c, pitch) if run > 0 or adding else (add, 0)
                        multiply_tile(
                            tile, rows, registers, a, g.stride_w * pixel, 1, runs.ctypes.data + 8 * run,
                            count_runs, length, b_run, b_row, c, pitch, before, before_row,
                            relu if final else 0,
                        )  # fmt: skip
                        done += rows
            if ragged:
                _copy_panel(out, g, image, first, last, panel, count, mine.ctypes.data, wide, False)


@compiled
def _copy_panel(out, g, image, first, last, panel, count, scratch, wide, back):  # type: ignore[no-untyped-def]
    """A panel's results of rows first .. last, from scratch memory to out or, if `back`, from there to it."""
    for i in range(first, last):
        for j in range(min(g.wide, g.last - i * g.wide)):
            there = out + 4 * (image * g.out_image + i * g.out_row + j * g.out_pixel + panel)
            here = scratch + 4 * ((i - first) * g.wide + j) * wide
            if back:
                copy_numbers(here, there, count)
            else:
                copy_numbers(there, here, count)


@compiled(parallel=True)
def _correlate_weight(  # type: ignore[no-untyped-def]
    tile, lane_count, shapes, runs, length, vectors, most, parts, shares, sizes, src, grad, sums, space
):
    """A part of all strips, or the panels of a share, to a worker: the terms of a strip are packed, then a
    block of channels at a time is multiplied by them.

    space: the sums of all parts but the first; for each worker a strip's terms as panels, and its copy.
    """
    g = Geometry(*shapes)
    wide = vectors * lane_count
    pitch, whole = sums.shape[1], numbers_at(sums.ctypes.data, sums.size, sums)
    scratch = space[(parts - 1) * sizes[0] :]
    units = g.images * g.strips
    tallest = (g.tall + g.strips - 1) // g.strips
    panel_count = (g.filters + wide - 1) // wide
    for worker in prange(parts * shares):
        part, share = worker // shares, worker % shares
        total = whole if part == 0 else space[(part - 1) * sizes[0] :]
        panels = scratch[worker * (sizes[1] + sizes[2]) :]
        copied = panels[sizes[1] :]
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
                            c = total.ctypes.data + 4 * ((r * length + block + done) * pitch + f)
                            multiply_tile(
                                tile, rows, registers, start + 4 * (runs[r] + done), 1, g.stride_w * pixel,
                                offsets.ctypes.data, lines, line, panels.ctypes.data + 4 * at,
                                registers * lane_count, c, pitch, c if unit > low else 0, pitch, 0,
                            )  # fmt: skip
                            done += rows
                    at += terms * registers * lane_count
        if low == (part + 1) * units // parts:
            clear_numbers(total.ctypes.data, sums.size)
    add_parts(whole, space, parts - 1, sizes[0])


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
            clear_numbers(panel.ctypes.data + 4 * (t * width + count), width - count)
    return terms * width
