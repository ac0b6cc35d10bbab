"""Prove a gradient: compare what backward computes with what the function does when its inputs move.

`gradcheck` works in float64. By default it asks one question per argument: moved a little along a random
direction, does the output change as the gradient says, seen through a random upstream gradient? One wrong
element anywhere shifts the answer. On demand (`full=True`) it compares the whole Jacobian, element by
element.

The one decision behind it: kinks are checked, not avoided. Every output element gets its slope to the left
and to the right; where the two agree, the gradient must have that value, and where they differ (ReLU at 0,
equal maxima in a pool) anything between them is a valid subgradient. On smooth functions the interval is only
as wide as the step times the curvature, about one part in a million. Smooth functions that compute on complex
numbers need no step to speak of: there `method="complex"` is exact to rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.autograd import Tensor
from minidl.testing.call import Call, random_direction, unit_directions
from minidl.testing.convergence import Convergence, along

Array = np.ndarray

SLACK = 1e-6  # what a numeric slope is trusted to, relative to its size: the step's error of second order
ROUNDINGS = 64  # how many roundings of the values moved we allow the function itself, per output element
PROBES = 4  # how often the inputs are moved by up to so many roundings, to see what fn makes of it,
PROBED = 8  # and how many times that fn may be off
COMPLEX_STEP = 1e-100  # its square vanishes beside 1, so the imaginary part is the derivative to rounding
COMPLEX_SLACK = 1e-11  # of the slopes and the output: nothing is subtracted, only the function itself rounds
ORDER = 1.8  # of a sweep: 2 in theory, and the fourth-order term still bends the line a little
DIAGNOSED = 2000  # after a failure, at most so many elements are moved one by one to find the worst


@dataclass(frozen=True)
class GradcheckSettings:
    """How `gradcheck` looks.

    eps         the step; the error is of the order eps (kinks, curvature) and 1e-16 / eps (rounding)
    full        compare the full Jacobian instead of one random direction per argument
    seed        of the upstream gradient and the directions
    allow_zero  accept an argument that the output does not depend on; otherwise such a check, which proves
                nothing, is refused
    method      "difference", or "complex": the imaginary part of fn(x + 1e-100j * direction), exact to
                rounding. For fn made of analytic operations (arithmetic, exp, log, sqrt, tanh, matmul, sums,
                softmax; not abs, relu, sigmoid, nor convolution and pooling, whose kernels are real)
                Squire and Trapp 1998, "Using complex variables to estimate derivatives of real functions"
    sweep       also shrink the step and demand that the error falls with its square (see `convergence`); for
                smooth functions
    device      where backward runs. On another than the CPU it computes in float32, and may be as far off as
                the float64 gradient moves when all inputs are moved by some roundings of float32; the slopes
                are those of fn on the CPU in any case
    """

    eps: float = 1e-6
    full: bool = False
    seed: int = 0
    allow_zero: bool = False
    method: str = "difference"
    sweep: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.method not in ("difference", "complex"):
            raise ValueError(
                f"GradcheckSettings: method is {self.method!r}; it may be 'difference' or 'complex'"
            )


def gradcheck(
    fn: Callable[..., Tensor], *inputs: Any, settings: GradcheckSettings | None = None, **options: Any
) -> bool:
    """True if backward through `fn(*inputs, **options)` computes fn's derivative, or an AssertionError.

    Float arrays and Tensors that require a gradient are checked, as float64 copies; so are those inside a
    list or tuple, and the parameters of fn if it is a module (a float64 copy of it is called). Everything
    else is passed as it is: None, numbers, integer arrays, Tensors that require none (cast to float64), and
    the options. fn returns one Tensor and must be a function: the same result every time. minidl's own random
    streams are rewound for every run, so dropout keeps its mask; seed other randomness inside fn.

    Also checked: fn leaves its inputs and the upstream gradient alone; output and gradients are float64,
    gradients have their input's shape, share no memory with one another, the inputs or the upstream, are the
    same bits in a second run, the same values when asked for one at a time, and follow the upstream in a
    second backward through one graph.  ValueError when there is
    nothing to check; TypeError for method="complex" where fn does not compute on complex numbers.
    """
    settings = settings or GradcheckSettings()
    call = Call.of(fn, inputs, options, settings)
    if settings.device != "cpu":
        call.round_to(np.float32)
    rng = np.random.default_rng(settings.seed)
    y = call.value()
    _check_output(call, y)
    upstream = random_direction(rng, y.shape)
    gradients = call.gradients(upstream, call.wanted)
    _check_gradients(call, upstream, gradients)
    for k in call.wanted:
        direction = random_direction(rng, call.leaves[k].shape)
        rounding = _rounding(call, k, y)
        if settings.full:
            _check_jacobian(call, k, y, rounding)
        else:
            _check_direction(call, k, y, rounding, upstream, gradients[k], direction)
        if settings.sweep:
            _check_order(call, along(call, k, y, upstream, gradients[k], direction))
    call.check_second_backward(upstream)
    if settings.device != "cpu":
        _check_device(call, y, upstream, gradients)
    return True


def _check_device(call: Call, y: Array, upstream: Array, gradients: dict[int, Array]) -> None:
    """The gradients that the device computes in float32, against the slopes of fn in float64."""
    rng = np.random.default_rng(call.settings.seed)
    upstream = upstream.astype(np.float32).astype(np.float64)
    found = call.gradients_on(call.settings.device, upstream)
    errors = _float32_errors(call, upstream, gradients)
    for k in call.wanted:
        direction = random_direction(rng, call.leaves[k].shape)
        least, most, slack = _weigh(upstream, *_slopes(call, k, y, _rounding(call, k, y), direction))
        slack += float((np.abs(direction) * errors[k]).sum())
        analytic = float(np.vdot(found[k], direction))
        if not least - slack <= analytic <= most + slack:
            off = np.abs(found[k] - gradients[k]) - errors[k]
            worst = np.unravel_index(int(np.nan_to_num(off, nan=np.inf).argmax()), off.shape)
            raise call.wrong(
                f"the gradient of {call.names[k]} on {call.settings.device!r} is wrong\n"
                f"  along a random direction: analytic {analytic:.8g}, numeric {_interval(least, most)}, "
                f"tolerance {slack:.2g}\n"
                f"  furthest from the CPU's at {list(map(int, worst))}: {found[k][worst]:.8g}, there "
                f"{gradients[k][worst]:.8g}"
            )


def _float32_errors(call: Call, upstream: Array, gradients: dict[int, Array]) -> dict[int, Array]:
    """How far off a gradient in float32 may be: what moving all inputs by a few of its roundings does to the
    one in float64, and some roundings of the gradient itself."""
    rng = np.random.default_rng(call.settings.seed)
    eps = float(np.finfo(np.float32).eps)
    seen = {k: ROUNDINGS * eps * np.abs(gradient) for k, gradient in gradients.items()}
    for _ in range(PROBES):
        factors = {k: 1 + eps * rng.uniform(-PROBED, PROBED, gradients[k].shape) for k in gradients}
        for k, moved in call.moved(factors).gradients(upstream, call.wanted).items():
            seen[k] = np.fmax(seen[k], PROBED * np.abs(moved - gradients[k]))
    return seen


def _check_output(call: Call, y: Array) -> None:
    """Its type, that it has slopes at all, and that a second run gives the same bits."""
    if y.dtype != np.float64:
        raise call.wrong(f"the output is {y.dtype} for float64 inputs")
    if not np.all(np.isfinite(y)):
        raise call.wrong("the output is not finite, so it has no slope")
    if not np.array_equal(call.value(), y):
        raise call.wrong(
            "a second run gave another output: seed what is random in it, and fix the order of its sums"
        )


def _check_gradients(call: Call, upstream: Array, gradients: dict[int, Array]) -> None:
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
    call: Call, k: int, y: Array, rounding: Array, upstream: Array, gradient: Array, direction: Array
) -> None:
    """<gradient, direction> against <upstream, change of the output along the direction>."""
    low, high, noise = _slopes(call, k, y, rounding, direction)
    _refuse_vacuous(call, k, low, high, noise)
    analytic = float(np.vdot(gradient, direction))
    least, most, slack = _weigh(upstream, low, high, noise)
    if least - slack <= analytic <= most + slack:
        return
    sweep = along(call, k, y, upstream, gradient, direction)
    worst = _worst_element(call, k, y, rounding, upstream, gradient)
    raise call.wrong(
        f"the gradient of {call.names[k]} is wrong\n  {worst}\n"
        f"  along a random direction: analytic {analytic:.8g}, numeric {_interval(least, most)}, "
        f"tolerance {slack:.2g}\n"
        f"  shrinking the step, the error falls with its power {sweep.order:.2g} (2: right gradient of a "
        f"smooth function, 0: wrong gradient)"
    )


def _check_order(call: Call, sweep: Convergence) -> None:
    """The error must fall with the square of the step, or be rounding from the start."""
    if sweep.order < ORDER:
        raise call.wrong(f"the error does not fall with the square of the step\n  {sweep}")


def _check_jacobian(call: Call, k: int, y: Array, rounding: Array) -> None:
    """d y[j] / d x[i] for all i and j: a backward per output element, two steps per input element."""
    analytic = np.empty(y.shape + call.leaves[k].shape)
    for j in np.ndindex(y.shape):
        upstream = np.zeros_like(y)
        upstream[j] = 1.0
        analytic[j] = call.gradients(upstream, [k])[k]
    everything = [
        (i, *_slopes(call, k, y, rounding, direction)) for i, direction in unit_directions(call.leaves[k])
    ]
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


def _rounding(call: Call, k: int, y: Array) -> Array:
    """What fn's own rounding does to every output element, seen by moving leaf k by a few roundings.

    Where large numbers cancel inside fn (two nearly equal pixels, normalised), it is far more than a rounding
    of the output.
    """
    rng = np.random.default_rng(call.settings.seed)
    x, seen = call.leaves[k], np.zeros_like(y)
    for _ in range(PROBES):
        moved = x * (1 + np.finfo(np.float64).eps * rng.uniform(-ROUNDINGS, ROUNDINGS, x.shape))
        seen = np.fmax(seen, np.abs(call.value(k, np.asarray(moved)) - y))
    return PROBED * seen


def _slopes(call: Call, k: int, y: Array, rounding: Array, direction: Array) -> tuple[Array, Array, Array]:
    """The smaller and the larger one-sided slope of every output element, and what they are trusted to.

    The trust: SLACK for the step, and what rounding adds to a difference, divided by the step: ROUNDINGS of
    the output itself and of its response to a rounding of the inputs, and what was seen (`_rounding`).
    """
    eps, x = call.settings.eps, call.leaves[k]
    if call.settings.method == "complex":
        slope = call.complex_value(k, x + 1j * COMPLEX_STEP * direction).imag / COMPLEX_STEP
        noise = COMPLEX_SLACK * (np.abs(slope).max(initial=0.0) + np.abs(y))
        return slope, slope, noise
    right = (call.value(k, np.asarray(x + eps * direction)) - y) / eps
    left = (y - call.value(k, np.asarray(x - eps * direction))) / eps
    if not (np.all(np.isfinite(left)) and np.all(np.isfinite(right))):
        raise call.wrong(
            f"the output is not finite a step away from {call.names[k]}; choose inputs further inside the "
            "domain"
        )
    steepest = np.maximum(np.abs(left), np.abs(right))
    one_rounding = np.finfo(np.float64).eps * (np.abs(y) + steepest * float(np.abs(x).max()))
    noise = SLACK * steepest + (ROUNDINGS * one_rounding + rounding) / eps
    return np.minimum(left, right), np.maximum(left, right), noise


def _weigh(upstream: Array, low: Array, high: Array, noise: Array) -> tuple[float, float, float]:
    """The interval of sum(upstream * slope) over all slopes in [low, high], and its tolerance."""
    ends = upstream * low, upstream * high
    slack = float((np.abs(upstream) * noise).sum())
    return float(np.minimum(*ends).sum()), float(np.maximum(*ends).sum()), slack


def _refuse_vacuous(call: Call, k: int, low: Array, high: Array, noise: Array) -> None:
    """A gradient that is 0 everywhere is also what a broken op returns: agreement proves nothing."""
    if not call.settings.allow_zero and bool(np.all(np.maximum(np.abs(low), np.abs(high)) <= noise)):
        raise call.wrong(
            f"vacuous: the output does not change with {call.names[k]}, so a gradient of zeros would pass. "
            f"Choose other inputs, or say allow_zero=True"
        )


def _worst_element(call: Call, k: int, y: Array, rounding: Array, upstream: Array, gradient: Array) -> str:
    """Which element of a wrong gradient is furthest off, found by moving one element at a time."""
    worst, text = -np.inf, ""
    for count, (i, direction) in enumerate(unit_directions(call.leaves[k])):
        if count == DIAGNOSED:
            break
        least, most, slack = _weigh(upstream, *_slopes(call, k, y, rounding, direction))
        analytic = float(gradient[i])
        excess = max(least - analytic, analytic - most) - slack
        if excess > worst:
            worst = excess
            text = (
                f"worst element {list(i)}: analytic {analytic:.8g}, numeric {_interval(least, most)}, "
                f"tolerance {slack:.2g}"
            )
    return text


def _interval(least: float, most: float) -> str:
    if np.isclose(least, most, rtol=1e-5, atol=1e-12):
        return f"{least:.8g}"
    return f"between {least:.8g} and {most:.8g} (a kink)"
