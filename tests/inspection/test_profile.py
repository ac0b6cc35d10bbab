"""Where a step's time goes: the parts add up, and land where the time was spent, by a clock that is ours."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minidl as md
import minidl_models
from minidl import nn, ops, streams
from minidl.inspection import layer_rows, profile, watch

TICK = 1e-6  # seconds that looking at the clock takes; nothing else takes any, but a nap
NAP = 1.0
IDLE = 100 * TICK  # more than all looks in a step of these networks


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += TICK
        return self.now


clock = Clock()


@pytest.fixture(autouse=True)
def _our_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "time", SimpleNamespace(perf_counter=clock))


@md.op
def sleepy(x: np.ndarray, before: float, after: float) -> Any:
    """x, `before` seconds later; its gradient takes `after`."""
    clock.now += before

    def grad_x(g: np.ndarray) -> np.ndarray:
        clock.now += after
        return g

    return x.copy(), (grad_x,)


class Sleepy(nn.Module):
    def __init__(self, before: float, after: float) -> None:
        self.before, self.after = before, after

    def forward(self, x: md.Tensor) -> md.Tensor:
        return sleepy(x, self.before, self.after)


class Net(nn.Module):
    """Three layers, and between them something that is none."""

    def __init__(self, between: float = 0.0) -> None:
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.nap = Sleepy(NAP, 2 * NAP)
        self.fc = nn.Linear(4, 5)
        self.between = between

    def forward(self, x: md.Tensor) -> md.Tensor:
        x = sleepy(self.conv(x), self.between, self.between)
        return self.fc(ops.global_avg_pool(self.nap(x)))


def test_time_is_charged_to_the_layer_and_the_pass_that_took_it() -> None:
    times = profile(Net(), (2, 8, 8, 3), steps=1)
    conv, nap, fc = times.rows
    assert [row.path for row in times.rows] == ["conv", "nap", "fc"]
    assert (nap.forward, nap.backward) == pytest.approx((NAP, 2 * NAP), abs=IDLE)
    assert max(conv.forward, conv.backward, fc.forward, fc.backward, times.other) < IDLE
    assert nap.share == pytest.approx(1, abs=IDLE)


def test_what_is_no_layer_is_other() -> None:
    assert profile(Net(between=5 * NAP), (2, 8, 8, 3), steps=1).other == pytest.approx(10 * NAP, abs=IDLE)


def test_the_median_step_is_told() -> None:
    naps = iter([9.0, 9.0, 4.0, 1.0, 3.0])  # two to warm up, three that count

    class Moody(nn.Module):
        def __deepcopy__(self, memo: Any) -> "Moody":
            return self

        def forward(self, x: md.Tensor) -> md.Tensor:
            return sleepy(x, next(naps), 0.0)

    net = nn.Sequential(nn.Conv2d(3, 4, 1), Moody(), nn.GlobalAvgPool())
    times = profile(net, (2, 4, 4, 3), steps=3)
    assert times.rows[1].forward == pytest.approx(3.0, abs=IDLE)


@pytest.mark.parametrize("training", [True, False])
def test_the_parts_add_up(training: bool) -> None:
    model = minidl_models.resnet20()
    times = profile(model, (4, 8, 8, 3), training=training, steps=3)
    spent = [row.forward + row.backward for row in times.rows]
    assert sum(spent) + times.other == pytest.approx(times.seconds)
    assert sum(row.share for row in times.rows) + times.other_share == pytest.approx(1)
    assert [(row.path, row.kind, row.macs) for row in times.rows] == [
        (layer.path, layer.kind, layer.macs) for layer in layer_rows(model, (8, 8, 3))
    ]
    assert any(row.backward > 0 for row in times.rows) == training
    assert min(spent) > 0


def test_rates_count_the_passes_that_run() -> None:
    """The images want no gradient: one product less in the first layer."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.GlobalAvgPool())
    times = profile(net, (2, 4, 4, 3), steps=1)
    products = [row.gflops * 1e9 * (row.forward + row.backward) / (2 * 2 * 4 * 4 * 9) for row in times.rows]
    assert products == pytest.approx([2, 3, 0])
    assert list(times.rows[0].plans) == ["forward", "grad_weight"]
    assert sorted(times.rows[1].plans) == ["forward", "grad_weight", "grad_x"]
    with md.force_plan("im2col"):
        assert [row.plan for row in profile(net, (2, 4, 4, 3), steps=1).rows] == ["im2col", "im2col", ""]


def test_auxiliary_classifiers_train_too() -> None:
    class Headed(nn.Module):
        def __init__(self) -> None:
            self.body, self.out, self.aux1 = nn.Flatten(), nn.Linear(12, 3), nn.Linear(12, 3)

        def forward(self, x: md.Tensor) -> Any:
            x = self.body(x)
            return (self.out(x), (self.aux1(x),)) if self.training else self.out(x)

    rows = profile(Headed(), (2, 2, 2, 3), steps=1).rows
    assert [(row.path, row.backward > 0) for row in rows[1:]] == [("out", True), ("aux1", True)]
    assert [row.path for row in profile(Headed(), (2, 2, 2, 3), training=False, steps=1).rows] == [
        *("body", "out")
    ]


def test_the_model_and_the_random_streams_stay_as_they_were() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.GlobalAvgPool()).eval()
    state, random, weight = net.state_dict(), streams.get_state(), net[0].weight.data
    profile(net, (2, 4, 4, 3), steps=1)
    assert net[0].weight.data is weight
    assert not net.training
    assert all(p.grad is None for p in net.parameters())
    assert streams.get_state() == random
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_a_layer_that_calls_another_is_not_charged_for_it() -> None:
    class Caller(nn.Module):
        """Holds a layer of the network where no walk sees it."""

        def __init__(self, inner: nn.Module) -> None:
            self.hidden = [inner]

        def forward(self, x: md.Tensor) -> md.Tensor:
            return self.hidden[0](x)

    inner = Sleepy(NAP, NAP)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), Caller(inner), inner, nn.GlobalAvgPool())
    times = profile(net, (2, 4, 4, 3), steps=1)
    assert [row.kind for row in times.rows] == ["Conv2d", "Sleepy", "Caller", "Sleepy", "GlobalAvgPool"]
    assert [row.forward for row in times.rows[1:3]] == pytest.approx([NAP, 0], abs=IDLE)
    assert sum(row.share for row in times.rows) + times.other_share == pytest.approx(1)


def test_it_prints_as_a_table() -> None:
    lines = str(profile(Net(), (2, 8, 8, 3), steps=1)).splitlines()
    assert lines[0] == "Net, training step of 2x8x8x3"
    assert lines[2].split()[:3] == ["layer", "kind", "plan"]
    assert lines[4].split()[:3] == ["conv", "Conv2d", "direct"]
    assert lines[-3].split()[0] == "other"
    assert lines[-1].split()[0] == "step"
    assert lines[-1].endswith("100.0%")


@pytest.mark.parametrize("shape", [(8, 8, 3), (0, 8, 8, 3)])
def test_images_have_four_axes(shape: Any) -> None:
    with pytest.raises(md.errors.ShapeError, match=r"input_shape is \(.*it must be \(N, H, W, C\)"):
        profile(Net(), shape)


def test_there_is_a_step() -> None:
    with pytest.raises(ValueError, match="steps is 0, it must be at least 1"):
        profile(Net(), (2, 8, 8, 3), steps=0)
