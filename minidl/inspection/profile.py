"""Where the time of a step goes: each layer's forward and backward pass, and what no layer takes."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from minidl import nn, ops, optim, streams
from minidl.autograd import no_grad
from minidl.backend.plans import Plan
from minidl.errors import ShapeError
from minidl.inspection.text import ruled
from minidl.inspection.watch import Call, Watch, by_pass

Step = Callable[[], None]

WARMUP = 2  # steps before the first that counts: compiled functions are loaded, memory is warm


@dataclass(frozen=True)
class LayerTime:
    """One layer in one step.

    plans              pass -> plan, of a convolution's passes that ran
    forward, backward  seconds
    macs               multiply-adds of one image in the forward pass
    gflops             2 * multiply-adds / seconds / 1e9, of all images and of the passes that ran: the first
                       layer has no gradient of the images to compute
    share              part of the step's time
    """

    path: str
    kind: str
    plans: Mapping[str, Plan]
    forward: float
    backward: float
    macs: int
    gflops: float
    share: float

    @property
    def plan(self) -> str:
        """The plan's name; where the passes differ, that of each."""
        return by_pass(self.plans, "name")


@dataclass(frozen=True, repr=False)
class StepTimes:
    """A step's time by layer, in the order they run; it prints as a table.

    `seconds` is the whole step's: the sum over the rows and `other`, which is loss, optimiser, sums and
    concatenations where branches meet, and all else outside the layers.
    """

    title: str
    rows: tuple[LayerTime, ...]
    other: float
    seconds: float

    @property
    def other_share(self) -> float:
        """The part of the step's time that no layer takes."""
        return self.other / self.seconds

    def __repr__(self) -> str:
        cells = [("layer", "kind", "plan", "forward ms", "backward ms", "multiply-adds", "GF/s", "share")]
        cells += [
            (
                row.path,
                row.kind,
                row.plan,
                f"{row.forward * 1e3:.2f}",
                f"{row.backward * 1e3:.2f}",
                f"{row.macs:,}",
                f"{row.gflops:.0f}" if row.macs else "",
                f"{row.share:.1%}",
            )
            for row in self.rows
        ]
        cells.append(("other", "", "", f"{self.other * 1e3:.2f}", "", "", "", f"{self.other_share:.1%}"))
        macs = sum(row.macs for row in self.rows)
        cells.append(("step", "", "", f"{self.seconds * 1e3:.2f}", "", f"{macs:,}", "", "100.0%"))
        return "\n".join([self.title, *ruled(cells, left=3)])


def profile(
    model: nn.Module, input_shape: tuple[int, int, int, int], *, training: bool = True, steps: int = 5
) -> StepTimes:
    """Time every layer of a model on random images of `input_shape` (N, H, W, C).

    A step is that of `make_step`. After two to warm up, `steps` are timed, and the one that took the median
    time is told. All of it happens to a copy: the model, its gradients and the random streams stay as they
    are. ShapeError for an input_shape that is not four lengths, ValueError for less than one step.
    """
    if steps < 1:
        raise ValueError(f"profile: steps is {steps}, it must be at least 1")
    before = streams.get_state()
    try:
        model = copy.deepcopy(model)
        step = make_step(model, input_shape, training=training)
        for _ in range(WARMUP):
            step()
        return layer_times(model, step, input_shape, steps=steps)
    finally:
        streams.set_state(before)


def make_step(model: nn.Module, input_shape: tuple[int, ...], *, training: bool) -> Step:
    """A function that trains the model for one step, or runs it in evaluation mode; it sets the model's mode.

    A training step is forward, cross-entropy of the logits and of those of auxiliary classifiers, backward,
    and SGD with momentum 0.9 and weight decay 1e-4. Images are random normal numbers, the same every time.
    """
    if len(input_shape) != 4 or min(input_shape) < 1:
        raise ShapeError(f"profile: input_shape is {tuple(input_shape)}, it must be (N, H, W, C)")
    x = nn.as_input(model, np.random.default_rng(0).standard_normal(input_shape, np.float32))
    model.train(training)

    @no_grad()
    def infer() -> None:
        model(x)

    if not training:
        return infer
    optimizer = optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)

    def train() -> None:
        optimizer.zero_grad()
        output = model(x)
        logits, *auxiliary = (output[0], *output[1]) if isinstance(output, tuple) else (output,)
        labels = np.arange(len(logits)) % logits.shape[1]
        losses = [ops.cross_entropy(each, labels) for each in (logits, *auxiliary)]
        sum(losses[1:], start=losses[0]).backward()
        optimizer.step()

    return train


def layer_times(model: nn.Module, step: Step, input_shape: tuple[int, ...], *, steps: int) -> StepTimes:
    """The layers' times in the median of `steps` runs of `step`, which runs the model on `input_shape`."""
    watches = []
    for _ in range(steps):
        with Watch(model) as watch:
            step()
        watches.append(watch)
    middle = sorted(watches, key=lambda watch: watch.seconds)[steps // 2]
    images, seconds = input_shape[0], middle.seconds
    rows = tuple(_row(call, images, seconds) for call in middle.calls if call.module is not None)
    outside = sum(sum(call.seconds.values()) for call in middle.calls if call.module is None)
    what = "training step" if model.training else "forward pass"
    title = f"{type(model).__name__}, {what} of {'x'.join(map(str, input_shape))}"
    return StepTimes(title, rows, middle.other_seconds + outside, seconds)


def _row(call: Call, images: int, step_seconds: float) -> LayerTime:
    forward, backward = call.seconds["forward"], call.seconds["backward"]
    operations = 2 * images * (call.macs + call.backward_macs)
    return LayerTime(
        call.path,
        call.kind,
        dict(call.plans),
        forward,
        backward,
        call.macs,
        operations / (forward + backward) / 1e9,
        (forward + backward) / step_seconds,
    )
