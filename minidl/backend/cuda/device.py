"""Which runtime an array belongs to, and the memory of all of them."""

from typing import Any

import numpy as np

from minidl import backend
from minidl.backend import Array
from minidl.backend.cuda import emulator
from minidl.backend.cuda.launch import Runtime

_runtimes: dict[str, Runtime] = {}  # those in use


def runtime(device: str) -> Runtime:
    """The runtime of a device by its name, "cudasim" or "cuda:N"."""
    if device not in _runtimes:
        _runtimes[device] = _runtime(device)
    return _runtimes[device]


def _runtime(device: str) -> Runtime:
    if device == "cudasim":
        return emulator.Emulator()
    from minidl.backend.cuda import gpu  # imports CuPy

    return gpu.Gpu(device)


def runtime_of(array: Any) -> Runtime:
    """The runtime of the device that holds an array."""
    return runtime(backend.device_of(array))


def empty_like(x: Array) -> Array:
    """A new contiguous array of x's shape and dtype."""
    return runtime_of(x).empty(x.shape, x.dtype)


def upload(host: np.ndarray, device: str) -> Array:
    """A copy of a NumPy array on a device."""
    return runtime(device).upload(host)


def download(array: Array) -> np.ndarray:
    """A copy of a device's array in host memory."""
    return runtime_of(array).download(array)


def live_bytes() -> int:
    """What arrays take up, on all devices in use."""
    return sum(each.live_bytes() for each in _runtimes.values())


def peak_bytes(reset: bool = False) -> int:
    """The most they took up at once (since the last reset)."""
    return sum(each.peak_bytes(reset) for each in _runtimes.values())


def free_unused() -> None:
    """Give memory that no array uses back."""
    for each in _runtimes.values():
        each.free_unused()


def is_cold() -> bool:
    """Whether no kernel has been kept yet by one of the devices in use: the first step will compile."""
    return any(each.is_cold() for each in _runtimes.values())
