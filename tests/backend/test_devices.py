"""Devices by their names: what there is, what is missing, and arrays that go from one to another."""

import inspect
import shutil
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minidl import backend
from minidl.backend import cpu, cuda
from minidl.backend.cuda import emulator, probe
from minidl.errors import DeviceError, DTypeError

needs_gcc = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator builds kernels with g++")


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    """What was found of CuPy is forgotten, before and after."""
    probe._problem.cache_clear()
    yield
    probe._problem.cache_clear()


class NoDriver(Exception):
    """What CuPy raises."""


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """cupy(2) installs a CuPy that finds two GPUs; cupy(-1) one that finds no driver."""

    def install(gpus: int) -> None:
        def count() -> int:
            if gpus < 0:
                raise NoDriver("cudaErrorInsufficientDriver")
            return gpus

        module = ModuleType("cupy")
        module.__version__ = "14.2.0"
        module.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDeviceCount=count, CUDARuntimeError=NoDriver)
        )
        monkeypatch.setitem(sys.modules, "cupy", module)

    return install


# ---- check_device ------------------------------------------------------------------------------------------


def test_the_cpu_is_always_there() -> None:
    assert backend.check_device("cpu") == "cpu"


@needs_gcc
def test_the_emulator_is_there_where_a_compiler_is() -> None:
    assert backend.check_device("cudasim") == "cudasim"


def test_the_emulator_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator.shutil, "which", lambda name: None)
    with pytest.raises(
        DeviceError, match=r"'cudasim' builds the CUDA kernels with g\+\+, .* apt install g\+\+"
    ):
        backend.check_device("cudasim")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_gpu_without_cupy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # its import fails
    text = rf"device '{name}' is not available: CuPy cannot be imported \(.*\); install minidl\[cuda12\] or "
    with pytest.raises(DeviceError, match=text):
        backend.check_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_without_a_driver(cupy: Callable[[int], None], name: str) -> None:
    cupy(-1)
    text = (
        rf"device '{name}' .*: CuPy 14.2.0 finds no GPU \(cudaErrorInsufficientDriver\); .* 'cpu' always is"
    )
    with pytest.raises(DeviceError, match=text):
        backend.check_device(name)


def test_gpus_are_counted(cupy: Callable[[int], None]) -> None:
    cupy(2)
    assert [backend.check_device(name) for name in ("cuda", "cuda:0", "cuda:1", "cuda:01")] == [
        "cuda:0",
        "cuda:0",
        "cuda:1",
        "cuda:1",
    ]
    with pytest.raises(DeviceError, match=r"'cuda:2' is not available: CuPy 14.2.0 finds 2 GPUs"):
        backend.check_device("cuda:2")


def test_no_gpu(cupy: Callable[[int], None]) -> None:
    cupy(0)
    with pytest.raises(DeviceError, match=r"'cuda' is not available: CuPy 14.2.0 finds 0 GPUs"):
        backend.check_device("cuda")


@pytest.mark.parametrize(
    "name",
    [
        None,
        0,
        ("cpu",),
        "",
        "gpu",
        "CPU",
        "cpu:0",
        "cuda:",
        "cuda:x",
        "cuda:-1",
        "cuda:1.0",
        "cuda:0:1",
        "cudasim:0",
    ],
)
def test_an_unknown_device_is_told_of_those_there_are(name: Any, cupy: Callable[[int], None]) -> None:
    cupy(2)
    with pytest.raises(
        DeviceError, match=r"is not available: there are 'cpu', 'cuda' .* and 'cudasim', which"
    ):
        backend.check_device(name)


# ---- Arrays ------------------------------------------------------------------------------------------------


def test_the_backend_of_an_array() -> None:
    host, sim = np.zeros(3), emulator.Emulator().empty((3,), np.float32)
    assert backend.of(host) is cpu
    assert backend.of(sim) is cuda
    assert (backend.device_of(host), backend.device_of(sim), backend.device_of(sim[1:])) == (
        "cpu",
        "cudasim",
        "cudasim",
    )
    assert backend.of(np.zeros(3).view(np.recarray)) is cpu


@pytest.mark.parametrize("value", [[1, 2], 1.0, None, "cpu", np.float32(1)])
def test_what_is_no_array(value: Any) -> None:
    assert not backend.is_array(value)
    with pytest.raises(DeviceError, match=r"is not an array of any device minidl knows"):
        backend.device_of(value)


@needs_gcc
@pytest.mark.parametrize("dtype", ["f4", "i4", "i8", "u1", "?"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_there_and_back(shape: tuple[int, ...], dtype: str) -> None:
    host = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    sim = backend.asarray(host, "cudasim")
    assert type(sim) is emulator.SimArray
    assert (sim.shape, sim.dtype) == (host.shape, host.dtype)
    back = backend.to_host(sim)
    assert type(back) is np.ndarray
    np.testing.assert_array_equal(back, host, strict=True)
    assert type(backend.asarray(sim, "cpu")) is np.ndarray
    np.testing.assert_array_equal(backend.asarray(sim, "cpu"), host, strict=True)


@needs_gcc
def test_views_arrive_as_they_look() -> None:
    host = np.arange(24, dtype=np.float32).reshape(4, 6)
    sim = backend.asarray(host.T[::2, ::-1], "cudasim")
    assert sim.flags.c_contiguous
    np.testing.assert_array_equal(backend.to_host(sim), host.T[::2, ::-1])
    np.testing.assert_array_equal(backend.to_host(sim[1:].T), host.T[::2, ::-1][1:].T)


@needs_gcc
def test_a_copy_only_where_it_must_be() -> None:
    host = np.zeros(3, np.float32)
    sim = backend.asarray(host, "cudasim")
    assert backend.asarray(host, "cpu") is host
    assert backend.to_host(host) is host
    assert backend.asarray(sim, "cudasim") is sim
    host[0] = 1
    np.testing.assert_array_equal(backend.to_host(sim), [0, 0, 0])
    copied = backend.to_host(sim)
    copied[0] = 2
    np.testing.assert_array_equal(backend.to_host(sim), [0, 0, 0])


@needs_gcc
def test_values_of_python() -> None:
    np.testing.assert_array_equal(backend.to_host(backend.asarray([[1, 2]], "cudasim")), [[1, 2]])
    assert backend.asarray(3, "cudasim").shape == ()
    assert backend.asarray(3.5, "cpu").shape == ()


@needs_gcc
def test_float64_stays_on_the_cpu() -> None:
    text = r"'cudasim' computes in float32, but these are float64 values of shape \(2, 3\); use .to\(dtype="
    with pytest.raises(DTypeError, match=text):
        backend.asarray(np.zeros((2, 3)), "cudasim")


def test_an_array_for_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match="device 'cuda' is not available"):
        backend.asarray(np.zeros(3), "cuda")
    with pytest.raises(DeviceError, match="device 'cuda:x' is not available"):
        backend.asarray(np.zeros(3), "cuda:x")


@needs_gcc
def test_the_default_device() -> None:
    assert backend.get_default_device() == "cpu"
    try:
        backend.set_default_device("cudasim")
        assert backend.get_default_device() == "cudasim"
        with pytest.raises(DeviceError, match="'gpu' is not available"):
            backend.set_default_device("gpu")
        assert backend.get_default_device() == "cudasim"
    finally:
        backend.set_default_device("cpu")


# ---- The backends ------------------------------------------------------------------------------------------

# What concerns the CPU's threads, its compiled kernels, and its plans alone; and what nobody asks a GPU for.
OF_THE_CPU = {
    "cache_folder",
    "get_num_threads",
    "measure_plans",
    "plan_conditions",
    "set_num_threads",
    "zeros",
}


def functions(module: ModuleType) -> dict[str, list[str]]:
    """Every function that a backend exports, with its parameters."""
    return {
        name: list(inspect.signature(value).parameters)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


def test_both_backends_have_the_same_functions() -> None:
    on_cpu, there = functions(cpu), functions(cuda)
    assert on_cpu.keys() - OF_THE_CPU <= there.keys()
    assert not OF_THE_CPU & there.keys()
    for name in on_cpu.keys() & there.keys():
        assert there[name] == on_cpu[name], name
