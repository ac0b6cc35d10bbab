"""Shrink the step and watch the error: the most telling picture of a gradient, right or wrong.

Between the slope of f along a direction d, taken as (f(x + eps*d) - f(x - eps*d)) / (2*eps), and the
gradient's answer lies an error of eps^2 times a third derivative, for a smooth function and a right gradient:
a hundredth at a tenth of the step, until rounding takes over. A wrong gradient leaves an error that no step
shrinks. At a kink it shrinks with eps, or not at all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.autograd import Tensor
from minidl.testing.call import Call, random_direction

Array = np.ndarray

STEPS = tuple(10.0**-e for e in (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0))
ROUNDINGS = 64  # below so many roundings of the output's terms, divided by the step, an error means nothing


@dataclass(frozen=True)
class Convergence:
    """What one argument's error did while the step shrank.

    argument  its name
    eps       the steps
    error     |numeric - analytic| at each
    floor     what rounding alone explains at each
    """

    argument: str
    eps: tuple[float, ...]
    error: tuple[float, ...]
    floor: tuple[float, ...]

    @property
    def order(self) -> float:
        """p in error ~ eps**p, fitted where the error is above the floor: 2 for a right gradient of a smooth
        function, 0 for a wrong one; inf where no error is seen at all (f is linear or quadratic there).
        """
        seen = [(e, r) for e, r, floor in zip(self.eps, self.error, self.floor) if r > floor]
        if len(seen) < 2:
            return np.inf
        logs = np.log(np.array(seen[-4:]))  # the smallest steps: higher orders have died away
        return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])

    def __str__(self) -> str:
        rows = [
            f"    {e:8.1e}  {r:8.1e}{'  (rounding)' if r <= floor else ''}"
            for e, r, floor in zip(self.eps, self.error, self.floor)
        ]
        return "\n".join([f"{self.argument}: order {self.order:.2f}", "         eps     error", *rows])


def convergence(fn: Callable[..., Tensor], *inputs: Any, seed: int = 0, **options: Any) -> list[Convergence]:
    """How the error of every argument's gradient falls with the step; arguments as for `gradcheck`.

        for each in convergence(ops.tanh, x):
            print(each)  # order 2.00, and a table of eps and error

    The functions are to be smooth, and defined up to 0.2 around the inputs.
    """
    call = Call.of(fn, inputs, options, _Seed(seed))
    rng = np.random.default_rng(seed)
    y = call.value()
    upstream = random_direction(rng, y.shape)
    gradients = call.gradients(upstream, call.wanted)
    return [
        along(call, k, y, upstream, gradients[k], random_direction(rng, call.leaves[k].shape))
        for k in call.wanted
    ]


@dataclass(frozen=True)
class _Seed:
    """What a failing call reports of its settings."""

    seed: int
    eps: float = STEPS[-1]


def along(call: Call, k: int, y: Array, upstream: Array, gradient: Array, direction: Array) -> Convergence:
    """The sweep for one argument, one upstream gradient and one direction."""
    x = call.leaves[k]
    analytic = float(np.vdot(gradient, direction))
    # What enters the difference: the output, and its response to a rounding of the inputs.
    terms = float((np.abs(upstream) * np.abs(y)).sum() + np.abs(gradient * x).sum())
    errors, floors = [], []
    for eps in STEPS:
        change = call.value(k, np.asarray(x + eps * direction)) - call.value(
            k, np.asarray(x - eps * direction)
        )
        errors.append(abs(float((upstream * change).sum()) / (2 * eps) - analytic))
        floors.append(ROUNDINGS * float(np.finfo(np.float64).eps) * terms / eps)
    return Convergence(call.names[k], STEPS, tuple(errors), tuple(floors))
