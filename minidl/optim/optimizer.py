"""What optimisers share: parameters, learning rate, the arrays kept per parameter, and state as plain data.

An optimiser is a list of hyper-parameters, a list of slots (arrays that each parameter carries along, such as
a velocity), and one call of a backend's update; this file does the rest. The arithmetic lives in
backend/*/update.py, one pass per parameter.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, ClassVar, cast

import numpy as np

from minidl import backend
from minidl.autograd import Tensor
from minidl.backend import Array
from minidl.errors import CheckpointError, DTypeError, ShapeError

State = dict[str, Any]  # flat and plain: numpy arrays, numbers, strings
Params = Iterable[Tensor] | Iterable[Mapping[str, Any]]  # parameters, or groups of them
LARGEST = 2.0**63  # what a state may hold: no rate or count of a run comes near it
GROUP_KEYS = ("params", "lr_factor", "weight_decay")


class Optimizer(ABC):
    """Changes parameters by their gradients, once per `step`.

    params  Tensors that require a gradient, in any iterable; `step` leaves one alone that has no gradient.
            Or groups of them, dicts with "params" and, where a group departs from the rest, "lr_factor",
            which multiplies lr, or "weight_decay", which takes the place of the optimiser's
    lr      the learning rate; assign to it (or let a schedule do so) at any time, and all groups follow

    So biases learn at twice the rate and do not decay, as in Caffe's AlexNet and GoogLeNet:

        SGD([{"params": weights}, {"params": biases, "lr_factor": 2.0, "weight_decay": 0.0}], lr=0.01,
            weight_decay=5e-4)

    `params` is then the flat list, group after group; lr_factors and weight_decays stand beside it, None
    where the optimiser's own weight decay applies.

    ValueError for no parameters, one given twice or one that needs no gradient, a number that is negative or
    not finite, or a group with another key; TypeError for what is no Tensor.
    """

    hyper: ClassVar[tuple[str, ...]]  # the attributes that, with the slots, make up the state
    fractions: ClassVar[tuple[str, ...]] = ()  # those of them that must be below 1

    def __init__(self, params: Params, lr: float, weight_decay: float = 0.0) -> None:
        self.params, self.lr_factors, self.weight_decays = ungrouped(params, self.name)
        self.lr = lr
        self.weight_decay = number(self.name, "weight_decay", weight_decay)
        self._slots: dict[str, list[Array]] = {}
        self._steps = np.zeros(len(self.params), np.int64)  # how often each parameter was updated

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = number(self.name, "lr", value)

    @abstractmethod
    def slots(self) -> dict[str, float]:
        """The arrays each parameter carries along: name -> the value they start at."""

    @abstractmethod
    def update(
        self, p: Array, g: Array, slots: dict[str, Array], step: int, *, lr: float, weight_decay: float
    ) -> None:
        """Change p and its slots in place by the gradient g, at p's own learning rate and weight decay.

        This is p's step-th update, counted from 1.
        """

    def step(self) -> None:
        """Update every parameter that has a gradient.  ShapeError or DTypeError when one does not fit."""
        slots, lr = self._filled_slots(), self.lr
        for i, p in enumerate(self.params):
            if p.grad is None:
                continue
            kept = {name: arrays[i] for name, arrays in slots.items()}
            self._check_fit(i, p.data, {"its gradient": p.grad.data, **kept})
            self._steps[i] += 1
            decay = self.weight_decays[i]
            self.update(
                p.data,
                p.grad.data,
                kept,
                int(self._steps[i]),
                lr=lr * self.lr_factors[i],
                weight_decay=self.weight_decay if decay is None else decay,
            )
            p.mark_written()

    def zero_grad(self) -> None:
        """Set every parameter's `.grad` to None."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> State:
        """Everything needed to continue exactly, as plain data: arrays are copies, named "slot.index".

        Where groups differ, "lr_factors" and "weight_decays" tell how, one number per parameter (nan: the
        optimiser's own weight decay).
        """
        state: State = {"optimizer": self.name, **{key: getattr(self, key) for key in self.hyper}}
        state |= self._group_state()
        state["steps"] = self._steps.copy()
        for name, arrays in self._filled_slots().items():
            state.update((f"{name}.{i}", to_host(array)) for i, array in enumerate(arrays))
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned, hyper-parameters included.

        CheckpointError, naming the key, when it is another optimiser's or was made for other parameters or
        groups; then nothing has changed.
        """
        where = f"{self.name}.load_state_dict"
        check_kind(state, "optimizer", self.name, where)
        loaded = copy.copy(self)
        loaded._slots = {}
        for key in self.hyper:
            below = 1.0 if key in self.fractions else LARGEST
            setattr(loaded, key, read_number(state, key, getattr(self, key), where, below))
        keys = {name: [f"{name}.{i}" for i in range(len(self.params))] for name in loaded.slots()}
        groups = self._group_state()
        check_keys(state, ["optimizer", *self.hyper, *groups, "steps", *chain(*keys.values())], where)
        for key, mine in groups.items():
            if not np.array_equal(read_array(state, key, mine, where), mine, equal_nan=True):
                raise CheckpointError(f"{where}: {key!r} differ; was the state made with other groups?")
        loaded._steps = read_array(state, "steps", self._steps, where)
        if (loaded._steps < 0).any():
            raise CheckpointError(f"{where}: 'steps' has a number below 0, but they are counted from 0")
        for name, names in keys.items():
            pairs = zip(names, self.params, strict=True)
            loaded._slots[name] = [read_array(state, key, p.data, where) for key, p in pairs]
        vars(self).update(vars(loaded))

    def _group_state(self) -> State:
        """What the groups change, parameter by parameter; nothing where they change nothing."""
        state: State = {}
        if any(factor != 1.0 for factor in self.lr_factors):
            state["lr_factors"] = np.array(self.lr_factors)
        if any(decay is not None for decay in self.weight_decays):
            state["weight_decays"] = np.array(self.weight_decays, np.float64)  # None becomes nan
        return state

    def _filled_slots(self) -> dict[str, list[Array]]:
        """The slots in use, made when first needed: until then parameters may be cast or moved."""
        wanted = self.slots()
        for name, start in wanted.items():
            if name not in self._slots:
                self._slots[name] = [
                    backend.asarray(np.full(p.shape, start, p.dtype), p.device) for p in self.params
                ]
        return {name: self._slots[name] for name in wanted}

    def _check_fit(self, i: int, p: Array, others: dict[str, Array]) -> None:
        for what, array in others.items():
            if array.shape != p.shape:
                raise ShapeError(
                    f"{self.name}.step: parameter {i} has shape {p.shape} but {what} has {array.shape}"
                )
            if array.dtype != p.dtype:
                raise DTypeError(
                    f"{self.name}.step: parameter {i} is {p.dtype} but {what} is {array.dtype}; "
                    f"cast the model before the optimiser's first step"
                )


def tensors(params: Iterable[Tensor], where: str) -> list[Tensor]:
    """`params` as a list.  TypeError when something in it is no Tensor, or when it is a single Tensor."""
    if isinstance(params, Tensor):
        raise TypeError(f"{where}: params is a single Tensor; give a list of them, [tensor]")
    result = list(params)
    for i, p in enumerate(result):
        if not isinstance(p, Tensor):
            raise TypeError(
                f"{where}: params[{i}] is a {type(p).__name__}, not a Tensor; give model.parameters()"
            )
    return result


def ungrouped(params: Params, where: str) -> tuple[list[Tensor], list[float], list[float | None]]:
    """Parameters, or groups of them, as three lists of equal length: Tensors, lr factors, weight decays.

    A weight decay is None where the group gives none.
    """
    if isinstance(params, Mapping):
        raise TypeError(f"{where}: params is a single group; give a list of them, [group]")
    given = params if isinstance(params, Tensor) else list(params)
    if isinstance(given, Tensor) or not any(isinstance(each, Mapping) for each in given):
        plain = trainable(cast("Iterable[Tensor]", given), where)
        return plain, [1.0] * len(plain), [None] * len(plain)
    flat: list[Tensor] = []
    factors: list[float] = []
    decays: list[float | None] = []
    for i, each in enumerate(given):
        here = f"{where}: group {i}"
        group = checked_group(each, here)
        inside, decay = tensors(group["params"], here), group.get("weight_decay")
        flat += inside
        factors += [number(here, "lr_factor", group.get("lr_factor", 1.0))] * len(inside)
        decays += [None if decay is None else number(here, "weight_decay", decay)] * len(inside)
    return trainable(flat, where), factors, decays


def checked_group(group: Any, where: str) -> Mapping[str, Any]:
    """`group`.  TypeError unless it is a dict; ValueError unless it has "params" and no unknown key."""
    if not isinstance(group, Mapping):
        raise TypeError(f"{where} is a {type(group).__name__}; give dicts alone, or Tensors alone")
    unknown = [key for key in group if key not in GROUP_KEYS]
    if unknown or "params" not in group:
        what = f"has the unknown {', '.join(map(repr, unknown))}" if unknown else "lacks 'params'"
        cure = "; give lr_factor = its lr / the optimiser's lr" if "lr" in unknown else ""
        raise ValueError(f"{where} {what}; the keys of a group are {', '.join(GROUP_KEYS)}{cure}")
    return group


def trainable(params: Iterable[Tensor], where: str) -> list[Tensor]:
    """`params` as a list of distinct Tensors, at least one, that all require a gradient."""
    result = tensors(params, where)
    if not result:
        raise ValueError(f"{where}: params is empty (a generator that was used up?)")
    places: dict[int, int] = {}
    for i, p in enumerate(result):
        if not p.requires_grad:
            raise ValueError(f"{where}: params[{i}] of shape {p.shape} does not require a gradient")
        if id(p) in places:
            raise ValueError(
                f"{where}: params[{i}] and params[{places[id(p)]}] are the same Tensor; it would be updated "
                "twice"
            )
        places[id(p)] = i
    return result


def number(where: str, name: str, value: float, low: float = 0.0, below: float = math.inf) -> float:
    """`value` as a float.  ValueError unless low <= value < below."""
    if not low <= value < below:
        raise ValueError(f"{where}: {name} is {value}, it must lie in {low:g} <= {name} < {below:g}")
    return float(value)


def whole(where: str, name: str, value: float) -> int:
    """`value` as an int.  ValueError unless it is a whole number of at least 1."""
    if not 1 <= value < math.inf or int(value) != value:
        raise ValueError(f"{where}: {name} is {value}, it must be a whole number of at least 1")
    return int(value)


def to_host(array: Array) -> Array:
    """A copy in host memory."""
    return np.array(Tensor(array).numpy())


def check_kind(state: Mapping[str, Any], key: str, name: str, where: str) -> None:
    """CheckpointError unless `state` says under `key` that it is the state of a `name`."""
    if not isinstance(state.get(key), str) or state[key] != name:
        raise CheckpointError(f"{where}: {key!r} is {state.get(key)!r} in this state, it must be {name!r}")


def check_keys(state: Mapping[str, Any], expected: list[str], where: str) -> None:
    """CheckpointError unless `state` has exactly the expected keys."""
    missing = [key for key in expected if key not in state]
    known = set(expected)
    unexpected = [key for key in state if key not in known]
    for text, keys in (("lacks", missing), ("has the unknown", unexpected)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(
                f"{where}: the state {text} {', '.join(map(repr, keys[:3]))}{more}; was it made for other "
                "parameters or options?"
            )


def read_number(state: Mapping[str, Any], key: str, like: Any, where: str, below: float = LARGEST) -> Any:
    """The number under `key`, of the type of `like` (bool, int, float).

    CheckpointError if there is none, or unless 0 <= number < below.
    """
    if key not in state:
        raise CheckpointError(f"{where}: the state lacks {key!r}")
    value, kind = state[key], type(like)
    numbers = (bool, np.bool_) if kind is bool else (int, float, np.integer, np.floating)
    if not isinstance(value, numbers) or (kind is not bool and isinstance(value, bool)):
        what = "True or False" if kind is bool else "a number"
        raise CheckpointError(f"{where}: {key!r} is {str(value)[:100]!r}, not {what}")
    if not 0 <= value < below:
        raise CheckpointError(f"{where}: {key!r} is {value}, it must lie in 0 <= {key} < {below:g}")
    if kind(value) != value:
        raise CheckpointError(f"{where}: {key!r} is {value}, not a whole number")
    return kind(value)


def read_array(state: Mapping[str, Any], key: str, like: Array, where: str) -> Array:
    """A copy of the array under `key`, on the device of `like`.  CheckpointError if shape or dtype differ."""
    try:
        array = np.array(state[key])
    except ValueError as error:  # lists of different lengths
        raise CheckpointError(f"{where}: {key!r} is no array") from error
    if array.shape != like.shape:
        raise CheckpointError(f"{where}: {key!r} has shape {array.shape}, but {like.shape} is needed here")
    if array.dtype != like.dtype:
        raise CheckpointError(f"{where}: {key!r} is {array.dtype}, but {like.dtype} is needed here")
    return backend.asarray(array, backend.device_of(like))
