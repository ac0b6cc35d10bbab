"""Where arrays are computed on: one module per device, all with the same function names and signatures.

`of(array)` is the module for an array, and an op calls `backend.of(x).relu(x)`; which algorithm runs is that
module's affair. The NumPy + numba backend `cpu` is the one there is today.
"""

import functools
from types import ModuleType
from typing import Any

import numpy as np

from minidl.errors import DeviceError

Array = np.ndarray  # what ops compute on; another device's array type offers the same attributes

_default_device = "cpu"


def of(array: Any) -> ModuleType:
    """The backend that computes on `array`."""
    if isinstance(array, np.ndarray):
        return _cpu()
    raise DeviceError(f"no backend computes on {type(array).__module__}.{type(array).__qualname__}")


@functools.cache
def _cpu() -> ModuleType:
    from minidl.backend import cpu  # here, so that `import minidl` need not load numba

    return cpu


def device_of(array: Any) -> str:
    """The name of the device that holds `array`."""
    if isinstance(array, np.ndarray):
        return "cpu"
    raise DeviceError(
        f"{type(array).__module__}.{type(array).__qualname__} is not an array of any device minidl knows"
    )


def check_device(name: str) -> str:
    """`name` when such a device can be used here.  DeviceError that says what there is otherwise."""
    if name == "cpu":
        return name
    raise DeviceError(f"device {name!r} is not available: this version of minidl computes on 'cpu' alone")


def set_default_device(name: str) -> None:
    """The device that new tensors are made on."""
    global _default_device
    _default_device = check_device(name)


def get_default_device() -> str:
    """The device that new tensors are made on."""
    return _default_device


def asarray(value: Any, device: str) -> Array:
    """A host array on `device`, copied only where it must be."""
    check_device(device)
    return np.asarray(value)
