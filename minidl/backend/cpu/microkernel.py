"""The register-tiled micro-kernel: the one inner loop from which every float32 convolution is built.

It multiplies a few rows of A by a panel of B and keeps the results, a tile of C, in vector registers until
the whole sum is done:

    for r in range(runs):                          the sum, in runs of `length` equally spaced terms
        for k in range(length):
            b[v] = the next row of the panel       one load for each of `vectors` registers
            for m in range(rows):
                s = A[m]                           one number, in every lane of a register
                for v in range(vectors):
                    sums[m, v] += s * b[v]         one multiply-add

`rows * vectors` multiply-adds need `rows + vectors` loads, and a processor does two of each per cycle: the
loop is bound by arithmetic, not by loads. A multiply-add takes four cycles, so eight or more that do not wait
for one another must be under way; a tile has up to 24. The number of registers limits it (`TILES`): AVX-512
has 32 of 16 numbers, NEON 32 of 4, AVX2 16 of 8, and the sums, one row of the panel and one number of A have
to fit.

B is packed: a panel is as wide as the tile and read from its first row to its last, so the caches see one
stream (`pack` makes it). A is read in place. Its rows and its terms may lie anywhere at equal distances, and
`offsets` says where each run starts; so the same loop computes x @ w (terms are neighbours), x^T @ g (terms
are a pixel apart) and a convolution without columns (a run is one row of the window: its pixels side by side,
and their channels). C is fetched before the sum begins: stores wait for one another, and one that misses the
caches would hold up the next tile.

The loop is generated as LLVM code inside numba, for registers of as many numbers as the machine has, and
compiled by itself, once for each such width (`tile_code`). A kernel is given its address and calls it through
`multiply_tile`; for all a kernel knows, the width is a number like any other.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minidl.backend.cpu.compile import call, compiled, procedure
from minidl.backend.cpu.instructions import clear_numbers, copy_numbers, emit_prefetch

# lanes: {vectors: the most rows}
TILES = {
    16: {1: 12, 2: 12, 3: 8, 4: 6},  # AVX-512: 32 registers
    8: {1: 12, 2: 6, 3: 4},  # AVX2: 16 registers
    4: {1: 12, 2: 12, 3: 8, 4: 6},  # NEON: 32 registers
    1: dict.fromkeys(
        (1, 2, 3, 4), 4
    ),  # any other processor: plain numbers, and what the compiler makes of them
}


def host_lanes() -> int:
    """How many float32 numbers a vector register of this machine holds, of those a kernel is made for."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    if features.get("avx2") and features.get("fma"):
        return 8
    return 4 if llvm.get_process_triple().startswith("aarch64") else 1


_PACKED_ROWS = 64  # of B, that a thread packs at a time where they lie row by row

_lanes = host_lanes()


def lanes() -> int:
    """How many numbers a register has, for which kernels run now."""
    return _lanes


@contextmanager
def force_lanes(count: int) -> Iterator[None]:
    """Inside, kernels are those for registers of `count` numbers; any machine can run them all.

    ValueError for a width there is no kernel for.
    """
    global _lanes
    if count not in TILES:
        raise ValueError(f"force_lanes: count is {count}; there are kernels for {', '.join(map(str, TILES))}")
    before, _lanes = _lanes, count
    try:
        yield
    finally:
        _lanes = before


class Panels(NamedTuple):
    """How the columns of B, or filters, are shared out: `vectors` registers to a panel, but for the last.

    rows: the most rows of a tile of that width
    """

    vectors: int
    rows: int


def choose_panels(columns: int, width: int) -> Panels:
    """The shape of tiles that takes the fewest cycles for `columns` columns and lines of `width` rows.

    A term of a tile of m x v takes as many cycles as the slowest of these: two multiply-adds start per cycle,
    two loads, four to five instructions; a sum waits four cycles for itself. Of equals the widest is best: it
    has the fewest instructions.
    """
    return _choose_panels(columns, width, _lanes)


@functools.cache
def _choose_panels(columns: int, width: int, lanes: int) -> Panels:
    def cycles(vectors: int, most: int) -> float:
        count = -(-columns // lanes)
        tiles = -(-width // most)
        rows = width / tiles
        full, rest = divmod(count, vectors)
        widths = [vectors] * full + [rest] * (rest > 0)
        return tiles * sum(
            max(rows * v / 2, (rows + v) / 2, (2 * rows + v + rows * v + 4) / 4.5, 4.0) for v in widths
        )

    vectors, most = min(TILES[lanes].items(), key=lambda shape: (cycles(*shape), -shape[0]))
    return Panels(vectors, most)


class _Operands(NamedTuple):
    """Of one tile: addresses in bytes, distances in elements; see `multiply_tile`."""

    a: Any
    a_row: Any
    a_term: Any
    offsets: Any
    runs: Any
    length: Any
    b: Any
    b_row: Any
    c: Any
    c_row: Any
    add: Any
    add_row: Any
    relu: Any


@intrinsic(prefer_literal=True)
def _tile(typing: Any, lanes: Any, shape: Any, operands: Any) -> Any:
    """Generates what `multiply_tile` computes, for registers of `lanes` numbers, a constant."""
    count = lanes.literal_value
    signature = types.void(lanes, types.UniTuple(types.int64, 2), types.UniTuple(types.int64, 13))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows, vectors = cgutils.unpack_tuple(builder, args[1])
        t = _Operands(*cgutils.unpack_tuple(builder, args[2]))
        end = builder.append_basic_block("end")
        for v, most in TILES[count].items():
            wide = builder.icmp_signed("==", vectors, vectors.type(v))
            with builder.if_then(wide):
                cases = builder.switch(rows, end)
                for m in range(1, most + 1):
                    block = builder.append_basic_block(f"tile_{m}x{v}")
                    cases.add_case(rows.type(m), block)
                    with builder.goto_block(block):
                        _Emitter(builder, count, m, v).emit(t)
                        builder.branch(end)
                builder.position_at_end(builder.append_basic_block("unreachable"))
        builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, codegen


def multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """Emits x * y + z for vectors, rounded once where the processor can."""
    vector = x.type
    if vector.count == 1:
        return builder.fadd(builder.fmul(x, y), z)
    name = f"llvm.fma.v{vector.count}f32"
    fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    return builder.call(fused, [x, y, z])


class _Emitter:
    """Writes the code of one tile of `rows` x `vectors` registers of `lanes` numbers."""

    def __init__(self, builder: Any, lanes: int, rows: int, vectors: int) -> None:
        self.builder, self.lanes, self.rows, self.vectors = builder, lanes, rows, vectors
        self.int = ir.IntType(64)
        self.number = ir.FloatType()
        self.vector = ir.VectorType(self.number, lanes)
        self.zero = ir.Constant(self.vector, [0.0] * lanes)

    def emit(self, t: _Operands) -> None:
        """The loops of this file's docstring, then what is added, ReLU, and the stores."""
        b = self.builder
        run, term, next_run, done = (b.append_basic_block(name) for name in ("run", "term", "next", "done"))
        rows = [b.mul(t.a_row, self.int(4 * m)) for m in range(self.rows)]
        zeros = [self.zero] * (self.rows * self.vectors)
        for place in self.places(t.c, t.c_row):
            emit_prefetch(b, place)
        start = b.block
        b.branch(run)

        b.position_at_end(run)
        r, panel, *sums = self.phis([self.int(0), t.b, *zeros], start)
        offset = self.load(self.at(t.offsets, r, 8), self.int)
        a = self.at(t.a, offset)
        b.branch(term)

        b.position_at_end(term)
        k, a_k, panel_k, *sums_k = self.phis([self.int(0), a, panel, *sums], run)
        new = self.term(a_k, rows, panel_k, sums_k)
        next_panel = self.at(panel_k, t.b_row)
        k_next = b.add(k, self.int(1))
        self.join([k, a_k, panel_k, *sums_k], [k_next, self.at(a_k, t.a_term), next_panel, *new])
        b.cbranch(b.icmp_signed("<", k_next, t.length), term, next_run)

        b.position_at_end(next_run)
        r_next = b.add(r, self.int(1))
        self.join([r, panel, *sums], [r_next, next_panel, *new])
        b.cbranch(b.icmp_signed("<", r_next, t.runs), run, done)

        b.position_at_end(done)
        new = self.when(t.add, new, lambda: self.added(new, t))
        new = self.when(t.relu, new, lambda: [self.clipped(value) for value in new])
        for place, value in zip(self.places(t.c, t.c_row), new):
            b.store(value, b.inttoptr(place, self.vector.as_pointer())).align = 4

    def term(self, a: Any, rows: Sequence[Any], panel: Any, sums: Sequence[Any]) -> list[Any]:
        """One term of all sums."""
        results = []
        row = [self.load(self.at(panel, self.int(self.lanes * v)), self.vector) for v in range(self.vectors)]
        for m in range(self.rows):
            s = self.broadcast(self.load(self.builder.add(a, rows[m]), self.number))
            results += [
                multiply_add(self.builder, s, row[v], sums[m * self.vectors + v]) for v in range(self.vectors)
            ]
        return results

    def added(self, sums: Sequence[Any], t: _Operands) -> list[Any]:
        """The sums plus what stands at `add`: a bias (rows at distance 0), or what C held before."""
        places = self.places(t.add, t.add_row)
        return [self.builder.fadd(s, self.load(p, self.vector)) for s, p in zip(sums, places)]

    def clipped(self, value: Any) -> Any:
        """ReLU; NaN stays NaN."""
        negative = self.builder.fcmp_ordered("<", value, self.zero)
        return self.builder.select(negative, self.zero, value)

    def places(self, start: Any, row: Any) -> list[Any]:
        """The addresses of a tile's registers in memory."""
        found = []
        for _ in range(self.rows):
            found += [self.at(start, self.int(self.lanes * v)) for v in range(self.vectors)]
            start = self.at(start, row)
        return found

    def when(self, condition: Any, values: list[Any], change: Any) -> list[Any]:
        """`change()` where the condition is not 0, else the values."""
        b = self.builder
        yes, after, before = b.append_basic_block("yes"), b.append_basic_block("after"), b.block
        b.cbranch(b.icmp_signed("!=", condition, self.int(0)), yes, after)
        b.position_at_end(yes)
        changed = change()
        b.branch(after)
        b.position_at_end(after)
        results = self.phis(values, before)
        for phi, value in zip(results, changed):
            phi.add_incoming(value, yes)
        return results

    def at(self, address: Any, distance: Any, size: int = 4) -> Any:
        """The address of what is `distance` elements away."""
        return self.builder.add(address, self.builder.mul(distance, self.int(size)))

    def load(self, address: Any, kind: Any) -> Any:
        value = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()))
        value.align = 8 if kind == self.int else 4
        return value

    def broadcast(self, value: Any) -> Any:
        """The number in every lane."""
        index, undefined = ir.IntType(32), ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, index(0))
        lanes = ir.Constant(ir.VectorType(index, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def phis(self, values: Sequence[Any], block: Any) -> list[Any]:
        """Loop variables that start as `values`, coming from `block`."""
        found = []
        for value in values:
            found.append(self.builder.phi(value.type))
            found[-1].add_incoming(value, block)
        return found

    def join(self, phis: Sequence[Any], values: Sequence[Any]) -> None:
        """What loop variables are in the next turn, which is entered from here."""
        for phi, value in zip(phis, values):
            phi.add_incoming(value, self.builder.block)


@functools.cache
def _tile_code(lanes: int) -> int:
    def tile(  # type: ignore[no-untyped-def]
        rows, vectors, a, a_row, a_term, offsets, runs, length, b, b_row, c, c_row, add, add_row, relu
    ):
        operands = (a, a_row, a_term, offsets, runs, length, b, b_row, c, c_row, add, add_row, relu)
        _tile(lanes, (rows, vectors), operands)

    return procedure(tile, 15)


def tile_code() -> int:
    """The argument `tile` of `multiply_tile`: its machine code for the width of now."""
    return _tile_code(_lanes)


@compiled
def multiply_tile(  # type: ignore[no-untyped-def]
    tile, rows, vectors, a, a_row, a_term, offsets, runs, length, b, b_row, c, c_row, add, add_row, relu
):
    """C[m, j] = act(add[m, j] + sum over r, k of A[offsets[r] + m a_row + k a_term] B[r, k, j])

    for r < runs, k < length, m < rows, j < vectors * lanes. `tile` is `tile_code()`, a, offsets, b, c and add
    are addresses (`array.ctypes.data`); A, B and C are float32, offsets int64; distances are in elements. The
    rows of B's panel lie b_row apart, run after run. add: 0 for nothing; act: ReLU if relu is 1.
    """
    operands = (a, a_row, a_term, offsets, runs, length, b, b_row, c, c_row, add, add_row, relu)
    call(tile, (rows, vectors, *operands))


@compiled
def pack_jobs(taps, length, columns, column_step, wide):  # type: ignore[no-untyped-def]
    """How many jobs `pack` is cut into."""
    most = _PACKED_ROWS if column_step == 1 else length
    return taps * ((length + most - 1) // most) * ((columns + wide - 1) // wide)


@compiled
def pack(  # type: ignore[no-untyped-def]
    job, transpose, lane_count, source, starts, length, step, columns, column_step, wide, panels
):
    """One job of: panels = B[r, k, j] = source[starts[r] + k * step + j * column_step], panel after panel.

    The last panel is as wide as its columns need, in whole registers; what is left of those is zeros.
    `source` is an address, `panels` flat, `transpose` is `transpose_code(lane_count)`.
    """
    depth = len(starts) * length
    most = _PACKED_ROWS if column_step == 1 else length
    parts, count_panels = (length + most - 1) // most, (columns + wide - 1) // wide
    r, rest = job // (parts * count_panels), job % (parts * count_panels)
    low, first = rest // count_panels * most, rest % count_panels * wide
    terms, count = min(most, length - low), min(wide, columns - first)
    pitch = (count + lane_count - 1) // lane_count * lane_count
    at = starts[r] + low * step + first * column_step
    row = depth * first + (r * length + low) * pitch
    start, target = source + 4 * at, panels.ctypes.data + 4 * row
    if column_step == 1:
        for k in range(terms):
            copy_numbers(target + 4 * k * pitch, start + 4 * k * step, count)
    elif step == 1:
        call(transpose, (start, column_step, target, pitch, count, terms))
    else:
        for j in range(count):
            for k in range(terms):
                number = start + 4 * (j * column_step + k * step)
                copy_numbers(target + 4 * (k * pitch + j), number, 1)
    if count < pitch:
        for k in range(terms):
            clear_numbers(target + 4 * (k * pitch + count), pitch - count)


@compiled
def pad(source, count, target):  # type: ignore[no-untyped-def]
    """target = `count` numbers from address `source` on (0: none), then zeros."""
    clear_numbers(target.ctypes.data, target.size)
    if source:
        copy_numbers(target.ctypes.data, source, count)


def registers(columns: int) -> int:
    """`columns`, rounded up to whole registers."""
    return -(-columns // _lanes) * _lanes
