"""Pooling over windows and over whole images. Gradients need the winner's place (max) or the geometry alone
(averages)."""

from typing import Any

from minidl import backend
from minidl.backend import Array
from minidl.errors import ShapeError
from minidl.ops._shapes import check_image
from minidl.recording import op
from minidl.window import Padding, Pair, Window, pair, window


@op
def max_pool2d(
    x: Array, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0, ceil_mode: bool = False
) -> Any:
    """The largest of each window, per channel.  (N, H, W, C) -> (N, OH, OW, C)

    Padding never wins. Of equal maxima the first in row-major order receives the gradient. `stride` is the
    kernel size by default; `ceil_mode` keeps a last window that hangs over the edge, if it starts inside the
    image or its top/left padding.
    """
    geometry = _window("max_pool2d", x, kernel_size, stride, padding, ceil_mode)
    xp = backend.of(x)
    y, taps = xp.max_pool2d(x, geometry)

    def grad_x(g: Array) -> Array:
        return xp.max_pool2d_grad(g, taps, geometry)

    return y, (grad_x,)


@op
def avg_pool2d(
    x: Array,
    kernel_size: Pair,
    *,
    stride: Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window, per channel.  (N, H, W, C) -> (N, OH, OW, C)

    With `count_include_pad` padding counts as zeros (PyTorch, Caffe); without, only real pixels are averaged
    (TensorFlow). What a last window of `ceil_mode` covers beyond the padding never counts.
    """
    geometry = _window("avg_pool2d", x, kernel_size, stride, padding, ceil_mode)
    xp = backend.of(x)

    def grad_x(g: Array) -> Array:
        return xp.avg_pool2d_grad(g, geometry, count_include_pad)

    return xp.avg_pool2d(x, geometry, count_include_pad), (grad_x,)


@op
def adaptive_avg_pool2d(x: Array, output_size: Pair) -> Any:
    """Means over output_size bins that cover the image evenly.  (N, H, W, C) -> (N, OH, OW, C)

    Bin i reaches from floor(i * H / OH) up to ceil((i + 1) * H / OH), so bins overlap where H is no multiple
    of OH (PyTorch's rule).
    """
    check_image("adaptive_avg_pool2d", x)
    xp, size, output = backend.of(x), x.shape[1:3], pair(output_size, "adaptive_avg_pool2d", "output_size")

    def grad_x(g: Array) -> Array:
        return xp.adaptive_avg_pool2d_grad(g, size)

    return xp.adaptive_avg_pool2d(x, output), (grad_x,)


@op
def global_avg_pool(x: Array) -> Any:
    """The mean over rows and columns.  (N, H, W, C) -> (N, C)"""
    check_image("global_avg_pool", x)
    xp, size = backend.of(x), x.shape[1:3]

    def grad_x(g: Array) -> Array:
        return xp.global_avg_pool_grad(g, size)

    return xp.global_avg_pool(x), (grad_x,)


def _window(
    op_name: str, x: Array, kernel_size: Pair, stride: Pair | None, padding: Padding, ceil_mode: bool
) -> Window:
    """The checked geometry.  ShapeError where a window could lie in the padding altogether."""
    check_image(op_name, x)
    geometry = window(
        op_name,
        x.shape[1:3],
        kernel_size,
        stride=kernel_size if stride is None else stride,
        padding=padding,
        ceil_mode=ceil_mode,
    )
    for k, sides in zip(geometry.kernel, geometry.padding):
        if max(sides) >= k:
            raise ShapeError(
                f"{op_name}: padding {geometry.padding} must be smaller than kernel_size {geometry.kernel}, "
                "or a window would hold nothing but padding"
            )
    return geometry
