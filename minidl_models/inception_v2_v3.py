"""Inception-v2 and -v3.  Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, "Rethinking the Inception
architecture for computer vision", arXiv:1512.00567.  Input 299x299x3.

Large windows become several small ones (section 3): 5x5 two 3x3 (figure 5), n x n a 1xn and an nx1 (figure
6); on the smallest images the last two stand side by side (figure 7). Grids are halved by a pool and
strided convolutions in parallel (figure 10). The auxiliary classifier, batch-normalised, regularises
(section 4).

    table 1 (v2)          output         v3: TensorFlow's Inception-v3
    conv1  3x3, 2         149x149x32     conv1a  the same
    conv2  3x3            147x147x32     conv2a  the same
    conv3  3x3, padded    147x147x64     conv2b  the same
    pool1  3x3 max, 2     73x73x64       pool1   the same
    conv4  3x3            71x71x80       conv3b  1x1            73x73x80
    conv5  3x3, 2         35x35x192      conv4a  3x3            71x71x192
    conv6  3x3            35x35x288      pool2   3x3 max, 2     35x35x192
    a1 ... a3             35x35x288      mixed5b ... mixed5d    35x35x288   figure 5
    reda                  17x17x768      mixed6a                17x17x768   figure 10
    b1 ... b5             17x17x768      mixed6b ... mixed6e    17x17x768   figure 6, n = 7
    redb                  8x8x1280       mixed7a                8x8x1280
    c1, c2                8x8x2048       mixed7b, mixed7c       8x8x2048    figure 7
    head                  average, dropout 0.2, linear

Departures from the paper:
- inception_v2: table 1 gives no widths inside its modules. They are those of v3, with figure 5's 3x3 in
  place of 5x5, and 128 in all five modules of `c7`, which stays below the abstract's 25 million parameters.
  Its multiply-adds are 5.8 thousand million, not the 3.8 of table 3. Convolution conv6 is padded: table 1
  does not say so, but keeps 35x35. Its auxiliary classifier is v3's (batch-normalised).
- inception_v3 has the first layers, the 5x5 and the four 17x17 modules of the authors' code (5.7 thousand
  million multiply-adds), not those of table 1. Average pools leave their padding out. variant="torchvision"
  counts it (the weights of torchvision and timm) and drops 0.5; variant="fid" takes the maximum in mixed7c,
  as the graph of 2015 does that the Frechet inception distance is measured with.
- The auxiliary classifier has 768 units, as in the authors' code; figure 8 shows 1024.
- Weights start truncated normal with variance 2 / fan_in, as in the authors' code, which draws the last two
  layers of the auxiliary classifier with 0.01 and 0.001. The paper says nothing of it.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from minidl import nn
from minidl_models.arguments import choose
from minidl_models.blocks import Network, Style, classifier, initialize
from minidl_models.public_names import HALVES, inception_v3_tf, inception_v3_torch
from minidl_models.registry import zoo_model

GRID_17 = ["384:3s2", "64:1 96:3p 96:3s2", "maxs2"]  # figure 10, to 17x17
GRID_8 = ["192:1 320:3s2", "192:1 192:1x7p 192:7x1p 192:3s2", "maxs2"]  # figure 10, to 8x8


def figure_5(project: int, wide: str = "48:1 64:5p") -> list[str]:
    """The module of 35x35: two 3x3 in place of a 5x5.  `project` channels come from the pool."""
    return ["64:1", wide, "64:1 96:3p 96:3p", f"avg {project}:1"]


def figure_6(width: int) -> list[str]:
    """The module of 17x17: 7x7 as 1x7 and 7x1, `width` channels inside."""
    long = f"{width}:1 {width}:7x1p {width}:1x7p {width}:7x1p 192:1x7p"
    return ["192:1", f"{width}:1 {width}:1x7p 192:7x1p", long, "avg 192:1"]


def figure_7(pool: str = "avg") -> list[str]:
    """The module of 8x8: 1x3 and 3x1 side by side."""
    fork = "{384:1x3p|384:3x1p}"
    return ["320:1", f"384:1 {fork}", f"448:1 384:3p {fork}", f"{pool} 192:1"]


def bn_auxiliary(style: Style, c: int, num_classes: int) -> nn.Module:
    """The batch-normalised auxiliary classifier (section 4, figure 8).  (N, 17, 17, c) -> logits (N, K)"""
    conv0, conv1 = style.conv(c, 128), style.conv(128, 768, 5)
    fc = nn.Linear(768, num_classes)
    initialize(conv0, conv=nn.init.he_truncated_normal)
    initialize(conv1, conv=partial(nn.init.truncated_normal, std=0.01))
    initialize(fc, linear=partial(nn.init.truncated_normal, std=0.001))
    return nn.Sequential(
        {
            "pool": nn.AvgPool2d(5, 3),  # 17x17 -> 5x5
            "conv0": conv0,
            "conv1": conv1,
            "gap": nn.GlobalAvgPool(),
            "fc": fc,
        }
    )


@zoo_model(
    paper="Szegedy et al. 2015, arXiv:1512.00567",
    year=2015,
    variants=["table1", {"c7": [128, 160, 160, 160, 192]}, {"c7": [128, 160, 160, 192]}],
)
def inception_v2(
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
    *,
    c7: Sequence[int] = (128, 128, 128, 128, 128),
) -> Network:
    """Inception-v2, table 1 of its paper.  (N, H, W, C) -> logits (N, K)

    variant  "table1"
    aux      build the auxiliary classifier, default yes; then (logits, (aux,)) in training mode, which takes
             images of at least 299x299
    c7       the width inside each module of 17x17; its length is how many there are

    ValueError for another variant, and unless c7 holds at least one width.
    """
    choose("inception_v2", "variant", variant, ("table1",))
    if not c7:
        raise ValueError("inception_v2: c7 is empty; give the inner width of each module of 17x17")
    table: dict[str, str | Sequence[str]] = {
        "conv1": "32:3s2",
        "conv2": "32:3",
        "conv3": "64:3p",
        "pool1": "maxs2",
        "conv4": "80:3",
        "conv5": "192:3s2",
        "conv6": "288:3p",
        "a1": figure_5(64, "48:1 64:3p"),
        "a2": figure_5(64, "48:1 64:3p"),
        "a3": figure_5(64, "48:1 64:3p"),
        "reda": GRID_17,
    }
    table |= {f"b{i}": figure_6(width) for i, width in enumerate(c7, 1)}
    table |= {"redb": GRID_8, "c1": figure_7(), "c2": figure_7()}
    return _network(Style(), table, f"b{len(c7)}", num_classes, in_channels, aux, dropout=0.2)


@zoo_model(paper="Szegedy et al. 2015, arXiv:1512.00567", year=2015, variants=["tf", "torchvision", "fid"])
def inception_v3(
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
) -> Network:
    """Inception-v3.  (N, H, W, C) -> logits (N, K)

    variant  "tf" (the default), "torchvision" or "fid"; see the file
    aux      build the auxiliary classifier, default yes; then (logits, (aux,)) in training mode, which takes
             images of at least 299x299

    ValueError for another variant.
    """
    variant = choose("inception_v3", "variant", variant, ("tf", "torchvision", "fid"))
    table: dict[str, str | Sequence[str]] = {
        "conv1a": "32:3s2",
        "conv2a": "32:3",
        "conv2b": "64:3p",
        "pool1": "maxs2",
        "conv3b": "80:1",
        "conv4a": "192:3",
        "pool2": "maxs2",
        "mixed5b": figure_5(32),
        "mixed5c": figure_5(64),
        "mixed5d": figure_5(64),
        "mixed6a": GRID_17,
        "mixed6b": figure_6(128),
        "mixed6c": figure_6(160),
        "mixed6d": figure_6(160),
        "mixed6e": figure_6(192),
        "mixed7a": GRID_8,
        "mixed7b": figure_7(),
        "mixed7c": figure_7("max" if variant == "fid" else "avg"),
    }
    style, dropout = (
        Style(count_include_pad=variant == "torchvision"),
        0.5 if variant == "torchvision" else 0.2,
    )
    net = _network(style, table, "mixed6e", num_classes, in_channels, aux, dropout)
    net.public_names = {
        "tf": partial(inception_v3_tf, table),
        "torchvision": inception_v3_torch,
        "timm": inception_v3_torch,
    }
    net.public_preprocess = dict.fromkeys(net.public_names, HALVES)
    net.convolutional = {"tf": ["head.fc", "aux.fc"]}
    return net


def _network(
    style: Style,
    table: Mapping[str, str | Sequence[str]],
    last_17: str,
    num_classes: int | None,
    in_channels: int | None,
    aux: bool | None,
    dropout: float,
) -> Network:
    """The rows of `table` and a classifier; the auxiliary one reads the last module of 17x17."""
    c = 3 if in_channels is None else in_channels
    k = 1000 if num_classes is None else num_classes
    stages, channels = style.stages(c, table)
    stages["head"] = classifier(channels, k, dropout)
    initialize(nn.Sequential(stages), conv=nn.init.he_truncated_normal, linear=nn.init.he_truncated_normal)
    net = Network(
        stages,
        input_shape=(299, 299, c),
        num_classes=k,
        smallest=75,
        heads={} if aux is False else {"aux": (last_17, bn_auxiliary(style, 768, k))},
        aux_weight=0.4,  # of the authors' code
        head_sizes=(299, None),
    )
    net.preprocess = {"mean": [0.5] * c, "std": [0.5] * c}
    return net
