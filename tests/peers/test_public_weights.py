"""Files of weights under timm's and torchvision's names give the twin's logits; exporting gives them back.

The files are written by PyTorch and safetensors, with the twins' random weights and the names and shapes of
name_maps.json, which were read off timm 1.0.31 and torchvision 0.28. Skipped without PyTorch.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl_models
import networks
from networks import Network
from quick import quick_draws

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")

from safetensors.torch import save_file  # noqa: E402

import twins  # noqa: E402

MAPS = json.loads((networks.FOLDER / "name_maps.json").read_text(encoding="utf-8"))

# the map in name_maps.json, the layout, the network, and whether the file has its auxiliary heads
FILES = [
    ("inception_v4", "timm", ("inception_v4", "tf"), False),
    ("inception_resnet_v2", "timm", ("inception_resnet_v2", "tf"), False),
    ("inception_v3(timm)", "timm", ("inception_v3", "torchvision"), False),
    ("resnet18", "timm", ("resnet18", "v1.5"), False),
    ("resnet50(timm)", "timm", ("resnet50", "v1.5"), False),
    ("preact18(timm)", "timm", ("preact_resnet18", "v1.5"), False),
    ("preact50(timm)", "timm", ("preact_resnet50", "v1.5"), False),
    ("googlenet", "torchvision", ("googlenet", "torchvision"), True),
    ("inception_v3", "torchvision", ("inception_v3", "torchvision"), True),
    ("vgg11", "torchvision", ("vgg11", "plain"), False),
    ("vgg16_bn", "torchvision", ("vgg16", "batch_norm=true"), False),
    ("alexnet", "torchvision", ("alexnet", "one_weird_trick"), False),
    ("resnet18", "torchvision", ("resnet18", "v1.5"), False),
    ("resnet34", "torchvision", ("resnet34", "v1.5"), False),
    ("resnet50", "torchvision", ("resnet50", "v1.5"), False),
]


def public_state(twin: Any, title: str) -> dict[str, Any]:
    """The twin's weights under the public names and in the public shapes."""
    state, own = {}, twin.state_dict()
    for path, public, kind, shape, *_ in MAPS[title]:
        names = ("weight", "bias")
        if kind == "bn":
            names += ("running_mean", "running_var", "num_batches_tracked")
        for name in names:
            if f"{path}.{name}" in own:
                value = own[f"{path}.{name}"]
                state[f"{public}.{name}"] = (value.reshape(shape) if name == "weight" else value).clone()
    return state


def write(state: dict[str, Any], layout: str, folder: Path) -> Path:
    """A .safetensors file for timm, a .pth file for torchvision."""
    if layout == "timm":
        path = folder / "model.safetensors"
        save_file(state, path)
    else:
        path = folder / "model.pth"
        torch.save(state, path)
    return path


def create(network: Network, *, heads: bool) -> Any:
    name, label = network
    aux = {} if heads else {"aux": False}
    with quick_draws():
        return minidl_models.create(name, **minidl_models.entry(name).variants[label], **aux)


@pytest.mark.parametrize(
    ("title", "layout", "network", "heads"), FILES, ids=[f"{f[0]}-{f[1]}" for f in FILES]
)
def test_a_public_file_gives_the_logits_of_the_twin(
    title: str, layout: str, network: Network, heads: bool, tmp_path: Path
) -> None:
    _, twin = twins.build_pair(*network)
    state = public_state(twin, title)
    path = write(state, layout, tmp_path)
    net = create(network, heads=heads)
    report = net.load_weights(path, layout=layout)
    path.unlink()  # up to half a gigabyte, which pytest would keep
    assert (report.missing, report.unexpected) == ([], [])
    floats = {name: value.numpy() for name, value in state.items() if "num_batches" not in name}
    assert sorted(report.loaded) == sorted(floats)
    assert twins.eval_deviation(net, twin, twins.training_size(net), "float32") <= twins.BOUNDS.eval32

    exported = net.export_weights(layout=layout)
    for name, value in floats.items():
        np.testing.assert_array_equal(exported[name], value, strict=True)
    assert set(exported) - set(floats) == {name for name in state if "num_batches" in name}
    again = create(network, heads=heads)
    again.load_weights(exported, layout=layout)
    assert again.preprocess == net.preprocess
    for (name, value), (_, copy) in zip(net.state_dict().items(), again.state_dict().items(), strict=True):
        np.testing.assert_array_equal(copy, value, err_msg=name)


@pytest.mark.parametrize("title", ["googlenet", "inception_v3"])
def test_without_auxiliary_heads_theirs_are_passed_over(title: str) -> None:
    _, twin = twins.build_pair(title, "torchvision")
    state = {name: value.numpy() for name, value in public_state(twin, title).items()}
    net = create((title, "torchvision"), heads=False)
    report = net.load_weights(state, layout="torchvision")
    assert (report.missing, report.unexpected) == ([], [])
    assert twins.eval_deviation(net, twin, 80, "float32") <= twins.BOUNDS.eval32
