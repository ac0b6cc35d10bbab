"""Is there a GPU here that can be computed on?  Asked without touching it, answered with what was found."""

import functools

from minidl.errors import DeviceError


def check(name: str) -> None:
    """DeviceError unless the device "cuda" or "cuda:N" can be used."""
    problem = _problem(int(name.partition(":")[2] or 0))
    if problem:
        raise DeviceError(
            f"device {name!r} is not available: {problem}. 'cpu' always is, and 'cudasim' runs the CUDA "
            "kernels on the CPU, to check them"
        )


@functools.cache
def _problem(index: int) -> str:
    """Why GPU number `index` cannot be used, or ""."""
    try:
        import cupy
    except ImportError as error:
        return (
            f"CuPy cannot be imported ({error}); install minidl[cuda12] or minidl[cuda13], whichever the "
            "driver supports (nvidia-smi tells)"
        )
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy {cupy.__version__} finds no GPU ({error}); is there one here, and NVIDIA's driver"
    if index >= count:
        return f"CuPy {cupy.__version__} finds {count} GPUs, numbered from 0"
    return ""
