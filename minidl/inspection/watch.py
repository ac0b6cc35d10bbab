"""Watching a network run: which ops, plans and gradients belong to which layer, and where the time goes.

A layer is a module without modules inside. What runs between the hooks before and after its forward pass is
its own; the gradients of what ran there are told apart in the backward pass by a wrapper around each vjp. One
clock runs all the time, for a layer's forward pass, for its backward pass or for neither, so that the parts
add up to the whole.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Self

from minidl import nn, recording
from minidl.autograd import Node, Tensor, Vjp
from minidl.backend import Array, plans
from minidl.backend.plans import Pass, Plan

_WEIGHT_AXES = {"conv2d": 4, "linear": 2, "matmul": 2}  # of the ops that multiply their first two inputs


@dataclass(eq=False)
class Call:
    """One run of a layer, or of an op outside all layers, whose `module` is None.

    output         shape of y, N included; of the first, where there are several
    output_bytes   size of y
    macs           multiply-adds of one image in the forward pass
    backward_macs  the same in the backward pass: as many again for each gradient of x and of the weight that
                   somebody wants
    plans          pass ("forward", "grad_x", "grad_weight") -> what ran, of the passes that have run
    nodes          what the ops recorded for the backward pass
    seconds        "forward" and "backward" -> time spent
    """

    path: str
    kind: str
    module: nn.Module | None = None
    output: tuple[int, ...] = ()
    output_bytes: int = 0
    macs: int = 0
    backward_macs: int = 0
    plans: dict[str, Plan] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"forward": 0.0, "backward": 0.0})


class Watch:
    """Inside `with Watch(model) as watch:`, all that runs is noted in `watch.calls`, in the order it ends.

    Without a model there are no layers, and every op is a call of its own. Afterwards `seconds` is the time
    from beginning to end, `other_seconds` the part of it that no call took.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self.calls: list[Call] = []
        self.seconds = self.other_seconds = 0.0
        self._layers = [] if model is None else layers(model)
        self._running: list[tuple[Call, str]] = []  # who the clock runs for; a layer may call another one
        self._plans: dict[str, Plan] = {}  # of the op that is running outside all layers
        self._began = self._clock = 0.0
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for path, module in self._layers:
            self._ending.callback(module.register_forward_pre_hook(self._layer_begins(path)).remove)
            self._ending.callback(module.register_forward_hook(self._layer_ends).remove)
        self._ending.enter_context(recording.watching(self._op_ran))
        self._ending.enter_context(plans.watching(self._plan_runs))
        self._began = self._clock = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self._tick()
        self.seconds = self._clock - self._began
        self._ending.close()

    def _tick(self) -> None:
        """Charge the time since the last tick to whom the clock runs for."""
        now = time.perf_counter()
        if self._running:
            call, part = self._running[-1]
            call.seconds[part] += now - self._clock
        else:
            self.other_seconds += now - self._clock
        self._clock = now

    def _begin(self, call: Call, part: str) -> None:
        self._tick()
        self._running.append((call, part))

    def _end(self) -> Call:
        self._tick()
        return self._running.pop()[0]

    def _layer_begins(self, path: str) -> nn.PreHook:
        return lambda module, inputs: self._begin(Call(path, type(module).__name__, module), "forward")

    def _layer_ends(self, module: nn.Module, inputs: Any, output: Any) -> None:
        call = self._end()
        self._ends(call, output[0] if isinstance(output, tuple) else output)

    def _ends(self, call: Call, y: Tensor) -> None:
        call.output, call.output_bytes = y.shape, y.data.nbytes
        self.calls.append(call)

    def _plan_runs(self, work: Pass, plan: Plan) -> None:
        (self._running[-1][0].plans if self._running else self._plans)[work.which] = plan

    def _op_ran(self, name: str, arrays: list[Array], y: Tensor) -> None:
        if self._running:
            self._add_op(self._running[-1][0], name, arrays, y)
        else:
            call = Call(name, "op", plans=self._plans)
            self._plans = {}
            self._add_op(call, name, arrays, y)
            self._ends(call, y)

    def _add_op(self, call: Call, name: str, arrays: list[Array], y: Tensor) -> None:
        macs, node = _multiply_adds(name, arrays, y.shape), y._node
        call.macs += macs
        if node is not None:
            call.backward_macs += macs * sum(vjp is not None for vjp in node.vjps[:2])
            call.nodes.append(node)
            node.vjps = tuple(vjp and self._watched(vjp, call) for vjp in node.vjps)

    def _watched(self, vjp: Vjp, call: Call) -> Vjp:
        """The same vjp; while it runs, the clock runs for the call's backward pass."""

        def watched(g: Array) -> Array:
            self._begin(call, "backward")
            grad = vjp(g)
            self._end()
            return grad

        return watched


def layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """(path, module) of the modules that have none inside."""
    return [(path, module) for path, module in model.named_modules() if next(module.children(), None) is None]


def by_pass(made: Mapping[str, Plan], what: str) -> str:
    """The "name" or "reason" of the plans of each pass; once if they are the same."""
    texts = {which: getattr(plan, what) for which, plan in made.items()}
    if len(set(texts.values())) <= 1:
        return next(iter(texts.values()), "")
    return ", ".join(f"{which} {text}" for which, text in texts.items())


def _multiply_adds(name: str, arrays: list[Array], output: tuple[int, ...]) -> int:
    """Of one image; 0 for an op that does not multiply matrices.

    Each number of the weight is used once for each place of the output, all filters or features being one.
    """
    if name not in _WEIGHT_AXES:
        return 0
    return prod(output[1:-1]) * prod(arrays[1].shape[-_WEIGHT_AXES[name] :])
