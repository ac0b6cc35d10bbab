"""Does an op agree with the naive reference?  Judged by what rounding explains, not by a guessed tolerance.

A sum of n terms, added up in any order with unit roundoff u, is off by at most gamma(n) = n*u / (1 - n*u)
times the sum of the terms' sizes (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition,
section 4.2). That sum of sizes is the op itself on absolute values, so for everything linear the bound needs
no constant: it is gamma(n) * reference.op(|x|, |weight|). The other ops add what their formula says. A fast
kernel may order its sums as it likes and stays inside; a missing term, a wrong row of padding or a sum in the
wrong dtype falls out.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.autograd import Tensor
from minidl.testing import reference
from minidl.testing.strategies import Case

Array = np.ndarray
Bound = Callable[..., Any]  # (u, *inputs, **options) -> the largest error allowed, per output element

LIBRARY = 8  # exp, log, tanh, pow: libraries stay within 4 units in the last place, which are 8 roundings


def agree(
    fn: Callable[..., Any],
    case: Case,
    *,
    reference: Callable[..., Array] | None = None,
    bound: Bound | None = None,
    dtypes: Sequence[Any] = (np.float32, np.float64),
) -> bool:
    """True if `fn(*case.inputs, **case.options)` is the reference's up to rounding, or an AssertionError.

    The case is rounded to each of `dtypes` in turn; fn must answer in that dtype. For an op of minidl both
    oracle and bound are found by its name. For one's own give `reference` (the same arguments, computing in
    float64) and `bound`: a function of the unit roundoff and the same arguments that returns the largest
    error allowed, as an array or a number.  ValueError without them.
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    oracle, allowed = reference or _oracle(name), bound or BOUNDS.get(name)
    if oracle is None or allowed is None:
        raise ValueError(f"agree: nothing is known about {name}; pass reference= and bound=")
    for dtype in dtypes:
        rounded = case.astype(dtype)
        y = fn(*_copies(rounded.inputs), **rounded.options)
        found = y.data if isinstance(y, Tensor) else y
        expected = oracle(*rounded.inputs, **rounded.options)
        if found.dtype != dtype or found.shape != expected.shape:
            raise AssertionError(
                f"agree: {name} returned {found.dtype} {found.shape}, expected {np.dtype(dtype)} "
                f"{expected.shape}\n  for {rounded!r}"
            )
        # The reference rounds too, in float64, and within the same bound.
        u, reference_u = np.finfo(dtype).eps / 2, np.finfo(np.float64).eps / 2
        wide = rounded.astype(np.float64)
        limit = allowed(u, *wide.inputs, **wide.options) + allowed(reference_u, *wide.inputs, **wide.options)
        limit = limit + np.finfo(dtype).tiny  # smaller numbers have fewer digits
        what = f"{name} ({np.dtype(dtype)})"
        _compare(what, found, expected, np.broadcast_to(limit, expected.shape), rounded)
    return True


def _oracle(name: str) -> Callable[..., Array] | None:
    return getattr(reference, name, None) if name in BOUNDS else None


def _copies(values: Sequence[Any]) -> list[Any]:
    """Batch norm writes into its running statistics; the case stays as it was drawn."""
    return [value.copy() if isinstance(value, np.ndarray) else value for value in values]


def _compare(what: str, found: Array, expected: Array, limit: Array, case: Case) -> None:
    """AssertionError naming the element that is furthest outside its bound."""
    with np.errstate(invalid="ignore"):
        error = np.where(found == expected, 0.0, np.abs(found - expected))
    outside = ~((error <= limit) | (np.isnan(found) & np.isnan(expected)))
    if not outside.any():
        return
    ratio = np.where(outside, error / limit, 0.0)
    worst = np.unravel_index(int(np.nan_to_num(ratio, nan=np.inf).argmax()), expected.shape)
    raise AssertionError(
        f"agree: {what}: {int(outside.sum())} of {outside.size} elements are further from the reference than "
        f"rounding explains\n  worst element {list(map(int, worst))}: found {float(found[worst])!r}, "
        f"reference {float(expected[worst])!r}, error {error[worst]:.3g}, bound {limit[worst]:.3g}\n"
        f"  for {case!r}"
    )


def gamma(n: float, u: float) -> float:
    """The relative error of n roundings in a row."""
    return n * u / (1 - n * u)


# --- the bounds: (u, the op's arguments) -> largest error per output element --------------------------------


def _exact(u: float, *inputs: Any, **options: Any) -> float:
    """Values are moved or chosen, never computed."""
    return 0.0


def _roundings(op: Callable[..., Array], count: int) -> Bound:
    """`count` roundings of the result, element by element."""
    return lambda u, *inputs, **options: gamma(count, u) * np.abs(op(*inputs, **options))


def _sum(u: float, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    sizes = reference.sum(np.abs(x), axis, keepdims)
    return gamma(x.size // sizes.size, u) * sizes


def _mean(u: float, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    sizes = reference.mean(np.abs(x), axis, keepdims)
    return gamma(x.size // sizes.size + 1, u) * sizes


def _matmul(u: float, a: Array, b: Array) -> Array:
    return gamma(a.shape[-1] + 1, u) * reference.matmul(np.abs(a), np.abs(b))


def _linear(u: float, x: Array, weight: Array, bias: Array | None = None) -> Array:
    return gamma(weight.shape[0] + 1, u) * reference.linear(
        np.abs(x), np.abs(weight), None if bias is None else np.abs(bias)
    )


def _conv2d(
    u: float,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    activation: str | None = None,
    **geometry: Any,
) -> Array:
    """An activation has slopes of at most 1: it does not enlarge the error that arrives, and adds its own."""
    terms = int(np.prod(weight.shape[:3])) + 1
    sizes = reference.conv2d(np.abs(x), np.abs(weight), None if bias is None else np.abs(bias), **geometry)
    return gamma(terms, u) * sizes + (gamma(LIBRARY, u) if activation in ("sigmoid", "tanh") else 0.0)


def _avg_pool2d(u: float, x: Array, kernel_size: Any, **geometry: Any) -> Array:
    kh, kw = np.broadcast_to(kernel_size, 2)
    return gamma(int(kh * kw) + 1, u) * reference.avg_pool2d(np.abs(x), kernel_size, **geometry)


def _adaptive_avg_pool2d(u: float, x: Array, output_size: Any) -> Array:
    oh, ow = np.broadcast_to(output_size, 2)
    largest_bin = int((x.shape[1] // oh + 2) * (x.shape[2] // ow + 2))
    return gamma(largest_bin + 1, u) * reference.adaptive_avg_pool2d(np.abs(x), output_size)


def _global_avg_pool(u: float, x: Array) -> Array:
    return gamma(x.shape[1] * x.shape[2] + 1, u) * reference.global_avg_pool(np.abs(x))


def _batch_norm(
    u: float,
    x: Array,
    gamma_: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    eps: float = 1e-5,
    residual: Array | None = None,
    **rest: Any,
) -> Array:
    """The mean is off by `shift`, and the variance is taken from deviations d, not as E[x^2] - mean^2.

    The shift moves every d alike; in the variance it enters squared, because the d sum to zero.
    """
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    centre = x.mean(axes) if training else running_mean
    var = x.var(axes) if training else running_var
    shift = gamma(count + 1, u) * np.abs(x).mean(axes) if training else 0.0
    var_error = gamma(count + 4, u) * var + shift**2 if training else 0.0
    inv_std = 1 / np.sqrt(var + eps)
    relative = var_error * inv_std**2 / 2 + gamma(LIBRARY, u)  # of inv_std and the few products that follow
    d = np.abs(x - centre)
    scale = np.abs(gamma_) * inv_std
    extra = np.abs(beta) + (0.0 if residual is None else np.abs(residual))
    return scale * (shift + d * relative) + gamma(3, u) * (scale * d + extra)


def _local_response_norm(u: float, x: Array, size: int, *, beta: float = 0.75, **options: Any) -> Array:
    y = reference.local_response_norm(x, size, beta=beta, **options)
    return (beta * gamma(size + 4, u) + gamma(LIBRARY + 2, u)) * np.abs(y)


def _log_softmax(u: float, x: Array, axis: int = -1) -> Array:
    """x - largest rounds once; exp makes this a relative error, the sum averages it, log takes it back."""
    below, in_sum = _softmax_parts(u, x, axis)
    y = np.abs(reference.log_softmax(x, axis))
    return in_sum + u * below + gamma(LIBRARY, u) * np.abs(y - below) + u * y


def _softmax(u: float, x: Array, axis: int = -1) -> Array:
    below, in_sum = _softmax_parts(u, x, axis)
    return reference.softmax(x, axis) * (u * below + gamma(LIBRARY + 2, u) + in_sum)


def _softmax_parts(u: float, x: Array, axis: int) -> tuple[Array, Array]:
    """How far each value lies below the largest, and the relative error of the sum of their exponentials."""
    below = x.max(axis, keepdims=True) - x
    carried = (reference.softmax(x, axis) * below).sum(axis, keepdims=True)
    return below, u * carried + gamma(x.shape[axis] + LIBRARY, u)


def _cross_entropy(
    u: float,
    logits: Array,
    labels: Array,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    ignore_index: int | None = None,
    class_weight: Array | None = None,
) -> Any:
    """Losses are sums of log-probabilities: the errors of those add up, the sums' roundings come on top."""
    n, k = logits.shape
    w = np.ones(k) if class_weight is None else class_weight
    counts = labels != ignore_index
    target = np.where(counts, labels, 0)
    shares = np.tile(label_smoothing / k * w, (n, 1))
    shares[np.arange(n), target] += (1 - label_smoothing) * w[target]
    sizes = counts * (shares * np.abs(reference.log_softmax(logits))).sum(1)
    errors = counts * (shares * _log_softmax(u, logits)).sum(1) + gamma(k + 6, u) * sizes
    if reduction == "none":
        return errors
    total = errors.sum() + gamma(2 * n + 4, u) * sizes.sum()
    return total if reduction == "sum" else total / w[target][counts].sum()


EXACT = (
    "neg",
    "abs",
    "maximum",
    "minimum",
    "where",
    "clip",
    "relu",
    "max",
    "max_pool2d",
    "reshape",
    "transpose",
    "flatten",
    "concat",
    "pad",
    "getitem",
)
BOUNDS: dict[str, Bound] = {
    **dict.fromkeys(EXACT, _exact),
    **{name: _roundings(getattr(reference, name), 1) for name in ("add", "sub", "mul", "div", "sqrt")},
    **{name: _roundings(getattr(reference, name), LIBRARY) for name in ("exp", "log", "tanh", "pow")},
    "sigmoid": _roundings(reference.sigmoid, LIBRARY + 2),
    "sum": _sum,
    "mean": _mean,
    "matmul": _matmul,
    "linear": _linear,
    "conv2d": _conv2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "global_avg_pool": _global_avg_pool,
    "batch_norm": _batch_norm,
    "local_response_norm": _local_response_norm,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "cross_entropy": _cross_entropy,
}
