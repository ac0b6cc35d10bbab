"""Dropout on the GPU: kernels/dropout.cu, with the masks of backend/cpu/dropout.py bit for bit."""

import numpy as np

from minidl.backend import Array
from minidl.backend.cuda.device import runtime_of
from minidl.backend.cuda.elementwise import instance
from minidl.backend.cuda.launch import blocks_for, kernel, launch
from minidl.backend.cuda.move import contiguous, fill

_DROPOUT = {np.dtype(np.float32): kernel("dropout.cu", "dropout")}


def dropout(x: Array, p: float, key: tuple[int, int, int]) -> Array:
    """x / (1 - p) where the mask of key = (seed, stream, call) keeps, else 0.

    Also its own gradient, on g.
    """
    found, runtime = instance(_DROPOUT, x.dtype, "dropout"), runtime_of(x)
    y = runtime.empty(x.shape, x.dtype)
    if p >= 1:  # no 32-bit word reaches this threshold
        return fill(y, 0)
    if y.size:
        seed, stream, call = key
        words = seed, stream, call & 0xFFFFFFFF, call >> 32
        numbers = int(p * 2**32), 1 / (1 - p), *words
        blocks = blocks_for(-(-y.size // 4))  # a thread has four elements
        launch(found, runtime, blocks, contiguous(x), y, *numbers, y.size)
    return y
