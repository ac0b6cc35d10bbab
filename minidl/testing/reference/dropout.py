"""Dropout and the random numbers behind it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.testing.reference.elementwise import where

Array = np.ndarray

STREAM = 2  # the number of the stream of masks: init, shuffle, dropout, augment


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10: four random 32-bit words from four words of counter and two of key.

    Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    mask = 2**32 - 1
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product2 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = product2 >> 32 ^ c1 ^ k0, product2 & mask, product0 >> 32 ^ c3 ^ k1, product0 & mask
        k0, k1 = k0 + 0x9E3779B9 & mask, k1 + 0xBB67AE85 & mask
    return [c0, c1, c2, c3]


def dropout_mask(shape: Sequence[int], p: float, *, seed: int, stream: int, call: int) -> Array:
    """Which elements are kept: those whose word is at least floor(p * 2**32).  -> bool, of that shape

    Element e takes word e % 4 of Philox with key (seed, stream) and counter (e // 4, call), both as (low,
    high) words.
    """

    def word(element: int) -> int:
        block = element // 4
        counter = (block % 2**32, block >> 32, call % 2**32, call >> 32)
        return philox(counter, (seed, stream))[element % 4]

    return np.array(
        [word(element) >= math.floor(p * 2**32) for element in range(math.prod(shape))], bool
    ).reshape(shape)


def dropout(x: Any, p: float, *, training: bool, seed: int = 0, stream: int = STREAM, call: int = 0) -> Array:
    """x / (1 - p) where the mask keeps it, else 0; x itself outside training.

    Without seed and call, the mask is the one that follows manual_seed(0).
    """
    x = np.asarray(x, np.float64)
    if not training or p == 0:
        return x.copy()
    kept = dropout_mask(x.shape, p, seed=seed, stream=stream, call=call)
    return where(kept, x / (1 - p) if p < 1 else x, 0.0)


def dropout_gradients(g: Any, x: Any, p: float, **options: Any) -> tuple[Array]:
    """g, dropped and scaled as x was."""
    return (dropout(g, p, **options),)
