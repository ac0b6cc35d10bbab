"""How products of float32 matrices are computed: in float32, or on tensor cores from numbers rounded to
TF32."""

from minidl.backend import get_float32_precision
from minidl.backend.cuda.launch import Runtime

MATHS = ("Simt", "Tf32")  # as the kernels call them


def current(runtime: Runtime) -> str:
    """The one of `MATHS` that `minidl.set_float32_precision` asks for, if the device has it."""
    return "Tf32" if get_float32_precision() == "tf32" and runtime.tensor_cores else "Simt"
