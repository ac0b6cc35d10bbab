"""minidl against PyTorch: 2,000 drawn cases, forward and every gradient, in float32 and float64.

Both are roundings of one formula, so they may differ by the rounding bound of either: twice
`minidl.testing.bounds`, no more. PyTorch is no dependency: `pip install torch --index-url
https://download.pytorch.org/whl/cpu` brings what these tests need, without it they are skipped.

Where PyTorch knows a convention (symmetric padding, ceil_mode, count_include_pad, LRN's divided alpha) it is
asked in its own terms; where it does not (padding per side, "same", the paper's alpha) the case is put into
terms it knows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from minidl import ops
from minidl.autograd import Tensor
from minidl.testing import bounds, strategies

torch = pytest.importorskip(
    "torch",
    reason="PyTorch is not installed: pip install torch --index-url https://download.pytorch.org/whl/cpu",
)
F = torch.nn.functional

# Eight ops in two dtypes: 2,000 cases.
CASES = settings(max_examples=125)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def agrees(
    name: str,
    case: Any,
    leaves: Sequence[np.ndarray | None],
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
) -> None:
    """ours(*leaves) and theirs(*leaves), and their gradients by every leaf, are within twice the bound."""
    mine = [None if a is None else Tensor(a, requires_grad=True) for a in leaves]
    other = [None if a is None else torch.tensor(a.copy(), requires_grad=True) for a in leaves]
    y, expected = ours(*mine), theirs(*other)
    g = np.random.default_rng(0).standard_normal(y.shape).astype(y.dtype)
    y.backward(Tensor(g))
    expected.backward(torch.tensor(g))
    u, wide = np.finfo(y.dtype).eps / 2, case.astype(np.float64)
    arguments = (*wide.inputs,)
    close(y.data, expected.detach().numpy(), bounds.FORWARD[name](u, *arguments, **wide.options), name)
    allowed = bounds.GRADIENTS[name](u, g.astype(np.float64), *arguments, **wide.options)
    for k, (a, b, error) in enumerate(zip(mine, other, allowed, strict=True)):
        if a is not None:
            close(a.grad.data, b.grad.numpy(), error, f"{name}, gradient {k}")


def close(found: np.ndarray, expected: np.ndarray, error: Any, what: str) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    limit = np.broadcast_to(2 * error + 2 * np.finfo(found.dtype).tiny, found.shape)
    excess = np.abs(found - expected) - limit
    worst = np.unravel_index(excess.argmax(), excess.shape)
    assert (excess <= 0).all(), (
        f"{what}, at {tuple(map(int, worst))}: minidl {found[worst]!r}, PyTorch {expected[worst]!r}, "
        f"twice the bound {limit[worst]:.3g}"
    )


def images(x: Any) -> Any:
    """(N, H, W, C) -> PyTorch's (N, C, H, W)

    Copied into plain order: with one channel the permuted strides fit two layouts, and PyTorch 2.13 with
    oneDNN then pads in one and convolves in the other, reading beyond the image.
    """
    return x.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


def channels_last(y: Any) -> Any:
    """(N, C, H, W) -> (N, H, W, C)"""
    return y.permute(0, 2, 3, 1)


def sides(size: Sequence[int], kernel: Sequence[int], options: dict[str, Any]) -> list[tuple[int, int]]:
    """The padding as [(top, bottom), (left, right)]."""
    padding = options["padding"]
    if isinstance(padding, str):
        if padding == "valid":
            return [(0, 0), (0, 0)]
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, options.get("dilation", (1, 1)))]
        lacking = [
            max(0, -(-n // s) * s - s + span - n) for n, s, span in zip(size, options["stride"], spans)
        ]
        return [(total // 2, total - total // 2) for total in lacking]
    both = (padding, padding) if isinstance(padding, int) else padding
    return [(p, p) if isinstance(p, int) else tuple(p) for p in both]


@both_dtypes
@CASES
@given(strategies.conv2d_cases(activations=(None, "relu")))
def test_conv2d(dtype: Any, case: Any) -> None:
    case = case.astype(dtype)
    options = dict(case.options)
    (top, bottom), (left, right) = sides(case.x.shape[1:3], case.weight.shape[:2], options)
    activation, padding = options.pop("activation", None), options.pop("padding")
    own = padding if isinstance(padding, int) or padding == (top, left) else None  # as PyTorch takes it

    def theirs(x: Any, weight: Any, bias: Any) -> Any:
        x = images(x) if own is not None else F.pad(images(x), (left, right, top, bottom))
        y = F.conv2d(x, weight.permute(3, 2, 0, 1), bias, padding=own or 0, **options)
        return channels_last(torch.relu(y) if activation else y)

    agrees("conv2d", case, case.inputs, lambda *leaves: ops.conv2d(*leaves, **case.options), theirs)


def windows_fit(case: Any) -> bool:
    """Whether PyTorch's pools take the padding: symmetric, and at most half the window."""
    pads = sides(case.x.shape[1:3], case.options["kernel_size"], case.options)
    return all(a == b and 2 * a <= k for (a, b), k in zip(pads, case.options["kernel_size"]))


def padded(x: Any, case: Any, output: Sequence[int], padding: float, beyond: float) -> Any:
    """The images in padding of one value, then cut, or filled with what lies `beyond`, to the size on which
    windows give just `output`."""
    kernel, stride = case.options["kernel_size"], case.options["stride"]
    (top, bottom), (left, right) = sides(case.x.shape[1:3], kernel, case.options)
    x = F.pad(x, (left, right, top, bottom), value=padding)
    missing = [(o - 1) * s + k - n for n, k, s, o in zip(x.shape[2:], kernel, stride, output)]
    return F.pad(x, (0, missing[1], 0, missing[0]), value=beyond)


@both_dtypes
@CASES
@given(strategies.pool_cases())
def test_max_pool2d(dtype: Any, case: Any) -> None:
    case = case.astype(dtype)
    kernel, stride = case.options["kernel_size"], case.options["stride"]
    pads = sides(case.x.shape[1:3], kernel, case.options)
    output = ops.max_pool2d(case.x, **case.options).shape[1:3]

    def theirs(x: Any) -> Any:
        if windows_fit(case):
            padding = [before for before, _ in pads]
            y = F.max_pool2d(images(x), kernel, stride, padding, ceil_mode=case.options["ceil_mode"])
        else:
            y = F.max_pool2d(padded(images(x), case, output, -np.inf, -np.inf), kernel, stride)
        return channels_last(y)

    agrees("max_pool2d", case, case.inputs, lambda x: ops.max_pool2d(x, **case.options), theirs)


@both_dtypes
@CASES
@given(strategies.pool_cases(average=True))
def test_avg_pool2d(dtype: Any, case: Any) -> None:
    case = case.astype(dtype)
    kernel, stride = case.options["kernel_size"], case.options["stride"]
    counted, pads = case.options["count_include_pad"], sides(case.x.shape[1:3], kernel, case.options)
    output = ops.avg_pool2d(case.x, **case.options).shape[1:3]

    def theirs(x: Any) -> Any:
        if windows_fit(case):
            padding, ceil_mode = [before for before, _ in pads], case.options["ceil_mode"]
            return channels_last(F.avg_pool2d(images(x), kernel, stride, padding, ceil_mode, counted))
        ones = padded(torch.ones_like(images(x)), case, output, float(counted), 0.0)
        sums, counts = (
            F.avg_pool2d(part, kernel, stride, divisor_override=1)
            for part in (padded(images(x), case, output, 0.0, 0.0), ones)
        )
        return channels_last(sums / counts)

    agrees("avg_pool2d", case, case.inputs, lambda x: ops.avg_pool2d(x, **case.options), theirs)


@both_dtypes
@CASES
@given(strategies.adaptive_pool_cases())
def test_adaptive_avg_pool2d(dtype: Any, case: Any) -> None:
    case = case.astype(dtype)
    agrees(
        "adaptive_avg_pool2d",
        case,
        case.inputs,
        lambda x: ops.adaptive_avg_pool2d(x, **case.options),
        lambda x: channels_last(F.adaptive_avg_pool2d(images(x), **case.options)),
    )


@both_dtypes
@CASES
@given(strategies.image_cases())
def test_global_avg_pool(dtype: Any, case: Any) -> None:
    case = case.astype(dtype)
    agrees("global_avg_pool", case, case.inputs, ops.global_avg_pool, lambda x: images(x).mean((2, 3)))


@both_dtypes
@CASES
@given(strategies.batch_norm_cases())
def test_batch_norm(dtype: Any, case: Any) -> None:
    case = case.astype(dtype)
    options = dict(case.options)
    residual, activation = options.pop("residual", None), options.pop("activation", None)
    x, gamma, beta, mean, var = case.inputs

    def ours(x: Any, gamma: Any, beta: Any, residual: Any) -> Any:
        return ops.batch_norm(
            x, gamma, beta, mean.copy(), var.copy(), activation=activation, residual=residual, **options
        )

    def theirs(x: Any, gamma: Any, beta: Any, residual: Any) -> Any:
        y = F.batch_norm(
            images(x), torch.tensor(mean.copy()), torch.tensor(var.copy()), gamma, beta, **options
        )
        y = channels_last(y) if residual is None else channels_last(y) + residual
        return torch.relu(y) if activation else y

    agrees("batch_norm", case, (x, gamma, beta, residual), ours, theirs)


@both_dtypes
@CASES
@given(strategies.local_response_norm_cases())
def test_local_response_norm(dtype: Any, case: Any) -> None:
    case = case.astype(dtype)
    options = dict(case.options)
    if not options.pop("divide_alpha"):
        options["alpha"] *= options["size"]
    agrees(
        "local_response_norm",
        case,
        case.inputs,
        lambda x: ops.local_response_norm(x, **case.options),
        lambda x: channels_last(F.local_response_norm(images(x), **options)),
    )


@both_dtypes
@CASES
@given(strategies.cross_entropy_cases())
def test_cross_entropy(dtype: Any, case: Any) -> None:
    case = case.astype(dtype)
    options = dict(case.options)
    weight, ignored = options.pop("class_weight", None), options.pop("ignore_index", None)
    labels = torch.tensor(case.labels)

    def theirs(logits: Any) -> Any:
        return F.cross_entropy(
            logits,
            labels,
            weight=None if weight is None else torch.tensor(weight),
            ignore_index=-100 if ignored is None else ignored,
            **options,
        )

    agrees(
        "cross_entropy",
        case,
        case.inputs[:1],
        lambda logits: ops.cross_entropy(logits, case.labels, **case.options),
        theirs,
    )
