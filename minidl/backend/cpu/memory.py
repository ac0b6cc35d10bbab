"""Warm memory: large arrays come from blocks that earlier arrays gave back.

A page the system has just handed out costs more to touch than most ops cost to run. So a block is kept when
the last array on it dies (the array's base is a `_Block`, and its `__del__` returns it) and serves the next
request of its size, or of half as much where no other is idle. Sizes are rounded up to an eighth of a power
of two, so that they meet again. Idle and live blocks together stay below `_SLACK` times the most that was
ever live: when shapes change, old blocks go back to the system. Small arrays are left to NumPy.
"""

import ctypes
import functools
import math
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

SMALL_BYTES = 1 << 15  # below this NumPy's own allocator is as good
_ALIGNMENT = 64  # bytes: a cache line, and one AVX-512 register
_SLACK = 2.0
_LINE = _ALIGNMENT // 4  # float32 numbers
_LEAST_WORKSPACE = 1 << 16
_LARGER = 2  # times the size asked for: larger blocks are kept for larger arrays

# NumPy's C interface fixes it: the first field of an array object is the address of its data. `array.ctypes`
# and the array interface tell the same, but take as long as a small kernel.
_pointer_at = ctypes.c_void_p.from_address
_HEADER = object.__basicsize__

_idle: "dict[int, list[_Raw]]" = defaultdict(list)
_idle_bytes = 0
_live_bytes = 0
_peak_bytes = 0  # since the last reset
_most_bytes = 0  # ever


class _Memory(np.ndarray):
    """Bytes of the system's.

    A type of its own: NumPy goes down a chain of bases as long as their type is the view's, and so does not
    pass over a `_Block` on one of these.
    """

    __slots__ = ()


class _Block(np.ndarray):
    """The base of every array on one piece of pooled memory; dies with the last of them."""

    __slots__ = ("raw",)
    raw: "_Raw"

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        global _idle_bytes, _live_bytes
        if ending():  # the names of this module may be gone already
            return
        size = self.raw.size
        _live_bytes -= size
        _idle_bytes += size
        _idle[size].append(self.raw)


class _Raw(NamedTuple):
    """Memory of the system's: the bytes, which of them is the first aligned one, how many there are from it
    on."""

    memory: _Memory
    start: int
    size: int


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A C-contiguous array of undefined values."""
    global _live_bytes, _peak_bytes, _most_bytes
    dtype, size = _needed(tuple(shape), dtype)
    if size < SMALL_BYTES:
        return np.empty(shape, dtype)
    raw = _taken(size)
    if raw is None:
        live = _live_bytes + size
        _trim(int(_SLACK * max(_most_bytes, live)) - live)
        memory = _Memory((size + _ALIGNMENT,), np.uint8)
        raw = _Raw(memory, -memory.ctypes.data % _ALIGNMENT, size)
    _live_bytes += raw.size
    _peak_bytes, _most_bytes = max(_peak_bytes, _live_bytes), max(_most_bytes, _live_bytes)
    block = _Block((raw.size,), np.uint8, raw.memory, raw.start)
    block.raw = raw
    return np.ndarray(shape, dtype, block)


@functools.lru_cache(maxsize=4096)  # the layers of a network ask the same in every step
def _needed(shape: tuple[int, ...], dtype: Any) -> tuple[np.dtype, int]:
    """(the dtype, how many bytes such an array needs, rounded up where the pool provides them)."""
    dtype = np.dtype(dtype)
    nbytes = dtype.itemsize * math.prod(map(int, shape))  # NumPy's own integers could overflow
    if nbytes < SMALL_BYTES:
        return dtype, nbytes
    step = _step(nbytes)
    return dtype, (nbytes + step - 1) // step * step


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A C-contiguous array of zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def contiguous(array: np.ndarray) -> np.ndarray:
    """`array` itself if it is C-contiguous, else a copy that is."""
    if array.flags.c_contiguous:
        return array
    return copy(array)


def copy(array: np.ndarray) -> np.ndarray:
    """A C-contiguous copy."""
    result = empty(array.shape, array.dtype)
    result[...] = array
    return result


def address(array: np.ndarray) -> int:
    """Where its first element is, for compiled code; somebody must hold the array meanwhile."""
    return _pointer_at(id(array) + _HEADER).value or 0


def distances(array: np.ndarray) -> tuple[int, ...]:
    """How far neighbours along each axis are apart, in elements."""
    size = array.itemsize
    return tuple([pitch // size for pitch in array.strides])


@functools.lru_cache(maxsize=4096)  # the layers of a network ask the same in every step
def places(counts: tuple[int, int], steps: tuple[int, ...]) -> np.ndarray:
    """i * steps[0] + j * steps[1] for all i and j below `counts`, row after row; not to be written."""
    return np.add.outer(np.arange(counts[0]) * steps[0], np.arange(counts[1]) * steps[1]).reshape(-1)


class _Workspace(threading.local):
    space: "np.ndarray | None" = None


_workspace = _Workspace()


def workspace(numbers: int, dtype: Any = np.float32) -> np.ndarray:
    """At least so many numbers, undefined: this thread's until it asks again.

    A kernel keeps here what nobody needs when it has run; being the same memory every time, it is often in a
    cache still.
    """
    if dtype != np.float32:
        return workspace(numbers * np.dtype(dtype).itemsize // 4).view(dtype)
    space = _workspace.space
    if space is None or space.size < numbers:
        space = _workspace.space = None  # the old one may serve
        space = _workspace.space = empty((max(numbers, _LEAST_WORKSPACE),), np.float32)
    return space


def line(numbers: int) -> int:
    """So many float32 numbers, rounded up to whole lines of the caches."""
    return -(-numbers // _LINE) * _LINE


def added(parts: np.ndarray) -> np.ndarray:
    """The sum over the first axis, in its order."""
    return (
        parts[0] if len(parts) == 1 else np.add.reduce(parts, axis=0, out=empty(parts.shape[1:], parts.dtype))
    )


def free_unused() -> None:
    """Hand the blocks nobody uses back to the system, and this thread's workspace."""
    global _idle_bytes
    _workspace.space = None
    _idle.clear()
    _idle_bytes = 0


def _trim(limit: int) -> None:
    """Let go of idle blocks until at most `limit` bytes of them are left."""
    for size in list(_idle):
        while _idle_bytes > limit and _popped(size) is not None:
            pass


def _step(nbytes: int) -> int:
    """How far sizes are apart from `nbytes` on: an eighth of the power of two below."""
    return 1 << (nbytes.bit_length() - 4)


def _taken(size: int) -> "_Raw | None":
    """The smallest idle block that may serve `size` bytes, no longer idle; None if there is none."""
    at_least = size
    while size <= _LARGER * at_least:
        if (raw := _popped(size)) is not None:
            return raw
        size += _step(size)
    return None


def _popped(size: int) -> "_Raw | None":
    """An idle block of just that size, no longer idle; None if there is none. Safe against other threads."""
    global _idle_bytes
    if not (blocks := _idle.get(size)):
        return None
    try:
        raw = blocks.pop()
    except IndexError:  # another thread was faster
        return None
    _idle_bytes -= size
    return raw


def live_bytes() -> int:
    """Bytes in pooled blocks that arrays are using now."""
    return _live_bytes


def peak_bytes(reset: bool = False) -> int:
    """The most bytes that were live at once, since the start or the last reset."""
    global _peak_bytes
    peak = _peak_bytes
    if reset:
        _peak_bytes = _live_bytes
    return peak
