"""The stacks that are drawn: the same network every time, readable, shrinking to one layer."""

import numpy as np
from hypothesis import Phase, find, given, settings

from minidl import nn, streams
from minidl.testing import strategies
from minidl.testing.strategies import Layer, StackCase

SHRINK = settings(max_examples=3000, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])


def test_stacks_shrink_to_one_small_layer() -> None:
    case = find(strategies.layer_stacks(), lambda _: True, settings=SHRINK)
    assert case.x.shape == (3, 1, 1, 1)
    assert [layer.name for layer in case.layers] == ["Conv2d"]
    assert case.layers[0].arguments["kernel_size"] == (1, 1)


@given(strategies.layer_stacks())
def test_a_network_is_the_same_in_every_call_and_moves_no_stream(case: StackCase) -> None:
    before = streams.get_state()
    states = [case.build().state_dict() for _ in range(2)]
    assert streams.get_state() == before
    for name, value in states[0].items():
        assert value.tobytes() == states[1][name].tobytes()
        assert value.dtype == np.float64


@given(strategies.layer_stacks())
def test_opposite_filters_stand_before_every_fused_relu(case: StackCase) -> None:
    for module in case.build().modules():
        if isinstance(module, nn.Conv2d) and module.activation:
            np.testing.assert_array_equal(module.weight.data[..., 1], -module.weight.data[..., 0])


@given(strategies.layer_stacks())
def test_relu_passes_one_channel_of_a_batch_norm_and_part_of_another(case: StackCase) -> None:
    network = case.build()
    seen = []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.activation = None
            module.register_forward_hook(lambda module, inputs, y: seen.append((inputs[0].data, y.data)))
    network(case.x)
    for x, y in seen:
        assert y[..., 0].min() > 0
        if x[..., 1].std() > 1e-6:  # else the ReLU before it passed nothing of this channel
            assert y[..., 1].min() < 0 < y[..., 1].max()


def test_a_stack_in_another_dtype() -> None:
    case = StackCase(x=np.zeros((3, 1, 1, 2)), layers=(Layer("BatchNorm2d", {"num_features": 2}),))
    assert {value.dtype for value in case.astype(np.float32).build().state_dict().values()} == {
        np.dtype("f4")
    }
    assert {value.dtype for value in case.build(np.float32).state_dict().values()} == {np.dtype("f4")}
    assert case.x.dtype == np.float64


def test_a_stack_prints_a_layer_per_line() -> None:
    pool = Layer("MaxPool2d", {"kernel_size": 3, "stride": 1, "padding": 1})
    case = StackCase(
        x=np.zeros((3, 4, 4, 2)),
        layers=(Layer("Concat", branches=((Layer("ReLU"),), (pool, Layer("ReLU")))), Layer("GlobalAvgPool")),
        seed=7,
    )
    assert repr(case) == (
        "StackCase(seed=7, x=<float64 (3, 4, 4, 2)>, layers:\n"
        "  Concat([ReLU()], [MaxPool2d(kernel_size=3, stride=1, padding=1), ReLU()])\n"
        "  GlobalAvgPool())"
    )
