"""How weights start. Every draw comes from the "init" stream, in float32, in the order layers are made."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod, sqrt

import numpy as np

from minidl import streams

_TRUNCATED_STD = 0.8796256610342398  # standard deviation of N(0, 1) cut at -2 and 2

_blank = False  # inside `blank`
_budget: int | None = None  # bytes that may still be made there


@contextmanager
def blank(most_bytes: int | None = None) -> Iterator[None]:
    """Nothing is drawn inside: every random start is zeros, which take no time, and no memory until written.

    For a network whose weights are read from somewhere as soon as it is built, or of which only the shapes
    are wanted.  ValueError when the starts inside take more than `most_bytes` together.
    """
    global _blank, _budget
    before = _blank, _budget
    _blank, _budget = True, most_bytes
    try:
        yield
    finally:
        _blank, _budget = before


def normal(shape: tuple[int, ...], std: float, mean: float = 0.0) -> np.ndarray:
    """Normal numbers of a given standard deviation."""
    if _blank:
        return zeros(shape)
    draw = streams.generator("init").standard_normal(shape, dtype=np.float32)
    draw *= np.float32(std)
    draw += np.float32(mean)
    return draw


def he_normal(shape: tuple[int, ...]) -> np.ndarray:
    """Normal with variance 2 / fan_in, fan_in being all axes but the last.

    He et al. 2015, arXiv:1502.01852, equation 10.
    """
    return normal(shape, sqrt(2 / prod(shape[:-1])))


def he_normal_fan_out(shape: tuple[int, ...]) -> np.ndarray:
    """Normal with variance 2 / fan_out, fan_out being all axes but the last but one.

    He et al. 2015, arXiv:1502.01852, equation 14, which keeps the variance of gradients.
    """
    return normal(shape, sqrt(2 * shape[-2] / prod(shape)))


def truncated_normal(shape: tuple[int, ...], std: float) -> np.ndarray:
    """Normal numbers of mean 0 within two standard deviations: what falls outside is drawn again.

    `std` is that of the normal distribution before the cut; the numbers' own is 0.880 of it (TensorFlow's
    convention).
    """
    if _blank:
        return zeros(shape)
    draw = normal(shape, 1.0)
    outside = np.flatnonzero(np.abs(draw) > 2)
    while outside.size:
        draw.flat[outside] = normal((outside.size,), 1.0)
        outside = outside[np.abs(draw.flat[outside]) > 2]
    return draw * np.float32(std)


def he_truncated_normal(shape: tuple[int, ...]) -> np.ndarray:
    """`truncated_normal` of variance 2 / fan_in, fan_in being all axes but the last."""
    return truncated_normal(shape, sqrt(2 / prod(shape[:-1])) / _TRUNCATED_STD)


def xavier_uniform(shape: tuple[int, ...]) -> np.ndarray:
    """Uniform numbers of variance 1 / fan_in, fan_in being all axes but the last.

    Glorot and Bengio 2010, as Caffe reads it: their variance, 2 / (fan_in + fan_out), where both fans agree.
    """
    if _blank:
        return zeros(shape)
    bound = np.float32(sqrt(3 / prod(shape[:-1])))
    draw = streams.generator("init").random(shape, dtype=np.float32)
    return bound * (2 * draw - 1)


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros."""
    _spend(shape)
    return np.zeros(shape, np.float32)


def ones(shape: tuple[int, ...]) -> np.ndarray:
    """Ones."""
    _spend(shape)
    return np.ones(shape, np.float32)


def _spend(shape: tuple[int, ...]) -> None:
    """ValueError if an array of float32 goes beyond what `blank` allows."""
    global _budget
    if _budget is not None:
        _budget -= 4 * prod(shape)
        if _budget < 0:
            raise ValueError(f"weights of shape {shape} are more than the file of the network explains")
