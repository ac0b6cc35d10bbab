"""Convolution by Winograd's minimal filtering in float32, for windows at stride 1.

Lavin and Gray 2015, arXiv:1509.09308. Along one axis, n numbers d of the image and a filter w of r taps give
the m = n + 1 - r outputs that lie under them by

    u = G w,  v = B^T d      two polynomials, evaluated at n - 1 points and infinity
    y = A^T (u * v)          their product's values there, and of its coefficients those that are outputs

with n multiplications for m outputs instead of m r. Along both axes it is done twice, U = G w G^T, V = B^T d
B, y = A^T (U * V) A; an axis of one tap is left as it is. What that comes to (`WINDOWS`):

    3x3   tiles of 6x6, 4x4 outputs: 144 multiplications become 36
    5x5            8x8, 4x4          400                        64
    1x7            1x10, 1x4         28                         10; 7x1 the same, upright
    1x3            1x6, 1x4          12                         6;  3x1 the same

Element e of all tiles is one matrix product, M[e] = V[e] @ U[e], (tiles, C) @ (C, F), so the micro-kernel
does all of them.

The gradient by the image is such a convolution with the filters turned round. The gradient by the weight runs
the same way backwards: dw = G^T (sum over tiles of V * (A g A^T)) G.

Each thread takes a block at a time, some tiles by some filters (or channels by filters for the weight), so
small that V, U and M of a block of channels stay in its own cache; that some are transformed again for the
next block costs a few percent. Bound by: arithmetic in the products, the caches in the transforms.

Rounding is larger than that of a direct convolution, up to ten times, since the points go up to 4 and their
powers cancel; `minidl.testing.bounds` states how much is allowed. float64 never comes here.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import prange

from minidl.backend.cpu import memory
from minidl.backend.cpu.compile import call, compiled
from minidl.backend.cpu.filtering import filter_matrix, image_matrix, output_matrix, tile
from minidl.backend.cpu.instructions import clear_numbers, numbers_at
from minidl.backend.cpu.microkernel import (
    choose_panels,
    lanes,
    multiply_tile,
    pad,
    registers,
    tile_code,
)
from minidl.backend.cpu.sandwich import sandwich
from minidl.backend.cpu.threads import add_parts, get_num_threads, use_threads
from minidl.backend.cpu.transpose import transposed

WINDOWS = ((3, 3), (5, 5), (1, 7), (7, 1), (1, 3), (3, 1))
_GAP = 80  # numbers between the elements: whole pages apart, all of them would share one place in the cache
_MANY_WEIGHTS = 1 << 18  # whose transforms take longer than what a longer chunk loses in the caches


class Blocks(NamedTuple):
    """What a thread takes at a time, so that V, U and M of all elements fit a core's own cache.

    long_chunk: tiles where transforming many filters takes longer, which each chunk does anew
    steps: tiles whose products are summed at a time for a weight gradient
    """

    channels: int
    filters: int
    chunk: int
    long_chunk: int
    steps: int


def _blocks(elements: int) -> Blocks:
    """For tiles of so many elements: the fastest of some that were measured."""
    if elements > 36:
        return Blocks(64, 64, 48, 48, 32)
    return Blocks(64, 64, 48, 96, 32) if elements > 16 else Blocks(128, 128, 160, 160, 64)


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
    """As `direct.correlate`, for the taps of one of the `WINDOWS`, side by side at stride 1."""
    if weight.strides[3] != weight.itemsize:
        rows_first = weight.transpose(0, 1, 3, 2)
        plain = rows_first.strides[3] == rows_first.itemsize
        weight = transposed(rows_first if plain else memory.copy(rows_first), lanes())
    bias = None if bias is None else memory.contiguous(bias)
    fixed, numbers = _correlate_shapes(
        *(src.shape, src.strides, rows, columns, weight.shape, weight.strides, out.shape, out.strides),
        *(get_num_threads(), lanes()),
    )
    _correlate(
        *fixed,
        memory.address(src),
        memory.address(weight),
        0 if bias is None else memory.address(bias),
        int(relu),
        memory.address(out),
        memory.workspace(numbers),
    )


@functools.lru_cache(maxsize=4096)  # the layers of a network ask the same in every step
def _correlate_shapes(
    shape: tuple[int, ...],
    pitches: tuple[int, ...],
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    weight_shape: tuple[int, ...],
    weight_pitches: tuple[int, ...],
    out_shape: tuple[int, ...],
    out_pitches: tuple[int, ...],
    threads: int,
    lane_count: int,
) -> tuple[tuple[Any, ...], int]:
    """As `direct._correlate_shapes`."""
    size, channels, filters = (len(rows), len(columns)), shape[3], out_shape[3]
    pixels, outputs, grid = _grid(size, out_shape)
    most = _blocks(math.prod(pixels))
    blocks = -(-channels // most.channels), -(-filters // most.filters)
    tiles = out_shape[0] * math.prod(grid)
    usual = most.long_chunk if math.prod(weight_shape) > _MANY_WEIGHTS else most.chunk
    chunk = _even_chunk(tiles, min(usual, -(-tiles * blocks[1] // (2 * threads))), blocks[1], threads)
    deep, broad = (registers(-(-n // count)) for n, count in zip((channels, filters), blocks))
    panels = choose_panels(broad, chunk)
    distance, steps, out_distance = (
        tuple(pitch // 4 for pitch in each) for each in (pitches, weight_pitches, out_pitches)
    )
    spaces = tuple(numbers + _GAP for numbers in (chunk * deep, deep * broad, chunk * broad))
    fixed = (
        *(tile_code(), tuple(code(lane_count) for code in _transforms(size)[:3]), lane_count),
        *(shape, distance, (rows[0], columns[0]), pixels, outputs, memory.places(size, steps), steps[2]),
        *(panels.vectors, panels.rows, out_shape, out_distance, grid, blocks, (chunk, deep, broad), spaces),
        threads,
    )
    return fixed, memory.line(registers(filters)) + threads * math.prod(pixels) * sum(spaces)


def correlate_weight(
    src: np.ndarray, rows: tuple[int, ...], columns: tuple[int, ...], stride: tuple[int, int], g: np.ndarray
) -> np.ndarray:
    """As `direct.correlate_weight`, for the taps of one of the `WINDOWS`, side by side at stride 1."""
    fixed, numbers = _weight_shapes(
        src.shape, src.strides, rows, columns, g.shape, g.strides, get_num_threads(), lanes()
    )
    sums = memory.empty((len(rows), len(columns), src.shape[3], g.shape[3]), np.float32)
    _correlate_weight(*fixed, memory.address(src), memory.address(g), sums, memory.workspace(numbers))
    return sums


@functools.lru_cache(maxsize=4096)
def _weight_shapes(
    shape: tuple[int, ...],
    pitches: tuple[int, ...],
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    out_shape: tuple[int, ...],
    out_pitches: tuple[int, ...],
    threads: int,
    lane_count: int,
) -> tuple[tuple[Any, ...], int]:
    """As `_correlate_shapes`, for `_correlate_weight`."""
    size, channels, filters = (len(rows), len(columns)), shape[3], out_shape[3]
    pixels, outputs, grid = _grid(size, out_shape)
    most = _blocks(math.prod(pixels))
    blocks = -(-channels // most.channels), -(-filters // most.filters)
    parts = 1 if math.prod(blocks) >= threads else threads
    high, broad = (registers(-(-n // count)) for n, count in zip((channels, filters), blocks))
    panels = choose_panels(broad, high)
    count = min(most.steps, out_shape[0] * math.prod(grid))
    distance, out_distance = (tuple(pitch // 4 for pitch in each) for each in (pitches, out_pitches))
    spaces = tuple(numbers + _GAP for numbers in (count * high, count * broad, high * broad))
    part = memory.line(math.prod(size) * channels * filters)
    fixed = (
        *(tile_code(), tuple(_transforms(size)[k](lane_count) for k in (0, 3, 4)), lane_count),
        *(shape, distance, (rows[0], columns[0]), pixels, outputs, panels.vectors, panels.rows),
        *(out_shape, out_distance, grid, blocks, (count, high, broad), spaces, threads),
        *(parts, part),
    )
    return fixed, (parts - 1) * part + threads * math.prod(pixels) * sum(spaces)


def _even_chunk(tiles: int, most: int, blocks: int, threads: int) -> int:
    """Tiles of a chunk: at most so many, chunks as equal as can be, and all threads get as many of them.

    A thread takes the same number of units (a chunk by a block) one after another, whatever their sizes.
    """
    chunks = -(-tiles // max(1, most))
    while chunks * blocks % threads and chunks < tiles:
        chunks += 1
    return -(-tiles // chunks)


def _grid(
    size: tuple[int, int], out: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """(pixels of a tile, its outputs, tiles of an image of outputs), each as (rows, columns).

    size: the window's taps; out: the shape of the outputs
    """
    pixels = tile(size[0]), tile(size[1])
    outputs = pixels[0] + 1 - size[0], pixels[1] + 1 - size[1]
    return pixels, outputs, (-(-out[1] // outputs[0]), -(-out[2] // outputs[1]))


@functools.cache
def _transforms(size: tuple[int, int]) -> tuple[Callable[[int], int], ...]:
    """The code for B^T d B, G w G^T, A^T M A, and for the weight gradient A g A^T, G^T S G."""
    image, filters, values = (
        [make(n) for n in size] for make in (image_matrix, filter_matrix, output_matrix)
    )
    return (
        sandwich(*image),
        sandwich(*filters),
        sandwich(*(matrix.T for matrix in values)),
        sandwich(*values),
        sandwich(*(matrix.T for matrix in filters)),
    )


@compiled
def _addresses(table, start, shape, distance, image, top, left, pixels, beyond):  # type: ignore[no-untyped-def]
    """table = where a grid of pixels from (top, left) on are, `beyond` for those that do not exist."""
    for a in range(pixels[0]):
        for b in range(pixels[1]):
            i, j = top + a, left + b
            if 0 <= i < shape[1] and 0 <= j < shape[2]:
                table[a * pixels[1] + b] = start + 4 * (
                    image * distance[0] + i * distance[1] + j * distance[2]
                )
            else:
                table[a * pixels[1] + b] = beyond


@compiled
def _elements(table, space, place):  # type: ignore[no-untyped-def]
    """table = where number `place` of each element is."""
    for e in range(space.shape[0]):
        table[e] = space.ctypes.data + 4 * (e * space.shape[1] + place)


@compiled
def _spaces(scratch, elements, pitches):  # type: ignore[no-untyped-def]
    """This thread's three spaces, (elements, pitch) each."""
    first, second, third = pitches
    start = scratch.ctypes.data + 4 * numba.get_thread_id() * elements * (first + second + third)
    return (
        numbers_at(start, (elements, first), scratch),
        numbers_at(start + 4 * elements * first, (elements, second), scratch),
        numbers_at(start + 4 * elements * (first + second), (elements, third), scratch),
    )


@compiled
def _place(tile, grid, outputs):  # type: ignore[no-untyped-def]
    """(image, row, column of the first output) of a tile, counted over all images."""
    image, rest = tile // (grid[0] * grid[1]), tile % (grid[0] * grid[1])
    return image, rest // grid[1] * outputs[0], rest % grid[1] * outputs[1]


@compiled
def _bounds(block, blocks, numbers, lane_count):  # type: ignore[no-untyped-def]
    """The first and the last + 1 of a block's numbers: equal blocks of whole registers, the last shorter."""
    each = ((numbers + blocks - 1) // blocks + lane_count - 1) // lane_count * lane_count
    return min(numbers, block * each), min(numbers, (block + 1) * each)


@compiled
def _transform_image(  # type: ignore[no-untyped-def]
    code, src, shape, distance, image, top, left, pixels, low, high, zeros, tables, v, place
):
    """v[:, place:] = B^T d B of channels low .. high of the tile whose first pixel is (top, left)."""
    start = src + 4 * low
    _addresses(tables[0], start, shape, distance, image, top, left, pixels, zeros.ctypes.data)
    _elements(tables[1], v, place)
    call(code, (tables[0].ctypes.data, tables[1].ctypes.data, high - low, 0, 0))


@compiled
def _transform_filters(  # type: ignore[no-untyped-def]
    code, lane_count, weight, taps, step, c_low, c_high, f_low, f_high, wide, tables, u
):
    """u = G w G^T of a block of channels and filters: per element panels of (channels, width)."""
    channels = c_high - c_low
    columns = (f_high - f_low + lane_count - 1) // lane_count * lane_count
    for panel in range(0, columns, wide):
        width = min(wide, columns - panel)
        have = min(width, f_high - f_low - panel)
        for c in range(channels):
            for k in range(len(taps)):
                tables[0, k] = weight + 4 * (taps[k] + (c_low + c) * step + f_low + panel)
            place = channels * panel + c * width
            _elements(tables[1], u, place)
            if have < width:
                for e in range(u.shape[0]):
                    clear_numbers(tables[1, e] + 4 * have, width - have)
            call(code, (tables[0].ctypes.data, tables[1].ctypes.data, have, 0, 0))


@compiled
def _transform_products(  # type: ignore[no-untyped-def]
    code, m, place, out, shape, distance, image, top, left, outputs, low, high, bias, relu, beyond, tables
):
    """out = act(A^T m[:, place:] A + bias) for filters low .. high, at pixels from (top, left) that exist."""
    _elements(tables[0], m, place)
    start, add = out + 4 * low, bias.ctypes.data + 4 * low
    _addresses(tables[1], start, shape, distance, image, top, left, outputs, beyond.ctypes.data)
    call(code, (tables[0].ctypes.data, tables[1].ctypes.data, high - low, add, relu))


@compiled(parallel=True)
def _correlate(  # type: ignore[no-untyped-def]
    tile, codes, lane_count, shape, distance, corner, pixels, outputs, taps, step, vectors, most, out_shape,
    out_distance, grid, blocks, sizes, spaces, threads, src, weight, bias, relu, out, space,
):  # fmt: skip
    """Chunks of tiles by blocks of filters among the threads.

    space: the bias; for each thread V, U and M of what it is at.
    """
    use_threads(threads)
    wide = vectors * lane_count
    channels, filters = shape[3], out_shape[3]
    tiles = out_shape[0] * grid[0] * grid[1]
    chunk, deep, broad = sizes
    elements = pixels[0] * pixels[1]
    zeros, nowhere = np.zeros(deep, np.float32), np.empty(broad, np.float32)
    length = (filters + lane_count - 1) // lane_count * lane_count
    added, scratch = space[:length], space[(length + 15) // 16 * 16 :]
    pad(bias, filters, added)
    for unit in prange((tiles + chunk - 1) // chunk * blocks[1]):
        first, block = unit // blocks[1] * chunk, unit % blocks[1]
        count = min(chunk, tiles - first)
        v, u, m = _spaces(scratch, elements, spaces)
        tables, start = np.empty((2, elements), np.int64), np.zeros(1, np.int64)
        f_low, f_high = _bounds(block, blocks[1], filters, lane_count)
        columns = (f_high - f_low + lane_count - 1) // lane_count * lane_count
        for part in range(blocks[0]):
            c_low, c_high = _bounds(part, blocks[0], channels, lane_count)
            _transform_filters(
                codes[1], lane_count, weight, taps, step, c_low, c_high, f_low, f_high, wide, tables, u
            )
            for t in range(count):
                image, i, j = _place(first + t, grid, outputs)
                i, j = i + corner[0], j + corner[1]
                _transform_image(
                    codes[0], src, shape, distance, image, i, j, pixels, c_low, c_high, zeros, tables, v,
                    t * deep,
                )  # fmt: skip
            for e in range(elements):
                for panel in range(0, columns, wide):
                    vectors_here = min(wide, columns - panel) // lane_count
                    b = u[e].ctypes.data + 4 * (c_high - c_low) * panel
                    done = 0
                    for left in range((count + most - 1) // most, 0, -1):
                        rows = (count - done + left - 1) // left
                        a = v[e].ctypes.data + 4 * done * deep
                        c = m[e].ctypes.data + 4 * (done * broad + panel)
                        multiply_tile(
                            tile, rows, vectors_here, a, deep, 1, start.ctypes.data, 1, c_high - c_low,
                            b, vectors_here * lane_count, c, broad, c if part > 0 else 0, broad, 0,
                        )  # fmt: skip
                        done += rows
        for t in range(count):
            image, i, j = _place(first + t, grid, outputs)
            _transform_products(
                codes[2], m, t * broad, out, out_shape, out_distance, image, i, j, outputs, f_low, f_high,
                added, relu, nowhere, tables,
            )  # fmt: skip


@compiled
def _transform_gradient(  # type: ignore[no-untyped-def]
    code, lane_count, g, shape, distance, image, top, left, outputs, low, high, wide, zeros, tables, d, t,
    chunk,
):  # fmt: skip
    """d[:, panels of tile t] = A g A^T of filters low .. high, zeros up to whole registers."""
    columns = (high - low + lane_count - 1) // lane_count * lane_count
    beyond = zeros.ctypes.data
    _addresses(tables[0], g + 4 * low, shape, distance, image, top, left, outputs, beyond)
    for panel in range(0, columns, wide):
        width = min(wide, columns - panel)
        have = min(width, high - low - panel)
        place = chunk * panel + t * width
        _elements(tables[1], d, place)
        if have < width:
            for e in range(d.shape[0]):
                clear_numbers(tables[1, e] + 4 * have, width - have)
        call(code, (tables[0].ctypes.data, tables[1].ctypes.data, have, 0, 0))
        for k in range(outputs[0] * outputs[1]):
            tables[0, k] += 4 * width * (tables[0, k] != beyond)


@compiled(parallel=True)
def _correlate_weight(  # type: ignore[no-untyped-def]
    tile, codes, lane_count, shape, distance, corner, pixels, outputs, vectors, most, g_shape, g_distance,
    grid, blocks, sizes, spaces, threads, parts, part_size, src, g, sums, space,
):  # fmt: skip
    """Parts of all tiles by blocks of channels by blocks of filters among the threads.

    space: the sums of all parts but the first; for each thread V, the transformed g and their product's sums.
    """
    use_threads(threads)
    wide = vectors * lane_count
    channels, filters = shape[3], g_shape[3]
    tiles = g_shape[0] * grid[0] * grid[1]
    tall, long = sums.shape[:2]
    scratch = space[(parts - 1) * part_size :]
    chunk, high, broad = sizes
    elements = pixels[0] * pixels[1]
    zeros = np.zeros(max(high, broad), np.float32)
    for unit in prange(parts * blocks[0] * blocks[1]):
        part, block = unit // (blocks[0] * blocks[1]), unit % (blocks[0] * blocks[1])
        v, d, total = _spaces(scratch, elements, spaces)
        tables, start = np.empty((2, elements), np.int64), np.zeros(1, np.int64)
        c_low, c_high = _bounds(block // blocks[1], blocks[0], channels, lane_count)
        f_low, f_high = _bounds(block % blocks[1], blocks[1], filters, lane_count)
        columns = (f_high - f_low + lane_count - 1) // lane_count * lane_count
        for e in range(elements):
            clear_numbers(total[e].ctypes.data, (c_high - c_low) * broad)
        for first in range(part * tiles // parts, (part + 1) * tiles // parts, chunk):
            count = min(chunk, (part + 1) * tiles // parts - first)
            for t in range(count):
                image, i, j = _place(first + t, grid, outputs)
                _transform_image(
                    codes[0], src, shape, distance, image, i + corner[0], j + corner[1], pixels, c_low,
                    c_high, zeros, tables, v, t * high,
                )  # fmt: skip
                _transform_gradient(
                    codes[1], lane_count, g, g_shape, g_distance, image, i, j, outputs, f_low, f_high, wide,
                    zeros, tables, d, t, chunk,
                )  # fmt: skip
            for e in range(elements):
                for panel in range(0, columns, wide):
                    vectors_here = min(wide, columns - panel) // lane_count
                    done = 0
                    for left in range((c_high - c_low + most - 1) // most, 0, -1):
                        rows = (c_high - c_low - done + left - 1) // left
                        c = total[e].ctypes.data + 4 * (done * broad + panel)
                        multiply_tile(
                            tile, rows, vectors_here, v[e].ctypes.data + 4 * done, 1, high,
                            start.ctypes.data, 1, count, d[e].ctypes.data + 4 * chunk * panel,
                            vectors_here * lane_count, c, broad, c, broad, 0,
                        )  # fmt: skip
                        done += rows
        made = sums.ctypes.data if part == 0 else space.ctypes.data + 4 * (part - 1) * part_size
        for c in range(c_high - c_low):
            _elements(tables[0], total, c * broad)
            for k in range(tall * long):
                tables[1, k] = made + 4 * ((k * channels + c_low + c) * filters + f_low)
            call(codes[2], (tables[0].ctypes.data, tables[1].ctypes.data, f_high - f_low, 0, 0))
    add_parts(numbers_at(sums.ctypes.data, sums.size, sums), space, parts - 1, part_size)
