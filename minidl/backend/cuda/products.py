"""Matrix products on the GPU: kernels/product.cu.

An operand may be transposed, or a part of a wider matrix, without a copy: kernels are given its steps.
`multiply` is what fully connected layers, 1x1 convolutions and im2col have in common.
"""

import itertools
from typing import NamedTuple

import numpy as np

from minidl.backend import Array
from minidl.backend.cuda import precision
from minidl.backend.cuda.device import runtime_of
from minidl.backend.cuda.launch import Kernel, Strided, blocks_for, kernel, launch
from minidl.backend.cuda.move import broadcast, contiguous

Tile = tuple[int, int]  # rows and columns of y that a block computes

TILES: tuple[Tile, ...] = ((128, 128), (128, 64), (64, 64))
SMALL = TILES[-1]
_PROCESSORS = 132  # multiprocessors of an H200
_MOST_BATCHES = 65535  # the most that CUDA lets a grid have along z
_DEPTH = 32  # a multiple of kSimtDepth and kTf32Depth: parts of a depth begin where a tile of it does
_FIELDS = "m n k a_row a_depth b_row b_depth y_row a_batch b_batch y_batch parts part_depth relu adding"
_PRODUCT = np.dtype([(name, "i4") for name in _FIELDS.split()])


def tile_kernel(source: str, name: str, math: str, tile: Tile, deep_a: bool, deep_b: bool) -> Kernel:
    """Declare a kernel that computes tiles; {} in its name stands for math and the tile's sides."""
    if math == "Simt":  # as multiply_simt.cuh reckons it
        floats = 2 * 16 * sum(side + 4 for side in tile)
    else:  # and multiply_tf32.cuh
        floats = 4 * sum(20 * s if deep else 16 * (s + 8) for s, deep in zip(tile, (deep_a, deep_b)))
    return kernel(
        source,
        name.format(f"{math}, {tile[0]}, {tile[1]}"),
        shared_bytes=4 * floats,
        tensor_cores=math == "Tf32",
    )


# Tiles with the length of the chunks in which operands are read: the small one takes any shape.
SHAPES = [*((tile, 4) for tile in TILES), (SMALL, 1)]
_LAYOUTS = ((True, False), (True, True), (False, False))  # (A is deep, B is deep)
_KERNELS = {
    (math, tile, vec, *deep): tile_kernel(
        "product.cu",
        f"product<{{}}, {vec}, {str(deep[0]).lower()}, {str(deep[1]).lower()}>",
        math,
        tile,
        *deep,
    )
    for math, (tile, vec), deep in itertools.product(precision.MATHS, SHAPES, _LAYOUTS)
}
_SUM_PARTS = kernel("product.cu", "sum_parts")


class _Operand(NamedTuple):
    """An array (batch, rows, depth) with its steps in elements; deep: the depth's is 1, else the rows' is."""

    array: Array
    deep: bool
    row: int
    depth: int
    batch: int

    @property
    def vec(self) -> int:
        """How many neighbours can be read at once: 4 where all is a multiple of four."""
        along, across = (self.depth, self.row) if self.deep else (self.row, self.depth)
        sides = self.array.shape[2 if self.deep else 1], across, self.batch
        return 4 if along == 1 and in_fours(self.array, *sides) else 1


def matmul(a: Array, b: Array) -> Array:
    """a @ b, leading axes broadcast.  (..., M, D), (..., D, K) -> (..., M, K)"""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    y = runtime_of(a).empty((*lead, a.shape[-2], b.shape[-1]), a.dtype)
    multiply(_batch(a, lead), _batch(b, lead), y.reshape(-1, *y.shape[-2:]))
    return y


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """x @ weight + bias.  (N, D_in), (D_in, D_out), (D_out,) -> (N, D_out)"""
    y = runtime_of(x).empty((x.shape[0], weight.shape[1]), x.dtype)
    multiply(x[None], weight[None], y[None], bias=bias)
    return y


def multiply(
    a: Array, b: Array, y: Array, *, bias: Array | None = None, relu: bool = False, adding: bool = False
) -> None:
    """y = act(a @ b + bias), or y += a @ b with `adding`.  (B, M, K), (B, K, N) -> (B, M, N)

    A batch of 1 stands for as many as y has. y's rows may be parts of wider ones.
    """
    if y.size == 0:
        return
    if len(y) > _MOST_BATCHES:
        for some in (slice(i, i + _MOST_BATCHES) for i in range(0, len(y), _MOST_BATCHES)):
            left_part, right_part = (each if len(each) == 1 else each[some] for each in (a, b))
            multiply(left_part, right_part, y[some], bias=bias, relu=relu, adding=adding)
        return
    left = _operand(a)
    right = _operand(b.transpose(0, 2, 1), wide=not left.deep)
    (count, m, n), k = y.shape, a.shape[2]
    plain = count == 1 and bias is None and not (relu or adding) and y.flags.c_contiguous
    vec = min(left.vec, right.vec)
    tile = choose_tile(m, n, count, vec, splits=plain)
    blocks = -(-m // tile[0]), -(-n // tile[1])
    parts, part_depth = split(blocks[0] * blocks[1], k) if plain else (1, max(1, k))
    runtime = runtime_of(y)
    target = runtime.empty((parts, m, n), y.dtype) if parts > 1 else y
    steps = [stride // y.itemsize for stride in target.strides]
    lengths = m, n, k, left.row, left.depth, right.row, right.depth, steps[1]
    batches = left.batch, right.batch, steps[0], parts, part_depth
    shape = np.array([(*lengths, *batches, relu, adding)], _PRODUCT)
    arrays = Strided(left.array), Strided(right.array), bias, Strided(target)
    chosen = _KERNELS[precision.current(runtime), tile, vec, left.deep, right.deep]
    launch(chosen, runtime, (blocks[0] * blocks[1], 1, count * parts), *arrays, shape)
    if parts > 1:
        sum_parts(target, y)


def choose_tile(m: int, n: int, count: int, vec: int, *, splits: bool) -> Tile:
    """The largest tile of which y has enough to keep a GPU busy, or whose depth can be split."""
    for rows, columns in TILES if vec == 4 else ():
        enough = -(-m // rows) * -(-n // columns) * count >= _PROCESSORS
        if m > rows // 2 and n > columns // 2 and (enough or splits):
            return rows, columns
    return SMALL


def split(blocks: int, depth: int) -> tuple[int, int]:
    """(into how many parts, how deep each but the last): for two blocks on every multiprocessor."""
    wanted = min(2 * _PROCESSORS // blocks, depth // (8 * _DEPTH))
    part = -(-depth // max(1, wanted))
    part = max(1, -(-part // _DEPTH)) * _DEPTH
    return max(1, -(-depth // part)), part


def sum_parts(parts: Array, y: Array) -> None:
    """y = the sum over the first axis of `parts`, in its order."""
    launch(_SUM_PARTS, runtime_of(y), blocks_for(y.size), parts, y, len(parts), y.size)


def in_fours(array: Array, *numbers: int) -> bool:
    """Whether numbers of float32 can be read four at a time: an aligned address, multiples of four."""
    return runtime_of(array).address(array) % 16 == 0 and all(n % 4 == 0 for n in numbers)


def _operand(array: Array, *, wide: bool = False) -> _Operand:
    """(B, rows, depth) by its steps; a copy where they do not go together.  wide: it must not be deep."""
    batch, row, depth = (stride // array.itemsize for stride in array.strides)
    batch = 0 if len(array) == 1 else batch
    rows, depths = array.shape[1:]
    if not wide and (depth == 1 or depths == 1):
        return _Operand(array, True, row, 1, batch)
    if row == 1 or rows == 1:
        return _Operand(array, False, 1, depth, batch)
    if not wide:
        return _operand(contiguous(array))
    return _operand(contiguous(array.transpose(0, 2, 1)).transpose(0, 2, 1), wide=True)


def _batch(array: Array, lead: tuple[int, ...]) -> Array:
    """(..., M, D) as (B, M, D), B being 1 where one serves all."""
    if array.size == array.shape[-2] * array.shape[-1]:
        return array.reshape(1, *array.shape[-2:])
    if array.shape[:-2] != lead:
        array = broadcast(array, (*lead, *array.shape[-2:]))
    if len(lead) > 1:
        array = contiguous(array)
    return array.reshape(-1, *array.shape[-2:])
