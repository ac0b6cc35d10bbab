"""Warm memory: large arrays come from memory that earlier arrays gave back.

A page the system has just handed out costs more to touch than most ops cost to run. So large arrays live in
arenas: long stretches of the system's memory that this module divides. An array gets the smallest free range
that holds it; when the last array on a range dies (the array's base is a `_Block`, and its `__del__` returns
it), the range joins the free ones beside it. Addresses beyond all of these are used last: an arena takes as
much of the machine's memory as the highest touched byte says, which in training is 2 % (ResNet-18) to 45 %
(NIN) more than was ever live at once. Small arrays are left to NumPy.
"""

import contextlib
import ctypes
import functools
import math
import mmap
import sys
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

SMALL_BYTES = 1 << 15  # below this NumPy's own allocator is as good
_ALIGNMENT = 64  # bytes: a cache line, and one AVX-512 register
_ARENA_BYTES = 1 << 30  # of addresses: memory is taken where it is touched
_ENDLESS = 1 << 60
_LINE = _ALIGNMENT // 4  # float32 numbers
_LEAST_WORKSPACE = 1 << 16

# NumPy's C interface fixes it: the first field of an array object is the address of its data. `array.ctypes`
# and the array interface tell the same, but take as long as a small kernel.
_pointer_at = ctypes.c_void_p.from_address
_HEADER = object.__basicsize__

_arenas: "list[_Arena]" = []
_lock = threading.Lock()  # of everything above and below but `_given`
_given: "deque[tuple[_Arena, int, int]]" = deque()  # ranges of dead arrays; a deque's append needs no lock
_live_bytes = 0
_peak_bytes = 0  # since the last reset


class _Arena:
    """A stretch of addresses and the ranges of it that are free: neighbours always merged, so few.

    The last range begins where nothing is in use any more and counts as endless: so it is cut last.

    size        bytes
    memory      the system's
    touched     no array has been beyond this byte since the last `release`
    _by_size    (size, start) of each free range, in order
    _size_at    start -> size of each free range
    _start_of   end -> start of each free range
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = _mapped(size)
        self.touched = 0
        self._by_size: list[tuple[int, int]] = []
        self._size_at: dict[int, int] = {}
        self._start_of: dict[int, int] = {}
        self._add(0, _ENDLESS)

    def take(self, size: int) -> int | None:
        """Where `size` bytes start that are now in use: in the smallest range that holds them, the first of
        those; None if none does."""
        place = bisect_left(self._by_size, (size, 0))
        found, start = self._by_size[place]
        if start + size > self.size:
            return None
        del self._by_size[place]
        del self._size_at[start], self._start_of[start + found]
        if found > size:
            self._add(start + size, found - size)
        self.touched = max(self.touched, start + size)
        return start

    def give(self, start: int, size: int) -> None:
        """The range is free again."""
        if (before := self._start_of.get(start)) is not None:
            size += self._removed(before)
            start = before
        if start + size in self._size_at:
            size += self._removed(start + size)
        self._add(start, size)

    def release(self) -> bool:
        """Free ranges go back to the system, in whole pages; whether nothing is in use."""
        self.touched = self._start_of[_ENDLESS]
        if hasattr(self.memory, "madvise"):
            for size, start in self._by_size:
                first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
                last = min(start + size, self.size) // mmap.PAGESIZE * mmap.PAGESIZE
                if first < last:
                    self.memory.madvise(mmap.MADV_DONTNEED, first, last - first)
        return self.touched == 0

    def _add(self, start: int, size: int) -> None:
        insort(self._by_size, (size, start))
        self._size_at[start] = size
        self._start_of[start + size] = start

    def _removed(self, start: int) -> int:
        """The size of the free range there, which is none from now on."""
        size = self._size_at.pop(start)
        del self._start_of[start + size]
        del self._by_size[bisect_left(self._by_size, (size, start))]
        return size


class _Block(np.ndarray):
    """The base of every array on one range of an arena; dies with the last of them.

    Its own base is no array, so this is where a chain of views ends: one owner for each range.
    """

    __slots__ = ("place",)
    place: tuple[_Arena, int, int]

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():  # the names of this module may be gone already
            _given.append(self.place)  # only noted: this may run at any moment, also where the lock is held


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A C-contiguous array of undefined values."""
    global _live_bytes, _peak_bytes
    dtype, size = _needed(tuple(shape), dtype)
    if size < SMALL_BYTES:
        return np.empty(shape, dtype)
    with _lock:
        try:
            _collect()
            arena, start = _taken(size)
        except MemoryError:
            raise
        except BaseException:  # Ctrl-C, in the midst of a change: what is live stays so, the rest begins anew
            _arenas.clear()
            raise
        _live_bytes += size
        if _live_bytes > _peak_bytes:
            _peak_bytes = _live_bytes
    block = _Block((size,), np.uint8, arena.memory, start)
    block.place = arena, start, size
    return np.ndarray(shape, dtype, block)


@functools.lru_cache(maxsize=4096)  # the layers of a network ask the same in every step
def _needed(shape: tuple[int, ...], dtype: Any) -> tuple[np.dtype, int]:
    """(the dtype, how many bytes such an array needs, in whole lines of the caches)."""
    dtype = np.dtype(dtype)
    nbytes = dtype.itemsize * math.prod(map(int, shape))  # NumPy's own integers could overflow
    return dtype, -(-nbytes // _ALIGNMENT) * _ALIGNMENT


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
    """Hand memory that no array is on back to the system, and this thread's workspace."""
    _workspace.space = None
    with _lock:
        _collect()
        _arenas[:] = [arena for arena in _arenas if not arena.release()]


def _collect() -> None:
    """Ranges of dead arrays become free; for who holds the lock."""
    global _live_bytes
    while _given:
        arena, start, size = _given.popleft()
        _live_bytes -= size
        if arena in _arenas:
            arena.give(start, size)


def _taken(size: int) -> tuple[_Arena, int]:
    """(an arena, where in it `size` bytes start that are now in use); for who holds the lock."""
    for arena in _arenas:
        if (start := arena.take(size)) is not None:
            return arena, start
    try:
        arena = _Arena(max(size, _ARENA_BYTES))
    except MemoryError:  # addresses may be limited as well
        arena = _Arena(size)
    _arenas.append(arena)
    return arena, arena.take(size) or 0  # at its beginning


def _mapped(size: int) -> mmap.mmap:
    """Addresses without memory yet, aligned to pages; in huge pages where the system has them, which makes a
    training step 2 to 4 % faster."""
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, size)
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # private: a fork has its own
    except (OSError, OverflowError, ValueError):
        raise MemoryError(
            f"the system has no {size / 1e9:.1f} GB for arrays; take smaller batches or images"
        ) from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def live_bytes() -> int:
    """Bytes of the arenas that arrays are on now."""
    with _lock:
        _collect()
        return _live_bytes


def peak_bytes(reset: bool = False) -> int:
    """The most bytes that were live at once, since the start or the last reset."""
    global _peak_bytes
    with _lock:
        _collect()
        peak = _peak_bytes
        if reset:
            _peak_bytes = _live_bytes
        return peak


def touched_bytes() -> int:
    """How much of the system's memory the arenas take: where each was touched last, together."""
    with _lock:
        return sum(arena.touched for arena in _arenas)
