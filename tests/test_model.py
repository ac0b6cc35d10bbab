"""Saving, loading and describing models."""

import copy
from pathlib import Path

import numpy as np
import pytest

import minidl as md
import minidl_models
from minidl import nn, streams
from minidl.errors import CheckpointError
from minidl.io import load_arrays, save_arrays


class Own(md.Model):
    def __init__(self, width: int, *, act: str = "relu") -> None:
        self.conv = nn.Conv2d(3, width, 3, activation=act)
        self.gap = nn.GlobalAvgPool()

    def forward(self, x: md.Tensor) -> md.Tensor:
        return self.gap(self.conv(x))


def assert_same(a: md.Model, b: md.Model) -> None:
    assert a.config == b.config
    mine, theirs = a.state_dict(), b.state_dict()
    assert list(mine) == list(theirs)
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name])
        assert mine[name].dtype == theirs[name].dtype


def test_a_zoo_model_is_loaded_by_name(tmp_path: Path):
    model = minidl_models.nin("mnist", num_classes=4, batch_norm=True)
    model.preprocess = {"mean": [0.5], "std": [0.1]}
    model.save(tmp_path / "m.safetensors")
    loaded = md.Model.load(tmp_path / "m.safetensors")
    assert_same(model, loaded)
    assert loaded.config == {
        "name": "nin",
        "arguments": {"dataset": "mnist", "num_classes": 4, "batch_norm": True},
    }
    assert loaded.preprocess == {"mean": [0.5], "std": [0.1]}


def test_ones_own_class_loads_through_itself(tmp_path: Path):
    model = Own(4, act="relu")
    model.save(tmp_path / "own.safetensors")
    assert_same(model, Own.load(tmp_path / "own.safetensors"))
    with pytest.raises(
        CheckpointError,
        match=r"holds a Own, which is not in the zoo; load it with its own class: Own\.load\(path\)",
    ):
        md.Model.load(tmp_path / "own.safetensors")


def test_loading_the_wrong_class(tmp_path: Path):
    minidl_models.nin("mnist").save(tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="holds a nin, not a Own"):
        Own.load(tmp_path / "m.safetensors")


def test_float64_survives(tmp_path: Path):
    model = Own(2).to(dtype="float64")
    model.save(tmp_path / "m")
    assert_same(model, Own.load(tmp_path / "m"))


def test_a_file_that_is_no_model(tmp_path: Path):
    md.io.save_arrays(tmp_path / "x", {"a": np.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="holds no model"):
        md.Model.load(tmp_path / "x")


def test_arguments_that_are_no_plain_data_cannot_be_saved(tmp_path: Path):
    with pytest.raises(TypeError, match="the arguments Own was built with must be numbers, strings"):
        Own(np.int64(4)).save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


class Open(md.Model):
    def __init__(self, width: int, **options: int) -> None:
        self.conv = nn.Conv2d(3, width + options["extra"], 3)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return self.conv(x)


def test_keyword_options_are_remembered_by_name():
    model = Open(2, extra=1)
    assert model.config["arguments"] == {"width": 2, "extra": 1}
    model.reset()


def test_a_model_can_be_copied():
    model = minidl_models.nin("mnist")
    twin = copy.deepcopy(model)
    twin.features.conv1.weight.data[:] = 0
    assert model.features.conv1.weight.data.any()
    assert twin.config == model.config


def test_a_missing_argument_is_pythons_own_error():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'width'"):
        Own()


def test_loading_does_not_move_the_random_streams(tmp_path: Path):
    minidl_models.nin("mnist").save(tmp_path / "m")
    before = streams.get_state()
    md.Model.load(tmp_path / "m")
    assert streams.get_state() == before


def test_summary_lists_every_layer_and_restores_the_mode():
    model = Own(4)
    text = model.summary((8, 9, 3))
    assert "conv   Conv2d         3x3/1/0            6x7x4          112          4,536" in text
    assert text.splitlines()[-1].split() == ["total", "112", "4,536"]
    assert model.training
    assert "_forward_hooks" not in vars(model) or not vars(model)["_forward_hooks"]


def test_summary_needs_a_shape():
    with pytest.raises(md.errors.ShapeError, match="no input_shape"):
        Own(4).summary()


def rewritten(path: Path, **changes: object) -> Path:
    """The file with another description, and a checksum that fits: what only a person can make."""
    arrays, description = load_arrays(path)
    save_arrays(path, arrays, {**description, **changes})
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    minidl_models.nin("mnist").save(tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


@pytest.mark.parametrize(("changes", "text"), [
    ({"model": None}, "m.safetensors does not describe a model that can be built"),
    ({"model": {"name": "nin"}}, "it has no 'arguments'"),
    ({"model": {"name": "nin", "arguments": []}}, "it does not say which model, built with which arguments"),
    ({"model": {"name": ["nin"], "arguments": {}}}, "it does not say which model"),
    ({"model": {"name": "n\x1b[2J", "arguments": {}}}, r"holds a 'n\\x1b\[2J', which is not in the zoo"),
    ({"model": {"name": "nin", "arguments": {"size": 3}}}, "m.safetensors .*takes no argument 'size'"),
    ({"model": {"name": "nin", "arguments": {"num_classes": 10**8}}}, "more than the file of the network"),
    ({"model": {"name": "nin", "arguments": {"num_classes": -3}}}, "does not describe a model"),
    ({"model": {"name": "nin", "arguments": {"dataset": "cifar10"}}}, "m.safetensors: .*has shape"),
    ({"preprocess": [1]}, "preprocess is a list, not a table"),
    ({"preprocess": {"rotate": 90}}, "unknown key 'rotate'"),
    ({"preprocess": {"resize": [10**9, 10**9]}}, r"resize is \[1000000000, 1.*, which makes no sense"),
    ({"preprocess": {"crop": "all"}}, "crop is all, which makes no sense"),
    ({"preprocess": {"mean": "grey"}}, "mean is grey, which makes no sense"),
    ({"preprocess": {"lcn": {"size": 10**9}}}, "lcn is .* which makes no sense"),
    ({"preprocess": {"zca": {}}}, "zca is {}, which makes no sense"),
])  # fmt: skip
def test_a_description_that_makes_no_sense(saved: Path, changes: dict, text: str):
    random = streams.get_state()
    with pytest.raises(CheckpointError, match=text):
        md.Model.load(rewritten(saved, **changes))
    assert streams.get_state() == random


def test_blank_networks_have_a_limit():
    with nn.init.blank(4 * 30):
        nn.Linear(5, 1)
        with pytest.raises(ValueError, match=r"weights of shape \(5, 5\) are more than the file"):
            nn.Linear(5, 5)
    assert nn.Linear(100, 100).weight.data.any()
