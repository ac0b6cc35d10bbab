"""GoogLeNet, the first Inception network.  Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke,
Rabinovich 2014, "Going deeper with convolutions", arXiv:1409.4842.  Input 224x224x3.

A module looks at its input through 1x1, 3x3 and 5x5 windows and a 3x3 max pool at once, and 1x1
convolutions keep the widths small (section 4, figure 2b). Two auxiliary classifiers bring a gradient to the
middle of the network (section 5); they are thrown away after training.

    table 1           patch, stride   output        the columns of a module are in _MODULES
    conv1             7x7, 2          112x112x64
    pool1, norm1      3x3 max, 2      56x56x64
    conv2r, conv2     1x1; 3x3        56x56x192
    norm2, pool2      3x3 max, 2      28x28x192
    inc3a, inc3b                      28x28x480
    pool3             3x3 max, 2      14x14x480
    inc4a ... inc4e                   14x14x832     aux1 reads 4a, aux2 reads 4d
    pool4             3x3 max, 2      7x7x832
    inc5a, inc5b                      7x7x1024
    head              7x7 average, dropout 0.4, linear

Departures from the paper, variant="paper":
- The local response normalisation has Caffe's numbers (5 channels, alpha 1e-4 divided by 5, beta 0.75); the
  paper gives none. Pools round the size up, as Caffe does, and average pooling takes whatever is left, so
  that other image sizes work.
- Weights start as in Caffe's model: uniform of variance 1 / fan_in, biases 0.2, in front of a softmax 0.
- Table 1's parameter counts of conv1, 4c, 4d, 5a and 5b do not follow from its own widths, which are these.
variant="torchvision" is the network of torchvision's weights: batch norm (epsilon 1e-3), no local response
  normalisation, 3x3 where the paper has 5x5, pool4 2x2, auxiliary classifiers that average over 4x4 bins
  whatever the size, dropout 0.2 in front of the classifier; weights start truncated normal, 0.01.
variant="tf" is TensorFlow's Inception-v1: the same without auxiliary classifiers; conv1 pads two rows
  before and three behind. Its pools are those of TensorFlow where the size halves evenly.
"""

from functools import partial

from minidl import nn
from minidl_models.arguments import choose, no_heads
from minidl_models.blocks import Network, Style, classifier, initialize
from minidl_models.public_names import HALVES, googlenet_tf, googlenet_torchvision
from minidl_models.registry import zoo_model

# table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool projection
_MODULES = {
    "inc3a": (64, 96, 128, 16, 32, 32),
    "inc3b": (128, 128, 192, 32, 96, 64),
    "inc4a": (192, 96, 208, 16, 48, 64),
    "inc4b": (160, 112, 224, 24, 64, 64),
    "inc4c": (128, 128, 256, 24, 64, 64),
    "inc4d": (112, 144, 288, 32, 64, 64),
    "inc4e": (256, 160, 320, 32, 128, 128),
    "inc5a": (256, 160, 320, 32, 128, 128),
    "inc5b": (384, 192, 384, 48, 128, 128),
}


@zoo_model(paper="Szegedy et al. 2014, arXiv:1409.4842", year=2014, variants=["paper", "torchvision", "tf"])
def googlenet(
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
) -> Network:
    """GoogLeNet: 22 layers with weights.  (N, H, W, C) -> logits (N, K)

    variant  "paper" (the default), "torchvision" or "tf"; see the file
    aux      build the auxiliary classifiers, default yes; then (logits, (aux1, aux2)) in training mode

    With the paper's auxiliary classifiers, training takes images of 223x223 to 270x270 alone. ValueError for
    another variant, and for aux=True with "tf", which has none.
    """
    variant = choose("googlenet", "variant", variant, ("paper", "torchvision", "tf"))
    c = 3 if in_channels is None else in_channels
    k = 1000 if num_classes is None else num_classes
    paper = variant == "paper"
    style = Style(batch_norm=not paper, same=variant == "tf")
    stages = _stages(style, c, paper)
    stages["head"] = classifier(1024, k, 0.4 if paper else 0.2)
    if variant == "tf":
        no_heads("googlenet, variant='tf'", aux)
        aux = False
    heads = {}
    if aux is None or aux:
        heads = {"aux1": ("inc4a", _auxiliary(style, 512, k)), "aux2": ("inc4d", _auxiliary(style, 528, k))}
    net = Network(
        stages,
        input_shape=(224, 224, c),
        num_classes=k,
        smallest=31 if paper else 15,
        heads=heads,
        aux_weight=0.3,  # section 5
        head_sizes=(223, 270) if paper else (15, None),
    )
    _initialize(net, paper)
    net.flattened = {f"{head}.fc1": (4, 4, 128) for head in heads}
    net.preprocess = {"mean": [0.5] * c, "std": [0.5] * c}
    if not paper:
        net.public_names = {variant: googlenet_tf if variant == "tf" else googlenet_torchvision}
        net.public_preprocess = {variant: HALVES}
        net.convolutional = {"tf": ["head.fc"]}
    return net


def _stages(style: Style, c: int, paper: bool) -> dict[str, nn.Module]:
    """Table 1 down to 5b."""
    stages: dict[str, nn.Module] = {}
    stages["conv1"] = style.conv(c, 64, 7, 2, "half")
    stages["pool1"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    if paper:
        stages["norm1"] = nn.LocalResponseNorm(5)
    stages["conv2r"] = style.conv(64, 64)
    stages["conv2"] = style.conv(64, 192, 3, padding="half")
    if paper:
        stages["norm2"] = nn.LocalResponseNorm(5)
    stages["pool2"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    c = 192
    for name, (one, reduce3, three, reduce5, five, project) in _MODULES.items():
        wide = f"{reduce5}:1 {five}:{5 if paper else 3}p"
        stages[name], c = style.branches(
            c, [f"{one}:1", f"{reduce3}:1 {three}:3p", wide, f"max {project}:1"]
        )  # figure 2b
        if name == "inc3b":
            stages["pool3"] = nn.MaxPool2d(3, 2, ceil_mode=True)
        if name == "inc4e":
            stages["pool4"] = nn.MaxPool2d(3 if paper else 2, 2, ceil_mode=True)
    return stages


def _auxiliary(style: Style, c: int, num_classes: int) -> nn.Module:
    """Section 5's auxiliary classifier.  (N, 14, 14, c) -> logits (N, num_classes)"""
    return nn.Sequential(
        {
            "pool": nn.AdaptiveAvgPool2d(4) if style.batch_norm else nn.AvgPool2d(5, 3),  # to 4x4
            "conv": style.conv(c, 128),
            "flat": nn.Flatten(),
            "fc1": nn.Linear(4 * 4 * 128, 1024),
            "relu": nn.ReLU(),
            "drop": nn.Dropout(0.7),
            "fc2": nn.Linear(1024, num_classes),
        }
    )


def _initialize(net: Network, paper: bool) -> None:
    """Caffe's start for the paper's network, TensorFlow's and torchvision's for the others."""
    if not paper:
        draw = partial(nn.init.truncated_normal, std=0.01)
        initialize(net, conv=draw, linear=draw)
        return
    initialize(net, conv=nn.init.xavier_uniform, linear=nn.init.xavier_uniform, bias=0.2)
    for path, module in net.named_modules():
        if path in ("head.fc", "aux1.fc2", "aux2.fc2"):
            initialize(module, linear=nn.init.xavier_uniform)
