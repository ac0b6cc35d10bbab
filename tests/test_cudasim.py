"""A GPU from the user's side, on the emulated one: tensors, modules, optimisers and training give what they
give on the CPU, to rounding."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl as md
import minidl_models
from minidl import nn, ops, optim
from minidl.backend import cuda
from minidl.backend.cuda import emulator
from minidl.data import transforms
from minidl.errors import DeviceError, DTypeError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator builds kernels with g++")

SIM = "cudasim"


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- Tensors -----------------------------------------------------------------------------------------------


def test_a_tensor_goes_there_and_comes_back() -> None:
    x = normal(3, 4)
    t = md.tensor(x, device=SIM)
    assert t.device == SIM
    assert "[" in repr(t)
    np.testing.assert_array_equal(t.numpy(), x)
    np.testing.assert_array_equal(np.asarray(t), x)
    assert t.to("cpu").device == "cpu"
    assert t.to(SIM) is t
    assert md.tensor(t).device == SIM
    assert t[1, 2].item() == x[1, 2]


def test_gradients_return_to_the_device_they_came_from() -> None:
    x = md.tensor(normal(3, 4), requires_grad=True)
    (x.to(SIM) * 3.0).to("cpu").sum().backward()
    assert x.grad is not None
    assert x.grad.device == "cpu"
    np.testing.assert_array_equal(x.grad.numpy(), np.full((3, 4), 3))


def test_numbers_and_arrays_of_the_host_join_a_tensor() -> None:
    t, row = md.tensor(normal(3, 4), device=SIM), normal(4, seed=1)
    y = (2.0 - t) * row + 1
    assert y.device == SIM
    np.testing.assert_allclose(y.numpy(), (2 - normal(3, 4)) * row + 1, rtol=1e-6)


def test_tensors_of_two_devices_do_not_mix() -> None:
    with pytest.raises(DeviceError, match=r"add: b is on 'cpu'.* on 'cudasim'; move one with \.to"):
        md.tensor(normal(2), device=SIM) + md.tensor(normal(2))


def test_float64_stays_on_the_cpu() -> None:
    with pytest.raises(DTypeError, match=r"float64 values of shape \(2,\); use \.to\(dtype='float32'\)"):
        md.tensor(np.zeros(2), device=SIM)
    with pytest.raises(DTypeError, match="not in float64"):
        md.tensor([1.0], device=SIM).to(dtype="float64")
    both = md.tensor(np.zeros(2)).to(SIM, "float32").to("cpu", "float64")
    assert (both.device, both.dtype) == ("cpu", np.float64)


@pytest.mark.parametrize(
    "index",
    [1, (slice(None), 2), (..., slice(1, 3)), ([0, 2, 0], slice(None)), (np.array([2, 2]), np.array([0, 0]))],
    ids=str,
)
def test_assignment(index: Any) -> None:
    on_cpu, there = md.tensor(normal(3, 4)), md.tensor(normal(3, 4), device=SIM)
    value = normal(*on_cpu[index].shape, seed=1)
    for t in (on_cpu, there):
        t[index] = value
    np.testing.assert_array_equal(there.numpy(), on_cpu.numpy())
    there[index] = 7
    assert (there[index].numpy() == 7).all()


def test_a_gradient_that_arrives_from_the_host() -> None:
    x = md.tensor(normal(2, 3), device=SIM, requires_grad=True)
    (x * x).backward(np.ones((2, 3), np.float32))
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), 2 * normal(2, 3))


def test_a_long_matrix_product_is_summed_in_parts() -> None:
    """So long that its depth is split among several blocks, as in the gradient of a layer's weights."""
    a, b = normal(5000, 20), normal(5000, 24, seed=1)
    t = md.tensor(a, device=SIM)
    y = ops.matmul(ops.transpose(t), md.tensor(b, device=SIM)).numpy()
    np.testing.assert_allclose(y, a.T.astype(float) @ b, rtol=1e-4, atol=1e-3)


# ---- Modules and optimisers --------------------------------------------------------------------------------


def test_a_module_moves_whole() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = net.state_dict()
    assert net.to(SIM) is net
    assert {p.device for p in net.parameters()} == {SIM}
    assert all(type(buffer).__name__ == "SimArray" for buffer in net.buffers())
    state = net.state_dict()
    assert all(type(value) is np.ndarray for value in state.values())
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)
    net.load_state_dict({name: value + 1 for name, value in before.items()})
    np.testing.assert_array_equal(net.to("cpu").state_dict()["0.weight"], before["0.weight"] + 1)


def test_a_module_that_cannot_move_stays_whole() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).to(SIM)
    with pytest.raises(DTypeError, match="float64"):
        net.to(dtype="float64")
    assert {p.dtype for p in net.parameters()} == {np.dtype(np.float32)}


def test_batch_norm_says_where_its_statistics_are() -> None:
    x = md.tensor(normal(2, 3, 3, 4), device=SIM)
    one, zero = (md.tensor(np.full(4, value, np.float32), device=SIM) for value in (1, 0))
    with pytest.raises(DeviceError, match="running_mean is on 'cpu', but x is on 'cudasim'"):
        ops.batch_norm(x, one, zero, np.zeros(4, "f"), np.ones(4, "f"), training=True)


@pytest.mark.parametrize(
    "build",
    [
        lambda params: optim.SGD(params, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        lambda params: optim.SGD(params, 0.1),
        lambda params: optim.Adam(params, 0.1, weight_decay=0.01),
        lambda params: optim.AdamW(params, 0.1, weight_decay=0.1),
        lambda params: optim.RMSprop(params, 0.1),
        lambda params: optim.RMSprop(params, 0.1, momentum=0.9, eps=1.0),
    ],
    ids=["nesterov", "sgd", "adam", "adamw", "rmsprop", "rmsprop momentum"],
)
def test_optimisers_clipping_and_averages(build: Any) -> None:
    ends = []
    for device in ("cpu", SIM):
        p = md.tensor(normal(40, 9), device=device, requires_grad=True)
        optimizer, ema = build([p]), optim.EMA([p], decay=0.5)
        for step in range(3):
            optimizer.zero_grad()
            ops.sum(p * p * normal(40, 9, seed=step)).backward()
            assert p.grad is not None
            norm = optim.clip_grad_norm([p], 2.0)
            assert norm > 2
            optim.clip_grad_value([p], 0.2)
            optimizer.step()
            ema.update()
        state = optimizer.state_dict()
        optimizer.load_state_dict(state)
        arrays = [value for value in state.values() if isinstance(value, np.ndarray)]
        ends.append([p.numpy(), ema.state_dict()["average.0"], *arrays])
    for found, expected in zip(*ends, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


# ---- Networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_nin_trains_as_on_the_cpu(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {}
    images, labels = normal(4, 32, 32, 3), np.arange(4)
    monkeypatch.setattr("minidl.backend._float32_precision", precision)
    for device in ("cpu", SIM):
        md.manual_seed(0)
        net = minidl_models.nin(batch_norm=True)
        history = net.fit(
            images,
            labels,
            epochs=3,
            batch_size=2,
            validation=None,
            optimizer=optim.SGD(net.to(device).parameters(), lr=0.01),
            device=device,
            seed=0,
            verbose=False,
        )
        assert {p.device for p in net.parameters()} == {device}
        losses[device] = history.history["loss"]
        assert history.peak_bytes > 0
    np.testing.assert_allclose(losses[SIM], losses["cpu"], rtol=1e-3 if precision == "float32" else 0.05)


def test_evaluate_predict_save_and_load(tmp_path: Path) -> None:
    md.manual_seed(0)
    net = minidl_models.resnet20()
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    expected = net.predict(images)
    net.to(SIM)
    np.testing.assert_allclose(net.predict(images), expected, rtol=1e-4, atol=1e-6)
    assert net.evaluate(images, np.arange(2))["loss"] > 0
    assert "conv1" in net.summary()
    assert "direct" in str(md.explain(net, (1, 32, 32, 3)))
    net.save(tmp_path / "net.safetensors")
    loaded = md.Model.load(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(loaded.predict(images), expected)


def test_every_network_has_a_default_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built there, as `--device` does it: alexnet and nin set some biases themselves."""
    monkeypatch.setattr("minidl.backend._default_device", SIM)
    for name in ("nin", "alexnet"):
        assert {p.device for p in minidl_models.create(name, num_classes=3).parameters()} == {SIM}


def test_images_of_bytes_are_preprocessed_there() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    for config in ({}, {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "bgr": True, "scale": 255.0}):
        there = transforms.preprocess(md.tensor(images, device=SIM).data, config)
        assert (there.dtype, there.device) == (np.float32, SIM)
        expected = transforms.preprocess(images, config)
        np.testing.assert_allclose(md.Tensor(there).numpy(), expected, rtol=1e-6, atol=1e-5)
    resized = transforms.preprocess(md.tensor(images, device=SIM).data, {"resize": [7, 6]})
    np.testing.assert_allclose(
        md.Tensor(resized).numpy(), transforms.preprocess(images, {"resize": [7, 6]}), rtol=1e-6
    )


def test_training_on_images_of_bytes_is_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = []
    upload = emulator.Emulator.upload
    monkeypatch.setattr(
        emulator.Emulator, "upload", lambda self, x: uploaded.append((x.shape, x.dtype)) or upload(self, x)
    )
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    options = {"epochs": 1, "batch_size": 2, "validation": 0.34, "augment": "crop+flip", "verbose": False}
    rows = []
    for device in ("cpu", SIM):
        md.manual_seed(0)
        net = minidl_models.resnet20()
        history = net.fit(images, np.arange(6), device=device, seed=0, **options).history
        rows.append([history[key][0] for key in ("loss", "val_loss")])
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-3)
    assert ((2, 32, 32, 3), np.dtype(np.uint8)) in uploaded


def test_what_is_built_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    x, told = md.tensor(normal(3), device=SIM), []
    assert cuda.is_cold()
    emulator._library.cache_clear()
    for _ in range(2):  # a second process would find it kept
        with cuda.compilation(told.append):
            ops.dropout(x, 0.5, training=True)
        emulator._library.cache_clear()
    assert told == ["dropout.cu"]
    assert not cuda.is_cold()
