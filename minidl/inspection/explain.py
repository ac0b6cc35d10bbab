"""What runs in a network or an op, and why: the plan of every convolution, multiply-adds and bytes.

It is run once and watched; nothing here knows how a plan is chosen.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import nn, ops, streams
from minidl.autograd import Tensor, owner_of, tensor
from minidl.backend.plans import Plan
from minidl.closures import captured
from minidl.errors import ShapeError
from minidl.inspection.text import ruled
from minidl.inspection.watch import Call, Watch, by_pass


@dataclass(frozen=True)
class ExplainedRow:
    """A layer of a module, or an op of a function.

    output           shape of its result, N included
    plans            pass ("forward", "grad_x", "grad_weight") -> plan, of a convolution's passes that run
    macs             multiply-adds of one image in the forward pass
    output_bytes     size of its result; for a view, such as that of Flatten, of what is viewed
    kept_bytes       size of the arrays that it keeps for the backward pass and no row above keeps already;
                     the parameters and buffers of a module are not among them
    parameter_bytes  size of its own parameters
    """

    path: str
    kind: str
    output: tuple[int, ...]
    plans: Mapping[str, Plan]
    macs: int
    output_bytes: int
    kept_bytes: int
    parameter_bytes: int

    @property
    def plan(self) -> str:
        """The plan's name; where the passes differ, that of each."""
        return by_pass(self.plans, "name")

    @property
    def reason(self) -> str:
        """Why this plan; where the passes differ, the reason of each."""
        return by_pass(self.plans, "reason")


@dataclass(frozen=True, repr=False)
class Explanation:
    """What `explain` found: rows in the order they run. It prints as a table."""

    title: str
    rows: tuple[ExplainedRow, ...]

    def __repr__(self) -> str:
        cells: list[tuple[str, ...]] = [
            ("layer", "kind", "output", "plan", "multiply-adds", "output MB", "kept MB", "weights MB")
        ]
        cells += [
            (
                row.path,
                row.kind,
                "x".join(map(str, row.output)),
                row.plan,
                f"{row.macs:,}",
                *_megabytes([row]),
            )
            for row in self.rows
        ]
        cells.append(("total", "", "", "", f"{sum(row.macs for row in self.rows):,}", *_megabytes(self.rows)))
        reasons = ["", "reason", "", *(row.reason for row in self.rows), "", ""]
        lines = [f"{line}  {why}".rstrip() for line, why in zip(ruled(cells, left=4), reasons)]
        return "\n".join([self.title, *lines])


def explain(fn_or_module: Callable[..., Any], *args: Any, **options: Any) -> Explanation:
    """The layers of a module, or the ops of a function, as they run on these arguments.

        explain(model, (8, 224, 224, 3))
        explain(ops.conv2d, (8, 32, 32, 16), (3, 3, 16, 32), padding=1)

    A tuple of integers stands for an input of that shape: float32 zeros, or of the dtype of the module's
    parameters; everything else is passed as it is. It runs once, a module in evaluation mode: forward and,
    unless inside `no_grad`, backward. Afterwards mode, gradients, running statistics and random streams are
    what they were. Where `force_plan` forces a plan that is not valid for a convolution, the reason says that
    the usual one runs. What a module does between its layers (an addition, say) is no row.

    TypeError for what cannot be called; ShapeError for an input with an empty axis.
    """
    if not callable(fn_or_module):
        raise TypeError(
            f"explain: {type(fn_or_module).__name__} cannot be called; give a module or a function such as "
            "md.ops.conv2d, and its arguments after it"
        )
    module = fn_or_module if isinstance(fn_or_module, nn.Module) else None
    inputs = [_input(i, arg, module) for i, arg in enumerate(args)]
    before = streams.get_state()
    try:
        with nn.mode(module, False) if module else contextlib.nullcontext(), Watch(module) as watch:
            outputs = list(_tensors(fn_or_module(*inputs, **options)))
            calls = [call for call in watch.calls if call.module is not None or module is None]
            kept = _kept_bytes(calls, module)
            _run_backward(outputs, watch.calls)
    finally:
        streams.set_state(before)
    name = type(module).__name__ if module else getattr(fn_or_module, "__name__", repr(fn_or_module))
    shapes = ["x".join(map(str, x.shape)) for x in _tensors(inputs)]
    title = f"{', '.join([name, *shapes])}: multiply-adds of one image, bytes of all"
    return Explanation(title, tuple(_row(call, size) for call, size in zip(calls, kept)))


def _input(place: int, arg: Any, module: nn.Module | None) -> Any:
    """What an argument stands for; an op's inputs want gradients, as all but the first layer's do."""
    if not (isinstance(arg, tuple) and arg and all(type(n) is int for n in arg)):
        return arg
    if min(arg) < 1:
        raise ShapeError(f"explain: argument {place} is the shape {arg}; every axis must be at least 1 long")
    zeros = np.zeros(arg, np.float32)
    return tensor(zeros, requires_grad=True) if module is None else nn.as_input(module, zeros)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The Tensors in what a function takes or returns."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _kept_bytes(calls: Sequence[Call], module: nn.Module | None) -> list[int]:
    """Per call, the bytes of what its vjps have captured."""
    state = [] if module is None else [*(p.data for p in module.parameters()), *module.buffers()]
    known = {id(owner_of(array)) for array in state}
    sizes = []
    for call in calls:
        size = 0
        for array in captured(vjp for node in call.nodes for vjp in node.vjps):
            if id(owner_of(array)) not in known:
                known.add(id(owner_of(array)))
                size += array.nbytes
        sizes.append(size)
    return sizes


def _run_backward(outputs: Sequence[Tensor], calls: Sequence[Call]) -> None:
    """Backward from all outputs, so that the plans of these passes are seen; no leaf keeps a gradient."""
    roots = [y for y in outputs if y.requires_grad]
    if not roots:
        return
    leaves = {id(x): x for call in calls for node in call.nodes for x in node.inputs if isinstance(x, Tensor)}
    before = [(leaf, leaf.grad) for leaf in leaves.values()]
    for leaf, _ in before:
        leaf.grad = None
    try:
        sum((ops.sum(y) for y in roots[1:]), start=ops.sum(roots[0])).backward()
    finally:
        for leaf, grad in before:
            leaf.grad = grad


def _row(call: Call, kept_bytes: int) -> ExplainedRow:
    own = [] if call.module is None else vars(call.module).values()
    parameter_bytes = sum(value.data.nbytes for value in own if isinstance(value, nn.Parameter))
    return ExplainedRow(
        call.path,
        call.kind,
        call.output,
        dict(call.plans),
        call.macs,
        call.output_bytes,
        kept_bytes,
        parameter_bytes,
    )


def _megabytes(rows: Sequence[ExplainedRow]) -> list[str]:
    """The sizes, added up."""
    sums = [
        sum(getattr(row, size) for row in rows) for size in ("output_bytes", "kept_bytes", "parameter_bytes")
    ]
    return [f"{size / 1e6:.2f}" for size in sums]
