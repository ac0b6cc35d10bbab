"""Normalisation on the CPU: over the batch in two passes forward and two backward, with sums over rows of
pixels; over neighbouring channels row by row.

An array (N, H, W, C) is M = N*H*W rows of C numbers. Sums over the rows are made in chunks of `_CHUNK` rows,
one after the other within a chunk, and the chunks are added in order in float64: the same bits for any number
of threads, and rounding that does not grow with M. Variances are sums of squares about each chunk's own
mean, not about zero, so that a large offset costs no digits.

Where C is small, neighbouring rows are taken for one (`_fold`), so that loops over a row are long enough to
run at the speed of memory; what belongs to a channel is repeated, or added up, accordingly.

Neighbours are added afresh for every channel, never by a running sum, which would lose the small ones beside
a large one. A row stays in the innermost cache meanwhile, so that doing it again in the gradient is cheaper
than keeping the sums.

Bound by: memory. Where a ReLU follows, what passes it is computed again from x, which is read in any case.
"""

import numpy as np
from numba import prange

from minidl.backend.cpu import memory
from minidl.backend.cpu.compile import compiled
from minidl.backend.cpu.instructions import numbers_at, prefetch

_CHUNK = 256  # rows
_WIDE = 256  # numbers of a row up to which neighbours are taken together
_AHEAD = 2048  # numbers: so far ahead memory is fetched


def column_sums(x: np.ndarray) -> np.ndarray:
    """Sum over all axes but the last.  (..., C) -> (C,)"""
    x, pitch = _lines(x)
    c, fold = x.shape[-1], _fold(x)
    rows = x.size // c // fold
    total = np.empty(c, x.dtype)
    space = memory.workspace(_chunks(rows) * fold * c, x.dtype)
    _column_sums(memory.address(x), pitch * fold, rows, fold * c, space, total)
    return total


def batch_statistics(
    x: np.ndarray, running_mean: np.ndarray, running_var: np.ndarray, momentum: float, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 1 / sqrt(var + eps) of each channel, var being divided by M.  (..., C) -> (C,), (C,)

    The running statistics become (1 - momentum) * running + momentum * batch in place, var divided by M - 1
    there. Chunk k gives the mean and the sum of squares about it; they are merged as in Chan et al. 1979:
    squares = sum_k (squares_k + count_k (mean_k - mean)^2).
    """
    x = memory.contiguous(x)
    c, fold = x.shape[-1], _fold(x)
    rows = x.reshape(-1, fold * c)
    space = memory.workspace(_chunks(len(rows)) * 2 * fold * c, x.dtype)
    mean, inv_std = np.empty(c, x.dtype), np.empty(c, x.dtype)
    _batch_statistics(rows, space, running_mean, running_var, momentum, eps, mean, inv_std)
    return mean, inv_std


def normalize(
    x: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    residual: np.ndarray | None,
    relu: bool,
) -> np.ndarray:
    """act(gamma * (x - mean) * inv_std + beta + residual)  (N, H, W, C) -> (N, H, W, C)"""
    x = memory.contiguous(x)
    y = memory.empty(x.shape, x.dtype)
    shape = -1, _fold(x) * x.shape[-1]
    other = x if residual is None else memory.contiguous(residual)
    channels = (memory.contiguous(values) for values in (mean, inv_std, gamma, beta))
    _normalize(
        x.reshape(shape), *channels, other.reshape(shape), residual is not None, relu, y.reshape(shape)
    )
    return y


def normalize_grad(
    g: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    relu: bool,
    training: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients by x, gamma and beta.  -> (N, H, W, C), (C,), (C,)

    grad_beta = sum of g, grad_gamma = sum of g * (x - mean) * inv_std over the M = N*H*W pixels; in training
    grad_x = gamma * inv_std * (g - grad_beta / M - (x - mean) * inv_std * grad_gamma / M), otherwise gamma *
    inv_std * g, for then the statistics are constants. With `relu`, that of a `normalize` without residual, g
    counts where its result is positive.
    """
    g, pitch = _lines(g)
    x = memory.contiguous(x)
    c, fold = x.shape[-1], _fold(g)
    rows = x.reshape(-1, fold * c)
    grad_x, grad_gamma, grad_beta = memory.empty(x.shape, x.dtype), np.empty(c, x.dtype), np.empty(c, x.dtype)
    channels = (memory.contiguous(values) for values in (mean, inv_std, gamma, beta))
    _normalize_grad(
        memory.address(g),
        pitch * fold,
        rows,
        *channels,
        relu,
        training,
        memory.workspace(2 * _chunks(len(rows)) * fold * c, x.dtype),
        grad_x.reshape(rows.shape),
        grad_gamma,
        grad_beta,
    )
    return grad_x, grad_gamma, grad_beta


def local_response_norm(x: np.ndarray, size: int, a: float, beta: float, k: float) -> np.ndarray:
    """x / s^beta with s = k + a * sum of squares over `size` channels around each.  (..., C) -> (..., C)"""
    x = memory.contiguous(x)
    y = memory.empty(x.shape, x.dtype)
    c, number = x.shape[-1], x.dtype.type
    half = min(size // 2, c - 1)
    _response(x.reshape(-1, c), half, number(a), number(beta), number(k), y.reshape(-1, c))
    return y


def local_response_norm_grad(
    g: np.ndarray, x: np.ndarray, size: int, a: float, beta: float, k: float
) -> np.ndarray:
    """g / s^beta - 2 a beta x * sum over the same channels of g x / s^(beta + 1).  (..., C) -> (..., C)"""
    x, g = memory.contiguous(x), memory.contiguous(g)
    grad_x = memory.empty(x.shape, x.dtype)
    c, number = x.shape[-1], x.dtype.type
    half = min(size // 2, c - 1)
    _response_grad(
        g.reshape(-1, c),
        x.reshape(-1, c),
        half,
        number(a),
        number(beta),
        number(k),
        number(2 * a * beta),
        grad_x.reshape(-1, c),
    )
    return grad_x


def _fold(x: np.ndarray) -> int:
    """How many neighbouring rows of C numbers are taken for one: a power of two that divides their number.

    1 where they do not follow one another in memory.
    """
    c, fold = x.shape[-1], 1
    m = x.size // c
    if x.flags.c_contiguous:
        while 2 * fold * c <= _WIDE and m % (2 * fold) == 0:
            fold *= 2
    return fold


def _lines(x: np.ndarray) -> tuple[np.ndarray, int]:
    """(x, how far its rows of C numbers lie apart in memory); a contiguous copy where that varies.

    So the gradient of a part of a concatenation is read where it lies.
    """
    if not x.flags.c_contiguous:
        steps = memory.distances(x)
        even = all(outer == n * inner for outer, n, inner in zip(steps[:-2], x.shape[1:-1], steps[1:-1]))
        if x.ndim > 1 and even and steps[-1] == 1 and steps[-2] >= x.shape[-1]:
            return x, steps[-2]
    return memory.contiguous(x), x.shape[-1]


def _chunks(rows: int) -> int:
    return -(-rows // _CHUNK)


@compiled
def _spread(values, size):  # type: ignore[no-untyped-def]
    """What belongs to a channel, for rows of `size` numbers.  (C,) -> (size,)"""
    spread = np.empty(size, values.dtype)
    for at in range(0, size, values.size):
        spread[at : at + values.size] = values
    return spread


@compiled
def _add_rows(rows, result):  # type: ignore[no-untyped-def]
    """result = the sum of all rows, in their order; `fold` are taken for one.  (M, fold * C) -> (C,)"""
    total = np.zeros(result.size, np.float64)
    for i in range(rows.shape[0]):
        for first in range(0, rows.shape[1], total.size):
            for j in range(total.size):
                total[j] += rows[i, first + j]
    for j in range(total.size):
        result[j] = total[j]


@compiled(parallel=True)
def _column_sums(address, pitch, m, c, space, total):  # type: ignore[no-untyped-def]
    parts = numbers_at(space.ctypes.data, ((m + _CHUNK - 1) // _CHUNK, c), space)
    ahead = 1 + _AHEAD // c
    x = numbers_at(address, (m - 1) * pitch + c, parts)
    for chunk in prange(parts.shape[0]):
        part = parts[chunk]
        part[:] = 0
        for i in range(chunk * _CHUNK, min(m, (chunk + 1) * _CHUNK)):
            prefetch(x, (i + ahead) * pitch, c)
            row = x[i * pitch : i * pitch + c]
            for j in range(c):
                part[j] += row[j]
    _add_rows(parts, total)


@compiled(parallel=True)
def _batch_statistics(x, space, running_mean, running_var, momentum, eps, mean, inv_std):  # type: ignore[no-untyped-def]
    """Mean of each chunk of rows, and the sum of squares about it, in `space`; then of all of them.

    The chunk is still in cache when it is read again for the squares.
    """
    m, c = x.shape
    chunks = (m + _CHUNK - 1) // _CHUNK
    parts = numbers_at(space.ctypes.data, (chunks, 2, c), space)
    ahead = 1 + _AHEAD // c
    for chunk in prange(parts.shape[0]):
        centre, squares = parts[chunk, 0], parts[chunk, 1]
        start = chunk * _CHUNK
        end = min(m, start + _CHUNK)
        centre[:] = 0
        squares[:] = 0
        for i in range(start, end):
            prefetch(x, (i + ahead) * c, c)
            for j in range(c):
                centre[j] += x[i, j]
        for j in range(c):
            centre[j] /= end - start
        for i in range(start, end):
            for j in range(c):
                d = x[i, j] - centre[j]
                squares[j] += d * d
    count = x.size // mean.size
    folded = numbers_at(space.ctypes.data, (chunks, 2, c // mean.size, mean.size), space)
    total, squares = _merge_moments(folded, m)
    for j in range(mean.size):
        mean[j], inv_std[j] = total[j], 1 / np.sqrt(squares[j] / count + eps)
        running_mean[j] = (1 - momentum) * running_mean[j] + momentum * total[j]
        running_var[j] = (1 - momentum) * running_var[j] + momentum * (squares[j] / (count - 1))


@compiled
def _merge_moments(parts, m):  # type: ignore[no-untyped-def]
    """(means, sums of squares about them) from those of the chunks of m rows, each of `fold` of C numbers.

    (chunks, 2, fold, C) -> (C,), (C,), float64
    """
    chunks, _, fold, c = parts.shape
    total, squares = np.zeros(c, np.float64), np.zeros(c, np.float64)
    for chunk in range(chunks):
        count = min(_CHUNK, m - chunk * _CHUNK)
        for r in range(fold):
            for j in range(c):
                total[j] += count * parts[chunk, 0, r, j]
    total /= m * fold
    for chunk in range(chunks):
        count = min(_CHUNK, m - chunk * _CHUNK)
        for r in range(fold):
            for j in range(c):
                d = parts[chunk, 0, r, j] - total[j]
                squares[j] += parts[chunk, 1, r, j] + count * d * d
    return total, squares


@compiled(parallel=True)
def _normalize(x, mean, inv_std, gamma, beta, residual, with_residual, relu, y):  # type: ignore[no-untyped-def]
    m, c = x.shape
    ahead = 1 + _AHEAD // c
    centre, scale, shift = _spread(mean, c), _spread(inv_std * gamma, c), _spread(beta, c)
    for chunk in prange((m + _CHUNK - 1) // _CHUNK):
        for i in range(chunk * _CHUNK, min(m, (chunk + 1) * _CHUNK)):
            prefetch(x, (i + ahead) * c, c)
            prefetch(y, (i + ahead) * c, c)
            for j in range(c):
                value = (x[i, j] - centre[j]) * scale[j] + shift[j]
                if with_residual:
                    value += residual[i, j]
                y[i, j] = 0 if relu and value < 0 else value


@compiled(parallel=True)
def _normalize_grad(  # type: ignore[no-untyped-def]
    address, pitch, x, mean, inv_std, gamma, beta, relu, training, space, grad_x, grad_gamma, grad_beta
):
    """The sums over chunks of rows in `space`, their totals, then grad_x."""
    m, c = x.shape
    chunks = (m + _CHUNK - 1) // _CHUNK
    parts = numbers_at(space.ctypes.data, (2, chunks, c), space)
    ahead = 1 + _AHEAD // c
    g = numbers_at(address, (m - 1) * pitch + c, x)
    centre, scale, shift = _spread(mean, c), _spread(inv_std * gamma, c), _spread(beta, c)
    zero = x.dtype.type(0)  # of x's type: beside an integer's numba would compute in float64
    for chunk in prange(parts.shape[1]):
        first, second = parts[0, chunk], parts[1, chunk]
        first[:] = 0
        second[:] = 0
        for i in range(chunk * _CHUNK, min(m, (chunk + 1) * _CHUNK)):
            prefetch(g, (i + ahead) * pitch, c)
            prefetch(x, (i + ahead) * c, c)
            row = g[i * pitch : i * pitch + c]
            for j in range(c):
                centred = x[i, j] - centre[j]
                arriving = zero if relu and not centred * scale[j] + shift[j] > 0 else row[j]
                first[j] += arriving
                second[j] += arriving * centred
    _add_rows(parts[0], grad_beta)
    _add_rows(parts[1], grad_gamma)
    count = x.dtype.type(x.size // mean.size)
    grad_gamma *= inv_std
    mean_g, slope = _spread(grad_beta / count, c), _spread(grad_gamma * inv_std / count, c)
    for chunk in prange(parts.shape[1]):
        for i in range(chunk * _CHUNK, min(m, (chunk + 1) * _CHUNK)):
            prefetch(g, (i + ahead) * pitch, c)
            prefetch(x, (i + ahead) * c, c)
            prefetch(grad_x, (i + ahead) * c, c)
            row = g[i * pitch : i * pitch + c]
            for j in range(c):
                centred = x[i, j] - centre[j]
                arriving = zero if relu and not centred * scale[j] + shift[j] > 0 else row[j]
                if training:
                    arriving -= mean_g[j] + centred * slope[j]
                grad_x[i, j] = scale[j] * arriving


@compiled
def _around(values, half, total):  # type: ignore[no-untyped-def]
    """total[j] = sum of values[j] .. values[j + 2 * half]; values: a row with `half` zeros on either side."""
    for j in range(total.size):
        total[j] = values[j]
    for offset in range(1, 2 * half + 1):
        for j in range(total.size):
            total[j] += values[j + offset]


@compiled
def _powers(base, beta, power):  # type: ignore[no-untyped-def]
    """power = base ** beta; the usual betas go by square roots, which run over whole vectors."""
    if beta == 0.75:
        for j in range(base.size):
            root = np.sqrt(base[j])
            power[j] = root * np.sqrt(root)
    elif beta == 0.5:
        for j in range(base.size):
            power[j] = np.sqrt(base[j])
    else:
        for j in range(base.size):
            power[j] = base[j] ** beta


@compiled
def _energies(row, half, a, k, frame, scale):  # type: ignore[no-untyped-def]
    """scale[j] = k + a * sum of squares around channel j; frame (C + 2 * half,) is space for the squares."""
    for j in range(row.size):
        frame[half + j] = row[j] * row[j]
    _around(frame, half, scale)
    for j in range(row.size):
        scale[j] = k + a * scale[j]


@compiled(parallel=True)
def _response(x, half, a, beta, k, y):  # type: ignore[no-untyped-def]
    m, c = x.shape
    for chunk in prange((m + _CHUNK - 1) // _CHUNK):
        frame = np.zeros(c + 2 * half, x.dtype)
        scale, power = np.empty(c, x.dtype), np.empty(c, x.dtype)
        for i in range(chunk * _CHUNK, min(m, (chunk + 1) * _CHUNK)):
            _energies(x[i], half, a, k, frame, scale)
            _powers(scale, beta, power)
            for j in range(c):
                y[i, j] = x[i, j] / power[j]


@compiled(parallel=True)
def _response_grad(g, x, half, a, beta, k, slope, grad_x):  # type: ignore[no-untyped-def]
    m, c = x.shape
    for chunk in prange((m + _CHUNK - 1) // _CHUNK):
        frame = np.zeros(c + 2 * half, x.dtype)
        scale, power, total = np.empty(c, x.dtype), np.empty(c, x.dtype), np.empty(c, x.dtype)
        for i in range(chunk * _CHUNK, min(m, (chunk + 1) * _CHUNK)):
            _energies(x[i], half, a, k, frame, scale)
            _powers(scale, beta, power)
            for j in range(c):
                power[j] = g[i, j] / power[j]
                frame[half + j] = power[j] * x[i, j] / scale[j]
            _around(frame, half, total)
            for j in range(c):
                grad_x[i, j] = power[j] - slope * x[i, j] * total[j]
