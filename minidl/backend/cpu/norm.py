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
from minidl.backend.cpu.instructions import prefetch

_CHUNK = 256  # rows
_WIDE = 256  # numbers of a row up to which neighbours are taken together
_AHEAD = 2048  # numbers: so far ahead memory is fetched


def column_sums(x: np.ndarray) -> np.ndarray:
    """Sum over all axes but the last.  (..., C) -> (C,)"""
    fold = _fold(x)
    m, width = x.size // x.shape[-1] // fold, x.shape[-1] * fold
    parts = memory.empty((_chunks(m), width), x.dtype)
    _column_sums(*_lines(x, width), m, parts)
    return _total(parts, x.shape[-1])


def batch_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of each channel.  (..., C) -> (C,), (C,)

    Chunk k gives the mean and the sum of squares about it; they are merged as in Chan et al. 1979:
    squares = sum_k (squares_k + count_k (mean_k - mean)^2).
    """
    fold, c = _fold(x, contiguous=True), x.shape[-1]
    rows = _rows(x, fold)
    parts = memory.empty((_chunks(len(rows)), 2, rows.shape[1]), x.dtype)
    _chunk_moments(rows, parts)
    mean, variance = np.empty(c, x.dtype), np.empty(c, x.dtype)
    _merge_moments(parts.reshape(-1, 2, fold, c), len(rows), mean, variance)
    return mean, variance


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
    y = memory.empty(x.shape, x.dtype)
    fold = _fold(x, contiguous=True)
    _normalize(
        _rows(x, fold),
        _repeated(mean, fold),
        _repeated(inv_std * gamma, fold),
        _repeated(beta, fold),
        _rows(x if residual is None else residual, fold),
        residual is not None,
        relu,
        _rows(y, fold),
    )
    return y


def normalize_grad_sums(
    g: np.ndarray, x: np.ndarray, mean: np.ndarray, inv_std: np.ndarray, gamma: np.ndarray, beta: np.ndarray,
    relu: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(sum of g, sum of g * (x - mean) * inv_std) per channel: the gradients of beta and gamma.

    With `relu`, that of a `normalize` without residual, g counts where its result is positive.
    """
    fold, c = _fold(g), x.shape[-1]
    rows = _rows(x, fold)
    parts = memory.empty((2, _chunks(len(rows)), fold * c), x.dtype)
    _grad_sums(
        *_lines(g, fold * c),
        rows,
        _repeated(mean, fold),
        _repeated(inv_std * gamma, fold),
        _repeated(beta, fold),
        relu,
        parts,
    )
    sums = _total(parts[0], c), _total(parts[1], c)
    return sums[0], sums[1] * inv_std


def normalize_grad_x(
    g: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    relu: bool,
    grad_beta: np.ndarray,
    grad_gamma: np.ndarray,
) -> np.ndarray:
    """gamma * inv_std * (g - grad_beta / M - (x - mean) * inv_std * grad_gamma / M)  -> (N, H, W, C)

    `relu` as in `normalize_grad_sums`.
    """
    fold, c = _fold(g), x.shape[-1]
    m = x.dtype.type(x.size // c)
    grad_x = memory.empty(x.shape, x.dtype)
    _grad_x(
        *_lines(g, fold * c),
        _rows(x, fold),
        _repeated(mean, fold),
        _repeated(inv_std * gamma, fold),
        _repeated(beta, fold),
        relu,
        _repeated(grad_beta / m, fold),
        _repeated(grad_gamma * inv_std / m, fold),
        _rows(grad_x, fold),
    )
    return grad_x


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


def _fold(x: np.ndarray, contiguous: bool = False) -> int:
    """How many neighbouring rows of C numbers are taken for one: a power of two that divides their number.

    1 where they do not follow one another in memory, unless they will (`contiguous`).
    """
    c, fold = x.shape[-1], 1
    m = x.size // c
    if contiguous or x.flags.c_contiguous:
        while 2 * fold * c <= _WIDE and m % (2 * fold) == 0:
            fold *= 2
    return fold


def _repeated(values: np.ndarray, fold: int) -> np.ndarray:
    """What belongs to a channel, for `fold` rows taken for one.  (C,) -> (fold * C,)"""
    return memory.contiguous(values) if fold == 1 else np.concatenate([values] * fold)


def _rows(x: np.ndarray, fold: int) -> np.ndarray:
    """(..., C) -> (M / fold, fold * C), contiguous"""
    return memory.contiguous(x).reshape(-1, fold * x.shape[-1])


def _lines(x: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    """(x's memory, how far its rows of `width` numbers lie apart there); a copy's where that varies.

    So the gradient of a part of a concatenation is read where it lies.
    """
    if x.flags.c_contiguous:
        return x.reshape(-1), width
    steps = memory.distances(x)
    even = all(outer == n * inner for outer, n, inner in zip(steps[:-2], x.shape[1:-1], steps[1:-1]))
    if x.ndim > 1 and even and steps[-1] == 1 and steps[-2] >= width:
        span = (x.size // x.shape[-1] - 1) * steps[-2] + width
        return np.lib.stride_tricks.as_strided(x, (span,), (x.itemsize,)), steps[-2]
    return memory.copy(x).reshape(-1), width


def _chunks(rows: int) -> int:
    return -(-rows // _CHUNK)


def _total(parts: np.ndarray, c: int) -> np.ndarray:
    """The sum of all rows of C numbers, in their order.  (...) -> (C,)"""
    result = np.empty(c, parts.dtype)
    _add_rows(parts.reshape(-1, c), result)
    return result


@compiled
def _add_rows(rows, result):  # type: ignore[no-untyped-def]
    total = np.zeros(result.size, np.float64)
    for i in range(rows.shape[0]):
        for j in range(total.size):
            total[j] += rows[i, j]
    for j in range(total.size):
        result[j] = total[j]


@compiled(parallel=True)
def _column_sums(x, pitch, m, parts):  # type: ignore[no-untyped-def]
    c = parts.shape[1]
    ahead = 1 + _AHEAD // c
    for chunk in prange(parts.shape[0]):
        total = parts[chunk]
        total[:] = 0
        for i in range(chunk * _CHUNK, min(m, (chunk + 1) * _CHUNK)):
            prefetch(x, (i + ahead) * pitch, c)
            row = x[i * pitch : i * pitch + c]
            for j in range(c):
                total[j] += row[j]


@compiled(parallel=True)
def _chunk_moments(x, parts):  # type: ignore[no-untyped-def]
    """parts (chunks, 2, C) = mean of each chunk of rows, and the sum of squares about it.

    The chunk is still in cache when it is read again for the squares.
    """
    m, c = x.shape
    ahead = 1 + _AHEAD // c
    for chunk in prange(parts.shape[0]):
        mean, squares = parts[chunk, 0], parts[chunk, 1]
        start = chunk * _CHUNK
        end = min(m, start + _CHUNK)
        mean[:] = 0
        squares[:] = 0
        for i in range(start, end):
            prefetch(x, (i + ahead) * c, c)
            for j in range(c):
                mean[j] += x[i, j]
        for j in range(c):
            mean[j] /= end - start
        for i in range(start, end):
            for j in range(c):
                d = x[i, j] - mean[j]
                squares[j] += d * d


@compiled
def _merge_moments(parts, m, mean, variance):  # type: ignore[no-untyped-def]
    """From those of the chunks of m rows, each of `fold` of C numbers.  (chunks, 2, fold, C) -> (C,), (C,)"""
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
    for j in range(c):
        mean[j], variance[j] = total[j], squares[j] / (m * fold)


@compiled(parallel=True)
def _normalize(x, mean, scale, beta, residual, with_residual, relu, y):  # type: ignore[no-untyped-def]
    m, c = x.shape
    ahead = 1 + _AHEAD // c
    for chunk in prange((m + _CHUNK - 1) // _CHUNK):
        for i in range(chunk * _CHUNK, min(m, (chunk + 1) * _CHUNK)):
            prefetch(x, (i + ahead) * c, c)
            prefetch(y, (i + ahead) * c, c)
            for j in range(c):
                value = (x[i, j] - mean[j]) * scale[j] + beta[j]
                if with_residual:
                    value += residual[i, j]
                y[i, j] = 0 if relu and value < 0 else value


@compiled(parallel=True)
def _grad_sums(g, pitch, x, mean, scale, beta, relu, parts):  # type: ignore[no-untyped-def]
    m, c = x.shape
    ahead = 1 + _AHEAD // c
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
                centred = x[i, j] - mean[j]
                arriving = zero if relu and not centred * scale[j] + beta[j] > 0 else row[j]
                first[j] += arriving
                second[j] += arriving * centred


@compiled(parallel=True)
def _grad_x(g, pitch, x, mean, scale, beta, relu, mean_g, slope, grad_x):  # type: ignore[no-untyped-def]
    m, c = x.shape
    ahead = 1 + _AHEAD // c
    zero = x.dtype.type(0)
    for chunk in prange((m + _CHUNK - 1) // _CHUNK):
        for i in range(chunk * _CHUNK, min(m, (chunk + 1) * _CHUNK)):
            prefetch(g, (i + ahead) * pitch, c)
            prefetch(x, (i + ahead) * c, c)
            prefetch(grad_x, (i + ahead) * c, c)
            row = g[i * pitch : i * pitch + c]
            for j in range(c):
                centred = x[i, j] - mean[j]
                arriving = zero if relu and not centred * scale[j] + beta[j] > 0 else row[j]
                grad_x[i, j] = scale[j] * (arriving - mean_g[j] - centred * slope[j])


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
