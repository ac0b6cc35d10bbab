"""Transposing float32 matrices block by block in vector registers.

Number by number, each load and store would move one number; here one moves `lanes` of them. A block of
`lanes` rows of `lanes` numbers is read into as many registers. Round d of log2(lanes) exchanges, in all its
squares of 2d x 2d, the upper right quarter with the lower left one; after the last round the block is
transposed, and is written.

Bound by: the caches, and one shuffle per register and round.
"""

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from minidl.backend.cpu import memory
from minidl.backend.cpu.compile import call, compiled, procedure


def transposed(array: np.ndarray, lanes: int) -> np.ndarray:
    """The last two axes of four exchanged, contiguous.  (A, B, M, N) -> (A, B, N, M), float32

    The numbers of a row of `array` are neighbours in memory; the rest may be any view.
    """
    a, b, m, n = array.shape
    result = memory.empty((a, b, n, m), np.float32)
    _transpose(
        transpose_code(lanes),
        memory.address(array),
        memory.places((a, b), memory.distances(array)),
        memory.distances(array)[2],
        result.reshape(-1, n, m),
    )
    return result


@functools.cache
def transpose_code(lanes: int) -> int:
    """The address of the code for registers of so many numbers.

    Compiled code runs it as call(address, (source, source_row, target, target_row, rows, columns)): target[j,
    i] = source[i, j] for i < rows, j < columns; source and target are addresses of float32 numbers, *_row how
    many lie between the starts of two rows.
    """

    def transpose(source, source_row, target, target_row, rows, columns):  # type: ignore[no-untyped-def]
        whole_rows, whole_columns = rows - rows % lanes, columns - columns % lanes
        for j in range(0, whole_columns, lanes):
            for i in range(0, whole_rows, lanes):
                start, to = source + 4 * (i * source_row + j), target + 4 * (j * target_row + i)
                _block(lanes, start, source_row, to, target_row)
        for i in range(rows):
            for j in range(whole_columns if i < whole_rows else 0, columns):
                start, to = source + 4 * (i * source_row + j), target + 4 * (j * target_row + i)
                _block(1, start, source_row, to, target_row)

    return procedure(transpose, 6)


@intrinsic(prefer_literal=True)
def _block(typing: Any, lanes: Any, source: Any, source_row: Any, target: Any, target_row: Any) -> Any:
    """Generates the transposition of one block; `lanes`, a constant, is a power of two."""
    count = lanes.literal_value
    signature = types.void(lanes, *[types.int64] * 4)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, source, source_row, target, target_row = args
        vector = ir.VectorType(ir.FloatType(), count)

        def places(start: Any, row: Any) -> list[Any]:
            step = builder.mul(row, row.type(4))
            found = [start]
            for _ in range(count - 1):
                found.append(builder.add(found[-1], step))
            return [builder.inttoptr(place, vector.as_pointer()) for place in found]

        rows = [builder.load(place) for place in places(source, source_row)]
        for row in rows:
            row.align = 4
        distance = 1
        while distance < count:
            for i in range(count):
                if not i & distance:
                    rows[i], rows[i + distance] = _exchanged(builder, rows[i], rows[i + distance], distance)
            distance *= 2
        for place, row in zip(places(target, target_row), rows):
            builder.store(row, place).align = 4
        return context.get_dummy_value()

    return signature, codegen


def _exchanged(builder: Any, upper: Any, lower: Any, distance: int) -> tuple[Any, Any]:
    """Two rows `distance` apart after that round: number l of each is one of the upper row's (numbers 0 ..
    count - 1 to a shuffle) or of the lower one's (count and more)."""
    index, lanes = ir.IntType(32), range(upper.type.count)
    kind = ir.VectorType(index, upper.type.count)

    def shuffle(chosen: list[int]) -> Any:
        return builder.shuffle_vector(upper, lower, ir.Constant(kind, chosen))

    count = upper.type.count
    return (
        shuffle([lane if not lane & distance else count + lane - distance for lane in lanes]),
        shuffle([lane + distance if not lane & distance else count + lane for lane in lanes]),
    )


@compiled(parallel=True)
def _transpose(code, source, starts, row, result):  # type: ignore[no-untyped-def]
    """Strips of 64 rows of the matrices among the threads."""
    matrices, n, m = result.shape
    strips = (m + 63) // 64
    for unit in prange(matrices * strips):
        matrix, low = unit // strips, unit % strips * 64
        start, target = starts[matrix] + low * row, result[matrix, :, low:].ctypes.data
        call(code, (source + 4 * start, row, target, m, min(64, m - low), n))
