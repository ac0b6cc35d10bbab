"""How weights start. Every draw comes from the "init" stream, in float32, in the order layers are made."""

from math import prod, sqrt

import numpy as np

from minidl import streams


def normal(shape: tuple[int, ...], std: float, mean: float = 0.0) -> np.ndarray:
    """Normal numbers of a given standard deviation."""
    draw = streams.generator("init").standard_normal(shape, dtype=np.float32)
    return draw * np.float32(std) + np.float32(mean)


def he_normal(shape: tuple[int, ...]) -> np.ndarray:
    """Normal with variance 2 / fan_in, fan_in being all axes but the last.

    He et al. 2015, arXiv:1502.01852, equation 10.
    """
    return normal(shape, sqrt(2 / prod(shape[:-1])))


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros."""
    return np.zeros(shape, np.float32)


def ones(shape: tuple[int, ...]) -> np.ndarray:
    """Ones."""
    return np.ones(shape, np.float32)
