"""How many threads compute, and when a kernel is worth sharing out among them.

One number rules numba and BLAS alike. Below `PARALLEL_SIZE` elements starting the threads costs more than it
saves.
"""

import numba

from minidl.backend.cpu import blas

PARALLEL_SIZE = 1 << 15  # elements; starting a parallel loop takes about 20 microseconds


_count = 0  # 0: numba's own choice, all cores


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
    get_num_threads()
    blas.set_num_threads(count)


def get_num_threads() -> int:
    """How many threads compute, whichever Python thread asks: numba by itself keeps a number for each."""
    count = int(numba.get_num_threads())
    if _count and count != _count:
        numba.set_num_threads(_count)
        return _count
    return count
