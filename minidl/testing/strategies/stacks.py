"""Small random networks: layers behind and beside one another, valid by construction.

A stack is drawn from its input on: every unit is given the size and channels that arrive and chooses among
what fits. The image always has influence on the output, and the parameters have it but for rare accidents, so
that no gradient of zeros passes for a proof; four rules see to it. A convolution in front of a batch norm has
no bias, and a batch norm is followed by a ReLU, or the next batch norm would take bias and shift out again. A
convolution with a ReLU has two filters of opposite sign, of which one passes. A batch norm shifts one channel
so far that the ReLU passes all of it, and one so little that it passes a part. And a batch holds at least
three images: normalised, two numbers are -1 and 1 whatever they were.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minidl import nn, streams
from minidl.testing.strategies.arrays import arrays
from minidl.window import window

Array = np.ndarray
Draw = st.DrawFn

MASKED = 32  # dropout needs so many elements, or it might drop all that a ReLU has passed


@dataclass(frozen=True)
class Layer:
    """A layer of `minidl.nn` by name, with its arguments; for Concat its branches."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    branches: tuple[tuple["Layer", ...], ...] = ()

    def build(self) -> nn.Module:
        """The module, its parameters drawn from the "init" stream."""
        if self.branches:
            return nn.Concat(
                [nn.Sequential(*(layer.build() for layer in branch)) for branch in self.branches]
            )
        return getattr(nn, self.name)(**self.arguments)

    def __repr__(self) -> str:
        shown = [f"{key}={value!r}" for key, value in self.arguments.items()]
        shown += [f"[{', '.join(map(repr, branch))}]" for branch in self.branches]
        return f"{self.name}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class StackCase:
    """Images x (N, H, W, C), the layers they pass, and the seed of the layers' parameters."""

    x: Array
    layers: tuple[Layer, ...]
    seed: int = 0

    def build(self, dtype: Any = None) -> nn.Sequential:
        """The network in training mode, in the dtype of x or another; the same in every call.

        No parameter is 0 or 1 as a new layer's may be; `minidl.manual_seed` has no say in them.
        """
        before = streams.get_state()
        streams.manual_seed(self.seed)
        try:
            network = nn.Sequential(*(layer.build() for layer in self.layers))
        finally:
            streams.set_state(before)
        rng = np.random.default_rng(self.seed)
        n, h, w, _ = self.x.shape
        grown = len(self.layers)  # a padded pool adds at most a row and a column
        for module in network.modules():
            _vary(module, rng, n * (h + grown) * (w + grown))
        return network.to(dtype=self.x.dtype if dtype is None else dtype)

    def astype(self, dtype: Any) -> "StackCase":
        """The same case with its images rounded to another dtype."""
        return replace(self, x=self.x.astype(dtype))

    def __repr__(self) -> str:
        lines = "".join(f"\n  {layer!r}" for layer in self.layers)
        return f"StackCase(seed={self.seed}, x=<{self.x.dtype} {self.x.shape}>, layers:{lines})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # how Hypothesis prints a failing example
        printer.text(repr(self))


def _vary(module: nn.Module, rng: np.random.Generator, most: int) -> None:
    """Biases, scales and shifts away from 0 and 1, as the rules above have it.

    Of m <= `most` normalised numbers the largest lies between 1 / sqrt(m) and sqrt(m), and the smallest so
    below 0.
    """
    if isinstance(module, (nn.BatchNorm2d, nn.Conv2d, nn.Linear)) and module.bias is not None:
        module.bias.data[...] = rng.uniform(0.05, 0.2, module.bias.shape)
    if isinstance(module, nn.BatchNorm2d):
        module.weight.data[...] = rng.uniform(0.5, 1.5, module.weight.shape)
        module.bias.data[0] = module.weight.data[0] * np.sqrt(most)
        module.bias.data[1] = -module.weight.data[1] / (2 * np.sqrt(most))
    if isinstance(module, nn.Conv2d) and module.activation:
        module.weight.data[..., 1] = -module.weight.data[..., 0]


@dataclass(frozen=True)
class _Flow:
    """What arrives at a unit: how many images, of which size and channels, and if a batch norm follows."""

    n: int
    size: tuple[int, int]
    channels: int
    normalised_later: bool = False


_Unit = tuple[list[Layer], _Flow]


@st.composite
def layer_stacks(
    draw: Draw, *, dtype: Any = np.float64, max_units: int = 3, max_side: int = 6, max_channels: int = 3
) -> StackCase:
    """One to `max_units` units, then perhaps a classifier.

    A unit is a convolution (strides, padding, dilation, groups, a fused ReLU), one with batch norm and ReLU,
    a pool, local response normalisation, dropout, or parallel branches. Dropout's masks come from the random
    streams: seed them before every call that is to be compared. Shrinks to a 1x1 convolution.
    """
    side = st.integers(1, max_side)
    flow = _Flow(draw(st.integers(3, 4)), (draw(side), draw(side)), draw(st.integers(1, max_channels)))
    x = draw(arrays((flow.n, *flow.size, flow.channels), dtype=dtype))
    layers: list[Layer] = []
    units = draw(st.lists(st.sampled_from(_UNITS), min_size=1, max_size=max_units))
    for i, unit in enumerate(units):
        flow = replace(flow, normalised_later=_normalised_convolution in units[i + 1 :])
        added, flow = unit(draw, flow)
        layers += added
    if draw(st.booleans()):
        layers += _classifier(draw, flow)
    return StackCase(x=x, layers=tuple(layers), seed=draw(st.integers(0, 2**32 - 1)))


def _convolution(draw: Draw, flow: _Flow) -> _Unit:
    """With ReLU or without."""
    relu = draw(st.booleans())
    layer, flow = _conv2d(draw, flow, {"activation": "relu"} if relu else {}, least_filters=2 if relu else 1)
    return [layer], flow


def _normalised_convolution(draw: Draw, flow: _Flow) -> _Unit:
    """Convolution, batch norm, ReLU; the ReLU fused or not."""
    layer, flow = _conv2d(draw, replace(flow, normalised_later=True), {}, least_filters=2)
    norm: dict[str, Any] = {"num_features": flow.channels}
    if draw(st.booleans()):
        return [layer, Layer("BatchNorm2d", norm | {"activation": "relu"})], flow
    return [layer, Layer("BatchNorm2d", norm), Layer("ReLU")], flow


def _conv2d(
    draw: Draw, flow: _Flow, options: dict[str, Any], *, least_filters: int = 1, keep_size: bool = False
) -> tuple[Layer, _Flow]:
    """A convolution that fits; with `keep_size` the image stays as large as it is."""
    divisors = [g for g in range(1, flow.channels + 1) if flow.channels % g == 0]
    groups = draw(st.sampled_from(divisors))
    form = "same" if keep_size else draw(st.sampled_from(("none", "half", "same")))
    kernel, dilation, padding = zip(*(_fit(draw, length, form) for length in flow.size), strict=True)
    stride = 1 if keep_size else draw(st.integers(1, 2))
    filters = groups * draw(st.integers(least_filters, 2))
    geometry: dict[str, Any] = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": "same" if form == "same" else padding,
        "dilation": dilation,
    }
    output = window("conv2d", flow.size, **geometry).output
    arguments = {
        "in_channels": flow.channels,
        "out_channels": filters,
        **geometry,
        "groups": groups,
        "bias": False if flow.normalised_later else draw(st.booleans()),
        **options,
    }
    return Layer("Conv2d", arguments), replace(flow, size=output, channels=filters)


def _fit(draw: Draw, length: int, form: str) -> tuple[int, int, int]:
    """(taps, dilation, padding) along an axis of the given length, so that some tap reads the image.

    Half padding puts the middle one of an odd number of taps on the first pixel.
    """
    if form == "none":
        k = draw(st.integers(1, min(3, length)))
        return k, draw(st.integers(1, 2 if 2 * (k - 1) < length else 1)), 0
    k = draw(st.sampled_from((1, 3) if form == "half" else (1, 2, 3)))
    d = draw(st.integers(1, 2 if k % 2 else 1))
    return k, d, k // 2 * d


def _pool(draw: Draw, flow: _Flow) -> _Unit:
    """The largest or the mean of each window."""
    name = draw(st.sampled_from(("MaxPool2d", "AvgPool2d")))
    kernel = tuple(draw(st.integers(1, min(3, length))) for length in flow.size)
    half = draw(st.booleans())
    geometry: dict[str, Any] = {
        "kernel_size": kernel,
        "stride": draw(st.integers(1, 2)),
        "padding": tuple(k // 2 if half else 0 for k in kernel),
        "ceil_mode": draw(st.booleans()),
    }
    output = window("pool", flow.size, **geometry).output
    return [Layer(name, geometry)], replace(flow, size=output)


def _response_norm(draw: Draw, flow: _Flow) -> _Unit:
    options = {"size": draw(st.sampled_from((1, 3, 5))), "alpha": 0.5, "divide_alpha": draw(st.booleans())}
    return [Layer("LocalResponseNorm", options)], flow


def _dropout(draw: Draw, flow: _Flow) -> _Unit:
    enough = flow.n * flow.size[0] * flow.size[1] * flow.channels >= MASKED
    return [Layer("Dropout", {"p": draw(st.sampled_from((0.0, 0.25, 0.25) if enough else (0.0,)))})], flow


def _branches(draw: Draw, flow: _Flow) -> _Unit:
    """Two or three in parallel: convolutions, or a pool and a convolution, as in an Inception block."""
    branches, channels = [], 0
    for _ in range(draw(st.integers(2, 3))):
        layer, after = _conv2d(draw, flow, {"activation": "relu"}, least_filters=2, keep_size=True)
        pool = Layer(
            draw(st.sampled_from(("MaxPool2d", "AvgPool2d"))), {"kernel_size": 3, "stride": 1, "padding": 1}
        )
        branches.append((pool, layer) if draw(st.booleans()) else (layer,))
        channels += after.channels
    return [Layer("Concat", branches=tuple(branches))], replace(flow, channels=channels)


def _classifier(draw: Draw, flow: _Flow) -> list[Layer]:
    """Features per image, and a linear layer on them."""
    h, w = flow.size
    heads = (
        ([Layer("GlobalAvgPool")], flow.channels),
        ([Layer("Flatten")], h * w * flow.channels),
        ([Layer("AdaptiveAvgPool2d", {"output_size": 2}), Layer("Flatten")], 4 * flow.channels),
    )
    layers, features = draw(st.sampled_from(heads))
    arguments = {
        "in_features": features,
        "out_features": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
    }
    return [*layers, Layer("Linear", arguments)]


_UNITS: tuple[Callable[[Draw, _Flow], _Unit], ...] = (
    _convolution,
    _normalised_convolution,
    _pool,
    _response_norm,
    _dropout,
    _branches,
)
