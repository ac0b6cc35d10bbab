"""Every layer calls its op with its own arguments, and learns what it says."""

import numpy as np
import pytest

import minidl as md
from minidl import nn, ops

X = md.tensor(np.random.default_rng(0).standard_normal((2, 7, 6, 4), dtype=np.float32))


@pytest.mark.parametrize(
    ("layer", "op"),
    [
        (nn.MaxPool2d(3, 2, padding=1), lambda x: ops.max_pool2d(x, 3, stride=2, padding=1)),
        (nn.MaxPool2d(3, ceil_mode=True), lambda x: ops.max_pool2d(x, 3, ceil_mode=True)),
        (
            nn.AvgPool2d(3, 1, padding=1, count_include_pad=False),
            lambda x: ops.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
        ),
        (nn.AdaptiveAvgPool2d((2, 3)), lambda x: ops.adaptive_avg_pool2d(x, (2, 3))),
        (nn.GlobalAvgPool(), ops.global_avg_pool),
        (nn.LocalResponseNorm(5), lambda x: ops.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)),
        (
            nn.LocalResponseNorm(3, 0.5, 0.6, 2.0, divide_alpha=False),
            lambda x: ops.local_response_norm(x, 3, alpha=0.5, beta=0.6, k=2.0, divide_alpha=False),
        ),
        (nn.ReLU(), ops.relu),
        (nn.Flatten(), ops.flatten),
        (nn.Identity(), lambda x: x),
        (nn.Concat([nn.ReLU(), nn.Identity()]), lambda x: ops.concat([ops.relu(x), x], axis=-1)),
    ],
)
def test_layers_without_parameters(layer: nn.Module, op: object):
    np.testing.assert_array_equal(layer(X).numpy(), op(X).numpy())
    assert list(layer.parameters()) == []


def test_conv2d_learns_weight_and_bias():
    conv = nn.Conv2d(4, 6, (3, 1), stride=2, padding="same", groups=2, activation="relu")
    assert conv.weight.shape == (3, 1, 2, 6)
    assert conv.bias.shape == (6,)
    expected = ops.relu(ops.conv2d(X, conv.weight, conv.bias, stride=2, padding="same", groups=2))
    np.testing.assert_array_equal(conv(X).numpy(), expected.numpy())
    assert nn.Conv2d(4, 6, 1, bias=False).bias is None


def test_conv2d_starts_he_normal():
    weight = nn.Conv2d(64, 128, 3).weight.data
    assert weight.std() == pytest.approx(
        np.sqrt(2 / (9 * 64)), rel=0.02
    )  # 73,728 draws: 0.3 % is one standard error
    assert abs(weight.mean()) < 1e-3


def test_linear():
    layer = nn.Linear(3, 5)
    x = md.tensor(np.ones((2, 3), np.float32))
    np.testing.assert_allclose(layer(x).numpy(), x.numpy() @ layer.weight.data + layer.bias.data, rtol=1e-6)
    assert nn.Linear(3, 5, bias=False).bias is None


def test_batch_norm_uses_the_batch_in_training_and_its_statistics_in_evaluation():
    layer = nn.BatchNorm2d(4)
    trained = layer(X).numpy()
    np.testing.assert_allclose(trained.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(layer.running_mean, 0.1 * X.data.mean((0, 1, 2)), rtol=1e-5, atol=1e-7)
    before = layer.running_mean.copy()
    evaluated = layer.eval()(X).numpy()
    np.testing.assert_array_equal(layer.running_mean, before)
    assert not np.allclose(trained, evaluated)


def test_batch_norm_adds_a_residual_before_the_relu():
    layer = nn.BatchNorm2d(4, activation="relu").eval()
    np.testing.assert_allclose(
        layer(X, residual=X).numpy(), np.maximum(X.data / np.sqrt(1 + 1e-5) + X.data, 0), rtol=1e-5
    )


def test_dropout_only_in_training():
    layer = nn.Dropout(0.25)
    y = layer(md.tensor(np.ones(10_000, np.float32))).numpy()
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert layer.eval()(X).numpy() is X.data


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.Dropout(1.5), "p is 1.5, it must be a probability"),
        (lambda: nn.LocalResponseNorm(4), "LocalResponseNorm: size is 4, it must be odd.*Give 5 .* or 3"),
        (lambda: nn.LocalResponseNorm(0), "LocalResponseNorm: size is 0, it must be an odd number"),
        (lambda: nn.LocalResponseNorm(5, k=-1.0), "LocalResponseNorm: alpha is 0.0001 and k is -1.0"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups is 2, it must divide in_channels 3"),
        (lambda: nn.Conv2d(3, 4, 3, groups=0), "groups is 0, it must be an integer of at least 1"),
        (lambda: nn.Conv2d(0, 4, 3), "in_channels is 0, it must be an integer of at least 1"),
        (lambda: nn.Linear(3, -1), "out_features is -1"),
        (lambda: nn.Conv2d(3, 4, 3, activation="gelu"), "activation is 'gelu'; it may be None or 'relu'"),
        (lambda: nn.Sequential({"train": nn.ReLU()}), "cannot be called 'train'"),
        (lambda: nn.Conv2d(3, 4, 0), "kernel_size is 0, it must be at least 1"),
    ],
)
def test_bad_arguments(make: object, text: str):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.LocalResponseNorm(5, k=2.0), "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=2.0)"),
        (
            nn.LocalResponseNorm(5, divide_alpha=False),
            "LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0, divide_alpha=False)",
        ),
    ],
)
def test_a_layer_shows_its_options(layer: nn.Module, text: str):
    assert repr(layer) == text


def test_a_depthwise_layer_has_one_channel_in_each_filter():
    conv = nn.Conv2d(4, 8, 3, padding="same", stride=2, groups=4)
    assert conv.weight.shape == (3, 3, 1, 8)
    assert conv(X).shape == (2, 4, 3, 8)


def test_sequential_refuses_what_is_no_module():
    with pytest.raises(TypeError, match="Sequential: item 1 is a function; give modules"):
        nn.Sequential(nn.ReLU(), ops.relu)


def test_module_list():
    layers = nn.ModuleList([nn.ReLU(), nn.Identity()])
    assert len(layers) == 2
    assert isinstance(layers[1], nn.Identity)
    assert [type(m) for m in layers] == [nn.ReLU, nn.Identity]
