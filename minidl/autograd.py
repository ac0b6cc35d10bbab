"""Reverse-mode automatic differentiation: Tensor, Node, backward.  Read this file first, recording.py second.

An op computes on arrays and records a Node: which Nodes its inputs came from, and per input the function
that turns the gradient arriving at the result into the gradient leaving for that input (its vector-Jacobian
product, *vjp*). A Node knows nothing else: the Tensors in between die with their last name, and only what the
vjps' closures captured stays alive. `backward` pops Nodes off a heap, youngest first (an op is always younger
than what it read), so it neither recurses nor sorts, and each Node drops its closures the moment it has run.

Only first derivatives are computed: gradients are plain arrays in Tensors without a graph.
"""

import contextlib
import heapq
import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.closures import captured
from minidl.errors import DTypeError, ShapeError

Vjp = Callable[..., Array]  # of g alone, or of g and `into`, an array to which it adds what it would return

_births = itertools.count()
_recording = threading.local()


def is_recording() -> bool:
    """Whether ops record Nodes in this thread; False inside `no_grad`."""
    return getattr(_recording, "on", True)


class no_grad(
    contextlib.ContextDecorator
):  # lower case: in use it is a function, `with no_grad():` and `@no_grad()`
    """Ops inside record nothing: no gradients, and no array is kept for one.

    Context manager and decorator.
    """

    def __enter__(self) -> None:
        _recording.__dict__.setdefault("before", []).append(is_recording())
        _recording.on = False

    def __exit__(self, *exc: object) -> None:
        _recording.on = _recording.before.pop()


class Version:
    """How often a buffer was written in place, and which one: its Tensor may have been given another since.

    It belongs to the buffer: all Tensors that are views of it share one.
    """

    __slots__ = ("count", "written")

    def __init__(self) -> None:
        self.count = 0
        self.written: tuple[weakref.ref[Array], ...] = ()  # its owner; more than one only then


class Node:
    """One recorded op: where its inputs came from, and how a gradient passes through it.

    inputs   per array input the Node that made it, the Tensor itself if it is a leaf that wants a gradient,
             or None
    vjps     per array input its vjp (None where nobody wants it); () once the Node has run
    versions (version, count when recorded) of its inputs and its result
    """

    __slots__ = ("name", "birth", "inputs", "vjps", "versions")

    def __init__(
        self,
        name: str,
        inputs: tuple["Node | Tensor | None", ...],
        vjps: tuple[Vjp | None, ...],
        versions: list[tuple[Version, int]],
    ) -> None:
        self.name, self.birth = name, next(_births)
        self.inputs, self.vjps, self.versions = inputs, vjps, versions

    def run(self, g: Array, totals: Sequence[Array | None] = ()) -> list[Array | None]:
        """The gradient for every input, from the one arriving at the output.

        totals: per input an array to which its gradient may be added, or None; a vjp that can do so takes it
        as `into` and returns it. RuntimeError if the gradients would be wrong.
        """
        if not self.vjps:
            raise RuntimeError(
                f"backward: it ran through this graph before, and {self.name} has let go of what it kept. "
                "Compute the loss anew, or call backward(retain_graph=True) the first time"
            )
        for version, count in self.versions:
            if version.count != count and self._keeps(version.written):
                raise RuntimeError(
                    f"backward: an array that {self.name} keeps for its gradient was written in place "
                    f"afterwards ({version.count - count} times). Write before the op, into a copy, or make "
                    "a new tensor instead"
                )
        return [
            None if vjp is None else vjp(g) if total is None or not _adds(vjp) else vjp(g, into=total)
            for vjp, total in zip_longest(self.vjps, totals)
        ]

    def _keeps(self, owners: tuple["weakref.ref[Array]", ...]) -> bool:
        """Whether a vjp has captured an array in one of these buffers."""
        return any(owner_of(array) is owner() for array in captured(self.vjps) for owner in owners)


class Tensor:
    """An array that remembers how it was computed.

    `data` is the array itself: NumPy's on the CPU, CuPy's on a GPU. Writing into it is allowed and not seen
    by the version counter: a gradient computed from what was there before would be wrong without notice.
    `t[i] = value` is counted, and `backward` then refuses.
    """

    __slots__ = ("data", "requires_grad", "grad", "_node", "_version", "_is_gradient", "__weakref__")

    __array_ufunc__ = None  # ndarray * Tensor becomes Tensor.__rmul__, not an ndarray of objects

    data: Array
    requires_grad: bool
    grad: "Tensor | None"

    def __init__(self, data: Array, requires_grad: bool = False) -> None:
        if not backend.is_array(data):
            raise TypeError(f"Tensor: data is a {type(data).__name__}, not an array; use minidl.tensor(...)")
        if requires_grad:
            check_differentiable(data.dtype, "requires_grad=True")
        self.data, self.requires_grad, self.grad = data, requires_grad, None
        self._node: Node | None = None
        self._version = Version()
        self._is_gradient = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def device(self) -> str:
        return backend.device_of(self.data)

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len(): a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> "Iterator[Tensor]":
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        tail = (
            f", op={self._node.name}" if self._node else ", requires_grad=True" if self.requires_grad else ""
        )
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(", threshold=20)
        return f"tensor({text}, shape={self.shape}, dtype={self.dtype}{tail})"

    def backward(self, grad: Any = None, retain_graph: bool = False) -> None:
        """Add d self / d leaf to `.grad` of every leaf that requires a gradient and that self was computed
        from.

        `grad` is the gradient arriving at self, of its shape; it may be left out when self is a single number
        (it is 1 then). Gradients add up over calls: set `.grad = None` (an optimiser's `zero_grad`) in
        between. The graph is freed as it is walked; `retain_graph=True` keeps it for another backward.
        RuntimeError without a graph, on a second backward, or for arrays overwritten in between; ShapeError
        when `grad` does not fit.
        """
        backward(self, grad, retain_graph)

    def detach(self) -> "Tensor":
        """The same array without its history; both share memory and version counter."""
        alias = Tensor(self.data)
        alias._version = self._version
        return alias

    def item(self) -> float:
        """The single number it holds, as Python's.  ShapeError if it holds more or fewer."""
        if self.size != 1:
            raise ShapeError(
                f"item: a tensor of shape {self.shape} holds {self.size} numbers; index it or reduce it first"
            )
        return backend.to_host(self.data).item()

    def numpy(self) -> Array:
        """The values as a NumPy array: on the CPU the array itself, from another device a copy."""
        return backend.to_host(self.data)

    def to(self, device: str | None = None, dtype: Any = None) -> "Tensor":
        """Self on another device or with another dtype; itself if nothing changes.

        Gradients pass back to the old device in the old dtype. DeviceError for a device that is not there;
        DTypeError for float64 on a GPU.
        """
        there = self.device if device is None else backend.check_device(device)
        kind = self.dtype if dtype is None else np.dtype(dtype)
        moved = self
        if kind != self.dtype and self.device == "cpu":  # which casts from and to everything
            moved = _ops().cast(moved, dtype=kind)
        if there != self.device:
            moved = _ops().transfer.move(moved, there)
        return moved if kind == moved.dtype else _ops().cast(moved, dtype=kind)

    def mark_written(self) -> None:
        """Count one in-place write to `data`, as `t[i] = value` does.

        An optimiser calls it after each update.
        """
        version, owner = self._version, owner_of(self.data)
        version.count += 1
        if not any(written() is owner for written in version.written):
            alive = (written for written in version.written if written() is not None)
            version.written = (*alive, weakref.ref(owner))

    def __setitem__(self, index: Any, value: Any) -> None:
        source = isinstance(value, Tensor) and value.requires_grad
        if (self.requires_grad or source) and is_recording():
            raise RuntimeError(
                "t[i] = value: one of the two takes part in a recorded graph, and an assignment has no "
                "gradient. Use ops.where, write under no_grad(), or detach() first"
            )
        given = value.data if isinstance(value, Tensor) else value
        backend.of(self.data).setitem(self.data, _plain_index(index), given)
        self.mark_written()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.requires_grad:
            raise RuntimeError(
                "np.asarray: this tensor requires a gradient; use t.detach() (or t.numpy()) to leave the "
                "graph"
            )
        return np.array(backend.to_host(self.data), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise RuntimeError(
                "__dlpack__: this tensor requires a gradient; use t.detach() to leave the graph"
            )
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[Any, Any]:
        return self.data.__dlpack_device__()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def _no_comparison(self, other: Any) -> bool:
        """Tensors are compared as arrays.  TypeError always."""
        raise TypeError("tensors are not compared with == or <; compare their arrays: t.numpy() == ...")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _no_comparison
    __hash__ = object.__hash__  # by identity

    # Arithmetic. Each method looks its op up by name when called, so that this file imports none of them.
    def __add__(self, other: Any) -> "Tensor":
        return _ops().add(self, other)

    def __radd__(self, other: Any) -> "Tensor":
        return _ops().add(other, self)

    def __sub__(self, other: Any) -> "Tensor":
        return _ops().sub(self, other)

    def __rsub__(self, other: Any) -> "Tensor":
        return _ops().sub(other, self)

    def __mul__(self, other: Any) -> "Tensor":
        return _ops().mul(self, other)

    def __rmul__(self, other: Any) -> "Tensor":
        return _ops().mul(other, self)

    def __truediv__(self, other: Any) -> "Tensor":
        return _ops().div(self, other)

    def __rtruediv__(self, other: Any) -> "Tensor":
        return _ops().div(other, self)

    def __pow__(self, other: Any) -> "Tensor":
        return _ops().pow(self, other)

    def __rpow__(self, other: Any) -> "Tensor":
        return _ops().pow(other, self)

    def __matmul__(self, other: Any) -> "Tensor":
        return _ops().matmul(self, other)

    def __rmatmul__(self, other: Any) -> "Tensor":
        return _ops().matmul(other, self)

    def __neg__(self) -> "Tensor":
        return _ops().neg(self)

    def __getitem__(self, index: Any) -> "Tensor":
        return _ops().getitem(self, _plain_index(index))

    def sum(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        return _ops().sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        return _ops().mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        return _ops().max(self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: Any) -> "Tensor":
        return _ops().reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> "Tensor":
        return _ops().transpose(self, (axes[0] if len(axes) == 1 else axes) or None)

    def flatten(self) -> "Tensor":
        return _ops().flatten(self)


def tensor(
    array: Any, *, dtype: Any = None, requires_grad: bool = False, device: str | None = None
) -> Tensor:
    """A Tensor with a copy of `array`.  Python floats become float32; arrays and Tensors keep their dtype.

    DTypeError for values that are not numbers, or for a gradient of integers.
    """
    if hasattr(array, "__dlpack__") and not hasattr(array, "__array__"):
        array = np.from_dlpack(array)
    source = array.data if isinstance(array, Tensor) else array
    if device is None:
        device = array.device if isinstance(array, Tensor) else backend.get_default_device()
    host = np.array(backend.to_host(source) if backend.is_array(source) else source, dtype=dtype)
    if dtype is None and host.dtype == np.float64 and not isinstance(source, (np.ndarray, np.generic)):
        host = host.astype(np.float32)
    if host.dtype.kind not in "fiub":
        raise DTypeError(f"tensor: cannot hold {host.dtype} values; give numbers (or dtype=)")
    return Tensor(backend.asarray(host, device), requires_grad)


def backward(root: Tensor, grad: Any = None, retain_graph: bool = False) -> None:
    """See `Tensor.backward`."""
    g = _first_gradient(root, grad)
    if root._node is None:
        _accumulate(root, g, fresh=False, name="backward")
        return
    # Gradients that have arrived so far, per Node, and whether that sum is ours to add to in place.
    pending: dict[Node, tuple[Array, bool]] = {root._node: (g, False)}
    heap = [(-root._node.birth, root._node)]
    with ieee():
        while heap:
            node = heapq.heappop(heap)[1]
            g, _ = pending.pop(node)
            inputs = node.inputs
            totals = [_ours(pending, target) for target in inputs]
            leaving = node.run(g, totals)
            if not retain_graph:
                node.vjps, node.versions = (), []
            for target, grad_input, fresh, total in zip(inputs, leaving, _fresh(g, leaving), totals):
                if target is None or grad_input is None or grad_input is total:
                    continue
                if isinstance(target, Tensor):
                    _accumulate(target, grad_input, fresh, node.name)
                elif target not in pending:
                    pending[target] = grad_input, fresh
                    heapq.heappush(heap, (-target.birth, target))
                else:
                    pending[target] = _add(*pending[target], grad_input), True


def _first_gradient(root: Tensor, grad: Any) -> Array:
    """The gradient that enters the graph, checked."""
    if not root.requires_grad:
        if root._is_gradient:
            raise RuntimeError(
                "backward: minidl computes first derivatives only; a gradient has no graph of its own to "
                "differentiate"
            )
        raise RuntimeError(
            "backward: this tensor does not depend on anything that requires a gradient, or was computed "
            "under no_grad(). (Gradients count as constants: minidl computes first derivatives only)"
        )
    if grad is None:
        if root.size != 1:
            raise ShapeError(
                f"backward: a tensor of shape {root.shape} needs grad= of the same shape; reduce it to a "
                f"single number first (sum, mean, a loss) or pass grad"
            )
        return backend.asarray(np.ones(root.shape, root.dtype), root.device)
    if isinstance(grad, Tensor) and grad.requires_grad:
        raise RuntimeError(
            "backward: grad requires a gradient itself, but minidl computes first derivatives only; "
            "pass grad.detach()"
        )
    given = grad.data if isinstance(grad, Tensor) else np.asarray(grad, root.dtype)
    g = backend.asarray(given, root.device)
    g = backend.of(g).copy(g)  # for `shared` tells one backward from another by the array itself
    if g.shape != root.shape:
        raise ShapeError(f"backward: grad has shape {g.shape}, the tensor {root.shape}; they must be equal")
    if g.dtype != root.dtype:
        raise DTypeError(
            f"backward: grad is {g.dtype}, the tensor {root.dtype}; use grad.to(dtype='{root.dtype}')"
        )
    return g


def _fresh(g: Array, leaving: list[Array | None]) -> list[bool]:
    """Per leaving gradient, whether its memory is nobody else's: not g's, nor another's in the list."""
    arriving = owner_of(g)
    owners = [None if array is None else id(owner_of(array)) for array in leaving]
    return [
        array is not None
        and owner != id(arriving)
        and owners.count(owner) == 1
        and getattr(array.flags, "writeable", True)  # which CuPy's always are
        for array, owner in zip(leaving, owners)
    ]


def _ours(pending: dict[Node, tuple[Array, bool]], target: "Node | Tensor | None") -> Array | None:
    """The gradient that has arrived at a Node so far, if it may be written to."""
    total, ours = pending.get(target, (None, False)) if isinstance(target, Node) else (None, False)
    return total if ours else None


def _adds(vjp: Vjp) -> bool:
    """Whether it can add to what is there: it takes `into`."""
    code = getattr(vjp, "__code__", None)
    return code is not None and code.co_argcount > 1 and code.co_varnames[1] == "into"


def _add(total: Array, ours: bool, more: Array) -> Array:
    xp = backend.of(total)
    return xp.add_into(total, more) if ours else xp.add(total, more)


def _accumulate(leaf: Tensor, g: Array, fresh: bool, name: str) -> None:
    """Add g, which `name` made, to the leaf's gradient, which never shares memory with anything else."""
    if g.shape != leaf.shape or g.dtype != leaf.dtype:
        raise ShapeError(
            f"{name}: a gradient is {g.dtype} {g.shape}, but the tensor it belongs to is {leaf.dtype} "
            f"{leaf.shape}; mend the op's vjp"
        )
    if leaf.grad is None:
        leaf.grad = Tensor(g if fresh else backend.of(g).copy(g))
        leaf.grad._is_gradient = True
    else:
        backend.of(g).add_into(leaf.grad.data, g)


def owner_of(array: Array) -> Any:
    """The array at the end of the chain of views: equal for two arrays exactly when they share a buffer."""
    owner: Any = array
    while backend.is_array(owner.base):
        owner = owner.base
    return owner


def ieee() -> np.errstate:
    """Infinities and NaN are values like any other inside: no warnings."""
    return np.errstate(all="ignore")


def check_differentiable(dtype: np.dtype, where: str) -> None:
    """DTypeError, in the name of `where`, unless a gradient can have that dtype."""
    if dtype not in (np.float32, np.float64):
        raise DTypeError(
            f"{where}: a gradient needs float32 or float64 values, these are {dtype}; use "
            f".to(dtype='float32')"
        )


def _plain_index(index: Any) -> Any:
    """An index with the Tensors in it as arrays of the host."""
    if isinstance(index, tuple):
        return tuple(_plain_index(i) for i in index)
    return index.numpy() if isinstance(index, Tensor) else index


def _ops() -> Any:
    """minidl.ops, by name and at call time: ops stand on this file."""
    return sys.modules["minidl.ops"]
