"""What the networks of the zoo share: a network of named stages, convolutions in one style, and a notation
for blocks with branches.

The notation is that of the tables in the papers, read from left to right. The branches of a block read the
same input, and their channels stand one behind another, in the order of the list:

    "64:1"            1x1 convolution to 64 channels
    "48:1 64:5p"      then 5x5 to 64; "p" pads by half the kernel, so that stride 1 keeps the size
    "192:7x1p"        7 rows, 1 column
    "320:3s2"         stride 2, no padding; "3s2p" with padding
    "avg 32:1"        3x3 average pool of stride 1, padded, then 1x1 to 32; "max 32:1" likewise
    "maxs2"           3x3 max pool of stride 2, no padding; "maxs2c" in ceil mode (Caffe's rounding), "maxs2p"
                      to half the size, rounded up, as a padded convolution (ceil mode, where that is even)
    "384:1 {256:1x3p|256:3x1p}"   then two convolutions that read the same 384 channels
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import Model, Tensor, nn, ops
from minidl.errors import ShapeError


@dataclass(frozen=True)
class Style:
    """How one network writes its convolutions.

    batch_norm         behind every convolution, instead of a bias
    eps                of the batch norm
    bias               a bias in the convolution all the same (or, without batch norm, none)
    same               pad convolutions of stride 2 as TensorFlow does: the odd row goes last
    count_include_pad  average pools divide by 9 at the border too
    """

    batch_norm: bool = True
    eps: float = 1e-3
    bias: bool | None = None
    same: bool = False
    count_include_pad: bool = False

    def conv(
        self,
        c: int,
        f: int,
        kernel_size: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: Any = 0,
        *,
        groups: int = 1,
        activation: str | None = "relu",
    ) -> nn.Module:
        """Convolution (c -> f channels), batch norm if the style has it, and the activation.

        `padding="half"` is half the kernel, or TensorFlow's "same" where the style says so.
        """
        kh, kw = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if padding == "half":
            padding = "same" if self.same and stride > 1 else (kh // 2, kw // 2)
        bias = not self.batch_norm if self.bias is None else self.bias
        conv = nn.Conv2d(
            c,
            f,
            (kh, kw),
            stride,
            padding,
            groups=groups,
            bias=bias,
            activation=None if self.batch_norm else activation,
        )
        if not self.batch_norm:
            return conv
        return nn.Sequential({"conv": conv, "bn": nn.BatchNorm2d(f, eps=self.eps, activation=activation)})

    def stages(self, c: int, table: Mapping[str, str | Sequence[str]]) -> tuple[dict[str, nn.Module], int]:
        """(the rows of a paper's table as modules by name, channels after the last), reading c channels.

        A row is one path, or a list of branches.
        """
        stages = {}
        for name, row in table.items():
            stages[name], c = self.path(c, row) if isinstance(row, str) else self.branches(c, row)
        return stages, c

    def branches(self, c: int, specs: Sequence[str]) -> tuple[nn.Module, int]:
        """(the block whose branches are written in `specs`, its channels), reading c channels."""
        paths = [self.path(c, spec) for spec in specs]
        return nn.Concat([path for path, _ in paths]), sum(channels for _, channels in paths)

    def path(self, c: int, spec: str) -> tuple[nn.Module, int]:
        """(one branch, its channels)."""
        spec, _, fork = spec.partition("{")
        layers: list[nn.Module] = []
        for token in spec.split():
            layer, c = self._layer(c, token)
            layers.append(layer)
        if fork:
            split, c = self.branches(c, fork.rstrip("} ").split("|"))
            layers.append(split)
        return (layers[0] if len(layers) == 1 else nn.Sequential(*layers)), c

    def _layer(self, c: int, token: str) -> tuple[nn.Module, int]:
        pools = {
            "avg": lambda: nn.AvgPool2d(3, 1, padding=1, count_include_pad=self.count_include_pad),
            "max": lambda: nn.MaxPool2d(3, 1, padding=1),
            "maxs2": lambda: nn.MaxPool2d(3, 2),
            "maxs2c": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
            "maxs2p": lambda: nn.MaxPool2d(3, 2, padding="same"),
        }
        if token in pools:
            return pools[token](), c
        match = re.fullmatch(r"(\d+):(\d+)(?:x(\d+))?(?:s(\d))?(p?)", token)
        if match is None:
            raise ValueError(f"branch notation: {token!r} is neither a pool nor FILTERS:KERNEL[sSTRIDE][p]")
        f, kh, kw, stride, half = match.groups()
        kernel = (int(kh), int(kw or kh))
        return self.conv(c, int(f), kernel, int(stride or 1), "half" if half else 0), int(f)


class Residual(nn.Module):
    """y = x + scale * U(body(x)), then ReLU.  (N, H, W, C) -> the same

    U is a 1x1 convolution with a bias and no batch norm, back to C channels ("filter expansion"). Szegedy et
    al. 2016, arXiv:1602.07261, section 3.2; the scale is their section 3.3.
    """

    def __init__(self, body: nn.Module, channels: int, c: int, scale: float, *, relu: bool = True) -> None:
        self.body, self.scale, self.relu = body, scale, relu
        self.expand = nn.Conv2d(channels, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.body(x))
        y = x + (y if self.scale == 1 else y * self.scale)
        return ops.relu(y) if self.relu else y

    def options(self) -> str:
        return f"scale={self.scale}" + ("" if self.relu else ", relu=False")


def classifier(c: int, num_classes: int, dropout: float = 0.0) -> nn.Sequential:
    """Global average, dropout, linear.  (N, H, W, c) -> logits (N, num_classes)"""
    return nn.Sequential(
        {"pool": nn.GlobalAvgPool(), "drop": nn.Dropout(dropout), "fc": nn.Linear(c, num_classes)}
    )


def initialize(
    net: nn.Module,
    *,
    conv: Callable[[tuple[int, ...]], np.ndarray] | None = None,
    linear: Callable[[tuple[int, ...]], np.ndarray] | None = None,
    bias: float = 0.0,
) -> None:
    """Draw the weights of every Conv2d by `conv` and of every Linear by `linear`, both shape -> array, in the
    order the layers run; their biases become `bias`. Without a function such layers stay as they are.
    """
    for module in net.modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        draw = conv if isinstance(module, nn.Conv2d) else linear
        if draw is None:
            continue
        module.weight = nn.Parameter(draw(module.weight.shape))
        if module.bias is not None:
            module.bias = nn.Parameter(np.full(module.bias.shape, bias, np.float32))


class Network(Model):
    """Stages run one after another; auxiliary classifiers read some of them while training.

    (N, H, W, C) -> logits (N, K); in training mode with auxiliary classifiers (logits, (aux, ...)).

    stages      name -> module, in the order they run; each becomes an attribute under its name
    heads       name -> (the stage whose output it reads, module): the auxiliary classifiers
    aux_weight  of each auxiliary loss in the sum that `fit` minimises
    smallest    the fewest rows and columns an image can have
    head_sizes  the fewest and the most (None: any number) it can have in training with auxiliary classifiers
    """

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        *,
        input_shape: tuple[int, int, int],
        num_classes: int,
        smallest: int = 1,
        heads: Mapping[str, tuple[str, nn.Module]] | None = None,
        aux_weight: float = 0.0,
        head_sizes: tuple[int, int | None] = (1, None),
    ) -> None:
        self.input_shape, self.num_classes, self.smallest = input_shape, num_classes, smallest
        self.aux_weight, self.head_sizes = aux_weight, head_sizes
        heads = heads or {}
        self._stages, self._heads = list(stages), {name: at for name, (at, _) in heads.items()}
        for name, module in [*stages.items(), *((name, module) for name, (_, module) in heads.items())]:
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Any:
        self._check_size(x)
        auxiliary = []
        for name in self._stages:
            x = getattr(self, name)(x)
            if self.training:
                auxiliary += [getattr(self, head)(x) for head, at in self._heads.items() if at == name]
        return (x, tuple(auxiliary)) if auxiliary else x

    def _check_size(self, x: Tensor) -> None:
        """ShapeError, naming the sizes it takes, for images that are too small or do not fit the heads."""
        if x.ndim != 4:
            return  # the first layer says what is wrong
        found = f"{self.config['name']}: x of shape {x.shape} has images of {x.shape[1]}x{x.shape[2]}; the"
        if min(x.shape[1:3]) < self.smallest:
            raise ShapeError(f"{found} smallest this network takes are {self.smallest}x{self.smallest}")
        least, most = self.head_sizes
        fits = least <= min(x.shape[1:3]) and (most is None or max(x.shape[1:3]) <= most)
        if self.training and self._heads and not fits:
            limit = f"{least}x{least} or more" if most is None else f"{least}x{least} to {most}x{most}"
            raise ShapeError(
                f"{found} auxiliary classifiers take {limit} in training; build the network with aux=False "
                "for other sizes"
            )
