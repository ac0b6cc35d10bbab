"""Arithmetic and activations on the GPU: kernels/elementwise.cu.

Every function returns a new contiguous array. Operands may have any strides, broadcast, and be numbers, which
take the dtype of the arrays.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backend import Array, is_array
from minidl.backend.cuda.device import runtime_of
from minidl.backend.cuda.launch import Kernel, Strided, blocks_for, kernel, launch
from minidl.backend.cuda.move import copy, write
from minidl.backend.cuda.places import places
from minidl.errors import DTypeError

Number = Array | float
Instances = dict[np.dtype, Kernel]

# The element types of the kernels, as C++ calls them.
FLOATS: dict[np.dtype, str] = {np.dtype(np.float32): "float"}
NUMBERS: dict[np.dtype, str] = FLOATS | {np.dtype(np.int32): "int", np.dtype(np.int64): "long long"}
TYPES: dict[np.dtype, str] = NUMBERS | {np.dtype(np.uint8): "unsigned char", np.dtype(np.bool_): "bool"}


def instances(source: str, template: str, types: dict[np.dtype, str]) -> Instances:
    """The instance of a template for each type; {} in its name stands for the type."""
    return {dtype: kernel(source, template.format(name)) for dtype, name in types.items()}


def instance(of: Instances, dtype: np.dtype, name: str) -> Kernel:
    """The one for a dtype.  DTypeError, in the name of the op, that lists the others."""
    if dtype not in of:
        raise DTypeError(
            f"{name}: a GPU computes it in {', '.join(map(str, of))}, not in {dtype}; use "
            ".to(dtype='float32'), or .to(device='cpu')"
        )
    return of[dtype]


def _unary(name: str, functor: str, types: dict[np.dtype, str] = FLOATS) -> Callable[[Array], Array]:
    of = instances("elementwise.cu", f"unary<{functor}, {{}}>", types)

    def apply(x: Array) -> Array:
        runtime = runtime_of(x)
        y = runtime.empty(x.shape, x.dtype)
        if y.size:
            found = instance(of, x.dtype, name)
            launch(found, runtime, blocks_for(y.size), Strided(x), y, places(x.shape, x), y.size)
        return y

    apply.__name__ = name
    return apply


def _binary(
    name: str, functor: str, types: dict[np.dtype, str] = NUMBERS
) -> Callable[[Number, Number], Array]:
    of = instances("elementwise.cu", f"binary<{functor}, {{}}>", types)

    def apply(a: Number, b: Number) -> Array:
        like = a if is_array(a) else b
        y = runtime_of(like).empty(_broadcast(a, b), like.dtype)  # type: ignore[union-attr]
        return _pairwise(instance(of, y.dtype, name), a, b, y)

    apply.__name__ = name
    return apply


def _pairwise(found: Kernel, a: Number, b: Number, y: Array) -> Array:
    """y, written by a kernel of two operands."""
    if y.size:
        operands = *_operand(a), *_operand(b)
        launch(found, runtime_of(y), blocks_for(y.size), *operands, y, places(y.shape, a, b), y.size)
    return y


def _operand(value: Number) -> tuple[Strided | None, Any]:
    """An operand as the kernels take it: a pointer, and a number in case that is null."""
    return (Strided(value), 0) if is_array(value) else (None, value)


def _broadcast(*values: Number) -> tuple[int, ...]:
    return np.broadcast_shapes(*(value.shape for value in values if is_array(value)))


add, sub, mul = _binary("add", "Add"), _binary("sub", "Sub"), _binary("mul", "Mul")
div, pow = _binary("div", "Div", FLOATS), _binary("pow", "Pow", FLOATS)
maximum, minimum = _binary("maximum", "Maximum"), _binary("minimum", "Minimum")
neg, abs, sign = _unary("neg", "Neg", NUMBERS), _unary("abs", "Abs", NUMBERS), _unary("sign", "Sign", NUMBERS)
exp, log, sqrt = _unary("exp", "Exp"), _unary("log", "Log"), _unary("sqrt", "Sqrt")
tanh, sigmoid, relu = _unary("tanh", "Tanh"), _unary("sigmoid", "Sigmoid"), _unary("relu", "Relu")
_gate = _binary("relu_grad", "Gate", FLOATS)

_ADD = instances("elementwise.cu", "binary<Add, {}>", NUMBERS)
_COMPARE = {
    sign: instances("elementwise.cu", f"compare<{functor}, {{}}>", NUMBERS)
    for sign, functor in {"<": "Less", "<=": "LessEqual", ">": "Greater", "==": "Equal"}.items()
}
_WHERE = instances("elementwise.cu", "where<{}>", NUMBERS)
_CLIP = instances("elementwise.cu", "clip<{}>", NUMBERS)
_CAST = {
    before: {
        after: kernel("elementwise.cu", f"cast<{name}, {other}>")
        for after, other in TYPES.items()
        if after != before
    }
    for before, name in TYPES.items()
}


def relu_grad(g: Array, y: Array) -> Array:
    """g where relu's result y is positive, else 0."""
    return _gate(g, y)


def compare(a: Number, relation: str, b: Number) -> Array:
    """A boolean mask; relation is "<", "<=", ">" or "=="."""
    like = a if is_array(a) else b
    y = runtime_of(like).empty(_broadcast(a, b), np.bool_)
    return _pairwise(instance(_COMPARE[relation], like.dtype, "compare"), a, b, y)  # type: ignore[union-attr]


def where(condition: Array, a: Number, b: Number) -> Array:
    """a where the condition holds, else b."""
    like = a if is_array(a) else b
    y = runtime_of(condition).empty(_broadcast(condition, a, b), like.dtype)  # type: ignore[union-attr]
    if y.size:
        found = instance(_WHERE, y.dtype, "where")
        operands = Strided(condition), *_operand(a), *_operand(b)
        launch(
            found, runtime_of(y), blocks_for(y.size), *operands, y, places(y.shape, a, b, condition), y.size
        )
    return y


def clip(x: Array, low: float | None, high: float | None) -> Array:
    """x kept within low .. high."""
    runtime, found = runtime_of(x), instance(_CLIP, x.dtype, "clip")
    whole = np.iinfo(x.dtype) if x.dtype.kind == "i" else None
    least, most = (whole.min, whole.max) if whole else (-np.inf, np.inf)
    y = runtime.empty(x.shape, x.dtype)
    if y.size:
        bounds = least if low is None else low, most if high is None else high
        launch(found, runtime, blocks_for(y.size), Strided(x), *bounds, y, places(x.shape, x), y.size)
    return y


def cast(x: Array, dtype: np.dtype) -> Array:
    """x in another dtype.  DTypeError for one that is not computed in here (float64, say)."""
    dtype = np.dtype(dtype)
    if dtype == x.dtype:
        return copy(x)
    if dtype not in TYPES:
        raise DTypeError(
            f"cast: a GPU computes in {', '.join(map(str, TYPES))}, not in {dtype}; use .to(device='cpu') "
            "first"
        )
    runtime, found = runtime_of(x), instance(_CAST.get(x.dtype, {}), dtype, "cast")
    y = runtime.empty(x.shape, dtype)
    if y.size:
        launch(found, runtime, blocks_for(y.size), Strided(x), y, places(x.shape, x), y.size)
    return y


def add_into(total: Array, more: Array) -> Array:
    """total += more, in place; returns total."""
    if not total.flags.c_contiguous:
        return write(add(total, more), total)
    return _pairwise(instance(_ADD, total.dtype, "add"), total, more, total)
