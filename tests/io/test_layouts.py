"""Layouts of weights: every one against naive loops, round trips, reports, and a twin in torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import minidl as md

LAYOUTS = ("minidl", "timm", "torchvision", "tf")


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """Options of the network in conftest."""
    size, groups = st.integers(1, 3), draw(st.sampled_from([1, 2]))
    return {
        "c": groups * draw(st.integers(2, 3)),  # a group of one channel would make it a depthwise one in tf
        "f": 2 * draw(size),
        "kernel": (draw(size), draw(size)),
        "groups": groups,
        "multiplier": draw(size),
        "image": (draw(size), draw(size)),
        "classes": draw(st.integers(2, 4)),
        "aux": draw(st.booleans()),
    }


def torch_reference(net: md.Model) -> dict[str, np.ndarray]:
    """The torch tensors of a network, number by number."""
    arrays, names = {}, net.weight_names("timm")
    for own, array in net.state_dict().items():
        layer, _, tensor = own.rpartition(".")
        if array.ndim == 4:
            kh, kw, c, f = array.shape
            out = np.empty((f, c, kh, kw), array.dtype)
            for i, j, k, m in np.ndindex(array.shape):
                out[m, k, i, j] = array[i, j, k, m]
        elif layer == "fc6" and array.ndim == 2:
            h, w, c = net.flattened["fc6"]
            out = np.empty(array.shape[::-1], array.dtype)
            for i, j, k, m in np.ndindex(h, w, c, array.shape[1]):
                out[m, (k * h + i) * w + j] = array[(i * w + j) * c + k, m]
        else:
            out = array.T
        arrays[f"{names[layer]}.{tensor}"] = out
        if tensor == "running_var":
            arrays[f"{names[layer]}.num_batches_tracked"] = np.array(0)
    return arrays


def tf_reference(net: md.Model) -> dict[str, np.ndarray]:
    """The TensorFlow variables of a network, number by number."""
    arrays, names = {}, net.weight_names("tf")
    for own, array in net.state_dict().items():
        layer, _, tensor = own.rpartition(".")
        words = {"weight": "weights", "bias": "biases"}
        if layer.endswith("bn"):
            words = {
                "weight": "gamma",
                "bias": "beta",
                "running_mean": "moving_mean",
                "running_var": "moving_variance",
            }
        word = words[tensor]
        if layer == "depthwise":
            kh, kw, _, f = array.shape
            c, word = net.depthwise.in_channels, "depthwise_weights"
            out = np.empty((kh, kw, c, f // c), array.dtype)
            for i, j, k, m in np.ndindex(out.shape):
                out[i, j, k, m] = array[i, j, 0, k * (f // c) + m]
            array = out
        if layer == "pointwise" and tensor == "weight":
            word = "pointwise_weights"
        arrays[f"{names[layer]}/{word}"] = array
    return arrays


REFERENCES: dict[str, Callable[[md.Model], dict[str, np.ndarray]]] = {
    "minidl": lambda net: net.state_dict(),
    "timm": torch_reference,
    "torchvision": torch_reference,
    "tf": tf_reference,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@given(options=options(), dtype=st.sampled_from(["float32", "float64"]))
def test_export_puts_every_number_where_the_layout_has_it(
    layout: str, options, dtype: str, fresh, assert_same
):
    net = fresh(**options).to(dtype=dtype)
    exported = net.export_weights(layout=layout)
    assert_same(exported, REFERENCES[layout](net))
    assert all(array.flags.c_contiguous for array in exported.values())


@pytest.mark.parametrize("layout", LAYOUTS)
@given(options=options(), dtype=st.sampled_from(["float32", "float64"]))
def test_loading_an_export_is_the_identity(layout: str, options, dtype: str, fresh, assert_same):
    net = fresh(**options).to(dtype=dtype)
    before, exported = net.state_dict(), net.export_weights(layout=layout)
    for array in exported.values():
        array.flags.writeable = False
    net.load_state_dict({name: np.zeros(array.shape) for name, array in before.items()})
    report = net.load_weights(exported, layout=layout)
    assert_same(net.state_dict(), before)
    assert report.loaded == [name for name in exported if not name.endswith("num_batches_tracked")]
    assert (report.missing, report.unexpected, report.notes) == ([], [], {})
    changed = {"minidl": 0, "tf": 1}.get(layout, sum(array.ndim > 1 for array in before.values()))
    assert len(report.reshaped) == changed


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["npz", "safetensors", "torch"])
def test_files_round_trip(layout: str, kind: str, tmp_path: Path, fresh, assert_same):
    net, path = fresh(), tmp_path / "weights"
    exported = net.export_weights(layout=layout)
    if kind == "npz":
        np.savez(path, **exported)
        path = tmp_path / "weights.npz"
    elif kind == "safetensors":
        save_file(exported, path)
    else:
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(array) for name, array in exported.items()}, path)
    other = fresh(seed=2)
    other.load_weights(path, layout=layout)
    assert_same(other.state_dict(), net.state_dict())


def test_a_float64_file_in_a_float32_network_and_back(fresh, assert_same):
    net = fresh(seed=2)
    net.load_weights(fresh(seed=1).to(dtype="float64").export_weights(layout="timm"), layout="timm")
    assert_same(net.state_dict(), fresh(seed=1).state_dict())


def test_the_order_of_an_export_is_that_of_the_names(fresh, assert_same):
    net = fresh()
    names, order = (
        net.weight_names("timm"),
        ["fc", "aux1.fc", "aux1.bn", "aux1.conv", "fc6", "pointwise", "depthwise", "bn", "conv"],
    )
    net.public_names = {"timm": lambda own: {path: names[path] for path in order}}
    exported = net.export_weights(layout="timm")
    assert list(exported)[:3] == ["head.fc.weight", "head.fc.bias", "aux1.fc.weight"]
    assert sorted(exported) == sorted(torch_reference(net))
    other = fresh(seed=2)
    other.load_weights(exported, layout="timm")
    assert_same(other.state_dict(), net.state_dict())


@pytest.mark.parametrize("layout", ["timm", "tf"])
def test_linear_layers_stored_as_convolutions(layout: str, fresh, assert_same):
    net = fresh()
    plain = net.export_weights(layout=layout)
    net.convolutional = {layout: ["fc6", "fc"]}
    exported = net.export_weights(layout=layout)
    first, last = [name for name in plain if plain[name].ndim == 2][:2]
    shapes = ((7, 3, 2, 3), (5, 7, 1, 1)) if layout == "timm" else ((2, 3, 3, 7), (1, 1, 7, 5))
    assert (exported[first].shape, exported[last].shape) == shapes
    for name in (first, last):
        np.testing.assert_array_equal(exported[name].reshape(plain[name].shape), plain[name])
    for state in (plain, exported):  # either is taken, whatever the model says
        for convolutional in ({}, net.convolutional):
            other = fresh(seed=2)
            other.convolutional = convolutional
            other.load_weights(state, layout=layout)
            assert_same(other.state_dict(), net.state_dict())


def test_the_report_says_how_tensors_were_changed(fresh):
    net = fresh()
    net.convolutional = {"timm": ["fc"]}
    reshaped = net.load_weights(net.export_weights(layout="timm"), layout="timm").reshaped
    assert reshaped["features.0.weight"] == "transposed from (6, 2, 3, 2) to (3, 2, 2, 6)"
    assert reshaped["pre.fc1.weight"] == (
        "transposed, rows from (C, H, W) to (H, W, C) order, from (7, 18) to (18, 7)"
    )
    assert reshaped["head.fc.weight"] == "transposed from (5, 7, 1, 1) to (7, 5)"
    net.convolutional = {"tf": ["fc6"]}
    reshaped = net.load_weights(net.export_weights(layout="tf"), layout="tf").reshaped
    assert reshaped == {
        "Net/Sep_2a/depthwise_weights": "reshaped from (3, 3, 6, 2) to (3, 3, 1, 12)",
        "Net/fc6/weights": "reshaped from (2, 3, 3, 7) to (18, 7)",
    }


def test_the_text_of_a_report(fresh):
    net = fresh(aux=False)
    state = fresh().export_weights(layout="timm") | {"extra": np.zeros(3)}
    del state["head.fc.bias"]
    text = str(net.load_weights(state, layout="timm", strict=False))
    assert text.splitlines() == [
        "11 tensors loaded, 1 missing, 1 unexpected, 5 reshaped",
        "missing: head.fc.bias",
        "unexpected: extra",
        "reshaped: features.0.weight: transposed from (6, 2, 3, 2) to (3, 2, 2, 6)",
        "reshaped: features.3.dw.weight: transposed from (12, 1, 3, 3) to (3, 3, 1, 12)",
        "reshaped: features.3.pw.weight: transposed from (3, 12, 1, 1) to (1, 1, 12, 3)",
        "reshaped: pre.fc1.weight: transposed, rows from (C, H, W) to (H, W, C) order, "
        "from (7, 18) to (18, 7)",
        "reshaped: head.fc.weight: transposed from (5, 7) to (7, 5)",
        *(
            f"notes: {name}: the model has no such auxiliary classifier; left out"
            for name in list(state)[-10:-5]
        ),
        "notes: and 3 more",
    ]


# The same network in torch.
def twin(torch: Any, net: md.Model) -> Any:
    tnn = torch.nn
    h, w, c = net.flattened["fc6"]
    f = net.conv.out_channels

    class Twin(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            separable = tnn.ModuleDict(
                {
                    "dw": tnn.Conv2d(f, 2 * f, 3, padding=1, groups=f, bias=False),
                    "pw": tnn.Conv2d(2 * f, c, 1),
                }
            )
            conv = tnn.Conv2d(
                net.conv.in_channels, f, net.conv.kernel_size, groups=net.conv.groups, bias=False
            )
            self.features = tnn.ModuleList([conv, tnn.BatchNorm2d(f), tnn.ReLU(), separable])
            self.pre = tnn.ModuleDict({"fc1": tnn.Linear(h * w * c, 7)})
            self.head = tnn.ModuleDict({"fc": tnn.Linear(7, 5)})

        def forward(self, x: Any) -> Any:
            conv, bn, relu, separable = self.features
            x = separable["pw"](separable["dw"](relu(bn(conv(x)))))
            return self.head["fc"](relu(self.pre["fc1"](x.flatten(1))))

    return Twin().eval()


@pytest.mark.parametrize("kind", ["pth", "legacy", "safetensors"])
def test_a_torch_twin_gives_the_same_logits(kind: str, tmp_path: Path, fresh):
    torch = pytest.importorskip("torch")
    net = fresh(aux=False).eval()
    other = twin(torch, net)
    for buffer in (other.features[1].running_mean, other.features[1].running_var):
        buffer.uniform_(0.5, 1.5)
    path = tmp_path / "w"
    if kind == "safetensors":
        import safetensors.torch

        safetensors.torch.save_file(other.state_dict(), path)
    else:
        torch.save(other.state_dict(), path, _use_new_zipfile_serialization=kind == "pth")
    report = net.load_weights(path, layout="torchvision")
    assert (report.missing, report.unexpected) == ([], [])
    x = np.random.default_rng(0).standard_normal((3, *net.input_shape), np.float32)
    with torch.no_grad():
        expected = other(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(net(md.tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-5)  # float32
    exported = net.export_weights(layout="torchvision")
    assert {n: (a.shape, str(a.dtype)) for n, a in exported.items()} == {
        n: (tuple(a.shape), str(a.numpy().dtype)) for n, a in other.state_dict().items()
    }
    assert list(exported) == list(other.state_dict())
    other.load_state_dict({name: torch.from_numpy(array) for name, array in exported.items()}, strict=True)
