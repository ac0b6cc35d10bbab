"""How products of float32 matrices are computed: in float32, or on tensor cores from numbers rounded to
TF32."""

from minidl.backend import get_float32_precision

MATHS = ("Simt", "Tf32")  # as the kernels call them


def current() -> str:
    """The one of `MATHS` that `minidl.set_float32_precision` asks for."""
    return "Tf32" if get_float32_precision() == "tf32" else "Simt"
