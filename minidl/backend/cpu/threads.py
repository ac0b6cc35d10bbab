"""How many threads compute, and when a kernel is worth sharing out among them.

One number rules numba and BLAS alike. Below `PARALLEL_SIZE` elements starting the threads costs more than it
saves.
"""

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minidl.backend.cpu import blas
from minidl.backend.cpu.compile import compiled

PARALLEL_SIZE = 1 << 15  # elements; starting a parallel loop takes about 20 microseconds


_count = 0  # 0: numba's own choice, asked for once


def set_num_threads(count: int) -> None:
    """Compute with `count` threads from now on, in numba kernels and in BLAS.

    ValueError outside 1 .. the machine's limit.
    """
    global _count
    limit = numba.config.NUMBA_NUM_THREADS
    if not 1 <= count <= limit:
        raise ValueError(
            f"set_num_threads: count is {count}, it must lie in 1 .. {limit} (cores, or $NUMBA_NUM_THREADS)"
        )
    _count = count
    numba.set_num_threads(count)
    blas.set_num_threads(count)


def get_num_threads() -> int:
    """How many threads compute, whichever Python thread asks.

    numba keeps a number for each: kernels whose threads have their own places in some memory `use_threads`.
    """
    global _count
    if not _count:
        _count = int(numba.get_num_threads())
    return _count


@intrinsic
def use_threads(typing: Any, count: Any) -> Any:
    """use_threads(count), in compiled code: `numba.set_num_threads`, which numba can compile but not keep."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
        function = cgutils.get_or_insert_function(builder.module, kind, "set_num_threads")
        builder.call(function, [builder.trunc(args[0], ir.IntType(32))])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@compiled
def add_parts(total, others, count, pitch):  # type: ignore[no-untyped-def]
    """In compiled code: total += `count` arrays, one after another; they lie `pitch` numbers apart."""
    for part in range(count):
        other = others[part * pitch :]
        for i in range(total.size):
            total[i] += other[i]
