"""What the arguments of the Inception networks do.

Counts are compared in test_golden.py and values with PyTorch's in tests/peers; here are sizes, heads and
errors. Most need no arithmetic: `shapes_only` replaces convolutions by their geometry.
"""

import json
from functools import partial

import numpy as np
import pytest

import minidl as md
import minidl_models
from minidl import nn
from minidl.errors import ShapeError
from minidl.window import window
from minidl_models.blocks import Residual, Style, initialize
from minidl_models.inception_v2_v3 import bn_auxiliary
from quick import quick_draws

# model, variant: the fewest rows and columns
SMALLEST = {
    ("googlenet", "paper"): 31,
    ("googlenet", "torchvision"): 15,
    ("googlenet", "tf"): 15,
    ("bn_inception", "paper"): 7,
    ("bn_inception", "caffe"): 7,
    ("bn_inception", "tf"): 7,
    ("inception_v2", "table1"): 75,
    ("inception_v3", "tf"): 75,
    ("inception_v3", "torchvision"): 75,
    ("inception_v3", "fid"): 75,
    ("inception_v4", "tf"): 75,
    ("inception_v4", "paper"): 75,
    ("inception_resnet_v1", "paper"): 75,
    ("inception_resnet_v1", "facenet"): 75,
    ("inception_resnet_v2", "tf"): 75,
    ("inception_resnet_v2", "paper"): 75,
}


@pytest.fixture
def cheap_weights():
    """Numbers for weights that cost little."""
    with quick_draws():
        yield


@pytest.fixture
def no_weights():
    """All weights 0, at no cost."""
    with nn.init.blank():
        yield


@pytest.fixture
def shapes_only(no_weights, monkeypatch):
    """Convolutions yield zeros of the right shape, and normalisations their input."""

    def conv2d(x, weight, bias=None, *, stride, padding, dilation, groups, activation):
        n, h, w, c = x.shape
        kh, kw, c_group, f = weight.shape
        assert c == c_group * groups
        oh, ow = window("conv2d", (h, w), (kh, kw), stride=stride, padding=padding, dilation=dilation).output
        return zeros(n, oh, ow, f)

    monkeypatch.setattr(md.ops, "conv2d", conv2d)
    monkeypatch.setattr(md.ops, "batch_norm", lambda x, *parameters, **options: x)
    monkeypatch.setattr(md.ops, "local_response_norm", lambda x, size, **options: x)


def zeros(*shape: int) -> md.Tensor:
    return md.tensor(np.zeros(shape, np.float32))


def images(*shape: int) -> md.Tensor:
    return md.tensor(np.random.default_rng(1).standard_normal(shape, dtype=np.float32))


@pytest.mark.usefixtures("shapes_only")
@pytest.mark.parametrize(("name", "variant"), SMALLEST)
def test_the_smallest_image(name, variant):
    net = minidl_models.create(name, variant=variant, num_classes=3).eval()
    least = SMALLEST[name, variant]
    assert net(zeros(1, least, least, 3)).shape == (1, 3)
    with pytest.raises(
        ShapeError, match=f"{name}: x of shape .* smallest this network takes are {least}x{least}"
    ):
        net(zeros(1, least - 1, least + 20, 3))
    net.smallest = 1  # a layer must object, or `smallest` is too large
    with pytest.raises(ShapeError, match="does not fit into H"):
        net(zeros(1, least - 1, least + 20, 3))
    for h in range(least + 1, least + 33, 6):
        assert net(zeros(1, h, 2 * least + 32 - h, 3)).shape == (1, 3)


@pytest.mark.usefixtures("cheap_weights")
@pytest.mark.parametrize(("name", "variant"), SMALLEST)
def test_a_batch_of_one_in_evaluation(name, variant):
    net = minidl_models.create(name, variant=variant, num_classes=3, in_channels=1).eval()
    least = SMALLEST[name, variant]
    x = images(1, least + 1, least, 1)
    with md.no_grad():
        y = net(x).numpy()
    assert y.shape == (1, 3)
    assert y.dtype == np.float32
    assert np.isfinite(y).all()
    assert y.any()


@pytest.mark.parametrize("arguments", [{"variant": "torchvision"}, {"variant": "tf"}])
def test_training_reaches_every_parameter(arguments):
    net = minidl_models.googlenet(num_classes=4, **arguments)
    output = net(images(3, 40, 33, 3))
    logits, heads = output if isinstance(output, tuple) else (output, ())
    assert len(heads) == (2 if arguments["variant"] == "torchvision" else 0)
    labels = np.array([1, 2, 3])
    loss = md.ops.cross_entropy(logits, labels)
    for head in heads:
        assert head.shape == (3, 4)
        loss = loss + md.ops.cross_entropy(head, labels) * net.aux_weight
    loss.backward()
    for path, parameter in net.named_parameters():
        assert parameter.grad is not None, path
        assert np.isfinite(parameter.grad.data).all(), path


@pytest.mark.usefixtures("shapes_only")
@pytest.mark.parametrize(
    ("name", "size", "heads"),
    [
        ("googlenet", 224, 2),
        ("inception_v2", 299, 1),
        ("inception_v3", 299, 1),
        ("inception_v4", 299, 1),
        ("inception_resnet_v2", 299, 1),
    ],
)
def test_auxiliary_classifiers_answer_in_training_alone(name, size, heads):
    net = minidl_models.create(name, num_classes=5, aux=True)
    x = zeros(1, size, size, 3)
    logits, auxiliary = net.train()(x)
    assert logits.shape == (1, 5)
    assert isinstance(auxiliary, tuple)
    assert [head.shape for head in auxiliary] == [(1, 5)] * heads
    assert net.eval()(x).shape == (1, 5)
    assert net.aux_weight == (0.3 if name == "googlenet" else 0.4)
    without = minidl_models.create(name, num_classes=5, aux=False)
    assert not any(path.startswith("aux") for path, _ in without.named_children())
    default = any(
        path.startswith("aux") for path, _ in minidl_models.create(name, num_classes=5).named_children()
    )
    assert default == (name not in ("inception_v4", "inception_resnet_v2"))


@pytest.mark.usefixtures("shapes_only")
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("googlenet", 223, 270),
        ("inception_v2", 299, None),
        ("inception_v3", 299, None),
        ("inception_v4", 299, None),
    ],
)
def test_the_sizes_auxiliary_classifiers_take(name, least, most):
    net = minidl_models.create(name, num_classes=5, aux=True)
    for size in (least, most or least + 3):
        assert net(zeros(1, size, size, 3))[0].shape == (1, 5)
    limit = f"{least}x{least} to {most}x{most}" if most else f"{least}x{least} or more"
    for size in (least - 1, *([most + 1] if most else [])):
        with pytest.raises(ShapeError, match=f"auxiliary classifiers take {limit} in training; .* aux=False"):
            net(zeros(1, size, least, 3))
        assert net.eval()(zeros(1, size, least, 3)).shape == (1, 5)
        net.train().head_sizes = (1, None)  # a layer must object, or `head_sizes` is too narrow
        with pytest.raises(ShapeError):
            net(zeros(1, size, least, 3))
        net.head_sizes = (least, most)


@pytest.mark.usefixtures("shapes_only")
@pytest.mark.parametrize("variant", ["paper", "tf"])
def test_where_bn_inception_halves_odd_sizes_pools_and_convolutions_agree(variant):
    net = minidl_models.bn_inception(num_classes=3, variant=variant).eval()
    sizes = {}
    for stage in ("inc3b", "inc3c", "inc4e"):
        getattr(net, stage).register_forward_hook(
            lambda m, i, y, stage=stage: sizes.update({stage: y.shape[1]})
        )
    net(zeros(1, 70, 70, 3))
    assert sizes == {"inc3b": 8, "inc3c": 4, "inc4e": 2}
    net(zeros(1, 75, 75, 3))
    assert sizes == {"inc3b": 9, "inc3c": 5, "inc4e": 3}


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("googlenet", {"variant": "caffe"}, "variant is 'caffe'; it may be 'paper' or 'torchvision' or 'tf'"),
        ("bn_inception", {"variant": "v2"}, "variant is 'v2'; it may be 'paper' or 'caffe' or 'tf'"),
        ("inception_v2", {"variant": "tf"}, "variant is 'tf'; it may be 'table1'"),
        ("inception_v3", {"variant": "paper"}, "it may be 'tf' or 'torchvision' or 'fid'"),
        ("inception_v4", {"variant": "timm"}, "it may be 'tf' or 'paper'"),
        ("inception_resnet_v1", {"variant": "tf"}, "it may be 'paper' or 'facenet'"),
        ("inception_resnet_v2", {"variant": "timm"}, "it may be 'tf' or 'paper'"),
        (
            "googlenet",
            {"variant": "tf", "aux": True},
            "googlenet, variant='tf': aux=True, but this network has no",
        ),
        (
            "bn_inception",
            {"aux": True},
            "bn_inception: aux=True, but this network has no auxiliary classifiers",
        ),
        ("inception_resnet_v1", {"aux": True}, "no auxiliary classifiers"),
        ("inception_v2", {"c7": ()}, "c7 is empty"),
        ("inception_resnet_v1", {"scales": (0.1, 0.2)}, "scales is .*; give one number, or three"),
        ("inception_resnet_v2", {"scales": ()}, "scales is .*; give one number, or three"),
    ],
)
def test_bad_arguments(name, arguments, text):
    with pytest.raises(ValueError, match=text):
        minidl_models.create(name, **arguments)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("inception_resnet_v1", {}, [0.17] * 5 + [0.10] * 10 + [0.20] * 5),
        ("inception_resnet_v1", {"variant": "facenet", "scales": 1}, [1] * 21),
        ("inception_resnet_v2", {}, [0.17] * 10 + [0.10] * 20 + [0.20] * 9 + [1]),
        (
            "inception_resnet_v2",
            {"variant": "paper", "scales": [0.1, 0.2, 0.3]},
            [0.1] * 5 + [0.2] * 10 + [0.3] * 5,
        ),
    ],
)
def test_scales_of_the_residuals(name, arguments, expected):
    net = minidl_models.create(name, num_classes=2, **arguments)
    residuals = [module for module in net.modules() if isinstance(module, Residual)]
    assert [module.scale for module in residuals] == expected
    linear = [not module.relu for module in residuals]
    last = len(expected) in (21, 40)  # the block that "facenet" and "tf" add
    assert linear == [False] * (len(expected) - last) + [True] * last


@pytest.mark.usefixtures("no_weights")
def test_what_the_variants_of_a_network_do_differently():
    def find(kind, name, **arguments):
        net = minidl_models.create(name, num_classes=2, **arguments)
        return [(path, module) for path, module in net.named_modules() if isinstance(module, kind)]

    def dropout(name, **arguments):
        return {path: module.p for path, module in find(nn.Dropout, name, **arguments)}

    assert dropout("googlenet") == {"head.drop": 0.4, "aux1.drop": 0.7, "aux2.drop": 0.7}
    assert dropout("googlenet", variant="torchvision") == {
        "head.drop": 0.2,
        "aux1.drop": 0.7,
        "aux2.drop": 0.7,
    }
    assert dropout("inception_v3") == {"head.drop": 0.2}
    assert dropout("inception_v3", variant="torchvision") == {"head.drop": 0.5}
    for variant, counted, last in (
        ("tf", False, nn.AvgPool2d),
        ("torchvision", True, nn.AvgPool2d),
        ("fid", False, nn.MaxPool2d),
    ):
        pools = find((nn.AvgPool2d, nn.MaxPool2d), "inception_v3", variant=variant, aux=False)
        assert isinstance(pools[-1][1], last)
        assert all(p.count_include_pad == counted for _, p in pools if isinstance(p, nn.AvgPool2d))
    strided = {
        variant: {m.padding for _, m in find(nn.Conv2d, "bn_inception", variant=variant) if m.stride == 2}
        for variant in ("paper", "caffe", "tf")
    }
    assert strided == {"paper": {(3, 3), (1, 1)}, "caffe": {(3, 3), (1, 1)}, "tf": {"same"}}
    eps = {
        variant: {m.eps for _, m in find(nn.BatchNorm2d, "bn_inception", variant=variant)}
        for variant in strided
    }
    assert eps == {"paper": {1e-3}, "caffe": {1e-5}, "tf": {1e-3}}
    biased = {
        variant: sum(m.bias is not None for _, m in find(nn.Conv2d, "bn_inception", variant=variant))
        for variant in strided
    }
    assert biased == {"paper": 0, "caffe": 69, "tf": 1}


def test_the_paper_googlenet_starts_as_caffes():
    net = minidl_models.googlenet(num_classes=10)
    weight = net.conv2.weight.data
    bound = np.sqrt(3 / (9 * 64))
    assert 0.99 * bound < np.abs(weight).max() <= bound
    biases = {path: set(p.data.tolist()) for path, p in net.named_parameters() if path.endswith("bias")}
    last = {"head.fc.bias", "aux1.fc2.bias", "aux2.fc2.bias"}
    assert {path for path, values in biases.items() if values == {0.0}} == last
    assert {path for path, values in biases.items() if values == {float(np.float32(0.2))}} == set(
        biases
    ) - last


def test_the_others_start_truncated_normal():
    def spread(module):
        return np.abs(module.weight.data).max() / module.weight.data.std()

    net = minidl_models.googlenet(num_classes=10, variant="torchvision", aux=False)
    assert np.abs(net.conv2.conv.weight.data).max() == pytest.approx(0.02, rel=0.01)
    conv = minidl_models.bn_inception(num_classes=10).conv2.conv
    assert conv.weight.data.var() == pytest.approx(2 / (9 * 64), rel=0.02)
    assert spread(conv) == pytest.approx(2 / 0.8796, rel=0.01)
    head = bn_auxiliary(Style(), 768, 10)
    assert np.abs(head.conv1.conv.weight.data).max() == pytest.approx(0.02, rel=0.01)
    assert np.abs(head.fc.weight.data).max() == pytest.approx(0.002, rel=0.01)


def test_initialize_draws_what_it_is_given_functions_for():
    net = nn.Sequential(Style(batch_norm=False).conv(2, 3), nn.BatchNorm2d(3), nn.Linear(3, 2))
    conv, norm, linear = net
    before = linear.weight.data.copy()
    initialize(net, conv=lambda shape: np.full(shape, 7, np.float32), bias=0.5)
    assert set(conv.weight.data.ravel()) == {7.0}
    assert set(conv.bias.data) == {0.5}
    assert set(norm.weight.data) == {1.0}
    np.testing.assert_array_equal(linear.weight.data, before)
    initialize(net, linear=partial(nn.init.normal, std=1.0))
    assert set(conv.weight.data.ravel()) == {7.0}
    assert (linear.weight.data != before).all()
    assert list(net.state_dict())[:2] == ["0.weight", "0.bias"]


@pytest.mark.usefixtures("shapes_only")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("inception_v2", {"c7": (64, 96)}), ("inception_resnet_v1", {"scales": (0.1, 0.1, 0.1)})],
)
def test_a_network_is_built_again_from_its_configuration_in_json(name, arguments):
    net = minidl_models.create(name, num_classes=2, in_channels=4, **arguments)
    config = json.loads(json.dumps(net.config))
    again = minidl_models.create(config["name"], **config["arguments"])
    assert [(path, p.shape) for path, p in again.named_parameters()] == [
        (path, p.shape) for path, p in net.named_parameters()
    ]
    assert again.input_shape == net.input_shape == (299, 299, 4)
    assert again.preprocess == {"mean": [0.5] * 4, "std": [0.5] * 4}
