"""Walks over the tree, state, hooks, modes, and errors that say where."""

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.errors import CheckpointError, DTypeError, ShapeError


class Block(nn.Module):
    def __init__(self) -> None:
        self.body = nn.Sequential({"conv": nn.Conv2d(3, 4, 3, padding=1), "bn": nn.BatchNorm2d(4)})
        self.shortcut = nn.Conv2d(3, 4, 1, bias=False)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return self.body(x) + self.shortcut(x)


NAMES = [
    "body.conv.weight",
    "body.conv.bias",
    "body.bn.weight",
    "body.bn.bias",
    "body.bn.running_mean",
    "body.bn.running_var",
    "shortcut.weight",
]


def image(n: int = 2) -> md.Tensor:
    return md.tensor(np.random.default_rng(0).standard_normal((n, 5, 5, 3), dtype=np.float32))


def test_state_dict_lists_everything_in_order_of_definition():
    assert list(Block().state_dict()) == NAMES


def test_parameters_and_buffers():
    block = Block()
    assert [name for name, _ in block.named_parameters()] == [name for name in NAMES if "running" not in name]
    assert [name for name, _ in block.named_buffers()] == NAMES[4:6]
    assert len(list(block.parameters())) == 5
    assert len(list(block.buffers())) == 2


def test_named_modules_come_parents_first():
    assert [name for name, _ in Block().named_modules()] == ["", "body", "body.conv", "body.bn", "shortcut"]
    assert [type(m) for m in Block().children()] == [nn.Sequential, nn.Conv2d]


def test_a_shared_module_counts_once():
    conv = nn.Conv2d(3, 3, 1)
    twice = nn.Sequential(conv, conv)
    assert len(list(twice.parameters())) == 2
    assert twice(image()).shape == (2, 5, 5, 3)


def test_state_dict_is_a_copy_and_loads_back():
    a, b = Block(), Block()
    state = a.state_dict()
    b.load_state_dict(state)
    for name, value in b.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    state["shortcut.weight"][:] = 7
    assert not (a.shortcut.weight.data == 7).any()


def test_loading_changes_nothing_when_it_fails():
    block = Block()
    before = block.state_dict()
    state = {
        **block.state_dict(),
        "body.conv.weight": np.zeros((3, 3, 3, 4)),
        "shortcut.weight": np.zeros((1, 1, 3, 5)),
    }
    with pytest.raises(
        CheckpointError, match=r"shortcut.weight has shape \(1, 1, 3, 5\) in the state but \(1, 1, 3, 4\)"
    ):
        block.load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"missing shortcut.weight; unexpected extra"):
        block.load_state_dict(
            {**{n: v for n, v in before.items() if n != "shortcut.weight"}, "extra": np.zeros(1)}
        )
    for name, value in block.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_loading_without_strict_takes_what_fits_by_name():
    block = Block()
    block.load_state_dict({"body.conv.bias": np.full(4, 2.0), "other": np.zeros(1)}, strict=False)
    np.testing.assert_array_equal(block.body.conv.bias.data, np.full(4, 2.0))


def test_train_and_eval_reach_every_module_and_return_self():
    block = Block()
    assert block.eval() is block
    assert [m.training for m in block.modules()] == [False] * 5
    assert block.train() is block
    assert all(m.training for m in block.modules())


def test_hooks_see_module_inputs_and_output_until_removed():
    block, seen = Block(), []
    handle = block.body.conv.register_forward_hook(
        lambda m, inputs, output: seen.append((m, inputs[0].shape, output.shape))
    )
    block(image())
    handle.remove()
    handle.remove()
    block(image())
    assert seen == [(block.body.conv, (2, 5, 5, 3), (2, 5, 5, 4))]


def test_hooks_before_the_forward_pass_see_the_inputs_until_removed():
    seen = []
    layer = nn.Linear(2, 1)
    before = layer.register_forward_pre_hook(lambda module, inputs: seen.append(("before", module, inputs)))
    layer.register_forward_hook(lambda module, inputs, output: seen.append(("after", module, inputs)))
    x = md.tensor([[1.0, 2.0]])
    layer(x)
    assert seen == [("before", layer, (x,)), ("after", layer, (x,))]
    before.remove()
    layer(x)
    assert [when for when, *_ in seen] == ["before", "after", "after"]


def test_one_hook_registered_twice_is_removed_once_at_a_time():
    block, seen = Block(), []

    def hook(*_: object) -> None:
        seen.append(1)

    first, _ = block.register_forward_hook(hook), block.register_forward_hook(hook)
    first.remove()
    first.remove()
    block(image())
    assert seen == [1]


def test_a_parameter_copies_its_data_and_is_float32():
    source = np.zeros(2, np.float32)
    a, b = nn.Parameter(source), nn.Parameter(source)
    a.data[0] = 1
    assert b.data[0] == source[0] == 0
    assert nn.Parameter([0.0]).dtype == np.float32


def test_to_refuses_integers():
    with pytest.raises(DTypeError, match="networks compute in float32 or float64"):
        Block().to(dtype="int64")


def test_an_error_says_which_module_it_came_from():
    outer = nn.Sequential({"first": nn.Identity(), "block": Block()})
    with pytest.raises(ShapeError) as caught:
        outer(md.tensor(np.zeros((2, 5, 5, 6), np.float32)))
    assert caught.value.__notes__ == ["at block.body.conv in Sequential"]


def test_to_casts_parameters_and_buffers():
    block = Block().to(dtype="float64")
    assert {value.dtype for value in block.state_dict().values()} == {np.dtype("float64")}
    assert block(image().to(dtype="float64")).dtype == np.float64


def test_zero_grad():
    block = Block()
    md.ops.sum(block(image())).backward()
    assert all(p.grad is not None for p in block.parameters())
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())


def test_a_module_without_forward():
    with pytest.raises(NotImplementedError, match="Module has no forward method"):
        nn.Module()(1)


def test_repr_shows_the_tree():
    assert repr(nn.Sequential({"a": nn.Conv2d(3, 4, 3, stride=2), "b": nn.ReLU()})) == (
        "Sequential(\n  (a): Conv2d(3, 4, (3, 3), stride=2)\n  (b): ReLU()\n)"
    )
