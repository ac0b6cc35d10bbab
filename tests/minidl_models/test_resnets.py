"""Residual, plain and pre-activation networks against their papers' tables and independent counts."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

import minidl as md
import minidl_models
from minidl import nn
from minidl.errors import ShapeError
from minidl.inspection import layer_rows
from minidl_models import (
    plain18,
    plain20,
    preact_resnet18,
    preact_resnet20,
    preact_resnet50,
    preact_resnet164,
    resnet18,
    resnet20,
    resnet50,
)
from minidl_models.preact_resnet import Unit
from minidl_models.residual import ZeroPad, make_shortcut
from minidl_models.resnet import Basic, Bottleneck

# model, options: parameters, and multiply-adds at 224x224 or 32x32, both counted on torch networks
IMAGENET = [
    ("resnet18", {}, 11_689_512, 1_814_073_344),
    ("resnet18", {"shortcut": "A"}, 11_515_688, 1_794_805_760),
    ("resnet18", {"shortcut": "C"}, 12_043_816, 1_878_298_624),
    ("resnet34", {}, 21_797_672, 3_663_761_408),
    ("resnet50", {}, 25_557_032, 4_089_184_256),
    ("resnet50", {"variant": "v1"}, 25_557_032, 3_857_973_248),
    ("resnet101", {}, 44_549_160, 7_801_405_440),
    ("resnet152", {}, 60_192_808, 11_513_626_624),
    ("resnet152", {"variant": "v1"}, 60_192_808, 11_282_415_616),
    ("plain18", {}, 11_515_688, 1_794_805_760),
    ("plain34", {}, 21_623_848, 3_644_493_824),
    ("preact_resnet18", {}, 11_687_720, 1_814_073_344),
    ("preact_resnet18", {"variant": "paper"}, 11_687_720, 1_814_073_344),
    ("preact_resnet34", {}, 21_795_880, 3_663_761_408),
    ("preact_resnet50", {}, 25_549_352, 4_089_184_256),
    ("preact_resnet50", {"variant": "paper"}, 25_549_352, 3_857_973_248),
    ("preact_resnet101", {}, 44_541_480, 7_801_405_440),
    ("preact_resnet152", {}, 60_185_128, 11_513_626_624),
    ("preact_resnet200", {"variant": "paper"}, 64_666_152, 14_776_270_848),
]
CIFAR = [
    ("resnet20", {}, 269_722, 40_551_040),
    ("resnet20", {"pad": "both"}, 269_722, 40_551_040),
    ("resnet20", {"shortcut": "B"}, 272_474, 40_813_184),
    ("resnet32", {}, 464_154, 68_862_592),
    ("resnet44", {}, 658_586, 97_174_144),
    ("resnet56", {}, 853_018, 125_485_696),
    ("resnet110", {}, 1_727_962, 252_887_680),
    ("resnet110", {"shortcut": "B"}, 1_730_714, 253_149_824),
    ("plain20", {}, 269_722, 40_551_040),
    ("plain32", {}, 464_154, 68_862_592),
    ("plain44", {}, 658_586, 97_174_144),
    ("plain56", {}, 853_018, 125_485_696),
    ("plain110", {}, 1_727_962, 252_887_680),
    ("preact_resnet20", {}, 269_722, 40_551_040),
    ("preact_resnet32", {}, 464_154, 68_862_592),
    ("preact_resnet44", {}, 658_586, 97_174_144),
    ("preact_resnet56", {}, 853_018, 125_485_696),
    ("preact_resnet110", {}, 1_727_962, 252_887_680),
    ("preact_resnet164", {}, 1_703_258, 244_500_992),
]
NAMES = Path(__file__).parents[1] / "peers" / "name_maps.json"


@pytest.fixture
def no_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are zeros: the large networks are built for their shapes alone."""
    monkeypatch.setattr(nn.init, "normal", lambda shape, std, mean=0.0: np.zeros(shape, np.float32))


def images(n: int, h: int, w: int, c: int = 3) -> md.Tensor:
    return md.tensor(np.random.default_rng(0).standard_normal((n, h, w, c), dtype=np.float32))


def layers(model: nn.Module, kind: type) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, kind)]


@pytest.mark.usefixtures("no_draws")
@pytest.mark.parametrize(("name", "options", "params", "macs"), IMAGENET)
def test_counts_and_shapes_on_imagenet(name: str, options: dict, params: int, macs: int):
    model = minidl_models.create(name, **options)
    assert sum(p.size for p in model.parameters()) == params
    assert model.input_shape == (224, 224, 3)
    rows = layer_rows(model, (32, 32, 3))  # a seventh of the rows and columns at every stage
    dense = rows[-1].macs
    assert 49 * (sum(row.macs for row in rows) - dense) + dense == macs
    wide = 1 if name.endswith(("18", "34")) else 4  # basic units, bottlenecks
    ends = {row.path.split(".")[0]: row.output for row in rows}
    assert [ends[f"conv{i}_x"] for i in (2, 3, 4, 5)] == [
        (8, 8, 64 * wide),
        (4, 4, 128 * wide),
        (2, 2, 256 * wide),
        (1, 1, 512 * wide),
    ]
    assert ends["head"] == (1000,)


@pytest.mark.parametrize(("name", "options", "params", "macs"), CIFAR)
def test_counts_and_shapes_on_cifar(name: str, options: dict, params: int, macs: int):
    model = minidl_models.create(name, **options)
    assert sum(p.size for p in model.parameters()) == params
    rows = layer_rows(model, model.input_shape)
    assert sum(row.macs for row in rows) == macs
    wide = 4 if name == "preact_resnet164" else 1
    ends = {row.path.split(".")[0]: row.output for row in rows}
    shapes = [(32, 32, 16 * wide), (16, 16, 32 * wide), (8, 8, 64 * wide), (10,)]
    assert [ends[stage] for stage in ("stage1", "stage2", "stage3", "head")] == shapes


@pytest.mark.usefixtures("no_draws")
def test_1001_layers_can_be_counted():
    model = minidl_models.create("preact_resnet1001")
    assert sum(p.size for p in model.parameters()) == 10_327_706
    convolutions = layers(model, nn.Conv2d)
    assert len([path for path in convolutions if not path.endswith("shortcut")]) + 1 == 1001
    assert layers(model.stage2, Unit) == [str(i) for i in range(111)]


@pytest.mark.parametrize(
    ("pad", "channels"), [("end", [1.0, 2.0, 0.0, 0.0, 0.0]), ("both", [0.0, 1.0, 2.0, 0.0, 0.0])]
)
def test_shortcut_a_by_hand(pad: str, channels: list[float]):
    pixels = np.array([[1, 9, 3], [9, 9, 9], [5, 9, 7]], np.float32)  # every second one is kept
    x = md.tensor(pixels[None, :, :, None] * np.array([1, 2], np.float32), requires_grad=True)
    y = ZeroPad(2, 5, 2, pad)(x)
    kept = np.array([[1, 3], [5, 7]], np.float32)
    np.testing.assert_array_equal(y.numpy(), kept[None, :, :, None] * np.array(channels, np.float32))
    y.backward(md.tensor(np.ones(y.shape, np.float32)))
    read = np.zeros((1, 3, 3, 2), np.float32)
    read[:, ::2, ::2] = 1
    np.testing.assert_array_equal(x.grad.numpy(), read)


def test_shortcuts_by_option():
    kinds = {
        (option, c, f, stride): type(make_shortcut(c, f, stride, option)).__name__
        for option in "ABC"
        for c, f, stride in ((4, 4, 1), (4, 8, 1), (4, 8, 2))
    }
    same, wider, strided = (4, 4, 1), (4, 8, 1), (4, 8, 2)
    assert {kinds["A", *same], kinds["B", *same]} == {"Identity"}
    assert kinds["A", *wider] == kinds["A", *strided] == "ZeroPad"
    assert {kinds["B", *wider], kinds["B", *strided], kinds["C", *same]} == {"Sequential"}


@pytest.mark.parametrize(("unit", "last"), [(Basic(4, 4), "bn2"), (Bottleneck(8, 2), "bn3")])
def test_a_unit_without_a_residual_is_the_relu_of_its_input(unit: nn.Module, last: str):
    getattr(unit, last).weight.data[:] = 0
    x = images(2, 3, 3, unit.conv1.in_channels)
    np.testing.assert_array_equal(unit(x).numpy(), np.maximum(x.numpy(), 0))


def test_a_plain_unit_adds_nothing():
    unit = Basic(4, 4, shortcut=None)
    unit.bn2.weight.data[:] = 0
    assert not unit(images(2, 3, 3, 4)).numpy().any()
    assert [name for name, _ in unit.named_children()] == ["conv1", "bn1", "conv2", "bn2"]


@pytest.mark.parametrize(("pre", "activated"), [("own", False), ("both", True), ("none", False)])
def test_what_a_pre_activation_shortcut_reads(pre: str, activated: bool):
    unit = Unit(4, [(4, 3, 1), (4, 3, 1)], pre=pre).eval()
    unit.body.conv2.weight.data[:] = 0
    x = images(2, 3, 3, 4)
    expected = unit.norm1(x).numpy() if activated else x.numpy()
    np.testing.assert_array_equal(unit(x).numpy(), expected)
    assert isinstance(unit.norm1, nn.Identity) == (pre == "none")


def test_a_projection_of_a_pre_activation_unit_reads_the_activated_input():
    unit = Unit(4, [(8, 3, 2), (8, 3, 1)]).eval()
    unit.body.conv2.weight.data[:] = 0
    x = images(2, 4, 4, 4)
    np.testing.assert_array_equal(unit(x).numpy(), unit.shortcut(unit.norm1(x)).numpy())
    assert isinstance(unit.shortcut, nn.Conv2d)  # no batch norm behind it


@pytest.mark.usefixtures("no_draws")
def test_the_first_unit_of_pre_activation_networks():
    timm, paper = preact_resnet18(), preact_resnet18(variant="paper")
    assert isinstance(timm.conv2_x[0].norm1, nn.BatchNorm2d)
    assert [name for name, _ in timm.conv1.named_children()] == ["conv", "pool"]
    assert isinstance(paper.conv2_x[0].norm1, nn.Identity)
    assert [name for name, _ in paper.conv1.named_children()] == ["conv", "bn", "pool"]
    assert not timm.conv2_x[0].shortcut_reads_a
    cifar = preact_resnet20()
    assert [unit.shortcut_reads_a for unit in cifar.stage1] == [True, False, False]
    assert [unit.shortcut_reads_a for unit in cifar.stage2] == [True, False, False]
    assert isinstance(cifar.stage2[0].shortcut, ZeroPad)
    assert isinstance(preact_resnet164().stage2[0].shortcut, nn.Conv2d)


@pytest.mark.usefixtures("no_draws")
def test_which_convolution_of_a_bottleneck_has_the_stride():
    def strides(unit: nn.Module) -> list[int]:
        return [module.stride for module in unit.modules() if isinstance(module, nn.Conv2d)]

    assert strides(resnet50().conv3_x[0]) == [1, 2, 1, 2]  # the last one is the shortcut
    assert strides(resnet50(variant="v1").conv3_x[0]) == [2, 1, 1, 2]
    assert strides(preact_resnet50().conv3_x[0]) == [1, 2, 1, 2]
    assert strides(preact_resnet50(variant="paper").conv3_x[0]) == [2, 1, 1, 2]
    assert strides(preact_resnet164().stage2[0]) == [2, 1, 1, 2]


@pytest.mark.usefixtures("no_draws")
@pytest.mark.parametrize("pad", ["end", "both"])
def test_where_a_network_pads_with_zeros(pad: str):
    shortcuts = [m for m in resnet20(pad=pad).modules() if isinstance(m, ZeroPad)]
    zeros = {"end": [(0, 16), (0, 32)], "both": [(8, 8), (16, 16)]}
    assert [shortcut.zeros for shortcut in shortcuts] == zeros[pad]


@pytest.mark.usefixtures("no_draws")
def test_a_shortcut_is_registered_behind_its_body():
    names = [name for name in resnet18().state_dict() if name.startswith("conv3_x.0.")]
    assert list(dict.fromkeys(name.rpartition(".")[0] for name in names)) == [
        f"conv3_x.0.{part}" for part in ("conv1", "bn1", "conv2", "bn2", "shortcut.conv", "shortcut.bn")
    ]
    names = layers(preact_resnet18().conv3_x[0], nn.Conv2d)
    assert names == ["body.conv1", "body.conv2", "shortcut"]


def test_how_weights_start():
    model = resnet18()
    for path in ("conv2_x.0.conv1", "conv5_x.0.conv1", "conv5_x.0.shortcut.conv"):
        weight = dict(model.named_modules())[path].weight.numpy()
        fan_out = weight.shape[0] * weight.shape[1] * weight.shape[3]
        assert np.std(weight) == pytest.approx(np.sqrt(2 / fan_out), rel=0.02)  # of 30,000 draws or more
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all((norm.weight.numpy() == 1).all() and not norm.bias.numpy().any() for norm in norms)
    assert {norm.eps for norm in norms} == {1e-5}
    assert not model.head.fc.bias.numpy().any()


@pytest.mark.parametrize("build", [resnet20, plain20, preact_resnet20])
def test_every_parameter_gets_a_finite_gradient(build):
    model = build()
    md.ops.cross_entropy(model(images(4, 32, 32)), np.array([1, 2, 3, 4])).backward()
    for name, parameter in model.named_parameters():
        assert np.isfinite(parameter.grad.data).all(), name
        assert parameter.grad.data.any(), name


@pytest.mark.usefixtures("no_draws")
def test_other_sizes_classes_and_channels():
    assert resnet20(num_classes=7, in_channels=1)(images(2, 40, 25, 1)).shape == (2, 7)
    assert preact_resnet20(num_classes=7, in_channels=1)(images(2, 40, 25, 1)).shape == (2, 7)
    assert resnet18(num_classes=7, in_channels=1)(images(2, 33, 47, 1)).shape == (2, 7)
    assert preact_resnet18(in_channels=4, num_classes=2)(images(2, 33, 47, 4)).shape == (2, 2)
    assert resnet20(in_channels=1).preprocess is None  # no one knows the means of these images


@pytest.mark.usefixtures("no_draws")
def test_the_smallest_images():
    for build in (resnet18, plain18, preact_resnet18, resnet20):
        assert build().smallest == 1
        build()(images(2, 1, 1))
    model = resnet18(pool="ceil")
    model(images(2, 3, 3))
    with pytest.raises(ShapeError, match=r"resnet18: x of shape \(2, 2, 3, 3\) has images of 2x3; the smal"):
        model(images(2, 2, 3))
    with pytest.raises(ShapeError, match=r"smallest this network takes are 3x3"):
        model(images(2, 3, 2))


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("resnet18", {"variant": "v2"}, "resnet18: variant is 'v2'; it may be 'v1.5' or 'v1'"),
        ("resnet50", {"shortcut": "D"}, "resnet50: shortcut is 'D'; it may be 'B' or 'A' or 'C'"),
        ("resnet50", {"pool": "same"}, "resnet50: pool is 'same'; it may be 'pad1' or 'ceil'"),
        ("resnet101", {"aux": True}, "resnet101: aux=True, but this network has no auxiliary"),
        ("plain34", {"variant": "v1.5"}, "plain34: variant is 'v1.5'; it may be 'paper'"),
        ("plain18", {"aux": True}, "plain18: aux=True"),
        ("resnet20", {"shortcut": "C"}, "resnet20: shortcut is 'C'; it may be 'A' or 'B'"),
        ("resnet20", {"pad": "start"}, "resnet20: pad is 'start'; it may be 'end' or 'both'"),
        ("resnet110", {"variant": "v1.5"}, "resnet110: variant is 'v1.5'; it may be 'paper'"),
        ("resnet20", {"aux": True}, "resnet20: aux=True"),
        ("plain20", {"variant": "v1"}, "plain20: variant is 'v1'"),
        ("plain20", {"aux": True}, "plain20: aux=True"),
        (
            "preact_resnet50",
            {"variant": "v1"},
            "preact_resnet50: variant is 'v1'; it may be 'v1.5' or 'paper'",
        ),
        (
            "preact_resnet18",
            {"stem_act": "yes"},
            "preact_resnet18: stem_act is 'yes'; it may be False or True",
        ),
        ("preact_resnet18", {"aux": True}, "preact_resnet18: aux=True"),
        ("preact_resnet164", {"variant": "v1.5"}, "preact_resnet164: variant is 'v1.5'; it may be 'paper'"),
        ("preact_resnet164", {"aux": True}, "preact_resnet164: aux=True"),
    ],
)
def test_bad_arguments(name: str, options: dict, text: str):
    with pytest.raises(ValueError, match=text):
        minidl_models.create(name, **options)


@pytest.mark.usefixtures("no_draws")
def test_members_of_a_family_have_a_signature_and_a_help_of_their_own():
    assert list(inspect.signature(resnet18).parameters) == [
        *("num_classes", "variant", "in_channels", "aux", "shortcut", "pool")
    ]
    assert list(inspect.signature(plain18).parameters) == ["num_classes", "variant", "in_channels", "aux"]
    assert resnet18.__doc__.startswith("18 layers in basic units")
    assert 'shortcut  option "A", "B" or "C"' in resnet18.__doc__
    assert resnet18(7, in_channels=2).config["arguments"] == {"num_classes": 7, "in_channels": 2}
    with pytest.raises(TypeError, match="depth"):
        resnet18(depth=50)


def test_a_saved_network_is_built_again(tmp_path: Path):
    model = resnet20(shortcut="B", num_classes=4)
    model.save(tmp_path / "net.safetensors")
    again = md.Model.load(tmp_path / "net.safetensors")
    assert again.config == {"name": "resnet20", "arguments": {"shortcut": "B", "num_classes": 4}}
    x = images(2, 32, 32)
    np.testing.assert_array_equal(again.eval()(x).numpy(), model.eval()(x).numpy())


@pytest.mark.skipif(not NAMES.exists(), reason="tests/peers/name_maps.json is not there")
@pytest.mark.usefixtures("no_draws")
@pytest.mark.parametrize(
    ("key", "name", "layout"),
    [
        ("resnet18", "resnet18", "torchvision"),
        ("resnet34", "resnet34", "torchvision"),
        ("resnet50", "resnet50", "torchvision"),
        ("resnet50(timm)", "resnet50", "timm"),
        ("preact18(timm)", "preact_resnet18", "timm"),
        ("preact50(timm)", "preact_resnet50", "timm"),
    ],
)
def test_public_names(key: str, name: str, layout: str):
    model = minidl_models.create(name)
    own = [
        (path, module.weight.shape)
        for path, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))
    ]
    names = model.public_names[layout]([path for path, _ in own])
    # theirs lists a pre-activation unit's projection in front of its body: it runs first
    theirs = {row[1]: tuple(row[3]) for row in json.loads(NAMES.read_text())[key]}
    assert sorted(names) == sorted(theirs)
    assert [n for n in names if "downsample" not in n] == [n for n in theirs if "downsample" not in n]
    for public, (path, shape) in zip(names, own):
        torch_shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else tuple(reversed(shape))
        assert torch_shape == theirs[public][: len(torch_shape)], path


@pytest.mark.usefixtures("no_draws")
def test_public_names_are_those_of_the_network_that_was_trained():
    assert set(resnet50().public_names) == {"torchvision", "timm"}
    assert not resnet50(variant="v1").public_names
    assert not resnet50(shortcut="A").public_names
    assert not resnet50(pool="ceil").public_names
    assert set(preact_resnet18().public_names) == {"timm"}
    assert not preact_resnet18(stem_act=True).public_names
    assert not resnet20().public_names
