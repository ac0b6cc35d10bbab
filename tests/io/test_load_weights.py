"""Loading weights that differ from the model: in names, heads, classes, shapes, and what their input is."""

from pathlib import Path

import numpy as np
import pytest

import minidl as md
import minidl_models
from minidl import nn
from minidl.errors import CheckpointError

LAYOUTS = ("minidl", "timm", "torchvision", "tf")


# What only one side has.
@pytest.mark.parametrize("strict", [True, False])
def test_missing_and_unexpected(strict: bool, fresh, assert_same):
    net, state = fresh(), fresh(seed=2).export_weights(layout="timm")
    before, source = net.state_dict(), fresh(seed=2).state_dict()
    state["other.weight"] = state.pop("features.1.weight")
    del state["head.fc.bias"]
    if strict:
        with pytest.raises(
            CheckpointError,
            match=r"missing features\.1\.weight, head\.fc\.bias; unexpected other\.weight \(layout 'timm'\)"
            r"\. Check .* or pass strict=False",
        ):
            net.load_weights(state, layout="timm")
        assert_same(net.state_dict(), before)
        return
    report = net.load_weights(state, layout="timm", strict=False)
    assert report.missing == ["features.1.weight", "head.fc.bias"]
    assert report.unexpected == ["other.weight"]
    kept = {name: before[name] for name in ("bn.weight", "fc.bias")}
    assert_same(net.state_dict(), source | kept)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_below_what_torch_wraps_a_model_in(prefix: str, fresh, assert_same):
    net, source = fresh(), fresh(seed=2)
    state = {f"{prefix}{name}": array for name, array in source.export_weights(layout="timm").items()}
    report = net.load_weights(state, layout="timm")
    assert report.loaded[0] == "features.0.weight"
    assert_same(net.state_dict(), source.state_dict())
    state["other"] = state.pop(f"{prefix}head.fc.bias")
    with pytest.raises(CheckpointError, match=rf"missing .*; unexpected {prefix}features"):
        net.load_weights(state, layout="timm")


class InModule(md.Model):
    def __init__(self) -> None:
        self.module = nn.Linear(2, 3)


def test_a_model_that_calls_its_child_module(assert_same):
    model, other = InModule(), InModule()
    other.load_weights(model.state_dict())
    assert_same(other.state_dict(), model.state_dict())
    wrapped = {f"module.{name}": array for name, array in InModule().state_dict().items()}
    other.load_weights(wrapped)
    np.testing.assert_array_equal(other.module.weight.data, wrapped["module.module.weight"])


def test_a_file_of_another_layout_is_refused(fresh):
    net = fresh()
    with pytest.raises(
        CheckpointError, match=r"missing Net/Conv2d_1a/weights, .* and .* more; unexpected features"
    ):
        net.load_weights(net.export_weights(layout="timm"), layout="tf")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_auxiliary_classifiers_that_only_one_side_has(layout: str, fresh, assert_same):
    with_aux, without = fresh(), fresh(seed=2, aux=False)
    report = without.load_weights(with_aux.export_weights(layout=layout), layout=layout)
    assert (report.missing, report.unexpected) == ([], [])
    assert set(report.notes.values()) == {"the model has no such auxiliary classifier; left out"}
    assert len(report.notes) == 8
    main = {name: array for name, array in with_aux.state_dict().items() if not name.startswith("aux1")}
    assert_same(without.state_dict(), main)

    other = fresh(seed=3)
    own = other.state_dict()
    report = other.load_weights(without.export_weights(layout=layout), layout=layout)
    assert (report.missing, report.unexpected) == ([], [])
    assert set(report.notes.values()) == {
        "the file has no such auxiliary classifier; the model's stays as it is"
    }
    assert_same(other.state_dict(), own | main)


def test_a_part_of_an_auxiliary_classifier_is_an_error(fresh):
    net = fresh()
    state = net.export_weights(layout="timm")
    del state["aux1.fc.bias"]
    state["aux1.fc2.bias"] = np.zeros(3)
    with pytest.raises(CheckpointError, match=r"missing aux1\.fc\.bias; unexpected aux1\.fc2\.bias"):
        net.load_weights(state, layout="timm")
    state = net.export_weights(layout="timm") | {"aux2.fc.bias": np.zeros(3)}
    assert list(net.load_weights(state, layout="timm").notes) == ["aux2.fc.bias"]


def test_a_batch_norm_without_gamma(fresh, assert_same):
    net, source = fresh(), fresh(seed=2)
    state = {f"{name}:0": array for name, array in source.export_weights(layout="tf").items()}
    del state["Net/Conv2d_1a/BatchNorm/gamma:0"]
    report = net.load_weights(state, layout="tf")
    assert (report.missing, report.unexpected) == ([], [])
    assert report.notes == {
        "Net/Conv2d_1a/BatchNorm/gamma": "not in the file: a batch norm without gamma; taken as 1"
    }
    assert_same(net.state_dict(), source.state_dict() | {"bn.weight": np.ones(6, np.float32)})
    del state["Net/Conv2d_1a/BatchNorm/beta:0"]
    with pytest.raises(
        CheckpointError, match="missing Net/Conv2d_1a/BatchNorm/gamma, Net/Conv2d_1a/BatchNorm/beta;"
    ):
        net.load_weights(state, layout="tf")
    torch = source.export_weights(layout="timm")
    del torch["features.1.weight"]
    with pytest.raises(CheckpointError, match=r"missing features\.1\.weight;"):
        net.load_weights(torch, layout="timm")


def test_what_training_leaves_in_a_file_is_passed_over(fresh):
    net = fresh()
    tf = net.export_weights(layout="tf")
    extra = {
        f"Net/fc6/weights/{slot}": np.zeros(3)
        for slot in ("RMSProp", "RMSProp_1", "Momentum", "Adam", "Adam_1")
    }
    extra |= {"Net/fc6/weights/ExponentialMovingAverage": np.zeros(3), "global_step": np.array(7)}
    assert net.load_weights(tf | extra, layout="tf").unexpected == []
    with pytest.raises(CheckpointError, match="unexpected Net/Adam_weights"):
        net.load_weights(tf | {"Net/Adam_weights": np.zeros(3)}, layout="tf")
    with pytest.raises(CheckpointError, match=r"unexpected global_step"):
        net.load_weights(net.export_weights(layout="timm") | {"global_step": np.array(7)}, layout="timm")
    with pytest.raises(CheckpointError, match=r"unexpected bn\.num_batches_tracked"):
        net.load_weights(net.state_dict() | {"bn.num_batches_tracked": np.array(7)})


# Classes.
@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("convolutional", [True, False])
def test_1001_classes_lose_the_background(layout: str, convolutional: bool, fresh, assert_same):
    source, net = fresh(classes=1001), fresh(seed=2, classes=1000)
    source.convolutional = {layout: ["fc", "aux1.fc"] if convolutional else []}
    report = net.load_weights(source.export_weights(layout=layout), layout=layout)
    expected = source.state_dict()
    for name in ("fc.weight", "fc.bias", "aux1.fc.weight", "aux1.fc.bias"):
        expected[name] = expected[name][..., 1:]
    assert_same(net.state_dict(), expected)
    cut = [
        name
        for name, how in report.reshaped.items()
        if how.endswith("class 0 of 1001, the background, left out")
    ]
    assert len(cut) == 4
    assert (report.missing, report.unexpected) == ([], [])


def test_1001_features_that_are_no_classes_are_not_cut():
    net = nn.Sequential({"a": nn.Linear(2, 1000), "b": nn.Linear(1000, 3)})
    model = Wrapped(net)
    state = model.export_weights(layout="timm") | {"net.a.bias": np.zeros(1001, np.float32)}
    with pytest.raises(
        CheckpointError, match=r"net\.a\.bias has shape \(1001,\) in the file, and \(1000,\) in this"
    ):
        model.load_weights(state, layout="timm")


class Wrapped(md.Model):
    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.public_names = {"timm": list, "tf": lambda own: [path.replace(".", "/") for path in own]}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_classes_need_head_skip(layout: str, fresh, assert_same):
    source, net = fresh(classes=4), fresh(seed=2)
    before, state = net.state_dict(), source.export_weights(layout=layout)
    with pytest.raises(
        CheckpointError,
        match=r"(fc|Logits).weights? has 4 classes in the file \(shape .*, and 5 in this network; build it "
        r"with num_classes=4, or pass head='skip'",
    ):
        net.load_weights(state, layout=layout)
    assert_same(net.state_dict(), before)
    report = net.load_weights(state, layout=layout, head="skip")
    skipped = [name for name in before if name.startswith(("fc.", "aux1."))]
    assert_same(net.state_dict(), source.state_dict() | {name: before[name] for name in skipped})
    assert len(report.missing) == len(skipped) == 10
    assert report.unexpected == []
    assert not set(report.missing) & set(report.loaded)


def test_head_skip_when_the_file_has_no_head(fresh):
    net = fresh()
    state = {n: a for n, a in net.export_weights(layout="timm").items() if not n.startswith(("head", "aux1"))}
    assert net.load_weights(state, layout="timm", head="skip").missing[:2] == [
        "head.fc.weight",
        "head.fc.bias",
    ]
    with pytest.raises(CheckpointError, match=r"missing head\.fc\.weight, head\.fc\.bias;"):
        net.load_weights(state, layout="timm")


def test_head_skip_of_a_convolution_that_classifies():
    source, net = minidl_models.nin("mnist", num_classes=3), minidl_models.nin("mnist", num_classes=4)
    report = net.load_weights(source.state_dict(), head="skip")
    assert report.missing == ["features.cccp3_2.weight", "features.cccp3_2.bias"]
    np.testing.assert_array_equal(net.features.conv1.weight.data, source.features.conv1.weight.data)


# What cannot be loaded: an error, and the network as it was.
@pytest.mark.parametrize(
    ("name", "array", "text"),
    [
        (
            "features.0.weight",
            np.zeros((6, 2, 2, 3)),
            r"\(6, 2, 2, 3\) in the file, and \(6, 2, 3, 2\) in",
        ),
        ("features.0.weight", np.zeros(6), r"features\.0\.weight has shape \(6,\) in the file"),
        (
            "features.1.bias",
            np.zeros(()),
            r"features\.1\.bias has shape \(\) in the file, and \(6,\)",
        ),
        (
            "pre.fc1.weight",
            np.zeros((18, 7)),
            r"pre\.fc1\.weight has shape \(18, 7\) .*and \(7, 18\)",
        ),
        ("pre.fc1.weight", np.zeros((7, 18, 1, 1)), r"has shape \(7, 18, 1, 1\)"),
        ("head.fc.weight", np.zeros((5, 8)), r"head\.fc\.weight has shape \(5, 8\) .*and \(5, 7\)"),
        (
            "features.1.bias",
            np.zeros(6, int),
            r"features\.1\.bias is of type int64 in the file; weights are",
        ),
        (
            "features.1.bias",
            np.full(6, 1e39),
            r"features\.1\.bias has numbers that float32 cannot hold",
        ),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_tensors_that_do_not_fit(name: str, array: np.ndarray, text: str, strict: bool, fresh, assert_same):
    net = fresh()
    state = fresh(seed=2).export_weights(layout="timm") | {name: np.asarray(array)}
    with pytest.raises(CheckpointError, match=f"load_weights: .*{text}"):
        net.load_weights(state, layout="timm", strict=strict)
    assert_same(net.state_dict(), fresh().state_dict())
    assert net.preprocess is None


def test_wrong_options(fresh):
    net = fresh()
    with pytest.raises(ValueError, match="Net has no layout 'caffe'; it has minidl, timm, torchvision, tf"):
        net.load_weights({}, layout="caffe")
    with pytest.raises(ValueError, match="nin has no layout 'timm'; it has minidl"):
        minidl_models.nin().export_weights(layout="timm")
    with pytest.raises(ValueError, match="head is 'fresh'; it may be 'load' or 'skip'"):
        net.load_weights({}, head="fresh")


def test_names_that_do_not_fit_the_model(fresh):
    net = fresh()
    net.public_names = {"timm": lambda own: {path: path for path in own if path != "fc6"}}
    with pytest.raises(ValueError, match=r"weight_names\('timm'\) of Net leaves out fc6\.weight, fc6\.bias"):
        net.export_weights(layout="timm")
    net.public_names = {"timm": lambda own: ["same"] * len(own)}
    with pytest.raises(ValueError, match=r"gives two tensors the name same\.weight, same\.bias"):
        net.export_weights(layout="timm")
    net.public_names = {"timm": lambda own: own[1:]}
    with pytest.raises(ValueError, match="zip"):
        net.export_weights(layout="timm")
    net = fresh()
    net.flattened = {"fc6": (2, 2, 3)}
    with pytest.raises(ValueError, match=r"an image \(H, W, C\) of \(2, 2, 3\) has not the 18 features"):
        net.export_weights(layout="timm")


# Input conventions.
def test_the_input_convention_comes_with_the_weights(tmp_path: Path, fresh):
    net = fresh(c=3, groups=1)
    net.preprocess = {"resize": [4, 4], "mean": [0.1] * 3}
    net.load_weights(net.export_weights(layout="torchvision"), layout="torchvision")
    assert net.preprocess == {"resize": [4, 4], "mean": [0.5] * 3, "std": [0.5] * 3}
    net.load_weights(net.export_weights(layout="timm"), layout="timm")  # which says nothing about its input
    assert net.preprocess["mean"] == [0.5] * 3
    net.preprocess = None
    net.load_weights(net.export_weights(layout="tf"), layout="tf")
    convention = {"mean": [0.4, 0.45, 0.5], "bgr": True, "scale": 255}
    assert net.preprocess == convention
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    ready = images[..., ::-1] - 255 * np.array(convention["mean"])
    np.testing.assert_allclose(
        net.predict(images), net.predict(ready.astype(np.float32)), rtol=1e-4, atol=1e-6
    )  # float32, in another order
    net.preprocess["mean"][0] = 0.0
    assert net.public_preprocess["tf"] == convention


def test_a_saved_model_gives_its_convention_too(tmp_path: Path, fresh, assert_same):
    source, net = fresh(), fresh(seed=2)
    source.preprocess = {"mean": [0.2] * 4}
    source.save(tmp_path / "m.safetensors")
    net.load_weights(tmp_path / "m.safetensors")
    assert_same(net.state_dict(), source.state_dict())
    assert net.preprocess == {"mean": [0.2] * 4}
