"""AlexNet.  Krizhevsky, Sutskever, Hinton 2012, "ImageNet classification with deep convolutional neural
networks", NIPS 2012 (not on arXiv).  Input 227x227x3.

Five convolutions and three fully connected layers (section 3.5, figure 2), each with a ReLU (section 3.1).
The paper's two graphics cards are `groups=2`: each half of conv2, conv4 and conv5 reads only the half of the
maps that is on its card (section 3.2).

    conv1   11x11, stride 4      96   55x55
    norm1, pool1                 96   27x27   local response normalisation (3.3), 3x3 max of stride 2 (3.4)
    conv2   5x5, 2 groups       256   27x27
    norm2, pool2                256   13x13
    conv3   3x3                 384   13x13
    conv4   3x3, 2 groups       384   13x13
    conv5   3x3, 2 groups       256   13x13
    pool5                       256     6x6
    fc6, fc7                   4096           each with a ReLU, then dropout 0.5 (4.2)
    fc8                        1000

variant="one_weird_trick" is the network of torchvision's weights, from Krizhevsky 2014, "One weird trick for
parallelizing convolutional neural networks", arXiv:1404.5997: 224x224x3, one card, no normalisation.

Departures from the paper, variant="paper":
- Images of 227x227: 224, as printed, does not give 55x55 with windows of 11 and stride 4 and no padding.
- In front of fc6, an average over 6x6 bins makes other image sizes work; at 227 every bin is one pixel.
- fc6 and fc7 start with standard deviation 0.005, as in Caffe; the paper has 0.01 everywhere (section 5).
variant="caffe" is Caffe's bvlc_alexnet: normalisation with k = 1 and alpha / 5, and biases of 0.1 where the
  paper has 1. variant="caffenet", Caffe's reference model, also pools before it normalises.
variant="one_weird_trick" differs from its paper as torchvision does: conv4 has 256 maps, not 384, and dropout
  stands in front of fc6 and fc7. Its weights start He normal.
"""

from typing import Any

import numpy as np

from minidl import nn
from minidl_models.arguments import choose, no_heads
from minidl_models.blocks import Network, Style
from minidl_models.public_names_resnet import IMAGENET, alexnet_names
from minidl_models.registry import zoo_model

STYLE = Style(batch_norm=False)


def fully_connected(
    size: int, c: int, num_classes: int, *, dropout_first: bool = False
) -> dict[str, nn.Module]:
    """The stages flatten, fc6, fc7, fc8.  (N, H, W, c) -> logits (N, num_classes)

    An average over size x size bins comes first; dropout stands behind fc6 and fc7, or in front of them.
    """

    def layer(d: int) -> nn.Sequential:
        dense = {"fc": nn.Linear(d, 4096), "relu": nn.ReLU()}
        drop = {"drop": nn.Dropout(0.5)}
        return nn.Sequential({**drop, **dense} if dropout_first else {**dense, **drop})

    return {
        "flatten": nn.Sequential({"pool": nn.AdaptiveAvgPool2d(size), "flatten": nn.Flatten()}),
        "fc6": layer(size * size * c),
        "fc7": layer(4096),
        "fc8": nn.Linear(4096, num_classes),
    }


def _two_cards(c: int, num_classes: int, variant: str) -> dict[str, nn.Module]:
    """Figure 2; the convolutions of two groups are those of section 3.2."""

    def reduced(number: int) -> dict[str, nn.Module]:
        k, divide = (2.0, False) if variant == "paper" else (1.0, True)
        norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=k, divide_alpha=divide)
        norm_pool = {f"norm{number}": norm, f"pool{number}": nn.MaxPool2d(3, 2)}
        return dict(reversed(norm_pool.items())) if variant == "caffenet" else norm_pool

    return {
        "conv1": STYLE.conv(c, 96, 11, 4),
        **reduced(1),
        "conv2": STYLE.conv(96, 256, 5, 1, 2, groups=2),
        **reduced(2),
        "conv3": STYLE.conv(256, 384, 3, 1, 1),
        "conv4": STYLE.conv(384, 384, 3, 1, 1, groups=2),
        "conv5": STYLE.conv(384, 256, 3, 1, 1, groups=2),
        "pool5": nn.MaxPool2d(3, 2),
        **fully_connected(6, 256, num_classes),
    }


def _one_card(c: int, num_classes: int) -> dict[str, nn.Module]:
    """The network of arXiv:1404.5997, as torchvision has it."""
    return {
        "conv1": STYLE.conv(c, 64, 11, 4, 2),
        "pool1": nn.MaxPool2d(3, 2),
        "conv2": STYLE.conv(64, 192, 5, 1, 2),
        "pool2": nn.MaxPool2d(3, 2),
        "conv3": STYLE.conv(192, 384, 3, 1, 1),
        "conv4": STYLE.conv(384, 256, 3, 1, 1),
        "conv5": STYLE.conv(256, 256, 3, 1, 1),
        "pool5": nn.MaxPool2d(3, 2),
        **fully_connected(6, 256, num_classes, dropout_first=True),
    }


def _start(net: Network, positive: float) -> None:
    """Initial weights and biases of section 5: `positive` biases give the ReLUs something to begin with."""
    for name, std, bias in (
        ("conv1", 0.01, 0.0),
        ("conv2", 0.01, positive),
        ("conv3", 0.01, 0.0),
        ("conv4", 0.01, positive),
        ("conv5", 0.01, positive),
        ("fc6.fc", 0.005, positive),
        ("fc7.fc", 0.005, positive),
        ("fc8", 0.01, 0.0),
    ):
        layer: Any = dict(net.named_modules())[name]
        layer.weight = nn.Parameter(nn.init.normal(layer.weight.shape, std))
        layer.bias = nn.Parameter(np.full(layer.bias.shape, bias, np.float32))


@zoo_model(
    paper="Krizhevsky et al. 2012, NIPS 2012",
    year=2012,
    variants=["paper", "caffe", "caffenet", "one_weird_trick"],
)
def alexnet(
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
) -> Network:
    """AlexNet: 61.0 M parameters, 0.72 G multiply-adds.  (N, H, W, C) -> logits (N, num_classes)

    num_classes  1000 by default
    variant      "paper", "caffe", "caffenet", or "one_weird_trick" (torchvision's: 61.1 M, 0.71 G)

    ValueError for another variant, and for aux=True: there are no auxiliary classifiers.
    """
    variant = choose("alexnet", "variant", variant, ("paper", "caffe", "caffenet", "one_weird_trick"))
    no_heads("alexnet", aux)
    channels = 3 if in_channels is None else in_channels
    classes = 1000 if num_classes is None else num_classes
    one_card = variant == "one_weird_trick"
    native, smallest = (224, 63) if one_card else (227, 67)
    net = Network(
        _one_card(channels, classes) if one_card else _two_cards(channels, classes, variant),
        input_shape=(native, native, channels),
        num_classes=classes,
        smallest=smallest,
    )
    net.flattened = {"fc6.fc": (6, 6, 256)}
    if one_card:
        net.preprocess = dict(IMAGENET)
        net.public_names = {"torchvision": alexnet_names}
        net.public_preprocess = {"torchvision": dict(IMAGENET)}
    else:
        _start(net, positive=1.0 if variant == "paper" else 0.1)
        # 0..255 less the mean (section 2): the constants of the normalisation are made for this scale
        net.preprocess = {"mean": IMAGENET["mean"], "std": [1 / 255] * 3}
    if channels != 3:
        net.preprocess = None  # means and deviations are of colours
    return net
