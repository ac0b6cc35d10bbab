"""Errors of every general kind in every gradient and result of every op, planted where it is recorded.

`recording._record` sees each op's name, inputs, result and vjps. Here it is given wrong ones: what is planted
needs no knowledge of the op, so a new op is covered the day it appears.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from minidl import ops, recording
from minidl.backend import Array
from minidl.ops import arithmetic, shape

Prove = Callable[[str], None]
Vjp = Callable[[Array], Array]
Recorded = tuple[Array, list[Vjp]]  # an op's result and its vjps

# These two are plain functions that sort their arguments first.
BEHIND = {"where": arithmetic._where, "concat": shape._concat}


def gradients_of(name: str) -> list[str]:
    """The op's differentiable inputs, in order; of any number of arrays the first two stand for all."""
    function = inspect.unwrap(BEHIND.get(name, getattr(ops, name)))
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    arrays = [p for p in parameters if p.annotation in (Array, Array | None)]
    if arrays[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return [f"{arrays[0].name}[0]", f"{arrays[0].name}[1]"]
    return [p.name for p in arrays]


@contextmanager
def recorded_as(name: str, change: Callable[[list[Any], Array, list[Vjp]], Recorded]) -> Iterator[None]:
    """Inside, what `name` records passes through `change` first."""
    record = recording._record

    def changed(op: str, values: list[Any], y: Array, vjps: tuple[Vjp, ...]) -> Any:
        if op == name:
            y, wrong = change(values, y, list(vjps))
            vjps = tuple(wrong)
        return record(op, values, y, vjps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "_record", changed)
        yield


def _without_last(array: Array) -> Array:
    shortened = array.copy()
    shortened[(-1,) * array.ndim] = 0
    return shortened


def _overwritten(vjp: Vjp, g: Array) -> Array:
    result = vjp(g).copy()
    g *= 2
    return result


def _drifting(array: Array, memory: list[Array]) -> Array:
    """Another rounding in every run, as sums in a random order give."""
    memory.append(array)
    return array * array.dtype.type(1 + len(memory) * np.finfo(array.dtype).eps)


def _remembered(g: Array, memory: list[Array]) -> Array:
    """The first array of that shape that came by."""
    memory.append(g.copy())
    return next(old for old in memory if (old.shape, old.dtype) == (g.shape, g.dtype))


# From the vjp, what arrives, and a memory that outlives the call: the gradient that leaves.
GRADIENT_ERRORS: dict[str, Callable[[Vjp, Array, list[Array]], Array]] = {
    "dropped": lambda vjp, g, memory: 0 * vjp(g),
    "of the wrong sign": lambda vjp, g, memory: -vjp(g),
    "a thousandth too large": lambda vjp, g, memory: vjp(g) * (1 + 1e-3),
    "without its last element": lambda vjp, g, memory: _without_last(vjp(g)),
    "reversed along its last axis": lambda vjp, g, memory: np.flip(vjp(g), range(vjp(g).ndim)[-1:]),
    "rounded to single precision": lambda vjp, g, memory: vjp(g).astype(np.float32).astype(g.dtype),
    "of an upstream of ones": lambda vjp, g, memory: vjp(np.ones_like(g)),
    "of the first upstream of that shape": lambda vjp, g, memory: vjp(_remembered(g, memory)),
    "that overwrites the upstream": lambda vjp, g, memory: _overwritten(vjp, g),
    "that is another one every time": lambda vjp, g, memory: _drifting(vjp(g), memory),
}

RESULT_ERRORS: dict[str, Callable[[Array], Array]] = {
    "a hundred-thousandth too large": lambda y: y * y.dtype.type(1 + 1e-5),
    "without its last element": lambda y: _without_last(y),
    "rounded to single precision": lambda y: y.astype(np.float32).astype(y.dtype),
    "of twice the width": lambda y: y.astype(np.float64),
}

GRADIENTS = [(name, k) for name in ops.__all__ for k in range(len(gradients_of(name)))]
PAIRS = [name for name in ops.__all__ if len(gradients_of(name)) == 2 and name != "add"]  # its two are equal


@pytest.mark.parametrize("error", GRADIENT_ERRORS)
@pytest.mark.parametrize(
    ("name", "k"), GRADIENTS, ids=[f"{name}, {gradients_of(name)[k]}" for name, k in GRADIENTS]
)
def test_a_wrong_gradient(name: str, k: int, error: str, prove: Prove) -> None:
    memory: list[Array] = []

    def change(values: list[Any], y: Array, vjps: list[Vjp]) -> Recorded:
        if k < len(vjps):  # not so for an optional input that was left out
            right = vjps[k]
            vjps[k] = lambda g: np.asarray(GRADIENT_ERRORS[error](right, g, memory))
        return y, vjps

    with recorded_as(name, change), pytest.raises(AssertionError):
        prove(name)


@pytest.mark.parametrize("name", PAIRS)
def test_exchanged_gradients(name: str, prove: Prove) -> None:
    def change(values: list[Any], y: Array, vjps: list[Vjp]) -> Recorded:
        same = len(vjps) == 2 and values[0].shape == values[1].shape
        return y, vjps[::-1] if same else vjps

    with recorded_as(name, change), pytest.raises(AssertionError):
        prove(name)


@pytest.mark.parametrize("error", RESULT_ERRORS)
@pytest.mark.parametrize("name", ops.__all__)
def test_a_wrong_result(name: str, error: str, prove: Prove) -> None:
    def change(values: list[Any], y: Array, vjps: list[Vjp]) -> Recorded:
        return np.asarray(RESULT_ERRORS[error](y)), vjps

    with recorded_as(name, change), pytest.raises(AssertionError):
        prove(name)
