"""Inception-v4 and the two Inception-ResNets.  Szegedy, Ioffe, Vanhoucke, Alemi 2016, "Inception-v4,
Inception-ResNet and the impact of residual connections on learning", arXiv:1602.07261.  Input 299x299x3.

Three networks of one plan (figures 9 and 15): a stem, modules A on 35x35, B on 17x17 and C on 8x8 images,
and a reduction after A and after B. In the Inception-ResNets a module computes what is added to its input,
and scaling that by 0.1 to 0.3 keeps wide networks from dying (section 3.3).

               inception_v4              inception_resnet_v1       inception_resnet_v2, paper      tf
    stem       35x35x384   figure 3      35x35x256   figure 14     35x35x384   figure 3      35x35x320
    A          4           figure 4      5           figure 10     5           figure 16     10
    reda       17x17x1024  figure 7      17x17x896   figure 7      17x17x1152  figure 7      17x17x1088
    B          7           figure 5      10          figure 11     10          figure 17     20
    redb       8x8x1536    figure 8      8x8x1792    figure 12     8x8x2144    figure 18     8x8x2080
    C          3           figure 6      5           figure 13     5           figure 19     9, 1 linear, 1x1
    head       average, dropout 0.2, linear

Departures from the paper:
- inception_v4, the default variant="tf", takes the 1x7 and 7x1 of the stem and of the long branches of B
  and C in the order of TensorFlow's code, whose weights are public; variant="paper" in that of figures 3, 5
  and 6, less two misprints (a 1x7 that stands twice in figure 5, a stride missing in figure 3).
- inception_resnet_v2, the default variant="tf", is TensorFlow's network: the stem of Inception-v3, a module
  of Inception-v3's kind, twice as many residual modules, the last one unscaled and without a ReLU, and a
  1x1 convolution to 1536. variant="paper" is that of the figures, which print 1154 and 2048 where only 1152
  and 2144 channels can be added.
- `scales` are TensorFlow's (0.17, 0.10, 0.20); the paper gives the range alone. 1 turns the scaling off.
- inception_resnet_v1, variant="facenet": a sixth C, unscaled and without a ReLU; the embedding that facenet
  has behind it is left out.
- Auxiliary classifiers (inception_v4 and inception_resnet_v2, on demand) are TensorFlow's.
- Weights start truncated normal with variance 2 / fan_in, the classifier's uniform with half of that; the
  paper does not say.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from minidl import nn
from minidl_models.arguments import choose, no_heads
from minidl_models.blocks import Network, Residual, Style, classifier, initialize
from minidl_models.inception_v2_v3 import bn_auxiliary
from minidl_models.public_names import (
    HALVES,
    inception_resnet_v2_tf,
    inception_resnet_v2_timm,
    inception_v4_tf,
    inception_v4_timm,
)
from minidl_models.registry import zoo_model

# one path, a list of branches, or a residual: (branches, scale, whether a ReLU follows)
Row = str | Sequence[str] | tuple[Sequence[str], float, bool]

SCALES = (0.17, 0.10, 0.20)  # of A, B, C
_START: Mapping[str, Row] = {"conv1a": "32:3s2", "conv2a": "32:3", "conv2b": "64:3p"}  # figures 3, 14
_MIDDLE: Mapping[str, Row] = {"pool3a": "maxs2", "conv3b": "80:1", "conv4a": "192:3"}  # figure 14


def _stem(variant: str) -> dict[str, Row]:
    """Figure 3."""
    pair = "64:1x7p 64:7x1p" if variant == "tf" else "64:7x1p 64:1x7p"
    return {
        **_START,
        "stem3a": ["maxs2", "96:3s2"],
        "stem4a": ["64:1 96:3", f"64:1 {pair} 96:3"],
        "stem5a": ["192:3s2", "maxs2"],
    }


def _reduction_a(k: int, l: int, m: int, n: int) -> list[str]:  # noqa: E741 (the letters of table 1)
    """Figure 7."""
    return [f"{n}:3s2", f"{k}:1 {l}:3p {m}:3s2", "maxs2"]


@zoo_model(paper="Szegedy et al. 2016, arXiv:1602.07261", year=2016, variants=["tf", "paper"])
def inception_v4(
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
) -> Network:
    """Inception-v4.  (N, H, W, C) -> logits (N, K)

    variant  "tf" (the default) or "paper"; see the file
    aux      build the auxiliary classifier, default no; with it (logits, (aux,)) in training mode, which
             takes images of at least 299x299

    ValueError for another variant.
    """
    variant = choose("inception_v4", "variant", variant, ("tf", "paper"))
    tf = variant == "tf"
    long = "192:7x1p 224:1x7p 224:7x1p 256:1x7p" if tf else "192:1x7p 224:7x1p 224:1x7p 256:7x1p"
    tail = "448:3x1p 512:1x3p {256:1x3p|256:3x1p}" if tf else "448:1x3p 512:3x1p {256:3x1p|256:1x3p}"
    a = ["96:1", "64:1 96:3p", "64:1 96:3p 96:3p", "avg 96:1"]  # figure 4
    b = ["384:1", "192:1 224:1x7p 256:7x1p", f"192:1 {long}", "avg 128:1"]  # figure 5
    c = ["256:1", "384:1 {256:1x3p|256:3x1p}", f"384:1 {tail}", "avg 256:1"]  # figure 6
    table: dict[str, Row] = _stem(variant)
    table |= {f"a{i}": a for i in range(1, 5)}
    table["reda"] = _reduction_a(192, 224, 256, 384)  # table 1
    table |= {f"b{i}": b for i in range(1, 8)}
    table["redb"] = ["192:1 192:3s2", "256:1 256:1x7p 320:7x1p 320:3s2", "maxs2"]  # figure 8
    table |= {f"c{i}": c for i in range(1, 4)}
    net = _network(table, num_classes, in_channels, aux_at="b7" if aux else "")
    if tf:
        net.public_names = {"tf": partial(inception_v4_tf, table), "timm": inception_v4_timm}
        net.public_preprocess = dict.fromkeys(net.public_names, HALVES)
    return net


@zoo_model(paper="Szegedy et al. 2016, arXiv:1602.07261", year=2016, variants=["paper", "facenet"])
def inception_resnet_v1(
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
    *,
    scales: float | Sequence[float] = SCALES,
) -> Network:
    """Inception-ResNet-v1.  (N, H, W, C) -> logits (N, K)

    variant  "paper" (the default) or "facenet"; see the file
    scales   of the residuals of A, B and C, or one for all; 1 turns scaling off

    ValueError for another variant, other scales, and for aux=True: there are no auxiliary classifiers.
    """
    variant = choose("inception_resnet_v1", "variant", variant, ("paper", "facenet"))
    no_heads("inception_resnet_v1", aux)
    scale_a, scale_b, scale_c = _three("inception_resnet_v1", scales)
    a = ["32:1", "32:1 32:3p", "32:1 32:3p 32:3p"]  # figure 10
    b = ["128:1", "128:1 128:1x7p 128:7x1p"]  # figure 11
    c = ["192:1", "192:1 192:1x3p 192:3x1p"]  # figure 13
    table: dict[str, Row] = {**_START, **_MIDDLE, "conv4b": "256:3s2"}  # figure 14
    table |= {f"a{i}": (a, scale_a, True) for i in range(1, 6)}
    table["reda"] = _reduction_a(192, 192, 256, 384)  # table 1
    table |= {f"b{i}": (b, scale_b, True) for i in range(1, 11)}
    table["redb"] = ["256:1 384:3s2", "256:1 256:3s2", "256:1 256:3p 256:3s2", "maxs2"]  # figure 12
    table |= {f"c{i}": (c, scale_c, True) for i in range(1, 6)}
    if variant == "facenet":
        table["c6"] = (c, 1.0, False)
    return _network(table, num_classes, in_channels)


@zoo_model(paper="Szegedy et al. 2016, arXiv:1602.07261", year=2016, variants=["tf", "paper"])
def inception_resnet_v2(
    num_classes: int | None = None,
    variant: str | None = None,
    in_channels: int | None = None,
    aux: bool | None = None,
    *,
    scales: float | Sequence[float] = SCALES,
) -> Network:
    """Inception-ResNet-v2.  (N, H, W, C) -> logits (N, K)

    variant  "tf" (the default) or "paper"; see the file
    aux      build the auxiliary classifier, default no; with it (logits, (aux,)) in training mode, which
             takes images of at least 299x299
    scales   of the residuals of A, B and C, or one for all; 1 turns scaling off

    ValueError for another variant, or other scales.
    """
    variant = choose("inception_resnet_v2", "variant", variant, ("tf", "paper"))
    tf = variant == "tf"
    scale_a, scale_b, scale_c = _three("inception_resnet_v2", scales)
    count_a, count_b, count_c = (10, 20, 9) if tf else (5, 10, 5)  # figure 15
    a = ["32:1", "32:1 32:3p", "32:1 48:3p 64:3p"]  # figure 16
    b = ["192:1", "128:1 160:1x7p 192:7x1p"]  # figure 17
    c = ["192:1", "192:1 224:1x3p 256:3x1p"]  # figure 19
    table: dict[str, Row] = {}
    if tf:
        table |= {**_START, **_MIDDLE, "pool5a": "maxs2"}
        table["mixed5b"] = ["96:1", "48:1 64:5p", "64:1 96:3p 96:3p", "avg 64:1"]
    else:
        table |= _stem("paper")
    table |= {f"a{i}": (a, scale_a, True) for i in range(1, count_a + 1)}
    table["reda"] = _reduction_a(256, 256, 384, 384)  # table 1
    table |= {f"b{i}": (b, scale_b, True) for i in range(1, count_b + 1)}
    table["redb"] = ["256:1 384:3s2", "256:1 288:3s2", "256:1 288:3p 320:3s2", "maxs2"]  # figure 18
    table |= {f"c{i}": (c, scale_c, True) for i in range(1, count_c + 1)}
    if tf:
        table |= {"c10": (c, 1.0, False), "conv7b": "1536:1"}
    net = _network(table, num_classes, in_channels, aux_at=f"b{count_b}" if aux else "")
    if tf:
        net.public_names = {
            "tf": partial(inception_resnet_v2_tf, table),
            "timm": inception_resnet_v2_timm,
        }
        net.public_preprocess = dict.fromkeys(net.public_names, HALVES)
    return net


def _three(model: str, scales: float | Sequence[float]) -> tuple[float, float, float]:
    """`scales` as one for each of A, B and C.  ValueError for another number of them."""
    each = tuple(scales) if isinstance(scales, Sequence) else (scales,) * 3
    if len(each) != 3:
        raise ValueError(f"{model}: scales is {scales!r}; give one number, or three: of A, B and C")
    return each


def _network(
    table: Mapping[str, Row], num_classes: int | None, in_channels: int | None, aux_at: str = ""
) -> Network:
    """The rows of `table` and a classifier, and an auxiliary one that reads the row `aux_at`, if any."""
    c = 3 if in_channels is None else in_channels
    k = 1000 if num_classes is None else num_classes
    style, channels = Style(), c
    stages: dict[str, nn.Module] = {}
    heads: dict[str, tuple[str, nn.Module]] = {}
    for name, row in table.items():
        if isinstance(row, tuple):
            branches, scale, relu = row
            body, inner = style.branches(channels, branches)
            stages[name] = Residual(body, inner, channels, scale, relu=relu)
        else:
            new, channels = style.stages(channels, {name: row})
            stages |= new
        if name == aux_at:
            heads["aux"] = (name, bn_auxiliary(style, channels, k))
    stages["head"] = classifier(channels, k, 0.2)
    initialize(nn.Sequential(stages), conv=nn.init.he_truncated_normal, linear=nn.init.xavier_uniform)
    net = Network(
        stages,
        input_shape=(299, 299, c),
        num_classes=k,
        smallest=75,
        heads=heads,
        aux_weight=0.4,  # of TensorFlow's code
        head_sizes=(299, None),
    )
    net.preprocess = {"mean": [0.5] * c, "std": [0.5] * c}
    return net
