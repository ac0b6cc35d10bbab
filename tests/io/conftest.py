"""What the tests of weights share: a network with a layer of each kind, and invented public names for it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl import nn, ops

TORCH_NAMES = {
    "conv": "features.0",
    "bn": "features.1",
    "depthwise": "features.3.dw",
    "pointwise": "features.3.pw",
    "fc6": "pre.fc1",
    "fc": "head.fc",
    "aux1.conv": "aux1.conv0",
    "aux1.bn": "aux1.bn0",
    "aux1.fc": "aux1.fc",
}
TF_NAMES = {
    "conv": "Net/Conv2d_1a",
    "bn": "Net/Conv2d_1a/BatchNorm",
    "depthwise": "Net/Sep_2a",
    "pointwise": "Net/Sep_2a",
    "fc6": "Net/fc6",
    "fc": "Net/Logits",
    "aux1.conv": "Net/AuxLogits/Conv",
    "aux1.bn": "Net/AuxLogits/Conv/BatchNorm",
    "aux1.fc": "Net/AuxLogits/Logits",
}
CAFFE = {"mean": [0.4, 0.45, 0.5], "bgr": True, "scale": 255}


class Net(md.Model):
    """A layer of each kind: grouped and depthwise convolutions, batch norms, a Linear that reads an image."""

    def __init__(
        self,
        c: int = 4,
        f: int = 6,
        *,
        kernel: tuple[int, int] = (3, 2),
        groups: int = 2,
        multiplier: int = 2,
        image: tuple[int, int] = (2, 3),
        classes: int = 5,
        aux: bool = True,
    ) -> None:
        h, w = image
        self.input_shape, self.num_classes = (h + kernel[0] - 1, w + kernel[1] - 1, c), classes
        self.conv = nn.Conv2d(c, f, kernel, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(f, activation="relu")
        self.depthwise = nn.Conv2d(f, f * multiplier, 3, padding=1, groups=f, bias=False)
        self.pointwise = nn.Conv2d(f * multiplier, 3, 1)
        self.fc6 = nn.Linear(h * w * 3, 7)
        self.fc = nn.Linear(7, classes)
        if aux:
            self.aux1 = nn.Sequential(
                {
                    "conv": nn.Conv2d(f, 2, 1),
                    "bn": nn.BatchNorm2d(2),
                    "gap": nn.GlobalAvgPool(),
                    "fc": nn.Linear(2, classes),
                }
            )
        self.flattened = {"fc6": (h, w, 3)}
        self.public_names = {
            layout: lambda own, names=names: [names[path] for path in own]
            for layout, names in (("timm", TORCH_NAMES), ("torchvision", TORCH_NAMES), ("tf", TF_NAMES))
        }
        self.public_preprocess = {"torchvision": {"mean": [0.5] * c, "std": [0.5] * c}, "tf": CAFFE}

    def forward(self, x: md.Tensor) -> Any:
        x = self.bn(self.conv(x))
        y = self.fc(ops.relu(self.fc6(ops.flatten(self.pointwise(self.depthwise(x))))))
        return (y, (self.aux1(x),)) if self.training and hasattr(self, "aux1") else y


@pytest.fixture(scope="session")
def fresh() -> Callable[..., Net]:
    """A function: seed, options of Net -> a network in which no two numbers are alike, running statistics
    included."""

    def build(seed: int = 1, **options: Any) -> Net:
        net = Net(**options)
        rng = np.random.default_rng(seed)
        net.load_state_dict({n: rng.uniform(0.1, 1, a.shape) for n, a in net.state_dict().items()})
        return net

    return build


@pytest.fixture(scope="session")
def assert_same() -> Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], None]:
    """A function: two dicts of arrays must agree in names, order, types and every bit."""

    def check(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
        assert list(a) == list(b)
        for name, value in a.items():
            np.testing.assert_array_equal(value, b[name], err_msg=name)
            assert value.dtype == b[name].dtype

    return check
