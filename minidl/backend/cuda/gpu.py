"""A GPU, through CuPy: memory, copies, and launches of kernels that NVRTC compiles.

CuPy keeps memory in a pool and compiled kernels in $CUPY_CACHE_DIR (~/.cupy/kernel_cache), by source, options
and GPU. Of a header it notices nothing, so the options carry a hash of them all.

Everything is enqueued on CuPy's current stream and waits for nothing, except `download`.
"""

import collections
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from minidl.backend import Array
from minidl.backend.cuda.launch import Kernel, declared, kernel_folder, kernel_path, tell_compilation

_PENDING = 64  # uploads whose host memory is kept until they are done


class Gpu:
    """The runtime of one GPU (launch.py says what a runtime does)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.device = cupy.cuda.Device(int(name.partition(":")[2] or 0))
        self.tensor_cores = _tensor_cores(self.device)
        self._uploads: collections.deque[tuple[Any, Any]] = collections.deque()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A new array, its values left open."""
        with self.device:
            return cupy.empty(shape, dtype)

    def upload(self, host: np.ndarray) -> Array:
        """A copy, made while the host goes on: by way of pinned memory, which is kept until it is done."""
        with self.device:
            array = cupy.empty(host.shape, host.dtype)
            if host.size == 0:
                return array
            pinned = cupy.cuda.alloc_pinned_memory(host.nbytes)
            staged = np.frombuffer(pinned, host.dtype, host.size).reshape(host.shape)
            np.copyto(staged, host)
            stream = cupy.cuda.get_current_stream()
            array.data.copy_from_host_async(staged.ctypes.data, host.nbytes, stream)
            self._uploads.append((stream.record(), pinned))
        while self._uploads and (len(self._uploads) > _PENDING or self._uploads[0][0].done):
            self._uploads.popleft()[0].synchronize()
        return array

    def download(self, array: Array) -> np.ndarray:
        """A copy in host memory; waits for what computes it."""
        with self.device:
            return np.asarray(cupy.asnumpy(array))

    def address(self, array: Array) -> int:
        """Where its first element lies."""
        return int(array.data.ptr)  # type: ignore[attr-defined]

    def run(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[Any]
    ) -> None:
        """Launch; returns before it is done."""
        if cupy.cuda.runtime.getDevice() != self.device.id:
            with self.device:
                return self.run(kernel, grid, block, arguments)
        function = kernel.loaded.get(self.name)
        if function is None:
            function = kernel.loaded[self.name] = _function(kernel)
        taken = tuple(np.uintp(0) if argument is None else argument for argument in arguments)
        function(grid, block, taken, shared_mem=kernel.shared_bytes)
        return None

    def live_bytes(self) -> int:
        """What arrays take up."""
        with self.device:  # the pool answers for the current one
            return int(cupy.get_default_memory_pool().used_bytes())

    def peak_bytes(self, reset: bool) -> int:
        """What the pool has taken from the GPU: the most that arrays took up, and what lies between them."""
        with self.device:
            peak = int(cupy.get_default_memory_pool().total_bytes())
        if reset:
            self.free_unused()
        return peak

    def free_unused(self) -> None:
        """Give the pool's idle memory back to the GPU."""
        with self.device:
            cupy.get_default_memory_pool().free_all_blocks()

    def is_cold(self) -> bool:
        """Whether CuPy has kept nothing yet."""
        return next(_cache().glob("*"), None) is None


def _cache() -> Path:
    """Where CuPy keeps compiled kernels."""
    return Path(os.environ.get("CUPY_CACHE_DIR", "~/.cupy/kernel_cache")).expanduser()


def _tensor_cores(device: Any) -> bool:
    """Whether it has TF32 and asynchronous copies: compute capability 8.0."""
    return int(device.compute_capability) >= 80


def _function(kernel: Kernel) -> Any:
    """The kernel, ready to launch on the current device."""
    function = _module(kernel.source, cupy.cuda.runtime.getDevice()).get_function(kernel.name)
    if kernel.shared_bytes > 48 * 1024:  # what a block may have unless it asks
        function.max_dynamic_shared_size_bytes = kernel.shared_bytes
    return function


@functools.cache
def _module(source: str, device: int) -> Any:
    """All declared instances of a source that the device can run, compiled for it."""
    tell_compilation(source)
    folder = kernel_folder()
    headers = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.glob("*.cuh")))).hexdigest()
    able = _tensor_cores(cupy.cuda.Device(device))
    names = [k.name for k in declared(source) if able or not k.tensor_cores]
    return cupy.RawModule(
        code=kernel_path(source).read_text(encoding="utf-8"),
        options=("-std=c++17", f"-I{folder}", f"-DHEADERS={headers[:16]}"),
        name_expressions=names,
    )
