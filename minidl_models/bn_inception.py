"""BN-Inception.  Ioffe, Szegedy 2015, "Batch normalization: accelerating deep network training by reducing
internal covariate shift", arXiv:1502.03167.  Input 224x224x3.

GoogLeNet with a batch norm behind every convolution and two 3x3 convolutions where it had a 5x5; two of its
modules halve the image themselves, by stride 2 in their last layers (appendix).

    figure 5          patch, stride      output        the columns of a module are in _MODULES
    conv1             7x7, 2, depth 8    112x112x64
    pool1             3x3 max, 2         56x56x64
    conv2r, conv2     1x1; 3x3           56x56x192
    pool2             3x3 max, 2         28x28x192
    inc3a ... inc3c                      14x14x576     3c has stride 2
    inc4a ... inc4e                      7x7x1024      4e has stride 2
    inc5a, inc5b                         7x7x1024
    head              7x7 average, linear

The first convolution is separable (appendix): depthwise 7x7 with 8 filters per channel, then 1x1.

Departures from the paper, variant="paper":
- The pool projections of 4c and 4d are 96: the printed 128 contradicts the printed depths (160 + 160 + 160
  + 128 is not 576). With either the network has 11.2 or 11.3 million parameters, not the 13.6 of section
  4.2.2.
- Dropout 0.2 in front of the classifier, as in TensorFlow; the paper removes or reduces it (section 4.2.1).
- Epsilon is 1e-3; weights start truncated normal with variance 2 / fan_in. The paper gives neither.
variant="caffe" is the network of the public Caffe weights: the projections are 128, so 4c and 4d have 608
  channels and 4e 1056; an ordinary 7x7 first convolution; biases in front of the batch norms, whose epsilon
  is 1e-5; average pools count their padding.
variant="tf" is TensorFlow's "inception_v2": strided convolutions pad one row more behind than before, and
  the first convolution has a bias and a ReLU but no batch norm.
The pools of 3c and 4e round up as their convolutions do, so that every image size works; where the size
halves evenly this is the ceil mode of Caffe. The pools before 3a round up as Caffe's.
"""

from collections.abc import Sequence
from functools import partial

from minidl import nn
from minidl_models.arguments import choose, no_heads
from minidl_models.blocks import Network, Style, classifier, initialize
from minidl_models.public_names import HALVES, bn_inception_tf
from minidl_models.registry import zoo_model

# figure 5: #1x1, #3x3 reduce, #3x3, double #3x3 reduce, double #3x3, pool, its projection; modules without
# #1x1 have stride 2, and pass the pooled input through
_MODULES = {
    "inc3a": (64, 64, 64, 64, 96, "avg", 32),
    "inc3b": (64, 64, 96, 64, 96, "avg", 64),
    "inc3c": (0, 128, 160, 64, 96, "max", 0),
    "inc4a": (224, 64, 96, 96, 128, "avg", 128),
    "inc4b": (192, 96, 128, 96, 128, "avg", 128),
    "inc4c": (160, 128, 160, 128, 160, "avg", 128),
    "inc4d": (96, 128, 192, 160, 192, "avg", 128),
    "inc4e": (0, 128, 192, 192, 256, "max", 0),
    "inc5a": (352, 192, 320, 160, 224, "avg", 128),
    "inc5b": (352, 192, 320, 192, 224, "max", 128),
}


@zoo_model(paper="Ioffe and Szegedy 2015, arXiv:1502.03167", year=2015, variants=["paper", "caffe", "tf"])
def bn_inception(
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
) -> Network:
    """BN-Inception: GoogLeNet with batch norm.  (N, H, W, C) -> logits (N, K)

    variant  "paper" (the default), "caffe" or "tf"; see the file

    ValueError for another variant, and for aux=True: there are no auxiliary classifiers.
    """
    variant = choose("bn_inception", "variant", variant, ("paper", "caffe", "tf"))
    no_heads("bn_inception", aux)
    c = 3 if in_channels is None else in_channels
    k = 1000 if num_classes is None else num_classes
    caffe = variant == "caffe"
    style = Style(
        eps=1e-5 if caffe else 1e-3,
        bias=True if caffe else None,
        same=variant == "tf",
        count_include_pad=caffe,
    )
    stages = {"conv1": style.conv(c, 64, 7, 2, "half") if caffe else _separable(style, c)}
    table: dict[str, str | Sequence[str]] = {
        "pool1": "maxs2c",
        "conv2r": "64:1",
        "conv2": "192:3p",
        "pool2": "maxs2c",
        **{name: _branches(name, caffe) for name in _MODULES},
    }
    rows, channels = style.stages(64, table)
    stages |= rows
    stages["head"] = classifier(channels, k, 0.2)
    net = Network(stages, input_shape=(224, 224, c), num_classes=k, smallest=7)
    initialize(net, conv=nn.init.he_truncated_normal, linear=nn.init.he_truncated_normal)
    net.preprocess = {"mean": [0.5] * c, "std": [0.5] * c}
    if variant == "tf":
        net.public_names = {"tf": partial(bn_inception_tf, table)}
        net.public_preprocess, net.convolutional = {"tf": HALVES}, {"tf": ["head.fc"]}
    return net


def _separable(style: Style, c: int) -> nn.Module:
    """The first convolution: depthwise 7x7 of stride 2, without batch norm or ReLU, then 1x1.

    (N, H, W, c) -> (N, H/2, W/2, 64)
    """
    plain = Style(batch_norm=False, same=style.same)
    bare = Style(batch_norm=False, same=style.same, bias=False)
    return nn.Sequential(
        {
            "dw": bare.conv(c, 8 * c, 7, 2, "half", groups=c, activation=None),
            "pw": (plain if style.same else style).conv(8 * c, 64),
        }
    )


def _branches(name: str, caffe: bool) -> list[str]:
    """A row of figure 5 in branch notation."""
    one, reduce3, three, reduce_double, double, pool, project = _MODULES[name]
    if name in ("inc4c", "inc4d") and not caffe:
        project = 96
    if not one:
        return [
            f"{reduce3}:1 {three}:3s2p",
            f"{reduce_double}:1 {double}:3p {double}:3s2p",
            "maxs2p",
        ]
    return [
        f"{one}:1",
        f"{reduce3}:1 {three}:3p",
        f"{reduce_double}:1 {double}:3p {double}:3p",
        f"{pool} {project}:1",
    ]
