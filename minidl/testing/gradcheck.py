"""Prove a gradient: compare what backward computes with what the function does when its inputs move.

`gradcheck` works in float64. By default it asks one question per argument: moved a little along a random
direction, does the output change as the gradient says, seen through a random upstream gradient? One wrong
element anywhere shifts the answer. On demand (`full=True`) it compares the whole Jacobian, element by
element.

The one decision behind it: kinks are checked, not avoided. Every output element gets its slope to the left
and to the right; where the two agree, the gradient must have that value, and where they differ (ReLU at 0,
equal maxima in a pool) anything between them is a valid subgradient. On smooth functions the interval is only
as wide as the step times the curvature, about one part in a million.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.autograd import Tensor, no_grad
from minidl.recording import op

Array = np.ndarray

SLACK = 1e-6  # what a numeric slope is trusted to, relative to its size: the step's error of second order
ROUNDINGS = 64  # how many roundings of the values moved we allow the function itself, per output element
DIAGNOSED = 2000  # after a failure, at most so many elements are moved one by one to find the worst


@dataclass(frozen=True)
class GradcheckSettings:
    """How `gradcheck` looks.

    eps         the step; the error is of the order eps (kinks, curvature) and 1e-16 / eps (rounding)
    full        compare the full Jacobian instead of one random direction per argument
    seed        of the upstream gradient and the directions
    allow_zero  accept an argument that the output does not depend on; otherwise such a check, which proves
                nothing, is refused
    """

    eps: float = 1e-6
    full: bool = False
    seed: int = 0
    allow_zero: bool = False


def gradcheck(
    fn: Callable[..., Tensor], *inputs: Any, settings: GradcheckSettings | None = None, **options: Any
) -> bool:
    """True if backward through `fn(*inputs, **options)` computes fn's derivative, or an AssertionError.

    Float arrays and Tensors that require a gradient are checked, as float64 copies; so are those inside a
    list or tuple. Everything else is passed as it is: None, numbers, integer arrays, Tensors that require
    none (cast to float64), and the options. fn returns one Tensor and must be a function: the same result
    every time (seed what is random inside).

    Also checked: fn leaves its inputs and the upstream gradient alone; output and gradients are float64,
    gradients have their input's shape, share no memory with one another, the inputs or the upstream, are the
    same bits in a second run, and the same values when asked for one at a time.  ValueError when there is
    nothing to check.
    """
    settings = settings or GradcheckSettings()
    call = _Call.of(fn, inputs, options, settings)
    rng = np.random.default_rng(settings.seed)
    y = call.value()
    _check_output(call, y)
    upstream = _random(rng, y.shape)
    gradients = call.gradients(upstream, call.wanted)
    _check_gradients(call, upstream, gradients)
    for k in call.wanted:
        if settings.full:
            _check_jacobian(call, k, y)
        else:
            _check_direction(call, k, y, upstream, gradients[k], _random(rng, call.leaves[k].shape))
    return True


@dataclass(frozen=True)
class _Call:
    """fn with its arguments laid out flat: leaves[k] is called names[k]; those in `wanted` are checked."""

    fn: Callable[..., Tensor]
    leaves: list[Any]
    names: list[str]
    wanted: list[int]
    lengths: list[int | None]  # per argument: how many leaves a list or tuple has, None for anything else
    options: dict[str, Any]
    settings: GradcheckSettings

    @classmethod
    def of(
        cls,
        fn: Callable[..., Tensor],
        inputs: Sequence[Any],
        options: dict[str, Any],
        settings: GradcheckSettings,
    ) -> "_Call":
        leaves: list[Any] = []
        names: list[str] = []
        wanted: list[int] = []
        lengths: list[int | None] = []
        for name, value in zip(_argument_names(fn, len(inputs)), inputs, strict=True):
            several = isinstance(value, (list, tuple)) and any(map(_is_array, value))
            lengths.append(len(value) if several else None)
            for i, leaf in enumerate(value if several else [value]):
                if _is_checked(leaf):
                    wanted.append(len(leaves))
                leaves.append(_as_float64(leaf))
                names.append(f"{name}[{i}]" if several else name)
        call = cls(fn, leaves, names, wanted, lengths, options, settings)
        if not wanted:
            raise ValueError(
                f"gradcheck: {call.name} got no float array and no Tensor that requires a gradient: "
                f"nothing to check"
            )
        if any(call.leaves[k].size == 0 for k in wanted):
            raise ValueError(f"gradcheck: {call.name} got an array without elements: nothing to check")
        return call

    @property
    def name(self) -> str:
        return getattr(self.fn, "__name__", type(self.fn).__name__)

    def __call__(self, leaves: Sequence[Any]) -> Tensor:
        rest = iter(leaves)
        arguments = [
            next(rest) if length is None else [next(rest) for _ in range(length)] for length in self.lengths
        ]
        y = self.fn(*arguments, **self.options)
        if not isinstance(y, Tensor) or not isinstance(y.data, np.ndarray):
            found = f"a Tensor around {type(y.data).__name__}" if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(
                f"gradcheck: {self.name} returned {found}; it must return one Tensor that holds an array"
            )
        return y

    def value(self, k: int | None = None, moved: Array | None = None) -> Array:
        """fn's output, with leaf k replaced by `moved`."""
        with no_grad():
            leaves = [Tensor(leaf.copy()) if i in self.wanted else leaf for i, leaf in enumerate(self.leaves)]
            if k is not None and moved is not None:
                leaves[k] = Tensor(moved)
            return self(leaves).data.copy()

    def gradients(self, upstream: Array, wanted: Sequence[int]) -> dict[int, Array]:
        """The gradient of every wanted leaf, given the one arriving at the output."""
        tensors = [
            Tensor(leaf.copy(), requires_grad=i in wanted) if i in self.wanted else leaf
            for i, leaf in enumerate(self.leaves)
        ]
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


def _check_output(call: _Call, y: Array) -> None:
    """Its type, that it has slopes at all, and that a second run gives the same bits."""
    if y.dtype != np.float64:
        raise call.wrong(f"the output is {y.dtype} for float64 inputs")
    if not np.all(np.isfinite(y)):
        raise call.wrong("the output is not finite, so it has no slope")
    if not np.array_equal(call.value(), y):
        raise call.wrong(
            "a second run gave another output: seed what is random in it, and fix the order of its sums"
        )


def _check_gradients(call: _Call, upstream: Array, gradients: dict[int, Array]) -> None:
    """Types, shapes, and that it does not matter how often and in what company a gradient is asked for."""
    for k, gradient in gradients.items():
        if gradient.shape != call.leaves[k].shape or gradient.dtype != np.float64:
            raise call.wrong(
                f"the gradient of {call.names[k]} is {gradient.dtype} {gradient.shape}, the argument float64 "
                f"{call.leaves[k].shape}"
            )
        if not np.all(np.isfinite(gradient)):
            place = list(map(int, np.argwhere(~np.isfinite(gradient))[0]))
            raise call.wrong(
                f"the gradient of {call.names[k]} is wrong\n  element {place} is {gradient[tuple(place)]}"
            )
    again = call.gradients(upstream, call.wanted)
    for k in call.wanted:
        if not np.array_equal(again[k], gradients[k]):
            raise call.wrong(f"a second run gave another gradient of {call.names[k]}")
        if len(call.wanted) > 1:
            alone = call.gradients(upstream, [k])[k]
            scale = float(np.abs(gradients[k]).max())
            if not np.allclose(alone, gradients[k], rtol=1e-12, atol=1e-12 * scale):
                raise call.wrong(f"the gradient of {call.names[k]} is another one when no other is asked for")


def _check_direction(
    call: _Call, k: int, y: Array, upstream: Array, gradient: Array, direction: Array
) -> None:
    """<gradient, direction> against <upstream, change of the output along the direction>."""
    low, high, noise = _slopes(call, k, y, direction)
    _refuse_vacuous(call, k, low, high, noise)
    analytic = float(np.vdot(gradient, direction))
    least, most, slack = _weigh(upstream, low, high, noise)
    if least - slack <= analytic <= most + slack:
        return
    raise call.wrong(
        f"the gradient of {call.names[k]} is wrong\n  {_worst_element(call, k, y, upstream, gradient)}\n"
        f"  along a random direction: analytic {analytic:.8g}, numeric {_interval(least, most)}, "
        f"tolerance {slack:.2g}"
    )


def _check_jacobian(call: _Call, k: int, y: Array) -> None:
    """d y[j] / d x[i] for all i and j: a backward per output element, two steps per input element."""
    analytic = np.empty(y.shape + call.leaves[k].shape)
    for j in np.ndindex(y.shape):
        upstream = np.zeros_like(y)
        upstream[j] = 1.0
        analytic[j] = call.gradients(upstream, [k])[k]
    everything = [(i, *_slopes(call, k, y, direction)) for i, direction in _unit_directions(call.leaves[k])]
    _refuse_vacuous(call, k, *(np.stack([entry[part] for entry in everything]) for part in (1, 2, 3)))
    worst, text = 0.0, ""
    for i, low, high, noise in everything:
        slope = analytic.reshape(*y.shape, -1)[..., np.ravel_multi_index(i, call.leaves[k].shape)]
        excess = np.maximum(low - noise - slope, slope - high - noise)
        if excess.max() > worst:
            worst, j = excess.max(), np.unravel_index(int(excess.argmax()), y.shape)
            place = tuple(map(int, j))
            text = (
                f"worst element: d output{list(place)} / d {call.names[k]}{list(i)}: analytic "
                f"{slope[place]:.8g}, numeric {_interval(low[place], high[place])}, tolerance "
                f"{noise[place]:.2g}"
            )
    if worst > 0:
        raise call.wrong(f"the gradient of {call.names[k]} is wrong\n  {text}")


def _slopes(call: _Call, k: int, y: Array, direction: Array) -> tuple[Array, Array, Array]:
    """The smaller and the larger one-sided slope of every output element, and what they are trusted to.

    The trust: SLACK for the step, and ROUNDINGS of what enters a difference, divided by the step: the output
    itself, and the output's response to a rounding of the inputs.
    """
    eps, x = call.settings.eps, call.leaves[k]
    right = (call.value(k, np.asarray(x + eps * direction)) - y) / eps
    left = (y - call.value(k, np.asarray(x - eps * direction))) / eps
    if not (np.all(np.isfinite(left)) and np.all(np.isfinite(right))):
        raise call.wrong(
            f"the output is not finite a step away from {call.names[k]}; choose inputs further inside the "
            "domain"
        )
    steepest = np.maximum(np.abs(left), np.abs(right))
    one_rounding = np.finfo(np.float64).eps * (np.abs(y) + steepest * float(np.abs(x).max()))
    return np.minimum(left, right), np.maximum(left, right), SLACK * steepest + ROUNDINGS * one_rounding / eps


def _weigh(upstream: Array, low: Array, high: Array, noise: Array) -> tuple[float, float, float]:
    """The interval of sum(upstream * slope) over all slopes in [low, high], and its tolerance."""
    ends = upstream * low, upstream * high
    slack = float((np.abs(upstream) * noise).sum())
    return float(np.minimum(*ends).sum()), float(np.maximum(*ends).sum()), slack


def _refuse_vacuous(call: _Call, k: int, low: Array, high: Array, noise: Array) -> None:
    """A gradient that is 0 everywhere is also what a broken op returns: agreement proves nothing."""
    if not call.settings.allow_zero and bool(np.all(np.maximum(np.abs(low), np.abs(high)) <= noise)):
        raise call.wrong(
            f"vacuous: the output does not change with {call.names[k]}, so a gradient of zeros would pass. "
            f"Choose other inputs, or say allow_zero=True"
        )


def _worst_element(call: _Call, k: int, y: Array, upstream: Array, gradient: Array) -> str:
    """Which element of a wrong gradient is furthest off, found by moving one element at a time."""
    worst, text = -np.inf, ""
    for count, (i, direction) in enumerate(_unit_directions(call.leaves[k])):
        if count == DIAGNOSED:
            break
        least, most, slack = _weigh(upstream, *_slopes(call, k, y, direction))
        analytic = float(gradient[i])
        excess = max(least - analytic, analytic - most) - slack
        if excess > worst:
            worst = excess
            text = (
                f"worst element {list(i)}: analytic {analytic:.8g}, numeric {_interval(least, most)}, "
                f"tolerance {slack:.2g}"
            )
    return text


def _unit_directions(x: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Every index of x with the direction that moves this element alone."""
    for i in np.ndindex(x.shape):
        direction = np.zeros_like(x)
        direction[i] = 1.0
        yield i, direction


def _random(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values of either sign, 0.5 to 2 in size: none is overlooked, no sum cancels by symmetry."""
    return np.asarray(rng.uniform(0.5, 2.0, shape) * rng.choice([-1.0, 1.0], shape))


def _interval(least: float, most: float) -> str:
    if np.isclose(least, most, rtol=1e-5, atol=1e-12):
        return f"{least:.8g}"
    return f"between {least:.8g} and {most:.8g} (a kink)"


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
        copy = np.array(value.data, np.float64)
        return copy if value.requires_grad else Tensor(copy)
    return np.array(value, np.float64) if _is_checked(value) else value


def _sketch(value: Any) -> str:
    """A value on a line: arrays by dtype and shape."""
    if _is_array(value):
        return f"<{value.dtype} {tuple(value.shape)}>"
    return repr(value)
