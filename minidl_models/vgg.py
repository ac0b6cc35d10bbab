"""VGG.  Simonyan, Zisserman 2014, "Very deep convolutional networks for large-scale image recognition",
arXiv:1409.1556.  Input 224x224x3.

Only 3x3 convolutions, with a ReLU each and zero padding that keeps the size, in five groups that end in a 2x2
max pool of stride 2; then three fully connected layers (section 2.1). Two 3x3 windows see as much as one of
5x5, three as much as one of 7x7, with fewer weights and more ReLUs (section 2.3).

    table 1        width   output    A: 11   B: 13   D: 16   E: 19 layers
    conv1_1 ...       64   112x112       1       2       2       2
    conv2_1 ...      128     56x56       1       2       2       2
    conv3_1 ...      256     28x28       2       2       3       4
    conv4_1 ...      512     14x14       2       2       3       4
    conv5_1 ...      512       7x7       2       2       3       4
    fc6, fc7        4096             each with a ReLU, then dropout 0.5
    fc8             1000

Departures from the paper:
- Convolutions start He normal by their fan-out, fully connected layers with deviation 0.01, biases 0, as in
  torchvision. The paper has 0.1 everywhere and starts the deeper networks from a trained A (section 3.1).
- uint8 images are divided by the colours' standard deviations too, as for torchvision's weights.
- In front of fc6, an average over 7x7 bins makes other image sizes work; at 224 every bin is one pixel.
- `batch_norm=True`, not in the paper, normalises after every convolution, which keeps its bias (torchvision's
  vgg16_bn and the like). Configurations A-LRN and C are left out.
"""

from functools import partial
from typing import Any

from minidl import nn
from minidl_models.alexnet import fully_connected
from minidl_models.arguments import choose, like, no_heads
from minidl_models.blocks import Network, Style, initialize
from minidl_models.public_names_resnet import IMAGENET, vgg_names
from minidl_models.registry import zoo_model

PAPER = "Simonyan and Zisserman 2014, arXiv:1409.1556"
VARIANTS: list[Any] = ["plain", {"batch_norm": True}]

# depth: convolutions in each group (table 1)
GROUPS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


def _vgg(
    depth: int,
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
    *,
    batch_norm: bool = False,
) -> Network:
    """(N, H, W, C) -> logits (N, num_classes), 1000 classes by default.

    batch_norm  after every convolution, as in torchvision's vgg16_bn

    ValueError for a variant other than "plain", and for aux=True: there are no auxiliary classifiers.
    """
    choose(f"vgg{depth}", "variant", variant, ("plain",))
    no_heads(f"vgg{depth}", aux)
    channels = c = 3 if in_channels is None else in_channels
    classes = 1000 if num_classes is None else num_classes
    style = Style(batch_norm=batch_norm, eps=1e-5, bias=True)
    stages: dict[str, nn.Module] = {}
    for i, (n, width) in enumerate(zip(GROUPS[depth], WIDTHS), 1):
        for j in range(1, n + 1):
            stages[f"conv{i}_{j}"] = style.conv(c, width, 3, 1, 1)
            c = width
        stages[f"pool{i}"] = nn.MaxPool2d(2, 2)
    stages |= fully_connected(7, c, classes)
    net = Network(stages, input_shape=(224, 224, channels), num_classes=classes, smallest=32)
    initialize(net, conv=nn.init.he_normal_fan_out, linear=partial(nn.init.normal, std=0.01))
    net.preprocess = dict(IMAGENET) if channels == 3 else None
    net.flattened = {"fc6.fc": (7, 7, 512)}
    net.public_names = {"torchvision": vgg_names}
    net.public_preprocess = {"torchvision": dict(IMAGENET)}
    return net


@zoo_model(paper=PAPER, year=2014, variants=VARIANTS)
@like(_vgg)
def vgg11(**options: Any) -> Network:
    """Configuration A, 11 layers: 132.9 M parameters, 7.61 G multiply-adds."""
    return _vgg(11, **options)


@zoo_model(paper=PAPER, year=2014, variants=VARIANTS)
@like(_vgg)
def vgg13(**options: Any) -> Network:
    """Configuration B, 13 layers: 133.0 M parameters, 11.31 G multiply-adds."""
    return _vgg(13, **options)


@zoo_model(paper=PAPER, year=2014, variants=VARIANTS)
@like(_vgg)
def vgg16(**options: Any) -> Network:
    """Configuration D, 16 layers: 138.4 M parameters, 15.47 G multiply-adds."""
    return _vgg(16, **options)


@zoo_model(paper=PAPER, year=2014, variants=VARIANTS)
@like(_vgg)
def vgg19(**options: Any) -> Network:
    """Configuration E, 19 layers: 143.7 M parameters, 19.63 G multiply-adds."""
    return _vgg(19, **options)
