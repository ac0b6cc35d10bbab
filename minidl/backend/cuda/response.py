"""Local response normalisation on the GPU: kernels/response.cu."""

from minidl.backend import Array
from minidl.backend.cuda.device import empty_like, runtime_of
from minidl.backend.cuda.elementwise import FLOATS, instance, instances
from minidl.backend.cuda.launch import THREADS, launch
from minidl.backend.cuda.move import contiguous

_RESPONSE = instances("response.cu", "response", FLOATS)
_RESPONSE_GRAD = instances("response.cu", "response_grad", FLOATS)
_HALO = 16  # channels: wider neighbourhoods are as correct, and slow


def local_response_norm(x: Array, size: int, a: float, beta: float, k: float) -> Array:
    """x / s^beta with s = k + a * sum of squares over `size` channels around each.  (..., C) -> (..., C)"""
    x = contiguous(x)
    y, found = empty_like(x), instance(_RESPONSE, x.dtype, "local_response_norm")
    if y.size:
        c = x.shape[-1]
        m, width = x.size // c, _width(c)
        lanes, blocks = THREADS // width, -(-c // width)
        grid, block = (-(-m // lanes), blocks), (width, lanes)
        launch(found, runtime_of(x), grid, x, y, m, c, _half(size, c), a, beta, k, block=block)
    return y


def local_response_norm_grad(g: Array, x: Array, size: int, a: float, beta: float, k: float) -> Array:
    """g / s^beta - 2 a beta x * sum over the same channels of g x / s^(beta + 1).  (..., C) -> (..., C)"""
    x, g = contiguous(x), contiguous(g)
    grad_x, found = empty_like(x), instance(_RESPONSE_GRAD, x.dtype, "local_response_norm's gradient")
    if grad_x.size:
        c = x.shape[-1]
        m, width, half = x.size // c, _width(c), _half(size, c)
        halo = min(half, _HALO) if c > width else 0
        step, lanes = width - 2 * halo, THREADS // width
        grid, block = (-(-m // lanes), -(-c // step)), (width, lanes)
        arguments = g, x, grad_x, m, c, half, a, beta, k, 2 * a * beta, step, halo
        launch(found, runtime_of(x), grid, *arguments, block=block)
    return grad_x


def _half(size: int, c: int) -> int:
    """How many channels on either side belong to the neighbourhood, at most all others."""
    return min(size // 2, c - 1)


def _width(c: int) -> int:
    """Threads of a block side by side: whole warps, one row of channels if it fits."""
    return min(-(-c // 32) * 32, THREADS)
