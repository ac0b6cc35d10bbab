"""What residual networks share: shortcuts, stages made of units, and how they start.  He et al. 2015,
arXiv:1512.03385."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minidl import Tensor, nn, ops
from minidl_models.blocks import Network, Style, classifier, initialize

STYLE = Style(eps=1e-5)
CIFAR10 = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]}  # of the training images


class ZeroPad(nn.Module):
    """Shortcut A: every `stride`-th pixel, and zeros for the channels that are missing.

    (N, H, W, c) -> (N, ceil(H / stride), ceil(W / stride), f). With pad="both", half of the zeros stand
    before x's channels; with "end" all behind.
    """

    def __init__(self, c: int, f: int, stride: int, pad: str = "end") -> None:
        before = (f - c) // 2 if pad == "both" else 0
        self.stride, self.zeros = stride, (before, f - c - before)

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.stride == 1 else x[:, :: self.stride, :: self.stride]
        return ops.pad(kept, ((0, 0), (0, 0), (0, 0), self.zeros))

    def options(self) -> str:
        return f"stride={self.stride}, zeros={self.zeros}"


def make_shortcut(
    c: int, f: int, stride: int, option: str, pad: str = "end", style: Style = STYLE
) -> nn.Module:
    """What a unit adds to its residual, from c channels to f (section 3.3).

    Option A pads with zeros and B projects, in this style, where the shapes differ; C projects everywhere.
    """
    same = stride == 1 and c == f
    if option == "C" or (option == "B" and not same):
        return style.conv(c, f, 1, stride, activation=None)
    return nn.Identity() if same else ZeroPad(c, f, stride, pad)


def stack(
    names: Sequence[str],
    counts: Sequence[int],
    c: int,
    width: int,
    unit: Callable[..., Any],
    first: Callable[..., Any] | None = None,
) -> tuple[dict[str, nn.Module], int]:
    """(stages of `counts` units, the channels that come out), reading c channels.

    Each stage is twice as wide as the one before, and from the second on its first unit has stride 2;
    unit(c, width, stride) makes one, and `first`, if given, the very first.
    """
    stages: dict[str, nn.Module] = {}
    for i, (name, n) in enumerate(zip(names, counts)):
        units = []
        for j in range(n):
            make = first if first is not None and i == j == 0 else unit
            units.append(make(c, width << i, 2 if i and j == 0 else 1))
            c = units[-1].channels
        stages[name] = nn.Sequential(*units)
    return stages, c


def residual_network(
    stages: Mapping[str, nn.Module],
    c: int,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocess: Mapping[str, list[float]],
    smallest: int = 1,
) -> Network:
    """The network of these stages and a classifier that reads their c channels; `preprocess` is for colours.

    Convolutions start He normal by their fan-out, the classifier by its fan-in; gamma 1, beta and biases 0.
    """
    net = Network(
        {**stages, "head": classifier(c, num_classes)},
        input_shape=input_shape,
        num_classes=num_classes,
        smallest=smallest,
    )
    initialize(net, conv=nn.init.he_normal_fan_out)
    net.preprocess = dict(preprocess) if input_shape[2] == 3 else None
    return net
