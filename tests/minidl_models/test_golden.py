"""Every network of the zoo against the golden table, and what every network must do.

The table is tests/peers/reference_counts.json, counted on other implementations. Nobody can add a model or a
variant without a row in it: the tests enumerate the register.
"""

import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl as md
import minidl_models
import networks
from minidl import nn
from minidl.errors import ShapeError
from minidl.inspection import layer_rows
from networks import Network
from quick import quick_draws

REFERENCE = networks.reference()["models"]
ROWS = networks.rows()
ZOO = [(name, label) for name in minidl_models.names() for label in minidl_models.entry(name).variants]


def over(networks_: Iterable[Network]) -> pytest.MarkDecorator:
    """A test for each of the networks."""
    listed = list(networks_)
    return pytest.mark.parametrize(
        ("name", "label"), listed, ids=[f"{name}-{label}" for name, label in listed]
    )


each_network = over(ZOO)

# parameters in front of a batch norm, or of a linear layer and one, which takes their effect away again
ZERO_GRADIENTS = json.loads((Path(__file__).parent / "zero_gradients.json").read_text(encoding="utf-8"))


# Rounding leaves up to 5e-5 of a gradient that is zero; those that are not are 1e-2 or more (of the layer's).
NOISE = 1e-3


@pytest.fixture(autouse=True)
def _quick_draws() -> Iterator[None]:
    with quick_draws():
        yield


def build(name: str, label: str, **arguments: Any) -> Any:
    """The network, without auxiliary classifiers unless the arguments ask for them."""
    return minidl_models.create(name, **minidl_models.entry(name).variants[label], **arguments)


def rows_of(network: Network) -> dict[str, Any]:
    """The rows of the golden table for a network: of itself, or of the one with the same layers."""
    network = networks.same_counts().get(network, network)
    return {
        row: REFERENCE[row] for row, described in ROWS.items() if described == network and row in REFERENCE
    }


# Four hundred megabytes of the same fully connected layers: two of each family stand for all in what follows.
HEAVY = [network for network in ZOO if network[0].startswith(("alexnet", "vgg"))]
STANDING = [
    ("alexnet", "paper"),
    ("alexnet", "one_weird_trick"),
    ("vgg11", "plain"),
    ("vgg16", "batch_norm=true"),
]
LIGHTER = [network for network in ZOO if network not in HEAVY or network in STANDING]
each_lighter_network = over(LIGHTER)


def images(n: int, size: int, channels: int, seed: int = 0) -> md.Tensor:
    rng = np.random.default_rng(seed)
    return md.tensor(rng.standard_normal((n, size, size, channels), dtype=np.float32))


def test_every_row_is_met_by_a_network_and_every_network_has_a_row() -> None:
    assert sorted(ROWS) == sorted(REFERENCE)
    assert [network for network in ROWS.values() if network not in ZOO] == []
    assert [network for network in ZOO if not rows_of(network)] == []


def test_what_has_no_row_is_seen() -> None:
    assert rows_of(("nin", "imagenet")) == {}


def test_the_list_of_zero_gradients_names_networks() -> None:
    assert [key for key in ZERO_GRADIENTS if tuple(key.split(" ")) not in ZOO] == []


def outputs(model: Any, run: Callable[[], Any]) -> tuple[dict[str, list[int]], Any]:
    """Path -> shape without N, as the reference has it (C, H, W), of everything that runs in `run()`."""
    shapes = {}

    def note(path: str) -> Callable[..., None]:
        return lambda module, inputs, y: shapes.update({path: _channels_first(y)})

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules()]
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    return shapes, result


def _channels_first(output: Any) -> list[int]:
    _, *size, c = (output[0] if isinstance(output, tuple) else output).shape
    return [c, *size]


def check_stages(row: dict[str, Any], shapes: dict[str, list[int]]) -> None:
    """Stages by name where the row was counted on a twin, and in their order where on another library."""
    if row["source"] in ("own", "tf-slim"):
        for name, shape in row["stages"].items():
            assert shapes.get(name, shapes.get(f"features.{name}")) == shape, name
        return
    remaining = iter(shapes.values())
    for name, shape in row["stages"].items():
        assert shape in remaining, name  # `in` moves the iterator on


def check_costs_of_stages(row: dict[str, Any], layers: Sequence[Any]) -> None:
    """Parameters and multiply-adds of each stage, for rows counted on a twin."""
    if row["source"] not in ("own", "tf-slim"):
        return
    for name, costs in row["stage_params_macs"].items():
        inside = [
            layer for layer in layers if f"{layer.path}.".removeprefix("features.").startswith(f"{name}.")
        ]
        assert [sum(layer.params for layer in inside), sum(layer.macs for layer in inside)] == costs, name


@each_network
def test_parameters_multiply_adds_and_shapes(name: str, label: str) -> None:
    with nn.init.blank():
        model = build(name, label)
    shapes, layers = outputs(model, lambda: layer_rows(model, model.input_shape))
    for title, row in rows_of((name, label)).items():
        c, h, w = row["input"]
        assert model.input_shape == (h, w, c), title
        main = [p.size for path, p in model.named_parameters() if not path.startswith("aux")]
        assert sum(main) == row["params"], title
        assert sum(layer.macs for layer in layers) == pytest.approx(row["macs"], rel=1e-3), title
        weights = [layer for layer in layers if layer.kind in ("Conv2d", "Linear")]
        assert len(weights) == row["conv_and_linear_layers"], title
        check_stages(row, shapes)
        check_costs_of_stages(row, layers)


WITH_HEADS = [network for network in ZOO if any(row["params_aux"] for row in rows_of(network).values())]


@over(WITH_HEADS)
def test_auxiliary_classifiers_have_their_counts_and_learn(name: str, label: str) -> None:
    model = build(name, label, aux=True)
    (row,) = [row for row in rows_of((name, label)).values() if row["source"] in ("own", "tf-slim")]
    params = macs = 0
    for head, at in model._heads.items():
        c, h, w = row["stages"][at]
        module = getattr(model, head)
        params += sum(p.size for p in module.parameters())
        macs += sum(layer.macs for layer in layer_rows(module, (h, w, c)))
        logits = module(images(4, h, c))
        assert logits.shape == (4, 1000)
        md.ops.cross_entropy(logits, np.arange(4)).backward()
        check_gradients(module, [])
    assert (params, macs) == (row["params_aux"], row["macs_aux"])


@pytest.mark.parametrize("name", list(dict.fromkeys(name for name, _ in WITH_HEADS)))
def test_auxiliary_logits_come_out_in_training_alone(name: str) -> None:
    with nn.init.blank():
        model = build(name, next(iter(minidl_models.entry(name).variants)), aux=True, num_classes=7)
    x = images(2, model.head_sizes[0], 3)
    with md.no_grad():
        logits, auxiliary = model.train()(x)
        assert isinstance(auxiliary, tuple)
        assert [y.shape for y in (logits, *auxiliary)] == [(2, 7)] * (1 + len(model._heads))
        assert model.eval()(x).shape == (2, 7)


def check_gradients(module: nn.Module, zero: Sequence[str]) -> None:
    """Finite gradients of everything; none is zero but those that match a pattern in `zero`, which are.

    What is measured is a parameter's largest gradient in that of its layer.
    """
    for path, layer in module.named_modules():
        own = {f"{path}.{name}": p for name, p in vars(layer).items() if isinstance(p, nn.Parameter)}
        sizes = {name: float(np.abs(p.grad.data).max()) for name, p in own.items()}
        assert not sizes or max(sizes.values()) > 0, path
        for name, size in sizes.items():
            assert np.isfinite(own[name].grad.data).all(), name
            vanishes = any(fnmatch.fnmatch(name, pattern) for pattern in zero)
            assert (size < NOISE * max(sizes.values())) == vanishes, name


def small(model: Any) -> int:
    """A size at which a batch norm sees more than one pixel everywhere."""
    return min(model.input_shape[0], max(64, 3 * (model.smallest or 1) // 2))


@each_lighter_network
def test_every_parameter_has_a_gradient(name: str, label: str) -> None:
    model = build(name, label, num_classes=10, **without_heads(name, label))
    x = images(2, small(model), model.input_shape[2])
    md.ops.cross_entropy(model(x), np.array([1, 2])).backward()
    check_gradients(model, ZERO_GRADIENTS.get(f"{name} {label}", []))


def without_heads(name: str, label: str) -> dict[str, Any]:
    return {"aux": False} if (name, label) in WITH_HEADS else {}


# Variants are arguments, saved and read alike: the first of each model stands for the others.
@over(
    network for i, network in enumerate(ZOO) if network not in HEAVY[1:-2] and network[0] not in dict(ZOO[:i])
)
def test_a_saved_network_gives_the_same_logits(name: str, label: str, tmp_path: Path) -> None:
    model = build(name, label, num_classes=10, **without_heads(name, label))
    x = images(1, small(model), model.input_shape[2])
    for parameter in model.parameters():  # as if trained: what starts alike would hide what is lost
        parameter.data[...] = 0.9 * parameter.data + 1e-4
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean[:] = np.linspace(-0.1, 0.1, module.num_features)
            module.running_var[:] = np.linspace(2, 8, module.num_features)
    path = tmp_path / "model.safetensors"
    with md.no_grad():
        logits = model.eval()(x).numpy()
        np.testing.assert_array_equal(model(x).numpy(), logits)
        model.save(path)
        loaded = md.Model.load(path)
        path.unlink()  # up to half a gigabyte, which pytest would keep
        np.testing.assert_array_equal(loaded.eval()(x).numpy(), logits)
    assert np.isfinite(logits).all()
    assert loaded.config == model.config


@pytest.mark.parametrize("name", [name for name in minidl_models.names() if name != "nin"])  # of one size
def test_images_may_be_as_small_as_the_network_says_and_no_smaller(name: str) -> None:
    with nn.init.blank():
        model = build(name, next(iter(minidl_models.entry(name).variants)), num_classes=10).eval()
    with md.no_grad():
        assert model(images(1, model.smallest, model.input_shape[2])).shape == (1, 10)
        if model.smallest > 1:
            with pytest.raises(ShapeError, match=f"smallest this network takes are {model.smallest}x"):
                model(images(1, model.smallest - 1, model.input_shape[2]))
