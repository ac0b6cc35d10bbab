"""Channels-last arrays as rows of C channels: how far these lie apart, and how threads are laid over them."""

import functools
import itertools
from typing import NamedTuple

from minidl.backend import Array
from minidl.backend.cuda.device import runtime_of
from minidl.backend.cuda.launch import THREADS
from minidl.backend.cuda.move import contiguous

WIDTHS = (1, 4)  # channels that a thread takes: the instances of the kernels


class Columns(NamedTuple):
    """How threads are laid over C channels.

    wide    neighbouring channels that one thread takes
    width   threads of a block side by side, a power of two
    lanes   how often a block has these, each with other rows
    blocks  how many side by side cover the channels
    """

    wide: int
    width: int
    lanes: int
    blocks: int


def pitch_of(x: Array) -> int | None:
    """How far the rows of C numbers lie apart in memory, in elements; None where that varies, or where the
    numbers of a row are no neighbours."""
    c = x.shape[-1]
    if x.flags.c_contiguous:
        return c
    if c > 1 and x.strides[-1] != x.itemsize:
        return None
    steps = [(n, step // x.itemsize) for n, step in zip(x.shape[:-1], x.strides) if n > 1]
    even = all(outer == n * inner for (_, outer), (n, inner) in itertools.pairwise(steps))
    if not even or (steps and steps[-1][1] < c):
        return None
    return steps[-1][1] if steps else c


def lines(x: Array) -> tuple[Array, int]:
    """(x, how far its rows of C numbers lie apart in memory); a contiguous copy where that varies.

    So the gradient of a part of a concatenation is read where it lies.
    """
    pitch = pitch_of(x)
    return (contiguous(x), x.shape[-1]) if pitch is None else (x, pitch)


def channels_at_once(c: int, *arrays: Array) -> int:
    """How many neighbouring channels a thread takes: 4, which are read and written at once, where they divide
    C and every array is aligned to 16 bytes, else 1."""
    return 4 if c % 4 == 0 and all(runtime_of(array).address(array) % 16 == 0 for array in arrays) else 1


@functools.lru_cache(maxsize=1024)  # the layers of a network ask the same in every step
def columns(c: int, wide: int) -> Columns:
    """Blocks of `THREADS` threads for C channels, with as few idle as may be.

    Up to 32 side by side, and 8 or more where there are channels for them, so that whole lines of memory are
    read.
    """
    packs = max(c // wide, 1)
    least = min(8, 1 << (packs - 1).bit_length())
    widths = [width for width in (32, 16, 8, 4, 2, 1) if width >= least]
    width = min(widths, key=lambda width: -(-packs // width) * width)  # the first, the widest, of equals
    return Columns(wide, width, THREADS // width, -(-packs // width))
