"""One call that is being checked: its arguments laid out flat, its value and its gradients as often as asked.

`gradcheck` and `convergence` move one argument at a time and look at what the output does. What makes such a
comparison sound is decided here: every run gets fresh float64 copies, starts minidl's random streams at the
same place, and is searched for side effects.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidl import backend, streams
from minidl.autograd import Tensor, no_grad
from minidl.nn import Module, Parameter
from minidl.recording import complex_numbers, op

Array = np.ndarray


@dataclass(frozen=True)
class Call:
    """fn with its arguments laid out flat: leaves[k] is called names[k]; those in `wanted` are checked.

    A module's parameters follow its arguments as further leaves.
    """

    fn: Callable[..., Tensor]
    leaves: list[Any]
    names: list[str]
    wanted: list[int]
    lengths: list[int | None]  # per argument: how many leaves a list or tuple has, None for anything else
    parameters: list[Parameter]
    options: dict[str, Any]
    settings: Any

    @classmethod
    def of(
        cls, fn: Callable[..., Tensor], inputs: Sequence[Any], options: dict[str, Any], settings: Any
    ) -> "Call":
        """The call fn(*inputs, **options), float64.  ValueError when nothing in it can be checked."""
        leaves: list[Any] = []
        names: list[str] = []
        lengths: list[int | None] = []
        for name, value in zip(_argument_names(fn, len(inputs)), inputs, strict=True):
            several = isinstance(value, (list, tuple)) and any(map(_is_array, value))
            lengths.append(len(value) if several else None)
            for i, leaf in enumerate(value if several else [value]):
                leaves.append(leaf)
                names.append(f"{name}[{i}]" if several else name)
        parameters: list[Parameter] = []
        if isinstance(fn, Module):
            fn = copy.deepcopy(fn).to(dtype=np.float64)
            for path, parameter in fn.named_parameters():
                parameters.append(parameter)
                leaves.append(parameter)
                names.append(path)
        wanted = [k for k, leaf in enumerate(leaves) if _is_checked(leaf)]
        leaves = [_as_float64(leaf) for leaf in leaves]
        call = cls(fn, leaves, names, wanted, lengths, parameters, options, settings)
        if not wanted:
            raise ValueError(
                f"gradcheck: {call.name} got no float array and no Tensor that requires a gradient: "
                f"nothing to check"
            )
        if any(leaves[k].size == 0 for k in wanted):
            raise ValueError(f"gradcheck: {call.name} got an array without elements: nothing to check")
        return call

    @property
    def name(self) -> str:
        """What fn is called."""
        return getattr(self.fn, "__name__", type(self.fn).__name__)

    def __call__(self, leaves: Sequence[Any]) -> Tensor:
        rest = iter(leaves)
        arguments = [
            next(rest) if length is None else [next(rest) for _ in range(length)] for length in self.lengths
        ]
        y = self.fn(*arguments, **self.options)
        if not isinstance(y, Tensor) or not backend.is_array(y.data):
            found = f"a Tensor around {type(y.data).__name__}" if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(
                f"gradcheck: {self.name} returned {found}; it must return one Tensor that holds an array"
            )
        return y

    def value(self, k: int | None = None, moved: Array | None = None) -> Array:
        """fn's output, with leaf k replaced by `moved`."""
        with no_grad(), _same_randomness():
            return self(self._tensors((), k, moved)).data.copy()

    def complex_value(self, k: int, moved: Array) -> Array:
        """fn's output for complex arguments, leaf k being `moved`.  TypeError where fn cannot compute it."""
        with no_grad(), _same_randomness(), complex_numbers():
            tensors = self._tensors((), k, moved)
            for i in self.wanted:
                tensors[i].data = tensors[i].data.astype(np.complex128)
            try:
                return np.asarray(self(tensors).data, np.complex128)
            except Exception as error:
                raise TypeError(
                    f"gradcheck: {self.name} does not compute on complex numbers "
                    f"({type(error).__name__}: {str(error).splitlines()[0]}); use method='difference'"
                ) from error

    def gradients(self, upstream: Array, wanted: Sequence[int]) -> dict[int, Array]:
        """The gradient of every wanted leaf, given the one arriving at the output.

        AssertionError where one is missing, or an array was written into or is shared.
        """
        tensors = self._tensors(wanted)
        with _same_randomness():
            y, g = self(tensors), upstream.copy()
        if not y.requires_grad:
            names = ", ".join(self.names[k] for k in wanted)
            raise self.wrong(f"the output does not depend on {names}: nothing was recorded")
        _hand_over(y, upstream=g).backward(np.ones(()))
        self._check_untouched(tensors, upstream, g)
        found = {}
        for k in wanted:
            grad = tensors[k].grad
            if grad is None:
                raise self.wrong(f"argument {self.names[k]} got no gradient")
            found[k] = grad.data
        self._check_memory(tensors, g, found)
        return found

    def gradients_on(self, device: str, upstream: Array) -> dict[int, Array]:
        """The gradient of every wanted leaf as `device` computes it, in float32; in host memory."""
        call, first_parameter = self, len(self.leaves) - len(self.parameters)
        if isinstance(self.fn, Module):
            moved = copy.deepcopy(self.fn).to(device, np.float32)
            call = replace(self, fn=moved, parameters=list(moved.parameters()))
        tensors = []
        for i, leaf in enumerate(self.leaves):
            if i in self.wanted:
                array = backend.asarray(leaf.astype(np.float32), device)
                tensor = call.parameters[i - first_parameter] if i >= first_parameter else Tensor(array)
                tensor.data, tensor.grad, tensor.requires_grad = array, None, True
                tensors.append(tensor)
            else:
                tensors.append(leaf.to(device, np.float32) if isinstance(leaf, Tensor) else leaf)
        with _same_randomness():
            call(tensors).backward(upstream.astype(np.float32))
        found = {}
        for k in self.wanted:
            grad = tensors[k].grad
            if grad is None:
                raise self.wrong(f"argument {self.names[k]} got no gradient on {device!r}")
            found[k] = grad.numpy().astype(np.float64)
        return found

    def round_to(self, dtype: Any) -> None:
        """Take the values of the checked leaves that `dtype` can hold."""
        for k in self.wanted:
            self.leaves[k] = self.leaves[k].astype(dtype).astype(np.float64)

    def moved(self, factors: dict[int, Array]) -> "Call":
        """The same call with leaf k multiplied by factors[k]."""
        leaves = [np.asarray(x * factors[k]) if k in factors else x for k, x in enumerate(self.leaves)]
        return replace(self, leaves=leaves)

    def check_second_backward(self, upstream: Array) -> None:
        """A kept graph has no memory: -2 times the upstream gives -2 times the gradients, to the bit.

        But for numbers so small that they have lost digits.
        """
        tensors = self._tensors(self.wanted)
        with _same_randomness():
            y = self(tensors)
        found: list[list[Array]] = []
        for factor in (1.0, -2.0):
            y.backward(factor * upstream, retain_graph=True)
            found.append([factor * tensors[k].grad.data for k in self.wanted])
            for k in self.wanted:
                tensors[k].grad = None
        for k, first, second in zip(self.wanted, *found):
            if not np.all(np.abs(4 * first - second) <= np.finfo(np.float64).tiny):
                raise self.wrong(
                    "a second backward through the same graph, from -2 times the upstream gradient, does not "
                    f"give -2 times the gradient of {self.names[k]}: something is remembered from the first"
                )

    def _tensors(
        self, differentiable: Sequence[int], k: int | None = None, moved: Array | None = None
    ) -> list[Any]:
        """The leaves as fn takes them: checked ones as Tensors around copies, leaf k around `moved`."""
        first_parameter = len(self.leaves) - len(self.parameters)
        tensors = []
        for i, leaf in enumerate(self.leaves):
            if i not in self.wanted:
                tensors.append(leaf)
                continue
            array = moved if i == k and moved is not None else leaf.copy()
            tensor = self.parameters[i - first_parameter] if i >= first_parameter else Tensor(array)
            tensor.data, tensor.grad, tensor.requires_grad = array, None, i in differentiable
            tensors.append(tensor)
        return tensors

    def _check_untouched(self, tensors: Sequence[Any], upstream: Array, g: Array) -> None:
        for k in self.wanted:
            if not np.array_equal(tensors[k].data, self.leaves[k], equal_nan=True):
                raise self.wrong(f"argument {self.names[k]} was written into")
        if not np.array_equal(g, upstream):
            raise self.wrong("the upstream gradient was written into")

    def _check_memory(self, tensors: Sequence[Any], g: Array, found: dict[int, Array]) -> None:
        places = [(f"the gradient of {self.names[k]}", array) for k, array in found.items()]
        others = [(f"argument {self.names[k]}", tensors[k].data) for k in self.wanted]
        others.append(("the upstream gradient", g))
        for i, (name, array) in enumerate(places):
            for other, memory in places[i + 1 :] + others:
                if np.shares_memory(array, memory):
                    raise self.wrong(f"{name} shares memory with {other}")

    def wrong(self, what: str) -> AssertionError:
        """The failure, with everything needed to see it again."""
        arguments = ", ".join(
            [
                self.name,
                *(f"{name}={_sketch(leaf)}" for name, leaf in zip(self.names, self.leaves)),
                f"settings={self.settings}",
                *(f"{key}={_sketch(value)}" for key, value in self.options.items()),
            ]
        )
        return AssertionError(
            f"gradcheck: {self.name}: {what}\n  eps {self.settings.eps}, seed {self.settings.seed}; "
            f"to reproduce: gradcheck({arguments})"
        )


@op
def _hand_over(y: Array, *, upstream: Any) -> Any:
    """A number whose gradient by y is `upstream`, the very array: what a vjp writes into it can be seen."""
    return np.zeros(()), (lambda g: upstream,)


@contextmanager
def _same_randomness() -> Iterator[None]:
    """Every run draws the same random numbers, and the streams go on afterwards as if there had been none."""
    state = streams.get_state()
    try:
        yield
    finally:
        streams.set_state(state)


def unit_directions(x: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Every index of x with the direction that moves this element alone."""
    for i in np.ndindex(x.shape):
        direction = np.zeros_like(x)
        direction[i] = 1.0
        yield i, direction


def random_direction(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values of either sign, 0.5 to 2 in size: none is overlooked, no sum cancels by symmetry."""
    return np.asarray(rng.uniform(0.5, 2.0, shape) * rng.choice([-1.0, 1.0], shape))


def _argument_names(fn: Callable[..., Any], count: int) -> list[str]:
    """What fn calls its first `count` positional arguments."""
    target = fn if inspect.isfunction(fn) else getattr(fn, "forward", fn)
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "argument")
    return names[:count] + [f"{rest}[{i}]" for i in range(count - len(names))]


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, Tensor))


def _is_checked(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.requires_grad
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _as_float64(value: Any) -> Any:
    """Checked inputs as arrays, constant Tensors as Tensors, both float64 copies; anything else as it is."""
    if isinstance(value, Tensor) and value.dtype.kind == "f":
        array = np.array(value.data, np.float64)
        return array if value.requires_grad else Tensor(array)
    return np.array(value, np.float64) if _is_checked(value) else value


def _sketch(value: Any) -> str:
    """A value on a line: arrays by dtype and shape."""
    if _is_array(value):
        return f"<{value.dtype} {tuple(value.shape)}>"
    return repr(value)
