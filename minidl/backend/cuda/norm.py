"""Normalisation over the batch on the GPU: kernels/norm.cu.

An array (N, H, W, C) is M = N*H*W rows of C numbers. Here is decided how many neighbouring channels a thread
takes, what a block looks like, and into how many chunks of rows a sum is divided: enough to keep a GPU busy,
few enough to be added up quickly. Nothing waits for the device.
"""

import math

from minidl.backend import Array
from minidl.backend.cuda.channels import WIDTHS, Columns, channels_at_once, columns, lines
from minidl.backend.cuda.device import empty_like, runtime_of
from minidl.backend.cuda.elementwise import FLOATS, Instances, instance, instances
from minidl.backend.cuda.launch import Kernel, Strided, kernel, launch
from minidl.backend.cuda.move import contiguous, write

_ROWS = 8  # of a thread, at least: what belongs to its channels is read once for them
_SAMPLE = 4  # rows of a thread from which it is seen about where the values lie
_BLOCKS = 512  # with chunks of rows to sum, at most: what a large GPU runs at once
_MERGING = 8, 32  # a block that merges chunks: channels, lanes


def _instances(name: str) -> dict[int, Instances]:
    return {wide: instances("norm.cu", f"{name}<{wide}>", FLOATS) for wide in WIDTHS}


_MOMENTS, _SUMS = _instances("moments"), _instances("gradient_sums")
_NORMALIZE, _NORMALIZE_GRAD = _instances("normalize"), _instances("normalize_grad")
_MERGE, _TOTAL = kernel("norm.cu", "merge_moments"), kernel("norm.cu", "total_sums")


def batch_statistics(
    x: Array, running_mean: Array, running_var: Array, momentum: float, eps: float
) -> tuple[Array, Array]:
    """Mean and 1 / sqrt(var + eps) of each channel, var being divided by M.  (..., C) -> (C,), (C,)

    The running statistics become (1 - momentum) * running + momentum * batch in place, var divided by M - 1
    there. Chunk k gives the mean and the sum of squares about it; they are merged as in Chan et al. 1979:
    squares = sum_k (squares_k + count_k (mean_k - mean)^2).
    """
    x, runtime, m, c = contiguous(x), runtime_of(x), _rows(x), x.shape[-1]
    laid = columns(c, channels_at_once(c, x))
    found = instance(_MOMENTS[laid.wide], x.dtype, "batch_norm")
    mean, inv_std = runtime.empty((c,), x.dtype), runtime.empty((c,), x.dtype)
    rows, chunks = _chunks(m, laid)
    parts = runtime.empty((chunks, 3, c), x.dtype)
    if x.size:
        launch(found, runtime, (chunks, laid.blocks), x, parts, m, c, rows, _SAMPLE, block=_block(laid))
    given = running_mean, running_var
    running = [contiguous(statistic) for statistic in given]
    numbers = m, c, rows, chunks, 1 - momentum, momentum, eps
    if c:
        _merge(_MERGE, parts, *running, mean, inv_std, *numbers)
    for own, statistic in zip(running, given):
        if own is not statistic:
            write(own, statistic)
    return mean, inv_std


def normalize(
    x: Array,
    mean: Array,
    inv_std: Array,
    gamma: Array,
    beta: Array,
    residual: Array | None,
    relu: bool,
) -> Array:
    """act(gamma * (x - mean) * inv_std + beta + residual)  (N, H, W, C) -> (N, H, W, C)"""
    x = contiguous(x)
    residual = None if residual is None else contiguous(residual)
    y, m, c = empty_like(x), _rows(x), x.shape[-1]
    laid = columns(c, channels_at_once(c, x, *(() if residual is None else (residual,))))
    found = instance(_NORMALIZE[laid.wide], x.dtype, "batch_norm")
    if y.size:
        channels = (contiguous(values) for values in (mean, inv_std, gamma, beta))
        rows = laid.lanes * _ROWS
        grid = -(-m // rows), laid.blocks
        arguments = x, *channels, residual, y, m, c, rows, relu
        launch(found, runtime_of(x), grid, *arguments, block=_block(laid))
    return y


def normalize_grad(
    g: Array,
    x: Array,
    mean: Array,
    inv_std: Array,
    gamma: Array,
    beta: Array,
    relu: bool,
    training: bool,
) -> tuple[Array, Array, Array]:
    """The gradients by x, gamma and beta.  -> (N, H, W, C), (C,), (C,)

    grad_beta = sum of g, grad_gamma = sum of g * (x - mean) * inv_std over the M = N*H*W pixels; in training
    grad_x = gamma * inv_std * (g - grad_beta / M - (x - mean) * inv_std * grad_gamma / M), otherwise gamma *
    inv_std * g, for then the statistics are constants. With `relu`, that of a `normalize` without residual, g
    counts where its result is positive.
    """
    g, pitch = lines(g)
    x, runtime, m, c = contiguous(x), runtime_of(x), _rows(x), x.shape[-1]
    laid = columns(c, channels_at_once(c, x, g) if pitch % 4 == 0 else 1)
    sums = instance(_SUMS[laid.wide], x.dtype, "batch_norm's gradient")
    grad_x, grad_gamma, grad_beta = (runtime.empty(shape, x.dtype) for shape in (x.shape, (c,), (c,)))
    channels = [contiguous(values) for values in (mean, inv_std, gamma, beta)]
    read = Strided(g), pitch, x, *channels
    rows, chunks = _chunks(m, laid)
    parts = runtime.empty((chunks, 2, c), x.dtype)
    if x.size:
        launch(sums, runtime, (chunks, laid.blocks), *read, parts, m, c, rows, relu, block=_block(laid))
    if c:
        _merge(_TOTAL, parts, channels[1], grad_gamma, grad_beta, c, chunks)
    if x.size:
        rows = laid.lanes * _ROWS
        arguments = *read, grad_gamma, grad_beta, grad_x, m, c, rows, relu, training
        found, grid = _NORMALIZE_GRAD[laid.wide][x.dtype], (-(-m // rows), laid.blocks)
        launch(found, runtime, grid, *arguments, block=_block(laid))
    return grad_x, grad_gamma, grad_beta


def _block(laid: Columns) -> tuple[int, int]:
    return laid.width, laid.lanes


def _rows(x: Array) -> int:
    """M: how many rows of C numbers x has."""
    return math.prod(x.shape[:-1])


def _chunks(m: int, laid: Columns) -> tuple[int, int]:
    """(rows of a chunk, how many chunks): each thread gets whole groups of `_ROWS` rows, one if that gives no
    more than `_BLOCKS` blocks."""
    least = laid.lanes * _ROWS
    groups = -(-m // least)
    rows = least * -(-groups // max(1, _BLOCKS // laid.blocks))
    return max(rows, least), -(-m // max(rows, least))


def _merge(merging: Kernel, parts: Array, *arguments: Array | float) -> None:
    """Launch a kernel that adds up what the chunks have given."""
    width, lanes = _MERGING
    blocks = -(-parts.shape[-1] // width)
    launch(merging, runtime_of(parts), blocks, parts, *arguments, block=(width, lanes))
