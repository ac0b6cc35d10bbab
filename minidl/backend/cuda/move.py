"""Rearrangements on the GPU: kernels/move.cu. Views where the memory allows, copies elsewhere."""

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.backend import Array, device_of, is_array
from minidl.backend.cuda.device import runtime_of
from minidl.backend.cuda.launch import Strided, blocks_for, kernel, launch
from minidl.backend.cuda.places import places

# Elements are moved as words of as many bytes.
_WORDS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long"}
_COPY, _FILL, _GATHER, _SCATTER = (
    {size: kernel("move.cu", f"{name}<{word}>") for size, word in _WORDS.items()}
    for name in ("copy", "fill", "gather", "scatter")
)
_ADD_AT = kernel("move.cu", "add_at<float>")


def copy(x: Array) -> Array:
    """A contiguous copy."""
    return write(x, runtime_of(x).empty(x.shape, x.dtype))


def contiguous(x: Array) -> Array:
    """x itself if it is contiguous, else a copy that is."""
    return x if x.flags.c_contiguous else copy(x)


def broadcast(x: Array, shape: tuple[int, ...]) -> Array:
    """x repeated to a larger shape, in memory of its own."""
    return write(x, runtime_of(x).empty(shape, x.dtype))


def write(x: Array, y: Array) -> Array:
    """y[...] = x, x being broadcast; returns y."""
    if y.size:
        arrays = Strided(_as_words(x)), Strided(_as_words(y))
        launch(_COPY[y.itemsize], runtime_of(y), blocks_for(y.size), *arrays, places(y.shape, x, y), y.size)
    return y


def fill(y: Array, value: float) -> Array:
    """Every element of a contiguous array = value; returns y."""
    word = np.array(value, y.dtype).view(f"u{y.itemsize}")
    if y.size:
        launch(_FILL[y.itemsize], runtime_of(y), blocks_for(y.size), _as_words(y), word, y.size)
    return y


def clear(y: Array) -> None:
    """Every element of an array of any strides = 0."""
    write(fill(runtime_of(y).empty((1,) * y.ndim, y.dtype), 0), y)


def reshape(x: Array, shape: tuple[int, ...]) -> Array:
    """A view in another shape; a copy where x is not contiguous."""
    return contiguous(x).reshape(shape)


def transpose(x: Array, axes: tuple[int, ...]) -> Array:
    """A view with the axes in another order."""
    return x.transpose(axes)


def concat(arrays: Sequence[Array], axis: int) -> Array:
    """The arrays behind one another along an axis."""
    first = arrays[0]
    axis %= first.ndim
    shape = list(first.shape)
    shape[axis] = builtins.sum(a.shape[axis] for a in arrays)
    y, start = runtime_of(first).empty(tuple(shape), first.dtype), 0
    for array in arrays:
        end = start + array.shape[axis]
        write(array, y[(slice(None),) * axis + (slice(start, end),)])
        start = end
    return y


def pad(x: Array, widths: Sequence[tuple[int, int]], value: float) -> Array:
    """x inside a frame of `value`."""
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, widths))
    y = fill(runtime_of(x).empty(shape, x.dtype), value)
    write(x, y[tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths))])
    return y


def getitem(x: Array, index: Any) -> Array:
    """x[index]: a view for slices and integers, a copy for index arrays."""
    if not _gathers(index):
        return x[index]
    elements = _elements(x.shape, index)
    runtime, y = runtime_of(x), runtime_of(x).empty(elements.shape, x.dtype)
    if y.size:
        words = _as_words(contiguous(x)), runtime.upload(elements.astype(np.int32)), _as_words(y)
        launch(_GATHER[y.itemsize], runtime, blocks_for(y.size), *words, y.size)
    return y


def setitem(x: Array, index: Any, value: Any) -> None:
    """x[index] = value, in place, with NumPy's rules; of an element given twice the last value stays."""
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(np.asarray(part) if isinstance(part, (list, np.ndarray)) else part for part in parts)
    runtime = runtime_of(x)
    if not is_array(value) or device_of(value) != runtime.name:
        value = runtime.upload(np.asarray(value).astype(x.dtype))
    if not _gathers(parts):
        write(value, x[parts])
        return
    elements = _elements(x.shape, parts)
    value = broadcast(value, elements.shape)
    if not x.flags.c_contiguous:
        whole = copy(x)
        setitem(whole, parts, value)
        write(whole, x)
        return
    last, where = np.unique(elements.reshape(-1)[::-1], return_index=True)
    source = getitem(value.reshape(-1), (elements.size - 1 - where,))
    if last.size:
        words = _as_words(source), runtime.upload(last.astype(np.int32)), _as_words(x)
        launch(_SCATTER[x.itemsize], runtime, blocks_for(last.size), *words, last.size)


def getitem_grad(g: Array, index: Any, shape: tuple[int, ...]) -> Array:
    """Zeros with g added at `index`; an element taken twice receives both gradients, in their order."""
    runtime = runtime_of(g)
    grad_x = fill(runtime.empty(shape, g.dtype), 0)
    if not _gathers(index):
        write(g, grad_x[index])
    elif g.size:
        elements = _elements(shape, index).reshape(-1)
        source = np.argsort(elements, kind="stable")
        target, start = np.unique(elements[source], return_index=True)
        lists = (source, np.append(start, len(source)), target)
        uploaded = (runtime.upload(numbers.astype(np.int32)) for numbers in lists)
        launch(_ADD_AT, runtime, blocks_for(len(target)), contiguous(g), *uploaded, grad_x, len(target))
    return grad_x


def _gathers(index: Any) -> bool:
    return any(isinstance(part, np.ndarray) for part in index)


def _elements(shape: tuple[int, ...], index: Any) -> np.ndarray:
    """Which elements, counted in row-major order, `index` takes.

    Axis by axis: so as much is written down as is taken, not as there is.
    """
    found, step = np.broadcast_to(np.int64(0), shape)[index], 1
    for axis, n in reversed([*enumerate(shape)]):
        along = (step * np.arange(n, dtype=np.int64)).reshape(n, *(1,) * (len(shape) - 1 - axis))
        found = found + np.broadcast_to(along, shape)[index]
        step *= n
    return np.asarray(found)


def _as_words(x: Array) -> Array:
    """x as unsigned integers of as many bytes."""
    return x.view(f"u{x.itemsize}")
