"""`@op` makes a differentiable operation of a function on arrays.

The function returns its result and one vjp per array input, next to the line it differentiates:

    @op
    def exp(x: Array):
        y = backend.of(x).exp(x)
        def grad_x(g): return backend.of(g).mul(g, y)
        return y, (grad_x,)

`@op` lets it take and return Tensors, makes arrays of one dtype of whatever is given, and records a Node
when an input requires a gradient.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np

from minidl import backend
from minidl.autograd import Node, Tensor, Vjp, check_differentiable, ieee, is_recording, owner_of
from minidl.backend import Array
from minidl.errors import DeviceError, DTypeError

Watcher = Callable[[str, list[Array], Tensor], None]

_kinds = "fiub"  # of the dtypes that ops compute on
_watchers: list[Watcher] = []


def op(fn: Callable[..., tuple[Array, tuple[Vjp | None, ...]]]) -> Callable[..., Tensor]:
    """Make an op of `fn(arrays..., options...) -> (y, vjps)`, callable with Tensors, arrays and numbers.

    A parameter annotated `Array` (or `Array | None`) is an array input and needs one vjp, in order; `*arrays:
    Array` is any number of them. Every other parameter is an option and passed as it is. Numbers take the
    dtype of the Tensors; so do integer arrays. Two float dtypes never mix. A vjp is None where the input has
    no derivative, or was not given. One that takes `into` besides g may be given an array: it adds the
    gradient there and returns that array.  TypeError for a function without array inputs, or that mixes
    `*arrays` with others; when called, for arguments it does not take, or inputs that do not go together.
    """
    name = fn.__name__.lstrip("_")
    signature = inspect.signature(fn, eval_str=True)
    kinds = {p.name: p.kind for p in signature.parameters.values() if p.annotation in (Array, Array | None)}
    required = {key for key in kinds if signature.parameters[key].default is inspect.Parameter.empty}
    variadic = inspect.Parameter.VAR_POSITIONAL in kinds.values()
    if not kinds or (variadic and len(kinds) > 1):
        raise TypeError(
            f"op: {name} must annotate its array inputs as Array, or take them all as *arrays: Array"
        )

    named = {p.name: p for p in signature.parameters.values() if p.kind is not p.VAR_POSITIONAL}
    positional = [key for key, p in named.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    needed = {key for key, p in named.items() if p.default is p.empty}

    def bind(args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name; TypeError for what the op does not take."""
        bound = dict(zip(positional, args)) | options
        if len(bound) == len(args) + len(options) and needed <= bound.keys() <= named.keys():
            return bound
        return dict(signature.bind(*args, **options).arguments)  # slow: several arrays, and mistakes

    @wraps(fn)
    def call(*args: Any, **options: Any) -> Tensor:
        try:
            bound = bind(args, options)
        except TypeError as error:
            raise TypeError(f"{name}: {error}; it is {name}{signature}") from None
        given = [(key, bound[key]) for key in kinds if bound.get(key) is not None]
        if len(given) < len(required) and not variadic:
            missing = ", ".join(sorted(required - {key for key, _ in given}))
            raise TypeError(f"{name}: {missing} is None; give a tensor, an array or a number")
        if variadic:
            given = [(f"{key}[{i}]", value) for key, values in given for i, value in enumerate(values)]
        arrays = _as_arrays(name, given)
        with ieee():
            if variadic:
                y, vjps = fn(*arrays, **options)
            else:
                bound.update(zip((key for key, _ in given), arrays))
                y, vjps = fn(**bound)
        if not isinstance(vjps, tuple) or len(vjps) != (len(given) if variadic else len(kinds)):
            raise TypeError(f"{name}: an op returns (y, vjps), vjps a tuple with one entry per array input")
        if not variadic:
            vjps = tuple(vjp for key, vjp in zip(kinds, vjps) if bound.get(key) is not None)
        if np.isscalar(y):
            y = np.asarray(y)
        result = _record(name, [value for _, value in given], y, vjps)
        for see in _watchers:
            see(name, arrays, result)
        return result

    return call


@contextlib.contextmanager
def watching(see: Watcher) -> Iterator[None]:
    """Inside, see(name, arrays, result) is called after every op: its name, its array inputs, and the Tensor
    it made."""
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.remove(see)


def shared(compute: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """Work that several vjps of one op need: done for the first of them, remembered for the others."""
    memory: list[Any] = [None, None]

    def once(g: Array) -> Any:
        if memory[0] is not g:
            memory[:] = g, compute(g)
        return memory[1]

    return once


@contextlib.contextmanager
def complex_numbers() -> Iterator[None]:
    """Inside, ops take complex Tensors too, and arrays join them as complex: for gradcheck's complex step."""
    global _kinds
    _kinds = "fiubc"
    try:
        yield
    finally:
        _kinds = "fiub"


def _as_arrays(name: str, given: list[tuple[str, Any]]) -> list[Array]:
    """The op's array inputs as arrays of one device and one dtype: that of the first float Tensor or
    array."""
    values = [value for _, value in given]
    if all(isinstance(value, Tensor) for value in values):  # the usual case, for this is called for every op
        dtype, device = values[0].dtype, values[0].device
        if dtype.kind in _kinds and all(v.dtype == dtype and v.device == device for v in values[1:]):
            return [value.data for value in values]
    holders = [(key, value) for key, value in given if isinstance(value, Tensor) or backend.is_array(value)]
    floats = sorted(  # a Tensor's dtype counts before an array's
        (h for h in holders if h[1].dtype.kind in "fc"),
        key=lambda h: (h[1].dtype.kind != "c", not isinstance(h[1], Tensor)),
    )
    lead, like = next(iter(floats or holders), ("", None))
    dtype = np.dtype(np.float32) if like is None else like.dtype
    first = next((value.data for _, value in holders if isinstance(value, Tensor)), like)
    device = "cpu" if first is None else backend.device_of(first)
    arrays: list[Array] = []
    for key, value in given:
        if isinstance(value, Tensor) and value.device != device:
            raise DeviceError(
                f"{name}: {key} is on {value.device!r}, but the inputs before it are on {device!r}; "
                "move one with .to(device=...)"
            )
        held = isinstance(value, Tensor) or backend.is_array(value)
        array = value.data if isinstance(value, Tensor) else value if held else np.asarray(value)
        if array.dtype.kind not in _kinds:
            raise DTypeError(
                f"{name}: {key} is a {type(value).__name__}; give a tensor, an array or a number"
            )
        if array.dtype != dtype:
            if dtype.kind not in "fc" and not (dtype.kind in "iu" and array.dtype.kind in "iub" and not held):
                raise DTypeError(
                    f"{name}: {key} is {array.dtype} but {lead} is {dtype}; {_cure(like, array.dtype)}"
                )
            if array.dtype.kind == "f" and held and dtype.kind != "c":
                raise DTypeError(
                    f"{name}: {key} is {array.dtype} but {lead} is {dtype}; nothing is widened silently, "
                    f"{_cure(value, dtype)}"
                )
            plain = type(array) is np.ndarray  # of the host, which need not load its backend for a number
            array = array.astype(dtype) if plain else backend.of(array).cast(array, dtype)
        arrays.append(array if held and backend.device_of(array) == device else _placed(array, device))
    return arrays


def _placed(array: Array, device: str) -> Array:
    """A number or an array of the host on a device; numbers are uploaded once."""
    return backend.asarray(array, device) if array.ndim else backend.constant(array, device)


def _cure(value: Any, dtype: np.dtype) -> str:
    method = ".to(dtype=" if isinstance(value, Tensor) else ".astype("
    return f"use {method}'{dtype}')"


def _record(name: str, values: list[Any], y: Array, vjps: tuple[Vjp | None, ...]) -> Tensor:
    """The op's result as a Tensor, with a Node behind it if somebody may ask for a gradient."""
    result = Tensor(y)
    tensors = [value for value in values if isinstance(value, Tensor)]
    owner = owner_of(y)
    for t in tensors:
        if owner_of(t.data) is owner:
            result._version = t._version  # y is a view of an input
            break
    if not is_recording():
        return result
    inputs: list[Node | Tensor | None] = []
    kept: list[Vjp | None] = []
    for value, vjp in zip(values, vjps, strict=True):
        wanted = isinstance(value, Tensor) and value.requires_grad and vjp is not None
        inputs.append((value._node or value) if wanted else None)
        kept.append(vjp if wanted else None)
    if not any(kept):
        return result
    check_differentiable(y.dtype, name)
    versions = [(t._version, t._version.count) for t in (*tensors, result)]
    result._node = Node(name, tuple(inputs), tuple(kept), versions)
    result.requires_grad = True
    return result
