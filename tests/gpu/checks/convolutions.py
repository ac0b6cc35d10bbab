"""Every distinct convolution of the benchmark networks, and some that no network has, in both precisions.

The shapes come from the PyTorch twins, which run on the "meta" device: no number is computed.
"""

from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import torch
from compare import CASES
from torch.nn import functional as F

import minidl as md
import torch_nets
from checks.agreement import BOUNDS, Case, agreement
from checks.report import Figures, Report, Setting

Pair = tuple[int, int]

TINY = ("nin", "resnet20")
TINY_SIZE = 8  # pixels a side


class Convolution(NamedTuple):
    """A convolution, whatever the number of images; pairs are (rows, columns), padding ((top, bottom), (left,
    right))."""

    size: Pair
    channels: int
    filters: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False

    def __str__(self) -> str:
        words = [f"{_by(self.size)}x{self.channels}, {_by(self.kernel)} to {self.filters}"]
        words += [f"stride {_by(self.stride)}"] if self.stride != (1, 1) else []
        words += [f"padding {self.padding}"] if any(map(any, self.padding)) else []
        words += [f"dilation {_by(self.dilation)}"] if self.dilation != (1, 1) else []
        words += [f"{self.groups} groups"] if self.groups > 1 else []
        return ", ".join([*words, "bias"] if self.bias else words)

    def macs(self) -> int:
        """Multiply-adds of one image."""
        with torch.device("meta"):
            y = self.theirs(*(torch.empty(shape) for shape in self.shapes(1)))
        return y.numel() * (self.channels // self.groups) * self.kernel[0] * self.kernel[1]

    def shapes(self, images: int) -> tuple[tuple[int, ...], ...]:
        """Of minidl's x, weight and, if it has one, bias."""
        weight = *self.kernel, self.channels // self.groups, self.filters
        return ((images, *self.size, self.channels), weight, *([(self.filters,)] if self.bias else []))

    def options(self) -> dict[str, Any]:
        """What `conv2d` takes beside arrays."""
        names = "stride", "padding", "dilation", "groups"
        return {name: getattr(self, name) for name in names}

    def theirs(self, x: torch.Tensor, weight: torch.Tensor, *bias: torch.Tensor) -> torch.Tensor:
        """PyTorch's, in minidl's layout."""
        (top, bottom), (left, right) = self.padding
        x = F.pad(x.movedim(3, 1), (left, right, top, bottom))
        rest = bias[0] if bias else None, self.stride, 0, self.dilation, self.groups
        return F.conv2d(x, weight.permute(3, 2, 0, 1), *rest).movedim(1, 3)

    def case(self, images: int, activation: str | None = None) -> Case:
        """It on so many images, with a ReLU fused in if wanted."""

        def ours(*arrays: md.Tensor) -> md.Tensor:
            return md.ops.conv2d(*arrays, **self.options(), activation=activation)

        what = f"{images}x{self}" + (f", {activation}" if activation else "")
        return Case(what, ours, self.theirs, self.shapes(images), relu=activation == "relu")


def _by(pair: Pair) -> str:
    return "x".join(map(str, pair))


# What no benchmark network has: groups, dilation, uneven padding, sides and channels that no tile divides.
OTHERS = (
    Convolution((13, 11), 5, 7, (3, 3), padding=((1, 1), (1, 1)), bias=True),
    Convolution((13, 11), 5, 7, (3, 3), stride=(2, 2), padding=((0, 1), (1, 0))),
    Convolution((9, 14), 3, 66, (2, 5), stride=(1, 3), padding=((1, 0), (2, 2)), bias=True),
    Convolution((12, 12), 8, 12, (3, 3), padding=((2, 2), (2, 2)), dilation=(2, 2)),
    Convolution((17, 10), 12, 8, (3, 2), stride=(2, 1), dilation=(3, 2), bias=True),
    Convolution((11, 11), 96, 128, (5, 5), padding=((2, 2), (2, 2)), groups=2, bias=True),  # AlexNet
    Convolution((9, 9), 15, 30, (3, 3), padding=((1, 1), (1, 1)), groups=5),
    Convolution((14, 14), 32, 32, (3, 3), padding=((1, 1), (1, 1)), groups=32, bias=True),  # depthwise
    Convolution((35, 35), 3, 96, (11, 11), stride=(4, 4), bias=True),
    Convolution((8, 8), 64, 64, (1, 1), stride=(2, 2)),
    Convolution((7, 7), 6, 10, (1, 1), padding=((1, 1), (1, 1))),
    Convolution((6, 6), 20, 9, (6, 6), bias=True),  # one output pixel
)
PLANS = ("auto", "direct", "im2col")


def of_network(name: str, size: int) -> Counter[Convolution]:
    """How often a network of compare.py has each convolution, on images of size x size."""
    found: Counter[Convolution] = Counter()

    def see(module: torch.nn.Conv2d, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        _, c, h, w = inputs[0].shape
        rows, columns = module.padding
        window = module.kernel_size, module.stride, ((rows, rows), (columns, columns)), module.dilation
        bias = module.bias is not None
        found[Convolution((h, w), c, module.out_channels, *window, module.groups, bias)] += 1

    with torch.device("meta"):
        twin = eval(CASES[name].torch, vars(torch_nets)).eval()
        for module in twin.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(see)
        twin(torch.empty(1, 3, size, size))
    return found


def distinct(setting: Setting) -> list[Convolution]:
    """Of all benchmark networks, each once."""
    names = TINY if setting.tiny else tuple(CASES)
    sizes = {name: TINY_SIZE if setting.tiny else CASES[name].size for name in names}
    return list(dict.fromkeys(each for name in names for each in of_network(name, sizes[name])))


def together(images: int) -> Case:
    """Two convolutions of the same image: the second gradient is added to the first where it lies."""
    first = Convolution((10, 9), 8, 16, (3, 3), padding=((1, 1), (1, 1)))
    second = first._replace(kernel=(1, 1), padding=((0, 0), (0, 0)))

    def ours(x: md.Tensor, a: md.Tensor, b: md.Tensor) -> md.Tensor:
        return md.ops.conv2d(x, a, **first.options()) + md.ops.conv2d(x, b, **second.options())

    def theirs(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return first.theirs(x, a) + second.theirs(x, b)

    return Case("two branches", ours, theirs, (*first.shapes(images), second.shapes(images)[1]))


def run(setting: Setting, report: Report) -> None:
    """Check them all: those of the networks as they come, the others with each plan."""
    images = 1 if setting.tiny else 2
    checks = [(case, "auto") for case in (each.case(images) for each in distinct(setting))]
    checks += [(each.case(images + 1), plan) for each in OTHERS for plan in PLANS]
    checks += [(each.case(images, "relu"), "auto") for each in OTHERS]
    checks += [(together(images), plan) for plan in PLANS]
    for case, plan in report.in_time(checks):
        for precision in BOUNDS:
            told = f"{case.what}, {precision}" + (f", {plan}" if plan != "auto" else "")
            report.record(told, partial(_planned, case, setting, precision, plan))


def _planned(case: Case, setting: Setting, precision: str, plan: str) -> Figures:
    with md.force_plan(plan):
        return agreement(case, setting, precision)
