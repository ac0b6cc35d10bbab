"""AlexNet and VGG against their papers' tables and independent counts."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import minidl as md
import minidl_models
from minidl import nn
from minidl.errors import ShapeError
from minidl.inspection import layer_rows
from minidl_models import alexnet, vgg11
from minidl_models.alexnet import fully_connected
from minidl_models.public_names_resnet import vgg_names

# parameters, multiply-adds of the convolutions and of the dense layers at the native size, both counted on
# torch networks
ALEXNET = {
    "paper": (60_965_224, 665_784_864, 58_621_952),
    "caffe": (60_965_224, 665_784_864, 58_621_952),
    "caffenet": (60_965_224, 665_784_864, 58_621_952),
    "one_weird_trick": (61_100_840, 655_566_528, 58_621_952),
}
# the same with batch norm, which adds parameters only: gamma and beta of every channel
VGG = {
    "vgg11": (132_868_840, 2_752, 7_485_456_384, 123_633_664),
    "vgg13": (133_053_736, 2_944, 11_184_832_512, 123_633_664),
    "vgg16": (138_365_992, 4_224, 15_346_630_656, 123_633_664),
    "vgg19": (143_678_248, 5_504, 19_508_428_800, 123_633_664),
}
NAMES = Path(__file__).parents[1] / "peers" / "name_maps.json"


@pytest.fixture
def no_draws() -> Iterator[None]:
    """Weights are zeros: the large networks are built for their shapes alone."""
    with nn.init.blank():
        yield


def zeros(*shape: int) -> md.Tensor:
    return md.tensor(np.zeros(shape, np.float32))


def split_macs(rows: list) -> tuple[int, int]:
    """Multiply-adds of (convolutions, dense layers)."""
    dense = sum(row.macs for row in rows if row.kind == "Linear")
    return sum(row.macs for row in rows) - dense, dense


def check_names(model: nn.Module, key: str) -> None:
    own = [p for p, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))]
    theirs = [row[1] for row in json.loads(NAMES.read_text())[key]]
    assert model.public_names["torchvision"](own) == theirs


@pytest.mark.usefixtures("no_draws")
@pytest.mark.parametrize("variant", ALEXNET)
def test_alexnet(variant: str):
    model = alexnet(variant=variant)
    params, convolutions, dense = ALEXNET[variant]
    assert sum(p.size for p in model.parameters()) == params
    rows = layer_rows(model, model.input_shape)
    assert split_macs(rows) == (convolutions, dense)
    assert {row.path: row.output for row in rows}["pool5"] == (6, 6, 256)
    order = [row.path for row in rows if row.path[:4] in ("norm", "pool")]
    assert (
        order
        == {
            "paper": ["norm1", "pool1", "norm2", "pool2", "pool5"],
            "caffe": ["norm1", "pool1", "norm2", "pool2", "pool5"],
            "caffenet": ["pool1", "norm1", "pool2", "norm2", "pool5"],
            "one_weird_trick": ["pool1", "pool2", "pool5"],
        }[variant]
    )
    drops = [row.path for row in rows if row.path.endswith(("drop", ".fc"))]
    before = variant == "one_weird_trick"  # torchvision drops in front of the dense layers
    pair = ["drop", "fc"] if before else ["fc", "drop"]
    assert drops == [f"{stage}.{layer}" for stage in ("fc6", "fc7") for layer in pair]

    smallest = 63 if before else 67
    assert model(zeros(1, smallest, smallest + 3, 3)).shape == (1, 1000)
    with pytest.raises(ShapeError, match=rf"alexnet: x of shape .* smallest .* are {smallest}x{smallest}"):
        model(zeros(1, smallest - 1, smallest, 3))
    if before and NAMES.exists():
        check_names(model, "alexnet")
    assert set(model.public_names) == ({"torchvision"} if before else set())


@pytest.mark.usefixtures("no_draws")
def test_the_constants_of_alexnets_normalisation():
    norms = {variant: alexnet(variant=variant).norm1 for variant in ("paper", "caffe", "caffenet")}
    constants = {v: (n.size, n.alpha, n.beta, n.k, n.divide_alpha) for v, n in norms.items()}
    assert constants["paper"] == (5, 1e-4, 0.75, 2.0, False)
    assert constants["caffe"] == constants["caffenet"] == (5, 1e-4, 0.75, 1.0, True)


@pytest.mark.parametrize(("variant", "positive"), [("paper", 1.0), ("caffe", 0.1)])
def test_how_alexnet_starts(monkeypatch: pytest.MonkeyPatch, variant: str, positive: float):
    monkeypatch.setattr(nn.init, "normal", lambda shape, std: np.full(shape, std, np.float32))
    layers = dict(alexnet(variant=variant).named_modules())
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6.fc", "fc7.fc", "fc8"]
    deviations = [layers[name].weight.data.flat[0] for name in names]
    np.testing.assert_allclose(deviations, [0.01] * 5 + [0.005] * 2 + [0.01], rtol=1e-6)
    biases = [layers[name].bias.data for name in names]
    assert all((bias == bias[0]).all() for bias in biases)
    np.testing.assert_allclose(
        [bias[0] for bias in biases], [0, positive, 0, positive, positive, positive, positive, 0], rtol=1e-6
    )


@pytest.mark.usefixtures("no_draws")
@pytest.mark.parametrize("name", VGG)
def test_vgg_with_batch_norm(name: str):
    model = minidl_models.create(name, batch_norm=True)
    params, _, convolutions, dense = VGG[name]
    assert sum(p.size for p in model.parameters()) == params
    rows = layer_rows(model, (32, 32, 3))  # a seventh of the rows and columns at every stage
    small, same = split_macs(rows)
    assert (49 * small, same) == (convolutions, dense)
    ends = [row.output for row in rows if row.path.startswith("pool")]
    assert ends == [(16, 16, 64), (8, 8, 128), (4, 4, 256), (2, 2, 512), (1, 1, 512)]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.activation) for norm in norms} == {(1e-5, "relu")}
    assert all(m.bias is not None for m in model.modules() if isinstance(m, nn.Conv2d))
    if name == "vgg16" and NAMES.exists():
        check_names(model, "vgg16_bn")


@pytest.mark.usefixtures("no_draws")
def test_vgg_without_batch_norm():
    model = vgg11(num_classes=10, in_channels=1)
    with_norm, channels, _, _ = VGG["vgg11"]
    fewer = 990 * 4097 + 2 * 9 * 64  # classes, and input channels of conv1_1
    assert sum(p.size for p in model.parameters()) == with_norm - 2 * channels - fewer
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.activation, m.out_channels) for m in convolutions] == [
        ("relu", width) for width in (64, 128, 256, 256, 512, 512, 512, 512)
    ]
    assert model(zeros(1, 40, 33, 1)).shape == (1, 10)
    with pytest.raises(ShapeError, match=r"vgg11: x of shape \(1, 32, 31, 1\) .* are 32x32"):
        model(zeros(1, 32, 31, 1))
    assert model.flattened == {"fc6.fc": (7, 7, 512)}
    assert model.preprocess is None  # no one knows the means of these images
    if NAMES.exists():
        check_names(model, "vgg11")


def test_how_vgg_starts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nn.init, "normal", lambda shape, std: np.full(shape, std, np.float32))
    layers = dict(vgg11().named_modules())
    assert layers["conv2_1"].weight.data.flat[0] == pytest.approx(np.sqrt(2 / (9 * 128)))
    assert layers["fc6.fc"].weight.data[0, 0] == layers["fc8"].weight.data[0, 0] == np.float32(0.01)
    assert not any(layers[name].bias.data.any() for name in ("conv1_1", "fc6.fc", "fc8"))


def test_the_dense_layers():
    stages = fully_connected(2, 3, 5)
    native = md.tensor(np.random.default_rng(0).standard_normal((4, 2, 2, 3), dtype=np.float32))
    np.testing.assert_array_equal(stages["flatten"](native).numpy(), native.numpy().reshape(4, 12))
    assert stages["fc6"].fc.in_features == 12
    assert {stage.drop.p for stage in (stages["fc6"], stages["fc7"])} == {0.5}

    net = nn.Sequential(stages)
    other_size = md.tensor(np.random.default_rng(0).standard_normal((4, 3, 5, 3), dtype=np.float32))
    md.ops.cross_entropy(net(other_size), np.array([0, 1, 2, 3])).backward()
    assert all(np.isfinite(p.grad.data).all() and p.grad.data.any() for p in net.parameters())


def test_vgg_names_count_relus_pools_and_batch_norms():
    assert vgg_names(["conv1_1", "conv1_2", "conv2_1", "fc6.fc", "fc8"]) == [
        *("features.0", "features.2", "features.5", "classifier.0", "classifier.6")
    ]
    assert vgg_names(["conv1_1.conv", "conv1_1.bn", "conv2_1.conv", "conv2_1.bn"]) == [
        *("features.0", "features.1", "features.4", "features.5")
    ]


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        (
            "alexnet",
            {"variant": "v2"},
            "alexnet: variant is 'v2'; it may be 'paper' or 'caffe' or 'caffenet' or",
        ),
        ("alexnet", {"aux": True}, "alexnet: aux=True, but this network has no auxiliary"),
        ("vgg16", {"variant": "bn"}, "vgg16: variant is 'bn'; it may be 'plain'"),
        ("vgg19", {"aux": True}, "vgg19: aux=True"),
    ],
)
def test_bad_arguments(name: str, options: dict, text: str):
    with pytest.raises(ValueError, match=text):
        minidl_models.create(name, **options)
