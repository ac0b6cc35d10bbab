"""gpu.py without a GPU: a CuPy of our own, whose compiled kernels are the emulator's. It takes what CuPy 14
takes: arrays, numbers as NumPy scalars, structs as arrays of one element."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl import backend, nn, ops, optim
from minidl.backend import cuda
from minidl.backend.cuda import device, emulator, launch, probe

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator builds kernels with g++")


class Device:
    """cupy.cuda.Device: `capability` is the class's, to be changed by a test."""

    capability = "90"

    def __init__(self, id: int) -> None:
        self.id, self.compute_capability = id, self.capability

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def __str__(self) -> str:
        return f"cuda:{self.id}"


class FakeArray(np.ndarray):
    """cupy.ndarray: memory of the emulator."""

    device = Device(0)  # type: ignore[assignment]

    @property
    def data(self) -> Any:  # type: ignore[override]
        def copy_from_host_async(pointer: int, size: int, stream: Any) -> None:
            assert size == self.nbytes
            np.copyto(self, FakeCupy.pinned[pointer].view(self.dtype).reshape(self.shape))

        return SimpleNamespace(ptr=self.ctypes.data, copy_from_host_async=copy_from_host_async)


class FakeCupy(ModuleType):
    """The part of CuPy that gpu.py uses."""

    __version__ = "14.2.0"
    pinned: dict[int, np.ndarray]

    def __init__(self) -> None:
        super().__init__("cupy")
        FakeCupy.pinned, self.modules, self.ndarray = {}, [], FakeArray
        self.pool = SimpleNamespace(
            used_bytes=lambda: 5, total_bytes=lambda: 7, free_all_blocks=lambda: self.freed.append(1)
        )
        self.freed: list[int] = []
        event = SimpleNamespace(done=True, synchronize=lambda: None)
        self.cuda = SimpleNamespace(
            Device=Device,
            runtime=SimpleNamespace(getDevice=lambda: 0, getDeviceCount=lambda: 1, CUDARuntimeError=OSError),
            alloc_pinned_memory=self.alloc_pinned_memory,
            get_current_stream=lambda: SimpleNamespace(record=lambda: event),
        )

    def empty(self, shape: tuple[int, ...], dtype: Any) -> FakeArray:
        return emulator.Emulator().empty(shape, dtype).view(np.ndarray).view(FakeArray)

    def asnumpy(self, array: FakeArray) -> np.ndarray:
        return np.array(array, subok=False)

    def get_default_memory_pool(self) -> Any:
        return self.pool

    def alloc_pinned_memory(self, size: int) -> np.ndarray:
        memory = np.empty(size, np.uint8)
        FakeCupy.pinned[memory.ctypes.data] = memory
        return memory

    def RawModule(self, code: str, options: tuple[str, ...], name_expressions: list[str]) -> Any:
        assert "-std=c++17" in options
        assert any(option.startswith("-DHEADERS=") for option in options)
        self.modules.append(name_expressions)
        (source,) = {k.source for k in launch.declared() if launch.kernel_path(k.source).read_text() == code}
        return SimpleNamespace(get_function=lambda name: FakeKernel(source, name))


class FakeKernel:
    """cupy.RawKernel."""

    max_dynamic_shared_size_bytes = 48 * 1024

    def __init__(self, source: str, name: str) -> None:
        (self.kernel,) = (k for k in launch.declared(source) if k.name == name)

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], arguments: Any, *, shared_mem: int
    ) -> None:
        assert shared_mem == self.kernel.shared_bytes <= self.max_dynamic_shared_size_bytes
        taken = []
        for argument in arguments:
            if isinstance(argument, FakeArray):
                argument = argument.view(np.ndarray).view(emulator.SimArray)
            else:
                assert isinstance(argument, np.generic) or argument.size == 1
            taken.append(None if type(argument) is np.uintp else argument)
        emulator.Emulator().run(self.kernel, grid, block, taken)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCupy]:
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(device, "_runtimes", {})
    _forget()
    yield fake
    _forget()


def _forget() -> None:
    """What was found of CuPy, and made with it."""
    sys.modules.pop("minidl.backend.cuda.gpu", None)
    vars(cuda).pop("gpu", None)
    probe._problem.cache_clear()
    backend._constant.cache_clear()
    for kernel in launch.declared():
        kernel.loaded.clear()


def losses(where: str) -> list[float]:
    """Three steps of a network with most of what networks have."""
    md.manual_seed(0)
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8, activation="relu"),
        nn.Dropout(0.2),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 1),
        nn.GlobalAvgPool(),
        nn.Linear(8, 5),
    ).to(where)
    optimizer, found = optim.Adam(net.parameters(), lr=0.01), []
    for _ in range(3):
        x = md.tensor(rng.standard_normal((4, 8, 8, 3)).astype(np.float32), device=where)
        loss = ops.cross_entropy(net(x) * 2.0, rng.integers(0, 5, 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_a_network_trains_as_on_the_cpu(cupy: FakeCupy) -> None:
    np.testing.assert_allclose(losses("cuda"), losses("cpu"), rtol=1e-4)
    assert backend.check_device("cuda") == "cuda:0"
    assert (cuda.live_bytes(), cuda.peak_bytes(reset=True)) == (5, 7)
    assert cupy.freed
    cuda.free_unused()


def test_what_is_compiled_is_told(cupy: FakeCupy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    x, told = md.tensor(np.ones(3, np.float32), device="cuda"), []
    assert cuda.is_cold()
    (tmp_path / "kept.cubin").touch()
    assert not cuda.is_cold()
    with cuda.compilation(told.append):
        ops.exp(ops.exp(x))
    assert told == ["elementwise.cu"]


def test_tensor_cores_have_the_shared_memory_they_ask_for(cupy: FakeCupy) -> None:
    md.set_float32_precision("tf32")
    try:
        a = md.tensor(np.ones((8, 4), np.float32), device="cuda")
        assert (ops.matmul(a, ops.transpose(a)).numpy() == 4).all()
    finally:
        md.set_float32_precision("float32")


def test_an_old_gpu_is_not_asked_for_tensor_cores(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "capability", "75")
    md.set_float32_precision("tf32")
    try:
        a = md.tensor(np.ones((8, 4), np.float32), device="cuda")
        assert (ops.matmul(a, ops.transpose(a)).numpy() == 4).all()
    finally:
        md.set_float32_precision("float32")
    assert cupy.modules
    assert not any("Tf32" in name for names in cupy.modules for name in names)
