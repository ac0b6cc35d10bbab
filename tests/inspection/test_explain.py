"""What `minidl.explain` says is what runs, and it leaves no trace."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl as md
import minidl_models
from minidl import nn, ops, streams
from minidl.backend import plans
from minidl.backend.cpu import conv
from minidl.inspection import layer_rows

SHAPE = (2, 8, 8, 3)


def small_net() -> nn.Sequential:
    return nn.Sequential(
        {
            "a": nn.Conv2d(3, 16, 3, padding=1, activation="relu"),
            "bn": nn.BatchNorm2d(16),
            "b": nn.Conv2d(16, 24, 3, padding=1, bias=False),
            "c": nn.Conv2d(24, 4, 1),
            "drop": nn.Dropout(),
            "pool": nn.GlobalAvgPool(),
            "fc": nn.Linear(4, 5),
        }
    )


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(pass, algorithm) of every convolution that is computed from now on, in order."""
    ran: list[tuple[str, str]] = []
    inside: list[str] = []

    def passing(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
        def named(*args: Any) -> Any:
            inside.append(name)
            y = compute(*args)
            inside.pop()
            return y

        return named

    def computing(algorithm: str, compute: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            ran.append((inside[-1], algorithm))
            return compute(*args)

        return noted

    for table in (conv._CORRELATE, conv._CORRELATE_WEIGHT):
        for algorithm, compute in table.items():
            monkeypatch.setitem(table, algorithm, computing(algorithm, compute))
    for which in ("conv2d", "conv2d_grad_x", "conv2d_grad_weight"):
        name = which.removeprefix("conv2d").removeprefix("_") or "forward"
        monkeypatch.setattr(md.backend.cpu, which, passing(name, getattr(conv, which)))
    return ran


@pytest.mark.parametrize("forced", plans.NAMES)
def test_the_plans_are_those_that_run(monkeypatch: pytest.MonkeyPatch, forced: str) -> None:
    net = small_net()
    ran = spied(monkeypatch)
    with md.force_plan(forced):
        rows = md.explain(net, SHAPE).rows
        explained, ran[:] = list(ran), []
        x = md.tensor(np.ones(SHAPE, np.float32))
        ops.sum(net.train()(x)).backward()
    assert ran == explained  # a training step computes the same, and nothing was computed twice
    convolutions = [row for row in rows if row.kind == "Conv2d"]
    assert [row.plans["forward"].name for row in convolutions] == [name for w, name in ran if w == "forward"]
    for which in ("grad_x", "grad_weight"):
        told = [row.plans[which].name for row in reversed(convolutions) if which in row.plans]
        assert told == [name for w, name in ran if w == which]
    assert "grad_x" not in convolutions[0].plans  # nobody wants the gradient of the images


def test_passes_that_differ_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = plans.settle

    def choose(work: plans.Pass, valid: tuple[str, ...], usual: plans.Plan) -> plans.Plan:
        name = "im2col" if work.which == "grad_weight" else "direct"
        return settle(work, valid, plans.Plan(name, f"made for {name}"))

    monkeypatch.setattr(conv, "settle", choose)
    (row,) = md.explain(ops.conv2d, SHAPE, (3, 3, 3, 4)).rows
    assert row.plan == "forward direct, grad_x direct, grad_weight im2col"
    assert row.reason.endswith("grad_weight made for im2col")
    with md.no_grad():
        (row,) = md.explain(ops.conv2d, SHAPE, (3, 3, 3, 4)).rows
    assert (row.plan, row.reason) == ("direct", "made for direct")


def test_reasons_come_from_the_backend_and_a_forced_plan_that_does_not_fit_is_named() -> None:
    net = small_net()
    usual = {row.path: row for row in md.explain(net, SHAPE).rows}
    assert usual["c"].reason == "a 1x1 window: the micro-kernel reads the image in place"
    assert usual["bn"].plan == usual["bn"].reason == ""
    with md.force_plan("winograd"):
        forced = {row.path: row for row in md.explain(net, SHAPE).rows}
    assert (forced["a"].plan, forced["a"].reason) == ("winograd", "forced by force_plan")
    assert forced["c"].plan == usual["c"].plan
    assert forced["c"].reason == f"winograd is forced but not valid here; as usual, {usual['c'].reason}"


def test_the_rows_are_the_layers_with_their_multiply_adds() -> None:
    for net, size in ((small_net(), (8, 8, 3)), (minidl_models.resnet20(), (32, 32, 3))):
        rows, layers = md.explain(net, (2, *size)).rows, layer_rows(net, size)
        assert [(r.path, r.kind, r.output, r.macs) for r in rows] == [
            (layer.path, layer.kind, (2, *layer.output), layer.macs) for layer in layers
        ]


def test_bytes_count_an_array_once_where_it_is_first_kept() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 16, 1, activation="relu"),  # keeps its input, and its output for the ReLU
        nn.Conv2d(16, 4, 1),  # keeps its input, which the row above has counted
        nn.ReLU(),  # keeps its output
        nn.Flatten(),
        nn.Linear(256, 5),  # keeps its input: a view of what the ReLU keeps
    )
    rows = md.explain(net, SHAPE).rows
    pixels = 4 * 2 * 8 * 8  # bytes of a channel
    assert [row.output_bytes for row in rows] == [pixels * 16, *[pixels * 4] * 3, 4 * 2 * 5]
    assert [row.kept_bytes for row in rows] == [pixels * (3 + 16), 0, pixels * 4, 0, 0]
    assert [row.parameter_bytes for row in rows] == [256, 272, 0, 0, 4 * 257 * 5]
    with md.no_grad():
        assert [row.kept_bytes for row in md.explain(net, SHAPE).rows] == [0] * 5


def test_it_runs_once_and_leaves_everything_as_it_was() -> None:
    net = small_net()
    net.drop.eval()
    net.fc.weight.grad = md.tensor(np.ones((4, 5), np.float32))
    seen: list[bool] = []
    net.bn.register_forward_hook(lambda module, inputs, y: seen.append(module.training))
    state, modes, random = net.state_dict(), [m.training for m in net.modules()], streams.get_state()
    gradient = net.fc.weight.grad
    md.explain(net, SHAPE)
    assert seen == [False]
    assert [m.training for m in net.modules()] == modes
    assert streams.get_state() == random
    assert net.fc.weight.grad is gradient
    np.testing.assert_array_equal(gradient.numpy(), 1)
    assert all(p.grad is None for name, p in net.named_parameters() if name != "fc.weight")
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    with pytest.raises(md.errors.ShapeError, match=r"conv2d: x has .*4 channels"):
        md.explain(net, (2, 8, 8, 4))
    assert [m.training for m in net.modules()] == modes
    hooks = [vars(m).get(kind) for m in net.modules() for kind in ("_forward_hooks", "_forward_pre_hooks")]
    assert [len(each) for each in hooks if each] == [1]  # our own


def test_a_function_has_a_row_for_every_op() -> None:
    weight = np.ones((4, 5), np.float32)
    found = md.explain(lambda x, *, scale: ops.relu(ops.matmul(x, weight)) * scale, (2, 4), scale=3.0)
    assert [(row.path, row.kind, row.output, row.macs) for row in found.rows] == [
        ("matmul", "op", (2, 5), 20),
        ("relu", "op", (2, 5), 0),
        ("mul", "op", (2, 5), 0),
    ]
    (row,) = md.explain(ops.conv2d, (8, 32, 32, 16), (3, 3, 16, 32), padding=(1, 1)).rows
    assert (row.path, row.output, row.macs) == ("conv2d", (8, 32, 32, 32), 32 * 32 * 9 * 16 * 32)
    assert list(row.plans) == ["forward", "grad_x", "grad_weight"]
    random = streams.get_state()
    md.explain(ops.dropout, (2, 3), 0.5, training=True)
    assert streams.get_state() == random


def test_other_arguments_are_passed_as_they_are() -> None:
    wide = md.tensor(np.ones(SHAPE), requires_grad=True)
    (row,) = md.explain(ops.conv2d, wide, np.ones((1, 1, 3, 4))).rows
    assert (row.plan, row.output_bytes) == ("pointwise", 8 * 2 * 8 * 8 * 4)
    assert wide.grad is None
    assert md.explain(small_net().to(dtype="float64"), SHAPE).rows[2].plan == "im2col"
    (row,) = md.explain(ops.cross_entropy, (2, 5), np.array([0, 4])).rows
    assert row.output == ()


def test_it_prints_as_a_table() -> None:
    lines = str(md.explain(small_net(), SHAPE)).splitlines()
    assert lines[0] == "Sequential, 2x8x8x3: multiply-adds of one image, bytes of all"
    assert lines[2].split()[:5] == ["layer", "kind", "output", "plan", "multiply-adds"]
    assert lines[2].endswith("reason")
    total = sum(layer.macs for layer in layer_rows(small_net(), SHAPE[1:]))
    assert lines[-1].split()[:2] == ["total", f"{total:,}"]
    c = next(line for line in lines if line.startswith("c "))
    assert c.split()[:5] == ["c", "Conv2d", "2x8x8x4", "direct", "6,144"]
    assert c.endswith("a 1x1 window: the micro-kernel reads the image in place")


def test_what_cannot_be_explained() -> None:
    with pytest.raises(TypeError, match="explain: Tensor cannot be called; give a module or a function"):
        md.explain(md.tensor([1.0]))
    with pytest.raises(md.errors.ShapeError, match=r"argument 1 is the shape \(3, 0\); every axis"):
        md.explain(ops.matmul, (2, 3), (3, 0))
