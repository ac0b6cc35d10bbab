"""Every op but convolutions, gradients included: against PyTorch's in float64.

What is no function of arrays alone (dropout, optimisers, statistics, images) is in updates.py, and checked in
this phase too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import minidl as md
from checks import updates
from checks.agreement import BOUNDS, Case, agreement, positive
from checks.report import Report, Setting

Shape = tuple[int, ...]
Torch = torch.Tensor

IMAGES: tuple[Shape, ...] = ((8, 56, 56, 64), (3, 35, 33, 37))
TINY_IMAGES: tuple[Shape, ...] = ((2, 9, 8, 8), (1, 7, 9, 5))


def images_last(fn: Callable[..., Torch], *args: Any, **options: Any) -> Callable[..., Torch]:
    """fn(x, *args, **options) for images (N, H, W, C), of a function that takes them as (N, C, H, W)."""
    return lambda x: fn(x.movedim(3, 1), *args, **options).movedim(1, 3)


def pools(shape: Shape) -> list[Case]:
    """Pools over windows, over bins and over whole images."""
    windows: list[dict[str, Any]] = [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        {"kernel_size": 3, "stride": 1, "padding": 1},
        {"kernel_size": (2, 3), "stride": (2, 1)},
        {"kernel_size": 5, "stride": 3},
    ]
    kinds = [("max_pool2d", F.max_pool2d, window) for window in windows]
    for counted in (True, False):
        kinds += [("avg_pool2d", F.avg_pool2d, {**w, "count_include_pad": counted}) for w in windows]
    kinds += [("adaptive_avg_pool2d", F.adaptive_avg_pool2d, {"output_size": size}) for size in (4, (3, 5))]
    found = []
    for name, fn, options in kinds:
        words = ", ".join(f"{key} {value}" for key, value in options.items())
        ours = partial(getattr(md.ops, name), **options)
        found.append(Case(f"{name} {words}", ours, images_last(fn, **options), (shape,)))
    return [*found, Case("global_avg_pool", md.ops.global_avg_pool, lambda x: x.mean((1, 2)), (shape,))]


def batch_norm(shape: Shape, training: bool, relu: bool, residual: bool) -> Case:
    """Batch norm in one of its forms."""
    c = shape[3:]
    running = 0.25, 2.0  # mean and variance

    def ours(x: md.Tensor, gamma: md.Tensor, beta: md.Tensor, *added: md.Tensor) -> md.Tensor:
        statistics = [md.tensor(np.full(c, value, np.float32), device=x.device) for value in running]
        options = {"activation": "relu" if relu else None, "residual": added[0] if added else None}
        return md.ops.batch_norm(x, gamma, beta, *statistics, training=training, **options)

    def theirs(x: Torch, gamma: Torch, beta: Torch, *added: Torch) -> Torch:
        statistics = [torch.full_like(beta.detach(), value) for value in running]
        y = F.batch_norm(x.movedim(3, 1), *statistics, gamma, beta, training).movedim(1, 3)
        return y + added[0] if added else y

    words = ["batch_norm", *(["training"] * training), *(["residual"] * residual), *(["relu"] * relu)]
    return Case(" ".join(words), ours, theirs, (shape, c, c, *([shape] * residual)), relu=relu)


def norms(shape: Shape) -> list[Case]:
    """Batch norm in its forms, and response norm."""
    both = False, True
    found = [batch_norm(shape, *form) for form in ((t, r, add) for t in both for r in both for add in both)]
    options = {"alpha": 0.5, "beta": 0.75, "k": 2.0}
    for size in (3, 5):
        ours = partial(md.ops.local_response_norm, size=size, **options)
        theirs = images_last(F.local_response_norm, size, **options)
        found.append(Case(f"local_response_norm {size}", ours, theirs, (shape,)))
    return found


def elementwise(shape: Shape) -> list[Case]:
    """Functions of one number, and of two with broadcasting."""
    found = [
        Case(name, getattr(md.ops, name), getattr(torch, name), (shape,))
        for name in ("neg", "abs", "exp", "relu", "tanh", "sigmoid")
    ]
    found += [Case(n, getattr(md.ops, n), getattr(torch, n), (shape,), positive) for n in ("log", "sqrt")]
    for name in ("add", "sub", "mul", "div", "pow", "maximum", "minimum"):
        ours, theirs = getattr(md.ops, name), getattr(torch, name)
        for other in (shape, shape[3:], (shape[0], 1, 1, 1)):
            found.append(Case(f"{name} {other}", ours, theirs, (shape, other), positive))
    odd = np.arange(shape[3]) % 2 == 1

    def chosen(a: Torch, b: Torch) -> Torch:
        return torch.where(torch.from_numpy(odd).to(a.device), a, b)

    return [
        *found,
        Case("where", lambda a, b: md.ops.where(odd, a, b), chosen, (shape, shape[2:])),
        Case("clip", lambda x: md.ops.clip(x, -0.5, 1), lambda x: x.clip(-0.5, 1), (shape,)),
        Case("turned", lambda x: 2 * x.transpose(0, 2, 1, 3), lambda x: 2 * x.transpose(1, 2), (shape,)),
    ]


def reductions(shape: Shape) -> list[Case]:
    """Sums, means and maxima over axes, and the softmaxes."""
    found = []
    for axes in ((0, 1, 2, 3), (0, 1, 2), (3,), (1, 2), (0,), (0, 2)):
        found += [
            Case(f"sum {axes}", partial(md.ops.sum, axis=axes), partial(torch.sum, dim=axes), (shape,)),
            Case(f"mean {axes}", partial(md.ops.mean, axis=axes), partial(torch.mean, dim=axes), (shape,)),
            Case(f"max {axes}", partial(md.ops.max, axis=axes), partial(torch.amax, dim=axes), (shape,)),
        ]
    for axis in (-1, 1):
        for name in ("softmax", "log_softmax"):
            ours, theirs = partial(getattr(md.ops, name), axis=axis), partial(getattr(torch, name), dim=axis)
            found.append(Case(f"{name} {axis}", ours, theirs, (shape,)))
    return found


def moves(shape: Shape) -> list[Case]:
    """What only puts numbers elsewhere."""
    rows = [0, shape[1] - 1, 0]
    widths = ((0, 0), (1, 2), (0, 3), (0, 0))
    wider = (*shape[:3], 5), (*shape[:3], 12)
    one = {
        "transpose": (lambda x: x.transpose(3, 0, 2, 1), lambda x: x.permute(3, 0, 2, 1)),
        "reshape": (lambda x: x.transpose().reshape(-1), lambda x: x.permute(3, 2, 1, 0).reshape(-1)),
        "flatten": (md.ops.flatten, partial(torch.flatten, start_dim=1)),
        "slices": (lambda x: x[:, 1::2, ::-1, 2:], lambda x: x.flip(2)[:, 1::2, :, 2:]),
        "rows": (lambda x: x[:, rows], lambda x: x[:, rows]),
        "pad": (lambda x: md.ops.pad(x, widths), lambda x: F.pad(x, (0, 0, 0, 3, 1, 2))),
    }
    return [
        *(Case(what, ours, theirs, (shape,)) for what, (ours, theirs) in one.items()),
        Case("concat", lambda *xs: md.ops.concat(xs), lambda *xs: torch.cat(xs, 3), (shape, *wider)),
        Case("concat 1", lambda *xs: md.ops.concat(xs, 1), lambda *xs: torch.cat(xs, 1), (shape, shape)),
    ]


def products(tiny: bool) -> list[Case]:
    """Fully connected layers and matrix products, batches and transposes among them."""
    layers = [(3, 17, 10), (2, 64, 33)] if tiny else [(64, 2048, 1000), (128, 9216, 4096), (37, 1001, 77)]
    m, d, k = (5, 19, 6) if tiny else (517, 263, 381)
    found = []
    for n, features, classes in layers:
        shapes = (n, features), (features, classes), (classes,)
        found.append(Case(f"linear {n}x{features} to {classes}", md.ops.linear, _linear, shapes))
    for a, b in [((m, d), (d, k)), ((3, m, d), (3, d, k)), ((2, 1, m, d), (3, d, k))]:
        found.append(Case(f"matmul {a} {b}", md.ops.matmul, torch.matmul, (a, b)))
    ours, theirs = (lambda a, b: a.transpose() @ b.transpose()), (lambda a, b: a.T @ b.T)
    return [*found, Case(f"matmul of transposes {d}", ours, theirs, ((d, m), (k, d)))]


def _linear(x: Torch, weight: Torch, bias: Torch) -> Torch:
    return x @ weight + bias


def losses(n: int, k: int) -> list[Case]:
    """Cross-entropy with its options."""
    labels = np.arange(n) * 7 % k
    weights = (1 + np.arange(k) % 3).astype(np.float32)
    several: list[dict[str, Any]] = [
        {},
        {"label_smoothing": 0.1},
        {"ignore_index": int(labels[0])},
        {"reduction": "sum"},
        {"reduction": "none"},
        {"label_smoothing": 0.2, "class_weight": weights},
    ]
    found = []
    for options in several:
        ours = partial(md.ops.cross_entropy, labels=labels, **options)
        theirs = partial(_cross_entropy, labels=labels, **options)
        found.append(Case(", ".join(["cross_entropy", *options]), ours, theirs, ((n, k),)))
    return found


def _cross_entropy(logits: Torch, labels: np.ndarray, class_weight: Any = None, **options: Any) -> Torch:
    weight = None if class_weight is None else torch.from_numpy(class_weight).to(logits)
    return F.cross_entropy(logits, torch.from_numpy(labels).to(logits.device), weight, **options)


def cases(tiny: bool) -> list[Case]:
    """All but products."""
    found = []
    for shape in TINY_IMAGES if tiny else IMAGES:
        for family in (pools, norms, elementwise, reductions, moves):
            found += [case._replace(what=f"{case.what} of {shape}") for case in family(shape)]
    return found + (losses(6, 5) if tiny else losses(128, 1000))


def run(setting: Setting, report: Report) -> None:
    """Check them all, products in both precisions."""
    checks = [(case, "float32") for case in cases(setting.tiny)]
    checks += [(case, precision) for case in products(setting.tiny) for precision in BOUNDS]
    for case, precision in report.in_time(checks):
        report.record(f"{case.what}, {precision}", partial(agreement, case, setting, precision))
    for what, check in report.in_time(updates.CHECKS):
        report.record(what, partial(check, setting))
