"""The device "cudasim": the CUDA kernels on the CPU, built by g++ from the same sources.

kernels/emulator/emulator.h says how a block of threads runs and what is caught there. Here stand the two
things around it: building a shared library for a source with all its declared instances, kept by what went
into it; and arrays that nothing but a kernel may compute on, each within a frame of known bytes, so that a
store beside it is seen after the launch.

It is for finding mistakes: some thousand times slower than a GPU.
"""

import ctypes
import functools
import hashlib
import math
import os
import shutil
import subprocess
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from minidl.backend import Array
from minidl.backend.cache import cache_folder
from minidl.backend.cuda.launch import Kernel, declared, kernel_folder, tell_compilation
from minidl.errors import DeviceError

SCHEDULES = ("forward", "backward", "shuffled")  # the orders in which the threads of a block run

# What a GPU can launch (CUDA C++ Programming Guide, "Compute Capabilities").
_MOST_BLOCKS, _MOST_THREADS, _MOST_SHARED = (2**31 - 1, 65535, 65535), (1024, 1024, 64), 227 * 1024
_FRAME = 512  # bytes before and behind every array
# Without unique symbols: arrays in shared memory of equally named kernels in two libraries would be one.
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fno-gnu-unique", "-ffp-contract=off", "-w")

_lock = threading.Lock()  # a library runs one launch at a time
_schedule = 0
_live = _peak = 0


class SimArray(np.ndarray):
    """An array of the emulated GPU. NumPy does not compute on it: what no kernel does, a GPU could not do.

    Views (slices, `reshape` and `transpose`) are free, as they are on a GPU. A `reshape` that would have to
    copy is refused as well.
    """

    device = "cudasim"  # type: ignore[assignment]

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise DeviceError(
            "NumPy was asked to compute on an array of 'cudasim', which only kernels do; use minidl's ops, "
            "or t.numpy() for a copy of the values"
        )

    __array_ufunc__ = __array_function__ = _refuse

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(part, (np.ndarray, list)) for part in parts):
            self._refuse()
        view = super().__getitem__(index)
        # a single element is an array without axes, as it is on a GPU
        return view if isinstance(view, SimArray) else super().__getitem__((*parts, None)).reshape(())

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __deepcopy__(self, _: Any) -> "SimArray":
        return Emulator().upload(self.view(np.ndarray))

    def reshape(self, *shape: Any, **options: Any) -> Any:
        view = super().reshape(*shape, **options)
        if view.size and view.ctypes.data != self.ctypes.data:
            self._refuse()
        return view

    def ravel(self, order: Any = "C") -> Any:
        return self.reshape(-1, order=order)

    def __repr__(self) -> str:
        return f"SimArray({np.array(self)!r})"

    __str__ = __repr__


for _name in (
    "sum prod mean var std max min argmax argmin any all dot trace cumsum cumprod clip round conj conjugate "
    "take put choose compress nonzero repeat diagonal searchsorted sort argsort partition argpartition "
    "astype copy flatten fill resize byteswap setfield item tolist tobytes tofile __setitem__ __contains__ "
    "__float__ __int__ __complex__ __bool__ __index__ __copy__ __reduce_ex__"
).split():
    setattr(SimArray, _name, SimArray._refuse)


class _Frame:
    """The bytes around one array."""

    def __init__(self, whole: np.ndarray) -> None:
        self.edges = whole[:_FRAME], whole[-_FRAME:]

    def whole(self) -> bool:
        return all((edge == 0xFF).all() for edge in self.edges)


class Emulator:
    """The runtime of "cudasim" (launch.py says what a runtime does)."""

    name = "cudasim"
    tensor_cores = True

    def empty(self, shape: tuple[int, ...], dtype: Any) -> SimArray:
        """A new array of NaN: what no kernel has written is seen."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        bytes_ = np.full(size + 2 * _FRAME + 64, 0xFF, np.uint8)
        start = -bytes_.ctypes.data % 64
        whole = bytes_[start : start + size + 2 * _FRAME]
        array = whole[_FRAME : _FRAME + size].view(dtype).reshape(shape).view(SimArray)
        _count(bytes_)
        return array

    def upload(self, host: np.ndarray) -> SimArray:
        """A copy."""
        array = self.empty(host.shape, host.dtype)
        np.copyto(array.view(np.ndarray), host)
        return array

    def download(self, array: Array) -> np.ndarray:
        """A copy."""
        return np.array(array, subok=False)

    def address(self, array: Array) -> int:
        """Where its first element lies."""
        return array.ctypes.data

    def live_bytes(self) -> int:
        """What arrays take up."""
        return _live

    def peak_bytes(self, reset: bool) -> int:
        """The most they took up at once (since the last reset)."""
        global _peak
        peak = _peak
        if reset:
            _peak = _live
        return peak

    def free_unused(self) -> None:
        """Nothing is kept that no array uses."""

    def is_cold(self) -> bool:
        """Whether no library has been built yet."""
        return next(cache_folder("emulator").glob("*.so"), None) is None

    def run(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[Any]
    ) -> None:
        """DeviceError that says what went wrong, where the emulator or a frame has seen something."""
        for what, axes, most in ("grid", grid, _MOST_BLOCKS), ("block", block, _MOST_THREADS):
            if not all(0 < n <= limit for n, limit in zip(axes, most)):
                raise DeviceError(f"{kernel.name}: a {what} of {axes}; its axes are from 1 to {most}")
        shared_bytes = kernel.shared_bytes
        if shared_bytes > _MOST_SHARED:
            raise DeviceError(f"{kernel.name}: {shared_bytes} bytes of shared memory, a block has 227 KB")
        entry = _library(kernel.source)[kernel.name]
        cells = [_cell(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(cells))(*map(ctypes.addressof, cells))
        sizes = (ctypes.c_uint * len(cells))(*map(ctypes.sizeof, cells))
        shape = (ctypes.c_uint * 6)(*grid, *block)
        with _lock:
            failure = entry(pointers, sizes, shape, ctypes.c_size_t(shared_bytes), ctypes.c_int(_schedule))
        if failure:
            raise DeviceError(f"{kernel.name} in {kernel.source}: {failure.decode()}")
        for i, argument in enumerate(arguments):
            if isinstance(argument, SimArray) and not _frame_of(argument).whole():
                raise DeviceError(
                    f"{kernel.name} in {kernel.source}: it wrote beside argument {i}, an array of shape "
                    f"{argument.shape}"
                )


def use_schedule(name: str) -> None:
    """From now on the threads of a block run in this order, one of `SCHEDULES`."""
    global _schedule
    _schedule = SCHEDULES.index(name)


def check() -> None:
    """DeviceError unless kernels can be built here."""
    if shutil.which("g++") is None:
        raise DeviceError(
            "device 'cudasim' builds the CUDA kernels with g++, which is not installed; install it (Debian: "
            "apt install g++), or use device='cpu'"
        )


def _count(buffer: np.ndarray) -> None:
    """Count the buffer as long as it lives."""
    global _live, _peak
    _live += buffer.nbytes
    _peak = max(_peak, _live)
    weakref.finalize(buffer, _forget, buffer.nbytes).atexit = False


def _forget(size: int) -> None:
    global _live
    _live -= size


def _frame_of(array: np.ndarray) -> _Frame:
    """The frame around the buffer that an array is (a part of)."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    start = -owner.ctypes.data % 64
    return _Frame(owner[start : len(owner) - 64 + start])


def _cell(argument: Any) -> Any:
    """An argument in memory that can be pointed to."""
    if isinstance(argument, SimArray):
        return ctypes.c_void_p(argument.ctypes.data)
    if argument is None:
        return ctypes.c_void_p(None)
    content = np.asarray(argument).tobytes()
    return ctypes.create_string_buffer(content, len(content))


@functools.cache
def _library(source: str) -> dict[str, Any]:
    """Each kernel of a source by its name, built if it is not kept."""
    check()
    kernels = declared(source)
    wrapper = f'#include "{source}"\n' + "".join(
        f"EMULATE(kernel_{i}, {kernel.name})\n" for i, kernel in enumerate(kernels)
    )
    library = ctypes.CDLL(str(_built(source, wrapper)))
    entries = {}
    for i, kernel in enumerate(kernels):
        entry = getattr(library, f"kernel_{i}")
        entry.restype = ctypes.c_char_p
        entries[kernel.name] = entry
    return entries


def _built(source: str, wrapper: str) -> Path:
    """The shared library of a wrapper, compiled unless one of the same content is kept.

    DeviceError with the compiler's words where it does not compile.
    """
    folder = kernel_folder()
    content = hashlib.sha256(repr((wrapper, _FLAGS)).encode())
    for path in sorted((*folder.glob("*.cu*"), *(folder / "emulator").glob("*"))):
        if path.suffix != ".cu" or path.name == source:
            content.update(path.read_bytes())
    kept = cache_folder("emulator") / f"{Path(source).stem}-{content.hexdigest()[:16]}.so"
    if kept.is_file():
        return kept
    tell_compilation(source)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as place:
        text, made = Path(place) / "wrapper.cpp", Path(place) / "library.so"
        text.write_text(wrapper, encoding="utf-8")
        include = ("-I", str(folder / "emulator"), "-I", str(folder), "-include", "emulator.h")
        # the sources end in .cu, which g++ does not know: they are included, not compiled themselves
        command = ["g++", *_FLAGS, *include, "-o", str(made), str(text)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise DeviceError(f"g++ does not compile {source} for 'cudasim':\n{result.stderr}")
        os.replace(made, kept)
    return kept
