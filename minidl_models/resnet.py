"""Residual networks for ImageNet.  He, Zhang, Ren, Sun 2015, "Deep residual learning for image recognition",
arXiv:1512.03385.  Input 224x224x3.

A unit computes what is to be added to its input: y = relu(F(x) + x) (section 3.1, figure 2). F is two 3x3
convolutions, or 1x1, 3x3, 1x1 with a quarter of the channels inside (figure 5); a batch norm stands behind
every convolution. A shortcut whose shapes differ is one of options A, B, C (section 3.3). Plain networks are
the same without shortcuts (figure 3, middle).

    table 1     output  width   units of 18  34  50  101  152
    conv1       112x112    64   7x7, stride 2
    pool1        56x56          3x3 max, stride 2
    conv2_x      56x56     64             2   3   3    3    3   (bottlenecks: 4 times the width comes out)
    conv3_x      28x28    128             2   4   4    4    8
    conv4_x      14x14    256             2   6   6   23   36
    conv5_x        7x7    512             2   3   3    3    3
    head                        average, linear

Departures from the paper:
- variant="v1.5", the default: a bottleneck that halves the image does so in its 3x3 convolution, as in
  torchvision and timm; in the paper ("v1") in its first 1x1, which leaves three pixels in four unread.
- `pool1` is padded by one pixel on each side; the authors' Caffe models round the size up instead
  (pool="ceil").
- Convolutions start He normal by their fan-out (the paper names the method, not the fan); the classifier He
  normal by its fan-in.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from minidl import Tensor, nn
from minidl_models.arguments import choose, like, no_heads
from minidl_models.blocks import Network
from minidl_models.public_names_resnet import IMAGENET, resnet_names
from minidl_models.registry import zoo_model
from minidl_models.residual import STYLE, make_shortcut, residual_network, stack

PAPER = "He et al. 2015, arXiv:1512.03385"
BASIC: list[Any] = ["v1.5", {"shortcut": "A"}, {"shortcut": "C"}]  # "v1" is the same network
BOTTLENECK = ["v1.5", "v1"]

# depth: units of conv2_x ... conv5_x (table 1); those of 50 layers and more are bottlenecks
UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),  # of the second paper, preact_resnet.py
}


class Basic(nn.Module):
    """relu(3x3(relu(3x3(x))) + shortcut(x)), figure 5, left.  (N, H, W, c) -> (N, H/stride, W/stride, width)

    `shortcut` and `pad` as in `make_shortcut`; None: a plain network's, which adds nothing.
    """

    def __init__(
        self, c: int, width: int, stride: int = 1, *, shortcut: str | None = "B", pad: str = "end"
    ) -> None:
        self.channels = width
        self.conv1 = nn.Conv2d(c, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, activation="relu")
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, activation="relu")  # the relu is that of the sum
        self.shortcut = None if shortcut is None else make_shortcut(c, width, stride, shortcut, pad)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.bn1(self.conv1(x)))
        return self.bn2(y, residual=None if self.shortcut is None else self.shortcut(x))


class Bottleneck(nn.Module):
    """relu(1x1(relu(3x3(relu(1x1(x))))) + shortcut(x)), figure 5, right.

    (N, H, W, c) -> (N, H/stride, W/stride, 4*width). The stride is the 3x3's, or, with `stride_first`, the
    first 1x1's; `shortcut` as in `make_shortcut`.
    """

    def __init__(
        self, c: int, width: int, stride: int = 1, *, stride_first: bool = False, shortcut: str = "B"
    ) -> None:
        first, second = (stride, 1) if stride_first else (1, stride)
        self.channels = f = 4 * width
        self.conv1 = nn.Conv2d(c, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width, activation="relu")
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, activation="relu")
        self.conv3 = nn.Conv2d(width, f, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(f, activation="relu")  # the relu is that of the sum
        self.shortcut = make_shortcut(c, f, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        return self.bn3(y, residual=self.shortcut(x))


def _resnet(
    depth: int,
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
    *,
    shortcut: str | None = "B",
    pool: str = "pad1",
) -> Network:
    """(N, H, W, C) -> logits (N, num_classes), 1000 classes by default.

    variant   "v1.5" (stride on the 3x3 of a bottleneck) or "v1" (on its first 1x1)
    shortcut  option "A", "B" or "C" of section 3.3
    pool      windows of pool1: "pad1", or "ceil", the authors'

    ValueError for another value, and for aux=True: there are no auxiliary classifiers.
    """
    name = f"resnet{depth}"
    variant = choose(name, "variant", variant, ("v1.5", "v1"))
    shortcut = choose(name, "shortcut", shortcut, ("B", "A", "C"))
    pool = choose(name, "pool", pool, ("pad1", "ceil"))
    no_heads(name, aux)
    if depth < 50:
        unit: Callable[..., Any] = partial(Basic, shortcut=shortcut)
    else:
        unit = partial(Bottleneck, stride_first=variant == "v1", shortcut=shortcut)
    net = _network(depth, unit, num_classes, in_channels, ceil=pool == "ceil")
    if (variant, shortcut, pool) == ("v1.5", "B", "pad1"):  # what public weights were trained for
        net.public_names = {"torchvision": resnet_names, "timm": resnet_names}
        net.public_preprocess = {"torchvision": dict(IMAGENET), "timm": dict(IMAGENET)}
    return net


def _plain(
    depth: int,
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
) -> Network:
    """(N, H, W, C) -> logits (N, num_classes), 1000 classes by default.

    ValueError for a variant other than "paper", and for aux=True: there are no auxiliary classifiers.
    """
    choose(f"plain{depth}", "variant", variant, ("paper",))
    no_heads(f"plain{depth}", aux)
    return _network(depth, partial(Basic, shortcut=None), num_classes, in_channels)


def _network(
    depth: int,
    unit: Callable[..., Any],
    num_classes: int | None,
    in_channels: int | None,
    ceil: bool = False,
) -> Network:
    """Table 1, made of units."""
    channels = 3 if in_channels is None else in_channels
    pool1 = nn.MaxPool2d(3, 2, ceil_mode=True) if ceil else nn.MaxPool2d(3, 2, padding=1)
    names = ("conv2_x", "conv3_x", "conv4_x", "conv5_x")
    units, c = stack(names, UNITS[depth], 64, 64, unit)
    return residual_network(
        {"conv1": STYLE.conv(channels, 64, 7, 2, 3), "pool1": pool1, **units},
        c,
        input_shape=(224, 224, channels),
        num_classes=1000 if num_classes is None else num_classes,
        preprocess=IMAGENET,
        smallest=3 if ceil else 1,
    )


@zoo_model(paper=PAPER, year=2015, variants=BASIC)
@like(_resnet)
def resnet18(**options: Any) -> Network:
    """18 layers in basic units: 11.7 M parameters, 1.81 G multiply-adds."""
    return _resnet(18, **options)


@zoo_model(paper=PAPER, year=2015, variants=BASIC)
@like(_resnet)
def resnet34(**options: Any) -> Network:
    """34 layers in basic units: 21.8 M parameters, 3.66 G multiply-adds."""
    return _resnet(34, **options)


@zoo_model(paper=PAPER, year=2015, variants=BOTTLENECK)
@like(_resnet)
def resnet50(**options: Any) -> Network:
    """50 layers in bottlenecks: 25.6 M parameters, 4.09 G multiply-adds ("v1": 3.86)."""
    return _resnet(50, **options)


@zoo_model(paper=PAPER, year=2015, variants=BOTTLENECK)
@like(_resnet)
def resnet101(**options: Any) -> Network:
    """101 layers in bottlenecks: 44.5 M parameters, 7.80 G multiply-adds ("v1": 7.57)."""
    return _resnet(101, **options)


@zoo_model(paper=PAPER, year=2015, variants=BOTTLENECK)
@like(_resnet)
def resnet152(**options: Any) -> Network:
    """152 layers in bottlenecks: 60.2 M parameters, 11.51 G multiply-adds ("v1": 11.28)."""
    return _resnet(152, **options)


@zoo_model(paper=PAPER, year=2015, variants=["paper"])
@like(_plain)
def plain18(**options: Any) -> Network:
    """18 layers without shortcuts: 11.5 M parameters, 1.79 G multiply-adds."""
    return _plain(18, **options)


@zoo_model(paper=PAPER, year=2015, variants=["paper"])
@like(_plain)
def plain34(**options: Any) -> Network:
    """34 layers without shortcuts: 21.6 M parameters, 3.64 G multiply-adds."""
    return _plain(34, **options)
