"""Residual networks for CIFAR.  He, Zhang, Ren, Sun 2015, "Deep residual learning for image recognition",
arXiv:1512.03385, section 4.2.  Input 32x32x3.

6n + 2 layers: a 3x3 convolution, three stages of n basic units (figure 5, left), average, linear; a batch
norm and a ReLU behind every convolution. Plain networks are the same without shortcuts.

    stage     output   width   units for 20  32  44  56  110 layers
    conv1     32x32       16   one 3x3 convolution
    stage1    32x32       16              3   5   7   9   18
    stage2    16x16       32              3   5   7   9   18
    stage3      8x8       64              3   5   7   9   18
    head                       average, linear

All shortcuts are identities; between stages every second pixel is kept and zeros fill the new channels
(option A, section 3.3), so that a residual network has exactly the parameters of its plain one.

Departures from the paper:
- None in the table. The paper does not say where the zeros stand: here behind the kept channels (pad="end"),
  or half before and half behind (pad="both", as in some public weights). It has no shortcut="B" on CIFAR.
- Convolutions start He normal by their fan-out (the paper names the method, not the fan); the classifier He
  normal by its fan-in.
- uint8 images have the channels' means subtracted and are divided by their standard deviations; the paper
  subtracts the mean of each pixel.
"""

from functools import partial
from typing import Any

from minidl_models.arguments import choose, like, no_heads
from minidl_models.blocks import Network
from minidl_models.registry import zoo_model
from minidl_models.residual import CIFAR10, STYLE, residual_network, stack
from minidl_models.resnet import PAPER, Basic

VARIANTS: list[Any] = ["paper", {"shortcut": "B"}, {"pad": "both"}]


def _resnet(
    depth: int,
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
    *,
    shortcut: str | None = "A",
    pad: str = "end",
) -> Network:
    """(N, H, W, C) -> logits (N, num_classes), 10 classes by default.

    shortcut  option "A" (zeros for new channels) or "B" (projections) of section 3.3
    pad       where option A's zeros stand: at the "end", or half on "both" sides

    ValueError for another value, a variant other than "paper", and aux=True: there are no auxiliary
    classifiers.
    """
    name = f"resnet{depth}"
    choose(name, "variant", variant, ("paper",))
    shortcut = choose(name, "shortcut", shortcut, ("A", "B"))
    pad = choose(name, "pad", pad, ("end", "both"))
    no_heads(name, aux)
    return _network(depth, shortcut, pad, num_classes, in_channels)


def _plain(
    depth: int,
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
) -> Network:
    """(N, H, W, C) -> logits (N, num_classes), 10 classes by default.

    ValueError for a variant other than "paper", and for aux=True: there are no auxiliary classifiers.
    """
    choose(f"plain{depth}", "variant", variant, ("paper",))
    no_heads(f"plain{depth}", aux)
    return _network(depth, None, "end", num_classes, in_channels)


def _network(
    depth: int, shortcut: str | None, pad: str, num_classes: int | None, in_channels: int | None
) -> Network:
    """The table above, with n = (depth - 2) / 6."""
    channels = 3 if in_channels is None else in_channels
    counts = ((depth - 2) // 6,) * 3
    units, c = stack(
        ("stage1", "stage2", "stage3"), counts, 16, 16, partial(Basic, shortcut=shortcut, pad=pad)
    )
    return residual_network(
        {"conv1": STYLE.conv(channels, 16, 3, 1, 1), **units},
        c,
        input_shape=(32, 32, channels),
        num_classes=10 if num_classes is None else num_classes,
        preprocess=CIFAR10,
    )


@zoo_model(paper=PAPER, year=2015, variants=VARIANTS)
@like(_resnet)
def resnet20(**options: Any) -> Network:
    """20 layers: 0.27 M parameters, 41 M multiply-adds."""
    return _resnet(20, **options)


@zoo_model(paper=PAPER, year=2015, variants=VARIANTS)
@like(_resnet)
def resnet32(**options: Any) -> Network:
    """32 layers: 0.46 M parameters, 69 M multiply-adds."""
    return _resnet(32, **options)


@zoo_model(paper=PAPER, year=2015, variants=VARIANTS)
@like(_resnet)
def resnet44(**options: Any) -> Network:
    """44 layers: 0.66 M parameters, 97 M multiply-adds."""
    return _resnet(44, **options)


@zoo_model(paper=PAPER, year=2015, variants=VARIANTS)
@like(_resnet)
def resnet56(**options: Any) -> Network:
    """56 layers: 0.85 M parameters, 125 M multiply-adds."""
    return _resnet(56, **options)


@zoo_model(paper=PAPER, year=2015, variants=VARIANTS)
@like(_resnet)
def resnet110(**options: Any) -> Network:
    """110 layers: 1.73 M parameters, 253 M multiply-adds."""
    return _resnet(110, **options)


@zoo_model(paper=PAPER, year=2015, variants=["paper"])
@like(_plain)
def plain20(**options: Any) -> Network:
    """20 layers without shortcuts: 0.27 M parameters, 41 M multiply-adds."""
    return _plain(20, **options)


@zoo_model(paper=PAPER, year=2015, variants=["paper"])
@like(_plain)
def plain32(**options: Any) -> Network:
    """32 layers without shortcuts: 0.46 M parameters, 69 M multiply-adds."""
    return _plain(32, **options)


@zoo_model(paper=PAPER, year=2015, variants=["paper"])
@like(_plain)
def plain44(**options: Any) -> Network:
    """44 layers without shortcuts: 0.66 M parameters, 97 M multiply-adds."""
    return _plain(44, **options)


@zoo_model(paper=PAPER, year=2015, variants=["paper"])
@like(_plain)
def plain56(**options: Any) -> Network:
    """56 layers without shortcuts: 0.85 M parameters, 125 M multiply-adds."""
    return _plain(56, **options)


@zoo_model(paper=PAPER, year=2015, variants=["paper"])
@like(_plain)
def plain110(**options: Any) -> Network:
    """110 layers without shortcuts: 1.73 M parameters, 253 M multiply-adds."""
    return _plain(110, **options)
