"""Dropout masks from the counter-based generator Philox4x32-10: the mask of a call can be computed anywhere,
any time, again.

Element e of the mask is word e % 4 of Philox applied to the counter (e // 4, call), both as two 32-bit words,
low first, under the key (seed, stream). It is kept when that word is at least floor(p * 2**32). So nothing is
stored for the gradient, and a mask does not depend on threads, device or plan.  Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3".

Bound by: arithmetic, ten rounds of two 32-bit products per four elements.
"""

import numpy as np
from numba import prange, uint32, uint64

from minidl.backend.cpu import memory
from minidl.backend.cpu.compile import compiled

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)  # the paper's multipliers
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)  # and the steps of its key: golden ratio, sqrt(3) - 1
_LANES = 64  # counters that go through the rounds side by side, so that the compiler makes vectors of them


def dropout(x: np.ndarray, p: float, key: tuple[int, int, int]) -> np.ndarray:
    """x / (1 - p) where the mask of key = (seed, stream, call) keeps, else 0.

    Also its own gradient, on g.
    """
    x = memory.contiguous(x)
    y = memory.empty(x.shape, x.dtype)
    seed, stream, call = key
    threshold = int(p * 2**32)
    scale = x.dtype.type(1 / (1 - p) if p < 1 else 0)
    _dropout(
        x.reshape(-1),
        np.uint64(threshold),
        scale,
        np.uint32(seed),
        np.uint32(stream),
        np.uint64(call),
        y.reshape(-1),
    )
    return y


@compiled
def _philox(first, call, key0, key1, words):  # type: ignore[no-untyped-def]
    """words (4, _LANES) = Philox4x32-10 of the counters (first + lane, call)."""
    c0, c1, c2, c3 = words[0], words[1], words[2], words[3]
    for i in range(_LANES):
        block = first + uint64(i)
        c0[i], c1[i] = uint32(block), uint32(block >> uint64(32))
        c2[i], c3[i] = uint32(call), uint32(call >> uint64(32))
    for _ in range(10):
        for i in range(_LANES):
            p0, p1 = _M0 * uint64(c0[i]), _M1 * uint64(c2[i])
            c0[i] = uint32(p1 >> uint64(32)) ^ c1[i] ^ key0
            c1[i] = uint32(p1)
            c2[i] = uint32(p0 >> uint64(32)) ^ c3[i] ^ key1
            c3[i] = uint32(p0)
        key0, key1 = uint32(key0 + _W0), uint32(key1 + _W1)


@compiled(parallel=True)
def _dropout(x, threshold, scale, key0, key1, call, y):  # type: ignore[no-untyped-def]
    stretch = 4 * _LANES
    for part in prange((x.size + stretch - 1) // stretch):
        words = np.empty((4, _LANES), np.uint32)
        _philox(uint64(part * _LANES), call, key0, key1, words)
        start = part * stretch
        for i in range(min(stretch, x.size - start)):
            kept = uint64(words[i & 3, i >> 2]) >= threshold
            y[start + i] = x[start + i] * scale if kept else 0
