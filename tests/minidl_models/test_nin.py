"""NIN against its paper's tables and independent counts."""

import numpy as np
import pytest

import minidl as md
import minidl_models
from minidl.inspection import layer_rows
from minidl_models import nin

# data set: parameters, multiply-adds, and the output (H, W, C) after each block, counted by hand from the
# authors' definition files
COUNTS = {
    "cifar10": (966_986, 222_486_528, [(16, 16, 96), (8, 8, 192), (8, 8, 10)]),
    "cifar100": (984_356, 223_592_448, [(16, 16, 96), (8, 8, 192), (8, 8, 100)]),
    "svhn": (1_986_026, 274_235_392, [(16, 16, 64), (8, 8, 128), (8, 8, 10)]),
    "mnist": (349_674, 50_699_712, [(14, 14, 48), (7, 7, 48), (7, 7, 10)]),
    "digits": (349_674, 50_699_712, [(14, 14, 48), (7, 7, 48), (7, 7, 10)]),
}


@pytest.mark.parametrize("dataset", COUNTS)
@pytest.mark.parametrize("pool", ["pad1", "ceil"])
def test_parameters_multiply_adds_and_shapes(dataset: str, pool: str):
    params, macs, outputs = COUNTS[dataset]
    model = nin(dataset, pool=pool)
    rows = layer_rows(model, model.input_shape)
    assert sum(p.size for p in model.parameters()) == params
    assert sum(row.macs for row in rows) == macs
    blocks = {row.path: row.output for row in rows}
    assert [blocks[f"features.{name}"] for name in ("pool1", "pool2", "cccp3_2")] == outputs
    assert rows[-1].output == (model.num_classes,)


def test_every_convolution_ends_in_a_relu_the_last_one_included():
    convs = [m for m in nin().modules() if isinstance(m, md.nn.Conv2d)]
    assert [c.activation for c in convs] == ["relu"] * 9
    assert [c.out_channels for c in convs] == [192, 160, 96, 192, 192, 192, 192, 192, 10]


def test_dropout_follows_the_pools_and_is_a_module():
    names = list(nin().features.state_dict())
    order = [type(m).__name__ for m in nin().features.children()]
    assert (
        order
        == ["Conv2d"] * 3
        + ["MaxPool2d", "Dropout"]
        + ["Conv2d"] * 3
        + ["MaxPool2d", "Dropout"]
        + ["Conv2d"] * 3
    )
    assert names[0] == "conv1.weight"


def test_batch_norm_is_an_option_that_replaces_the_biases():
    model = nin(batch_norm=True)
    kinds = [type(m).__name__ for m in model.modules()]
    assert kinds.count("BatchNorm2d") == 8
    biases = [m.bias is None for m in model.modules() if isinstance(m, md.nn.Conv2d)]
    assert biases == [True] * 8 + [False]


def test_every_parameter_gets_a_finite_gradient():
    model = nin("mnist")
    x = md.tensor(np.random.default_rng(0).standard_normal((2, 28, 28, 1), dtype=np.float32))
    md.ops.cross_entropy(model(x), np.array([1, 2])).backward()
    for name, p in model.named_parameters():
        assert np.isfinite(p.grad.data).all(), name
        assert p.grad.data.any(), name


def test_other_classes_and_channels():
    model = nin(num_classes=7, in_channels=1)
    assert model.input_shape == (32, 32, 1)
    assert model(md.tensor(np.zeros((1, 32, 32, 1), np.float32))).shape == (1, 7)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dataset": "imagenet"}, "dataset is 'imagenet'; the networks are for cifar10, cifar100"),
        ({"pool": "same"}, "pool is 'same'; it may be 'pad1' or 'ceil'"),
        ({"aux": True}, "no auxiliary classifiers"),
    ],
)
def test_bad_arguments(options: dict, text: str):
    with pytest.raises(ValueError, match=text):
        nin(**options)


def test_the_register():
    assert "nin" in minidl_models.names()
    assert minidl_models.create("nin", dataset="mnist").num_classes == 10
    with pytest.raises(ValueError, match="there is no model 'lenet'; the models are alexnet, nin"):
        minidl_models.create("lenet")
    with pytest.raises(
        ValueError, match="nin takes no argument 'depth'; its arguments are dataset, num_classes"
    ):
        minidl_models.create("nin", depth=3)
