"""Where arrays are computed on: one module per kind of device, all with the same function names and
signatures.

`of(array)` is the module for an array, and an op calls `backend.of(x).relu(x)`; which algorithm runs is that
module's affair. `cpu` computes on NumPy arrays with NumPy and numba. `cuda` launches the kernels in kernels/
on CuPy arrays, and on those of the emulator "cudasim", which runs the same kernels on the CPU.
"""

import functools
from types import ModuleType
from typing import Any, TypeGuard

import numpy as np

from minidl.errors import DeviceError, DTypeError

Array = np.ndarray  # what ops compute on; another device's array type offers the same attributes

PRECISIONS = ("float32", "tf32")

_default_device = "cpu"
_float32_precision = "float32"


def of(array: Any) -> ModuleType:
    """The backend that computes on `array`."""
    return _cpu() if type(array) is np.ndarray or device_of(array) == "cpu" else _cuda()


@functools.cache
def _cpu() -> ModuleType:
    from minidl.backend import cpu  # here, so that `import minidl` need not load numba

    return cpu


@functools.cache
def _cuda() -> ModuleType:
    from minidl.backend import cuda

    return cuda


def is_array(value: Any) -> TypeGuard[Array]:
    """Whether it is an array of a device: NumPy's, the emulator's or CuPy's."""
    return isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "cupy"


def device_of(array: Any) -> str:
    """The name of the device that holds `array`: "cpu", "cudasim", "cuda:0"."""
    if isinstance(array, np.ndarray):
        return str(array.device)
    if is_array(array):
        return f"cuda:{array.device.id}"  # type: ignore[attr-defined]
    raise DeviceError(
        f"{type(array).__module__}.{type(array).__qualname__} is not an array of any device minidl knows"
    )


def check_device(name: str) -> str:
    """The full name of a device that can be used here: "cuda" is "cuda:0".

    DeviceError that says what there is, or what to install, otherwise.
    """
    if name == "cpu":
        return name
    kind, _, index = name.partition(":") if isinstance(name, str) else (name, "", "")
    if name == "cudasim":
        from minidl.backend.cuda import emulator

        emulator.check()
        return name
    if kind == "cuda" and (not index or index.isdecimal()) and name != "cuda:":
        from minidl.backend.cuda import probe

        probe.check(name)
        return f"cuda:{int(index or 0)}"
    raise DeviceError(
        f"device {name!r} is not available: there are 'cpu', 'cuda' (the first GPU; 'cuda:1' is the second) "
        "and 'cudasim', which runs the CUDA kernels on the CPU"
    )


def set_default_device(name: str) -> None:
    """The device that new tensors are made on."""
    global _default_device
    _default_device = check_device(name)


def get_default_device() -> str:
    """The device that new tensors are made on."""
    return _default_device


def set_float32_precision(name: str) -> None:
    """How a GPU multiplies float32 matrices and convolves: "float32", or "tf32", on tensor cores with factors
    rounded to 10 bits of mantissa (compute capability 8.0; older GPUs go on in float32).

    The CPU always computes in float32. ValueError for another name.
    """
    global _float32_precision
    if name not in PRECISIONS:
        raise ValueError(f"set_float32_precision: {name!r} is none of {', '.join(map(repr, PRECISIONS))}")
    _float32_precision = name


def get_float32_precision() -> str:
    """How a GPU multiplies, "float32" or "tf32"."""
    return _float32_precision


def asarray(value: Any, device: str) -> Array:
    """An array (of any device) or a host value on `device`, copied only where it must be."""
    device = check_device(device)
    if is_array(value) and device_of(value) == device:
        return value
    host = to_host(value) if is_array(value) else np.asarray(value)
    if device == "cpu":
        return host
    if host.dtype == np.float64:
        raise DTypeError(
            f"{device!r} computes in float32, but these are float64 values of shape {host.shape}; use "
            ".to(dtype='float32'), or device 'cpu'"
        )
    return _cuda().upload(host, device)


def constant(number: np.ndarray, device: str) -> Array:
    """A number (an array without axes) on `device`, to read only: the same array each time."""
    return number if device == "cpu" else _constant(number.item(), number.dtype, device)


@functools.lru_cache(maxsize=1024)
def _constant(number: Any, dtype: np.dtype, device: str) -> Array:
    return asarray(np.asarray(number, dtype), device)


def to_host(array: Any) -> np.ndarray:
    """The values as a NumPy array: itself on the CPU, a copy from another device."""
    return array if device_of(array) == "cpu" else _cuda().download(array)
