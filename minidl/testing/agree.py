"""Does an op agree with the naive reference?  Judged by what rounding explains, not by a guessed tolerance.

The reference is `minidl.testing.reference`, what rounding explains is in `minidl.testing.bounds`; both know
every op of minidl and its gradients. The one decision behind it: a case is rounded to a dtype first, and the
reference computes in float64 from the rounded values, once for every device and plan that has to agree.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from minidl import backend, ops, streams
from minidl.autograd import Tensor, ieee
from minidl.backend import plans as registry
from minidl.testing import bounds, reference
from minidl.testing.bounds import Bound
from minidl.testing.call import random_direction
from minidl.testing.strategies import Case, usable_devices
from minidl.window import window

Array = np.ndarray

UPSTREAM_SEED = 1  # not gradcheck's: an op that remembers the first upstream it saw must not pass both
Value = Callable[..., Array]
Gradients = tuple[Callable[..., tuple[Array | None, ...]], Bound]

# The arguments that gradients belong to, where those are not all positional arrays of floats.
DIFFERENTIABLE = {"batch_norm": ("x", "gamma", "beta", "residual")}


def agree(
    fn: Callable[..., Any],
    case: Case,
    *,
    reference: Value | None = None,
    bound: Bound | None = None,
    gradients: Gradients | None = None,
    dtypes: Sequence[Any] = (np.float32, np.float64),
    plans: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
) -> bool:
    """True if `fn(*case.inputs, **case.options)` and its gradients are the reference's up to rounding, or an
    AssertionError.

    The case is rounded to each of `dtypes`, and fn runs in it on each of `devices` (an op of minidl on all
    that are usable here, one's own on the CPU; on others than that in float32 alone) under each of `plans`
    (for conv2d all that differ): once on arrays, and, if that gives a Tensor, once on Tensors, with a
    backward from random upstream values. minidl's random streams start at manual_seed(0) each time, and are
    put back.

    For an op of minidl the reference and the bounds are found by its name. For one's own give `reference`, a
    function of the same arguments that computes in float64, and `bound`, a function of the unit roundoff and
    the same arguments that returns the largest error allowed, as an array or a number (for a convolution it
    may also take algorithm=, the name of what runs). To have its gradients
    compared too, give `gradients`, the pair of both for them: they take g, the gradient arriving at the
    result, before the arguments, and return a tuple, None for an array that is None, else one entry per
    positional array of floats.  ValueError where nothing is known to compare with.
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    known = _known(name, reference, bound, gradients)
    for dtype in map(np.dtype, dtypes):
        rounded = case.astype(dtype)
        values = _values(known, rounded, dtype)
        for device in _devices(fn, name) if devices is None else devices:
            if device != "cpu" and dtype != np.float32:
                continue  # GPUs compute in float32 alone
            for plan, algorithm in _plans(name, rounded, dtype, device, plans):
                run = _Run(fn, name, rounded, dtype, device, plan)
                with registry.force_plan(plan):
                    _check(run, _expect(known, values, rounded, dtype, algorithm))
    return True


def _devices(fn: Callable[..., Any], name: str) -> list[str]:
    """Where fn runs, if nobody says: one's own op may be NumPy's."""
    return usable_devices() if fn is getattr(ops, name, None) else ["cpu"]


def _plans(
    name: str, case: Case, dtype: np.dtype, device: str, wanted: Sequence[str] | None
) -> list[tuple[str, str]]:
    """(a plan to force, the algorithm that a convolution then runs; "" for other ops).

    Those that are wanted, or all that run different algorithms: one that is not valid here would only run the
    usual one again.
    """
    if name != "conv2d":
        return [(plan, "") for plan in wanted or ["auto"]]
    x, weight, *_ = case.inputs
    options = {key: case.options[key] for key in ("stride", "padding", "dilation") if key in case.options}
    geometry = window(name, x.shape[1:3], weight.shape[:2], **options)
    choose = backend.of(backend.asarray(x, device)).choose_plan
    runs: dict[str, str] = {}  # plan -> algorithm
    for plan in registry.NAMES if wanted is None else wanted:
        with registry.force_plan(plan):
            groups = case.options.get("groups", 1)
            runs[plan] = choose(geometry, dtype, groups, x.shape[3], weight.shape[3], x.shape[0]).name
    if wanted is not None:
        return list(runs.items())
    distinct: dict[str, str] = {}
    for plan, algorithm in runs.items():
        distinct.setdefault(algorithm, plan)
    return [(plan, algorithm) for algorithm, plan in distinct.items()]


Known = tuple[Value, Bound, Gradients | None]


def _known(name: str, value: Value | None, bound: Bound | None, gradients: Gradients | None) -> Known:
    """What to compare with: as given, or by the name of the op.  ValueError without."""
    if value is None and name in bounds.FORWARD:
        value = getattr(reference, name)
        if gradients is None and name in bounds.GRADIENTS:
            gradients = getattr(reference, f"{name}_gradients"), bounds.GRADIENTS[name]
    bound = bound or bounds.FORWARD.get(name)
    if value is None or bound is None:
        raise ValueError(f"agree: nothing is known about {name}; pass reference= and bound=")
    return value, bound, gradients


@dataclass(frozen=True)
class _Expected:
    """What the reference says, and how far rounding may lead away from it."""

    y: Array
    limit: Array
    upstream: Array | None  # None where the gradients are not known
    gradients: list[tuple[Array, Array]]  # value and limit, one per array that was given


@dataclass(frozen=True)
class _Values:
    """What the reference says: the result, the upstream gradient, and the gradients for it."""

    y: Array
    upstream: Array | None
    gradients: tuple[Array | None, ...]


def _values(known: Known, case: Case, dtype: np.dtype) -> _Values:
    """Computed in float64 from a case in its dtype."""
    value, _, gradients = known
    with ieee():
        y = value(*case.inputs, **case.options)
        if gradients is None:
            return _Values(y, None, ())
        upstream = random_direction(np.random.default_rng(UPSTREAM_SEED), y.shape).astype(dtype)
        return _Values(y, upstream, gradients[0](upstream, *case.inputs, **case.options))


def _expect(known: Known, values: _Values, case: Case, dtype: np.dtype, algorithm: str) -> _Expected:
    """The values with their limits."""
    _, bound, gradients = known
    wide = case.astype(np.float64)
    options = dict(wide.options)
    if algorithm and "algorithm" in inspect.signature(bound).parameters:
        options["algorithm"] = algorithm
    u = float(np.finfo(dtype).eps + np.finfo(np.float64).eps) / 2  # the reference rounds too, in float64
    tiny = np.finfo(dtype).tiny  # smaller numbers have fewer digits
    pairs: list[tuple[Array, Array]] = []
    with ieee():
        limit = np.broadcast_to(bound(u, *wide.inputs, **options) + tiny, values.y.shape)
        if gradients is not None and values.upstream is not None:
            limits = gradients[1](u, values.upstream.astype(np.float64), *wide.inputs, **options)
            for grad, error in zip(values.gradients, limits, strict=True):
                if grad is not None:
                    pairs.append((grad, np.broadcast_to(error + tiny, grad.shape)))
    return _Expected(values.y, limit, values.upstream, pairs)


@dataclass(frozen=True)
class _Run:
    """One way to run the case: in a dtype, on a device, under a plan."""

    fn: Callable[..., Any]
    name: str
    case: Case
    dtype: np.dtype
    device: str
    plan: str

    def call(self, *, record: bool = False) -> tuple[Any, list[tuple[str, Tensor]]]:
        """fn's result; with `record` also the Tensors that gradients belong to, by name."""
        names = [f.name for f in fields(self.case) if f.name not in Case.__dataclass_fields__]
        arguments = dict(zip(names, self.case.inputs, strict=True)) | self.case.options
        leaves: list[tuple[str, Tensor]] = []
        for key in names + [key for key in DIFFERENTIABLE.get(self.name, ()) if key in self.case.options]:
            several = isinstance(arguments[key], list)
            values = [self._placed(value) for value in (arguments[key] if several else [arguments[key]])]
            for i, value in enumerate(values):
                if record and _is_float(value) and key in DIFFERENTIABLE.get(self.name, names):
                    values[i] = Tensor(value, requires_grad=True)
                    leaves.append((f"{key}[{i}]" if several else key, values[i]))
            arguments[key] = values if several else values[0]
        inputs = [arguments.pop(name) for name in names]
        state = streams.get_state()
        try:
            streams.manual_seed(0)
            return self.fn(*inputs, **arguments), leaves
        finally:
            streams.set_state(state)

    def _placed(self, value: Any) -> Any:
        return backend.asarray(value, self.device) if _is_float(value) else value

    def compare(self, what: str, found: Array, expected: Array, limit: Array) -> None:
        """AssertionError naming the element that is furthest outside its bound."""
        if found.dtype != self.dtype or found.shape != expected.shape:
            raise self.wrong(f"{what} is {found.dtype} {found.shape}, expected {self.dtype} {expected.shape}")
        with ieee():
            error = np.abs(found - expected)
            near = (found == expected) | (error <= limit) | (np.isnan(found) & np.isnan(expected))
            ratio = np.where(near, 0.0, np.nan_to_num(error / limit, nan=np.inf))
        if near.all():
            return
        worst = np.unravel_index(int(ratio.argmax()), expected.shape)
        raise self.wrong(
            f"{what}: {near.size - int(near.sum())} of {near.size} elements are further from the reference "
            f"than rounding explains\n  worst element {list(map(int, worst))}: found "
            f"{float(found[worst])!r}, reference {float(expected[worst])!r}, error {error[worst]:.3g}, bound "
            f"{limit[worst]:.3g}"
        )

    def wrong(self, what: str) -> AssertionError:
        """The failure, with how the case was run, and the case."""
        plan = "" if self.plan == "auto" else f", plan {self.plan}"
        return AssertionError(
            f"agree: {self.name} ({self.dtype} on {self.device}{plan}): {what}\n  for {self.case!r}"
        )


def _is_float(value: Any) -> bool:
    return backend.is_array(value) and value.dtype.kind == "f"


def _check(run: _Run, expected: _Expected) -> None:
    """The output on arrays, the output on Tensors, and the gradients."""
    y, _ = run.call()
    found = y.numpy() if isinstance(y, Tensor) else backend.to_host(y)
    run.compare("output", found, expected.y, expected.limit)
    if expected.upstream is None or not isinstance(y, Tensor):
        return
    y, leaves = run.call(record=True)
    run.compare("recorded output", y.numpy(), expected.y, expected.limit)
    names = ", ".join(name for name, _ in leaves)
    if len(leaves) != len(expected.gradients):
        raise ValueError(
            f"agree: {run.name}: the reference has {len(expected.gradients)} gradients, but {len(leaves)} "
            f"arrays can have one: {names}"
        )
    if not y.requires_grad:
        raise run.wrong(f"the output does not depend on {names}: nothing was recorded")
    y.backward(Tensor(backend.asarray(expected.upstream.copy(), run.device)))
    for (name, leaf), (grad, limit) in zip(leaves, expected.gradients, strict=True):
        if leaf.grad is None:
            raise run.wrong(f"{name} got no gradient")
        run.compare(f"gradient of {name}", leaf.grad.numpy(), grad, limit)
