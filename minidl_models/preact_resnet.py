"""Pre-activation residual networks.  He, Zhang, Ren, Sun 2016, "Identity mappings in deep residual networks",
arXiv:1603.05027.  Input 224x224x3 (CIFAR: 32x32x3).

Batch norm and ReLU stand in front of each convolution, and nothing follows the addition, so that a unit's
input reaches all later units unchanged: y = x + F(x) (equation 5, figure 4 (e)). A last batch norm and ReLU
stand behind the last unit (appendix).

ImageNet: stages as in resnet.py (its table 1); 200 layers have 3, 24, 36, 3 bottlenecks (section 5).

    CIFAR     output   width   basic units for 20  32  44  56  110     bottlenecks for 164  1001 layers
    conv1     32x32       16   one 3x3 convolution
    stage1    32x32       16                    3   5   7   9   18                      18   111
    stage2    16x16       32                    3   5   7   9   18                      18   111
    stage3      8x8       64                    3   5   7   9   18                      18   111
    post, head            batch norm, ReLU, average, linear

A shortcut whose shapes differ is a 1x1 convolution, in the basic CIFAR networks option A of the first paper
(zeros for new channels); it reads the unit's activated input.

Departures from the paper:
- variant="v1.5", the default, is timm's resnetv2: every unit has an activation of its own, the first one too,
  and a bottleneck that halves the image does so in its 3x3 convolution. In the paper ("paper") the first
  activation stands behind conv1, in front of the pool (`stem_act=True`), and the first 1x1 has the stride.
- Option A's shortcuts read the activated input as projections do; the paper speaks of projections only.
- 20 to 56 layers on CIFAR, 18 to 101 on ImageNet: networks of the first paper, made of these units.
- Convolutions start He normal by their fan-out, the classifier by its fan-in; uint8 images have the channels'
  means subtracted, not those of each pixel.
"""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

from minidl import Tensor, nn
from minidl_models.arguments import choose, like, no_heads
from minidl_models.blocks import Network, Style
from minidl_models.public_names_resnet import HALVES, IMAGENET, preact_names
from minidl_models.registry import zoo_model
from minidl_models.residual import CIFAR10, make_shortcut, residual_network, stack
from minidl_models.resnet import UNITS

PAPER = "He et al. 2016, arXiv:1603.05027"


class Unit(nn.Module):
    """y = F(a) + shortcut, with a = relu(batch_norm(x)), figure 4 (e).  (N, H, W, c) -> (N, OH, OW, f)

    F is convolutions (filters, kernel, stride), with batch norm and ReLU between them. Where the shapes agree
    the shortcut is x itself; where they differ it reads a, and is a 1x1 convolution or (option "A") zeros.

    pre  "own": as above; "both": the shortcut is a in any case; "none": x is activated already, a = x
    """

    def __init__(
        self, c: int, convs: Sequence[tuple[int, int, int]], *, shortcut: str = "B", pre: str = "own"
    ) -> None:
        self.channels = f = convs[-1][0]
        stride = prod(s for _, _, s in convs)
        same = stride == 1 and c == f
        self.shortcut_reads_a = pre == "both" or not same
        self.norm1 = nn.Identity() if pre == "none" else nn.BatchNorm2d(c, activation="relu")
        body: dict[str, nn.Module] = {}
        channels = c
        for i, (filters, kernel, step) in enumerate(convs, 1):
            if i > 1:
                body[f"norm{i}"] = nn.BatchNorm2d(channels, activation="relu")
            body[f"conv{i}"] = nn.Conv2d(channels, filters, kernel, step, kernel // 2, bias=False)
            channels = filters
        self.body = nn.Sequential(body)
        self.shortcut = make_shortcut(c, f, stride, shortcut, style=Style(batch_norm=False, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm1(x)
        return self.body(a) + self.shortcut(a if self.shortcut_reads_a else x)


def basic(c: int, width: int, stride: int = 1, **options: Any) -> Unit:
    """Two 3x3 convolutions."""
    return Unit(c, [(width, 3, stride), (width, 3, 1)], **options)


def bottleneck(c: int, width: int, stride: int = 1, *, stride_first: bool, **options: Any) -> Unit:
    """1x1, 3x3, and 1x1 to 4 times the width; the stride is the 3x3's or the first 1x1's."""
    first, second = (stride, 1) if stride_first else (1, stride)
    return Unit(c, [(width, 1, first), (width, 3, second), (4 * width, 1, 1)], **options)


def _imagenet(
    depth: int,
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
    *,
    stem_act: bool | None = None,
) -> Network:
    """(N, H, W, C) -> logits (N, num_classes), 1000 classes by default.

    variant   "v1.5" (timm's resnetv2: stride on the 3x3 of a bottleneck) or "paper" (on its first 1x1)
    stem_act  batch norm and ReLU between conv1 and the pool, none in the first unit; by default in "paper"

    ValueError for another variant, and for aux=True: there are no auxiliary classifiers.
    """
    name = f"preact_resnet{depth}"
    variant = choose(name, "variant", variant, ("v1.5", "paper"))
    stem_act = choose(name, "stem_act", stem_act, (variant == "paper", variant != "paper"))
    no_heads(name, aux)
    channels = 3 if in_channels is None else in_channels
    stem: dict[str, nn.Module] = {"conv": nn.Conv2d(channels, 64, 7, 2, 3, bias=False)}
    if stem_act:
        stem["bn"] = nn.BatchNorm2d(64, activation="relu")
    stem["pool"] = nn.MaxPool2d(3, 2, padding=1)
    unit = partial(basic) if depth < 50 else partial(bottleneck, stride_first=variant == "paper")
    names = ("conv2_x", "conv3_x", "conv4_x", "conv5_x")
    first = partial(unit, pre="none") if stem_act else unit
    units, c = stack(names, UNITS[depth], 64, 64, unit, first)
    net = residual_network(
        {"conv1": nn.Sequential(stem), **units, "post": nn.BatchNorm2d(c, activation="relu")},
        c,
        input_shape=(224, 224, channels),
        num_classes=1000 if num_classes is None else num_classes,
        preprocess=IMAGENET,
    )
    if variant == "v1.5" and not stem_act:
        net.public_names = {"timm": preact_names}
        net.public_preprocess, net.convolutional = {"timm": dict(HALVES)}, {"timm": ["head.fc"]}
    return net


def _cifar(
    depth: int,
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
) -> Network:
    """(N, H, W, C) -> logits (N, num_classes), 10 classes by default.

    ValueError for a variant other than "paper", and for aux=True: there are no auxiliary classifiers.
    """
    choose(f"preact_resnet{depth}", "variant", variant, ("paper",))
    no_heads(f"preact_resnet{depth}", aux)
    channels = 3 if in_channels is None else in_channels
    if depth in (164, 1001):  # 9n + 2 layers
        n, unit = (depth - 2) // 9, partial(bottleneck, stride_first=True)
    else:  # 6n + 2
        n, unit = (depth - 2) // 6, partial(basic, shortcut="A")
    conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
    # the first activation comes right after conv1, before the paths part (appendix)
    units, c = stack(("stage1", "stage2", "stage3"), (n,) * 3, 16, 16, unit, partial(unit, pre="both"))
    return residual_network(
        {"conv1": conv1, **units, "post": nn.BatchNorm2d(c, activation="relu")},
        c,
        input_shape=(32, 32, channels),
        num_classes=10 if num_classes is None else num_classes,
        preprocess=CIFAR10,
    )


@zoo_model(paper=PAPER, year=2016, variants=["v1.5", "paper"])
@like(_imagenet)
def preact_resnet18(**options: Any) -> Network:
    """18 layers in basic units: 11.7 M parameters, 1.81 G multiply-adds."""
    return _imagenet(18, **options)


@zoo_model(paper=PAPER, year=2016, variants=["v1.5", "paper"])
@like(_imagenet)
def preact_resnet34(**options: Any) -> Network:
    """34 layers in basic units: 21.8 M parameters, 3.66 G multiply-adds."""
    return _imagenet(34, **options)


@zoo_model(paper=PAPER, year=2016, variants=["v1.5", "paper"])
@like(_imagenet)
def preact_resnet50(**options: Any) -> Network:
    """50 layers in bottlenecks: 25.5 M parameters, 4.09 G multiply-adds."""
    return _imagenet(50, **options)


@zoo_model(paper=PAPER, year=2016, variants=["v1.5", "paper"])
@like(_imagenet)
def preact_resnet101(**options: Any) -> Network:
    """101 layers in bottlenecks: 44.5 M parameters, 7.80 G multiply-adds."""
    return _imagenet(101, **options)


@zoo_model(paper=PAPER, year=2016, variants=["v1.5", "paper"])
@like(_imagenet)
def preact_resnet152(**options: Any) -> Network:
    """152 layers in bottlenecks: 60.2 M parameters, 11.51 G multiply-adds."""
    return _imagenet(152, **options)


@zoo_model(paper=PAPER, year=2016, variants=["v1.5", "paper"])
@like(_imagenet)
def preact_resnet200(**options: Any) -> Network:
    """200 layers in bottlenecks: 64.7 M parameters, 15.01 G multiply-adds."""
    return _imagenet(200, **options)


@zoo_model(paper=PAPER, year=2016, variants=["paper"])
@like(_cifar)
def preact_resnet20(**options: Any) -> Network:
    """20 layers for CIFAR: 0.27 M parameters, 41 M multiply-adds."""
    return _cifar(20, **options)


@zoo_model(paper=PAPER, year=2016, variants=["paper"])
@like(_cifar)
def preact_resnet32(**options: Any) -> Network:
    """32 layers for CIFAR: 0.46 M parameters, 69 M multiply-adds."""
    return _cifar(32, **options)


@zoo_model(paper=PAPER, year=2016, variants=["paper"])
@like(_cifar)
def preact_resnet44(**options: Any) -> Network:
    """44 layers for CIFAR: 0.66 M parameters, 97 M multiply-adds."""
    return _cifar(44, **options)


@zoo_model(paper=PAPER, year=2016, variants=["paper"])
@like(_cifar)
def preact_resnet56(**options: Any) -> Network:
    """56 layers for CIFAR: 0.85 M parameters, 125 M multiply-adds."""
    return _cifar(56, **options)


@zoo_model(paper=PAPER, year=2016, variants=["paper"])
@like(_cifar)
def preact_resnet110(**options: Any) -> Network:
    """110 layers for CIFAR: 1.73 M parameters, 253 M multiply-adds."""
    return _cifar(110, **options)


@zoo_model(paper=PAPER, year=2016, variants=["paper"])
@like(_cifar)
def preact_resnet164(**options: Any) -> Network:
    """164 layers in bottlenecks for CIFAR: 1.70 M parameters, 245 M multiply-adds."""
    return _cifar(164, **options)


@zoo_model(paper=PAPER, year=2016, variants=["paper"])
@like(_cifar)
def preact_resnet1001(**options: Any) -> Network:
    """1001 layers in bottlenecks for CIFAR: 10.33 M parameters, 1.49 G multiply-adds."""
    return _cifar(1001, **options)
