"""Launching kernels: what each one is called, what it takes, and the check that it is given just that.

A kernel is declared beside the function that launches it, `RELU = kernel("elementwise.cu", "unary<Relu>")`,
so that all of them can be listed: for the compiler, which builds a source with all its instances at once, and
for the check that every one compiles (tests/gpu). Types are not written down a second time: the arguments of
a launch are compared with the signature in the CUDA source. On a GPU a wrong one would be a wrong result, or
somebody else's memory.

Two runtimes can launch: gpu.py through CuPy, emulator.py on the CPU. Both are given the same kernels, grids
and arguments, by this file alone.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from minidl.backend import Array
from minidl.errors import DeviceError, DTypeError, ShapeError

THREADS = 256  # of a block, where nothing speaks for another number
_LARGEST = 2**31  # kernels count in 32-bit integers: their index arithmetic takes half the registers and time


@dataclass(frozen=True)
class Kernel:
    """One instance of a kernel.

    name          the C++ expression, such as "binary<Add, float>"
    threads       most threads of a block; it equals the __launch_bounds__ of the source
    shared_bytes  dynamic shared memory of a block
    tensor_cores  whether it needs compute capability 8.0 (asynchronous copies, TF32)
    """

    source: str
    name: str
    threads: int = THREADS
    shared_bytes: int = 0
    tensor_cores: bool = False
    # of a source with its headers, all on one device: filled by the runtimes
    loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


class Parameter(NamedTuple):
    """One parameter of a kernel: `dtype` of the number, or of what it points to."""

    name: str
    dtype: np.dtype | None  # None: a struct, given as an array of a structured dtype with one element
    pointer: bool


class Strided(NamedTuple):
    """An array that a kernel reads or writes by strides it is given: it need not be contiguous."""

    array: Array


class Runtime(Protocol):
    """What runs kernels: a GPU, or the emulator."""

    name: str  # of the device: "cudasim", "cuda:0"
    tensor_cores: bool  # whether it runs kernels that need them

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A new array, its values left open."""

    def upload(self, host: np.ndarray) -> Array:
        """A copy of a NumPy array on the device."""

    def download(self, array: Array) -> np.ndarray:
        """A copy of a device's array in host memory; waits for what computes it."""

    def address(self, array: Array) -> int:
        """Where its first element lies."""

    def live_bytes(self) -> int:
        """What arrays take up."""

    def peak_bytes(self, reset: bool) -> int:
        """The most they took up at once (since the last reset)."""

    def free_unused(self) -> None:
        """Give memory that no array uses back."""

    def is_cold(self) -> bool:
        """Whether no compiled kernel has been kept yet."""

    def run(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[Any]
    ) -> None:
        """Launch; arguments are arrays, None, NumPy numbers, and structured arrays of one element."""


_notes: list[Callable[[str], None]] = []
_declared: dict[tuple[str, str], Kernel] = {}


def kernel(source: str, name: str, **details: Any) -> Kernel:
    """Declare one instance of a kernel in a file of kernels/."""
    return _declared.setdefault((source, name), Kernel(source, name, **details))


def declared(source: str | None = None) -> list[Kernel]:
    """Every kernel that has been declared (in one source), in order."""
    return [k for k in _declared.values() if source in (None, k.source)]


@contextmanager
def compilation(note: Callable[[str], None]) -> Iterator[None]:
    """Inside, `note` is called with the name of each source that is compiled (or, by CuPy, found in its own
    cache)."""
    _notes.append(note)
    try:
        yield
    finally:
        _notes.remove(note)


def tell_compilation(source: str) -> None:
    """A runtime says that it compiles a source."""
    for note in _notes:
        note(source)


def launch(
    kernel: Kernel, runtime: Runtime, grid: tuple[int, ...] | int, *arguments: Any, block: Any = None
) -> None:
    """Run a kernel on `grid` blocks, of its `threads` threads unless `block` says otherwise.

    Arguments are arrays of the runtime's device, `Strided` ones, None for a null pointer, numbers, and
    structured arrays. DTypeError, ShapeError or DeviceError where the kernel could not take them; nothing
    runs then.
    """
    parameters = signature(kernel)
    if len(arguments) != len(parameters):
        names = ", ".join(p.name for p in parameters)
        raise TypeError(
            f"{kernel.name}: it takes {len(parameters)} arguments ({names}), not {len(arguments)}"
        )
    checked = [_checked(kernel, p, value) for p, value in zip(parameters, arguments)]
    blocks = (grid,) if isinstance(grid, int) else grid
    threads = (kernel.threads,) if block is None else (block,) if isinstance(block, int) else tuple(block)
    if math.prod(threads) > kernel.threads:
        raise ValueError(f"{kernel.name}: a block of {threads} threads, but its bound is {kernel.threads}")
    runtime.run(kernel, (*blocks, 1, 1)[:3], (*threads, 1, 1)[:3], checked)


def blocks_for(elements: int, threads: int = THREADS) -> int:
    """How many blocks give every element a thread, at least one block."""
    return max(1, -(-elements // threads))


def _checked(kernel: Kernel, parameter: Parameter, value: Any) -> Any:
    """The argument as a runtime takes it."""
    name = f"{kernel.name}: {parameter.name}"
    if not parameter.pointer:
        if parameter.dtype is None:
            return value
        least, most = _LIMITS.get(parameter.dtype, (value, value))
        if value < least or value > most:
            raise ShapeError(f"{name} is {value}, the kernel takes numbers up to {most}: use smaller batches")
        return parameter.dtype.type(value)
    if value is None:
        return None
    array = value.array if isinstance(value, Strided) else value
    if type(array) is np.ndarray:  # its address would mean nothing, or something else, to the device
        raise DeviceError(f"{name} is an array of NumPy's, on 'cpu': upload it first")
    if parameter.dtype is not None and array.dtype != parameter.dtype:
        raise DTypeError(f"{name} is {array.dtype}, the kernel takes {parameter.dtype}")
    if not isinstance(value, Strided) and not array.flags.c_contiguous:
        raise ShapeError(f"{name} of shape {array.shape} is not contiguous, strides {array.strides}")
    reach = _reach(array)
    if reach >= _LARGEST:
        raise ShapeError(
            f"{name} of shape {array.shape} reaches over {reach} elements: kernels count in 32 bits, up to "
            f"{_LARGEST - 1}; use smaller batches"
        )
    return array


def _reach(array: Array) -> int:
    """What a kernel has to count to: an array's elements, and those of memory from its first to its last."""
    if array.size == 0 or array.flags.c_contiguous:
        return array.size
    apart = sum((n - 1) * abs(step) for n, step in zip(array.shape, array.strides))
    return max(array.size, 1 + apart // array.itemsize)


# What a parameter of a kernel may be, in C++. A template's own name for a type is looked up in the instance.
_TYPES = {
    "float": np.float32,
    "double": np.float64,
    "int": np.int32,
    "unsigned": np.uint32,
    "bool": np.bool_,
    "signed char": np.int8,
    "unsigned char": np.uint8,
    "short": np.int16,
    "unsigned short": np.uint16,
    "long long": np.int64,
    "unsigned long long": np.uint64,
}
_LIMITS = {
    np.dtype(t): (np.iinfo(t).min, np.iinfo(t).max) for t in _TYPES.values() if np.dtype(t).kind in "iu"
}


@functools.cache
def signature(kernel: Kernel) -> tuple[Parameter, ...]:
    """The kernel's parameters, read from its source.  DeviceError where it does not stand there."""
    text = re.sub(r"//[^\n]*", "", kernel_path(kernel.source).read_text(encoding="utf-8"))
    base, _, given = kernel.name.partition("<")
    pattern = rf"(?:template\s*<([^<>]*)>\s*)?__global__[^;{{]*?\b{base}\s*\(([^{{]*?)\)\s*\{{"
    found = re.search(pattern, text)
    if found is None:
        raise DeviceError(f"{kernel.source} has no kernel {base!r}")
    # commas within <> belong to a template that is itself an argument
    values = [v.strip() for v in re.split(r",(?![^<>]*>)", given.removesuffix(">"))]
    own = dict(zip([p.split()[-1] for p in (found[1] or "").split(",") if p.strip()], values))
    return tuple(_parameter(text.strip(), own) for text in found[2].split(",") if text.strip())


def _parameter(text: str, own: dict[str, str]) -> Parameter:
    """The name and type in "const float *__restrict__ x"; `own` are the types that the template names."""
    words = text.replace("*", " * ").replace("__restrict__", " ").split()
    kind = " ".join(word for word in words[:-1] if word not in ("const", "*"))
    dtype = _TYPES.get(own.get(kind, kind))
    return Parameter(words[-1], None if dtype is None else np.dtype(dtype), "*" in words)


def kernel_folder() -> Path:
    """The folder that holds the .cu and .cuh files.  DeviceError where there is none.

    The package comes before a checkout: an installed minidl must use the sources it was built with, whatever
    lies around it.
    """
    packaged = Path(str(files("minidl"))) / "kernels"
    checkout = Path(__file__).resolve().parents[3] / "kernels"
    for folder in (packaged, checkout):
        if folder.is_dir():
            return folder
    raise DeviceError(
        f"the CUDA sources are missing: neither {packaged} nor {checkout} is a folder; reinstall minidl"
    )


def kernel_path(name: str) -> Path:
    """The path of one source, such as "port.cuh".  DeviceError that lists the names for an unknown one."""
    folder = kernel_folder()
    path = folder / name
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in folder.glob("*.cu*"))) or "none"
        raise DeviceError(f"there is no kernel source {name!r} in {folder}; there: {there}")
    return path
