"""Every kind of case is really drawn: some draws of each strategy, and a question to all of them.

What a strategy promises in its docstring is of no use if it comes once in ten thousand draws. The draws are
the same every time.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings

from minidl.backend import plans
from minidl.testing import strategies
from minidl.testing.strategies import Layer

DRAWS = {"windows": 600, "conv2d": 300, "getitem": 300, "layer_stacks": 200}  # those of many kinds
USUAL_DRAWS = 100
STRATEGIES: dict[str, Callable[[], Any]] = strategies.CASES | {
    "windows": strategies.windows,
    "layouts": strategies.layouts,
    "plans": strategies.plans,
    "layer_stacks": strategies.layer_stacks,
}


@cache
def population(name: str) -> list[Any]:
    """What a strategy draws."""
    drawn: list[Any] = []

    count = DRAWS.get(name, USUAL_DRAWS)

    @settings(max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(STRATEGIES[name]())
    def collect(value: Any) -> None:
        drawn.append(value)

    collect()
    return drawn


def sides(padding: Any) -> Any:
    """The padding as ((top, bottom), (left, right)); zeros for the named forms."""
    if isinstance(padding, str):
        return np.zeros((2, 2), int)
    return np.broadcast_to(np.reshape(padding, (-1, 1)) if np.ndim(padding) == 1 else padding, (2, 2))


WINDOWS: dict[str, Callable[[Any], bool]] = {
    "gaps between windows": lambda w: w.stride[0] > w.kernel_size[0] and w.output[0] > 1,
    "overlap": lambda w: w.stride[0] < w.kernel_size[0] and w.output[0] > 1,
    "1x7": lambda w: w.kernel_size == (1, 7),
    "7x1": lambda w: w.kernel_size == (7, 1),
    "pointwise": lambda w: w.kernel_size == w.stride == (1, 1) and not sides(w.padding).any(),
    "dilated rows alone": lambda w: w.dilation == (2, 1) and w.kernel_size[0] == 3,
    "same, stride 2, odd length": lambda w: w.padding == "same" and w.stride[0] == 2 and w.size[0] % 2 == 1,
    "same, stride 3": lambda w: w.padding == "same" and w.stride[1] == 3,
    "same, stride above the kernel": lambda w: w.padding == "same" and w.stride[1] > w.kernel_size[1],
    "valid": lambda w: w.padding == "valid",
    "one number": lambda w: isinstance(w.padding, int) and w.padding > 0,
    "a pair": lambda w: np.ndim(w.padding) == 1 and len(set(w.padding)) == 2,
    "more below": lambda w: np.ndim(w.padding) == 2 and sides(w.padding)[0][0] < sides(w.padding)[0][1],
    "more on the left": lambda w: np.ndim(w.padding) == 2 and sides(w.padding)[1][0] > sides(w.padding)[1][1],
    "a window in the padding": lambda w: sides(w.padding)[0][0] >= w.dilation[0] * (w.kernel_size[0] - 1) + 1,
    "rows left over": lambda w: w.padding == 0 and (w.size[0] - w.kernel_size[0]) % w.stride[0] == 2,
    "a single output": lambda w: w.output == (1, 1),
}

CONVOLUTIONS: dict[str, Callable[[Any], bool]] = {
    "grouped": lambda c: c.options["groups"] > 1 and c.weight.shape[2] > 1,
    "depthwise": lambda c: c.options["groups"] > 1 and c.weight.shape[2] == 1,
    "depthwise with multiplier": lambda c: (
        c.weight.shape[2] == 1 and c.weight.shape[3] >= 2 * c.options["groups"] > 2
    ),
    "depthwise, many channels": lambda c: c.weight.shape[2] == 1 and c.options["groups"] >= 7,
    "many channels": lambda c: c.weight.shape[2] >= 7,
    "many filters": lambda c: c.weight.shape[3] >= 7 and c.options["groups"] == 1,
    "more than 1024 pixels": lambda c: c.x[..., 0].size > 1024,
    "1x1 with a stride": lambda c: c.weight.shape[:2] == (1, 1) and c.options["stride"] == (2, 2),
    "1x1 with padding": lambda c: c.weight.shape[:2] == (1, 1) and sides(c.options["padding"]).any(),
    "no bias": lambda c: c.bias is None,
    "relu without bias": lambda c: c.bias is None and c.options.get("activation") == "relu",
    "no activation": lambda c: "activation" not in c.options,
}

OTHER_CASES: dict[tuple[str, str], Callable[[Any], bool]] = {
    ("max_pool2d", "ceil mode"): lambda c: c.options["ceil_mode"] and c.options["stride"][0] > 1,
    ("max_pool2d", "gaps"): lambda c: c.options["stride"][0] > c.options["kernel_size"][0],
    ("max_pool2d", "overlap"): lambda c: c.options["stride"][0] < c.options["kernel_size"][0],
    ("max_pool2d", "a tie at the top"): lambda c: np.count_nonzero(c.x == c.x.max()) > 1,
    ("avg_pool2d", "padding not counted"): lambda c: (
        c.options["padding"] not in (0, "valid") and not c.options["count_include_pad"]
    ),
    ("adaptive_avg_pool2d", "more bins than columns"): lambda c: (
        c.x.shape[2] < np.broadcast_to(c.options["output_size"], 2)[1]
    ),
    ("adaptive_avg_pool2d", "bins that overlap"): lambda c: (
        c.x.shape[1] % np.broadcast_to(c.options["output_size"], 2)[0] != 0
    ),
    ("batch_norm", "offset, in training"): lambda c: c.x.mean() > 900 and c.options["training"],
    ("batch_norm", "everything fused"): lambda c: {"residual", "activation"} <= set(c.options),
    ("batch_norm", "two values per channel"): lambda c: c.x[..., 0].size == 2,
    ("local_response_norm", "size above the channels"): lambda c: c.options["size"] > c.x.shape[3],
    ("local_response_norm", "the paper's alpha"): lambda c: not c.options["divide_alpha"],
    ("cross_entropy", "ignored labels, weights"): lambda c: (
        {"ignore_index", "class_weight"} <= set(c.options)
    ),
    ("cross_entropy", "scores far apart"): lambda c: np.ptp(c.logits) > 1e4,
    ("softmax", "far apart"): lambda c: np.ptp(c.x) > 1e4,
    ("linear", "widths of vectors"): lambda c: min(c.weight.shape) >= 7,
    ("maximum", "a tie"): lambda c: c.a.size > 1 and np.any(c.a == c.b),
    ("add", "a missing axis, an axis of 1"): lambda c: c.a.ndim == 3 > c.b.ndim > 0 and c.b.shape[-1] == 1,
    ("pow", "an exponent of 0"): lambda c: np.any(c.b == 0),
    ("where", "a condition with an axis of its own"): lambda c: c.condition.ndim > max(c.a.ndim, c.b.ndim),
    ("clip", "no lower limit"): lambda c: c.options["low"] is None,
    ("clip", "equal to a limit"): lambda c: c.options["low"] in c.x,
    ("dropout", "half, in training"): lambda c: c.options == {"p": 0.5, "training": True},
    ("reshape", "a number"): lambda c: np.ndim(c.options["shape"]) == 0,
    ("reshape", "-1 among others"): lambda c: np.size(c.options["shape"]) > 1 and -1 in c.options["shape"],
    ("transpose", "counted from the end"): lambda c: min(c.options["axes"] or [0]) < 0,
    ("concat", "several, along no last axis"): lambda c: (
        len(c.arrays) > 1 and c.options["axis"] % c.arrays[0].ndim != c.arrays[0].ndim - 1
    ),
    ("getitem", "a new axis"): lambda c: any(part is None for part in parts_of(c)),
    ("getitem", "an ellipsis"): lambda c: any(part is Ellipsis for part in parts_of(c)),
    ("getitem", "backwards"): lambda c: any((getattr(part, "step", None) or 1) < 0 for part in parts_of(c)),
    ("getitem", "an array among slices"): lambda c: {slice, np.ndarray} == set(map(type, parts_of(c))),
    ("getitem", "a mask"): lambda c: getattr(c.options["index"], "dtype", None) == np.bool_,
}


def parts_of(case: Any) -> tuple[Any, ...]:
    """The parts of an index."""
    index = case.options["index"]
    return index if isinstance(index, tuple) else (index,)


def layers_of(case: Any) -> Iterator[Layer]:
    """All layers of a stack, those in branches too."""
    for layer in case.layers:
        yield layer
        for branch in layer.branches:
            yield from branch


LAYERS: dict[str, Callable[[Layer], bool]] = {
    "grouped convolution": lambda layer: layer.arguments.get("groups", 1) > 1,
    "strided convolution": lambda layer: layer.name == "Conv2d" and layer.arguments["stride"] == 2,
    "padding same": lambda layer: layer.arguments.get("padding") == "same",
    "dilation": lambda layer: layer.arguments.get("dilation") == (2, 2),
    "bias and fused ReLU": lambda layer: (
        layer.arguments.get("bias", False) and "activation" in layer.arguments
    ),
    "batch norm, fused ReLU": lambda layer: layer.name == "BatchNorm2d" and "activation" in layer.arguments,
    "batch norm alone": lambda layer: layer.name == "BatchNorm2d" and "activation" not in layer.arguments,
    "ceil mode": lambda layer: layer.arguments.get("ceil_mode", False),
    "dropout": lambda layer: layer.arguments.get("p", 0) > 0,
    "three branches": lambda layer: len(layer.branches) == 3,
    **{
        name: lambda layer, name=name: layer.name == name
        for name in (
            "AdaptiveAvgPool2d",
            "AvgPool2d",
            "Flatten",
            "GlobalAvgPool",
            "Linear",
            "LocalResponseNorm",
            "MaxPool2d",
            "ReLU",
        )
    },
}

WANTED: dict[tuple[str, str], Callable[[Any], bool]] = {
    **{("windows", kind): wanted for kind, wanted in WINDOWS.items()},
    **{("conv2d", kind): wanted for kind, wanted in CONVOLUTIONS.items()},
    **OTHER_CASES,
    **{
        ("layer_stacks", kind): lambda case, wanted=wanted: any(map(wanted, layers_of(case)))
        for kind, wanted in LAYERS.items()
    },
    **{("layouts", name): lambda drawn, name=name: drawn == name for name in strategies.LAYOUTS},
    **{("plans", name): lambda drawn, name=name: drawn == name for name in plans.NAMES},
}


@pytest.mark.parametrize(("name", "kind"), WANTED)
def test_every_kind_is_drawn(name: str, kind: str) -> None:
    assert any(map(WANTED[name, kind], population(name)))


@pytest.mark.parametrize("name", ["conv2d", "max_pool2d", "batch_norm", "linear", "getitem", "softmax"])
def test_every_layout_is_drawn(name: str) -> None:
    assert {case.layout for case in population(name)} == set(strategies.LAYOUTS)
