"""What is no function of arrays alone: dropout, optimisers and averages, running statistics, images, copies.

Dropout is compared bit by bit with its definition, Philox4x32-10, written down here once more.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import minidl as md
from checks.agreement import BOUNDS, exactly, judged, relative
from checks.report import Figures, Setting
from minidl import backend

BOUND = BOUNDS["float32"]
STREAM = 2  # of dropout, among minidl's random streams
SHAPES = ((3, 3, 5, 7), (1000,), (11,), (640, 130))
STEPS = 5
LOW = np.uint64(2**32 - 1)

Check = Callable[[Setting], Figures]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers, float32."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def philox(blocks: np.ndarray, call: int, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10 for the counters (block, call).  (B,) -> (B, 4) words

    Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    half = np.uint64(32)
    c0, c1, c2, c3 = blocks & LOW, blocks >> half, np.full_like(blocks, call), np.zeros_like(blocks)
    k0, k1 = map(np.uint64, key)
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = second >> half ^ c1 ^ k0, second & LOW, first >> half ^ c3 ^ k1, first & LOW
        k0, k1 = k0 + np.uint64(0x9E3779B9) & LOW, k1 + np.uint64(0xBB67AE85) & LOW
    return np.stack([c0, c1, c2, c3], axis=1)


def dropout(p: float, shape: Sequence[int], setting: Setting) -> Figures:
    """The second mask after manual_seed(7), of the values and of the gradient."""
    md.manual_seed(7)
    x = md.tensor(np.ones(shape, np.float32), device=setting.device, requires_grad=True)
    md.ops.dropout(x, p, training=True)
    y = md.ops.dropout(x, p, training=True)
    y.backward(md.tensor(np.ones(shape, np.float32), device=setting.device))
    words = philox(np.arange(-(-x.size // 4), dtype=np.uint64), 1, (7, STREAM)).reshape(-1)[: x.size]
    kept = (words >= int(p * 2**32)).reshape(shape)
    value = np.float32(1 / (1 - p))
    wrong = [name for name, a in (("y", y), ("grad", x.grad)) if not np.array_equal(a.numpy(), kept * value)]
    return exactly(wrong)


class PlainRMSprop:
    """RMSprop as minidl's class defines it, which PyTorch's does not: on torch's tensors, decay 0.9."""

    def __init__(self, params: list[torch.Tensor], lr: float, momentum: float, eps: float) -> None:
        self.params, self.lr, self.momentum, self.eps = params, lr, momentum, eps
        self.squares = [torch.ones_like(p) for p in params]
        self.velocities = [torch.zeros_like(p) for p in params]

    def step(self) -> None:
        """One update."""
        with torch.no_grad():
            for p, square, velocity in zip(self.params, self.squares, self.velocities):
                square.mul_(0.9).addcmul_(p.grad, p.grad, value=0.1)
                velocity.mul_(self.momentum).add_(self.lr * p.grad / (square + self.eps).sqrt())
                p.sub_(velocity)


def optimiser(ours: Any, theirs: Any, options: dict[str, Any], setting: Setting) -> Figures:
    """A few steps on parameters of several shapes."""
    params = [md.tensor(random(*shape), device=setting.device, requires_grad=True) for shape in SHAPES]
    twins = [torch.tensor(random(*shape), dtype=torch.float64, requires_grad=True) for shape in SHAPES]
    optimizer, peer = ours(params, **options), theirs(twins, **options)
    for step in range(STEPS):
        for p, twin in zip(params, twins):
            g = random(*twin.shape, seed=1 + step)
            p.grad, twin.grad = md.tensor(g, device=setting.device), torch.from_numpy(g).to(twin)
        optimizer.step()
        peer.step()
    found = {str(tuple(t.shape)): relative(p.numpy(), t.detach()) for p, t in zip(params, twins)}
    return judged(found, BOUND)


def clipping(setting: Setting) -> Figures:
    """The joint norm of gradients, gradients scaled to a norm, and limited."""
    params = [md.tensor(random(*shape), device=setting.device, requires_grad=True) for shape in SHAPES]
    gradients = [torch.from_numpy(random(*shape, seed=1)).double() for shape in SHAPES]
    for p, g in zip(params, gradients):
        p.grad = md.tensor(g.float().numpy(), device=setting.device)
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    errors = {"norm": relative(np.float64(md.optim.clip_grad_norm(params, float(norm) / 2)), norm)}
    for p, g in zip(params, gradients):
        errors[f"scaled {tuple(g.shape)}"] = relative(p.grad.numpy(), g / 2)
    md.optim.clip_grad_value(params, 0.25)
    for p, g in zip(params, gradients):
        errors[f"limited {tuple(g.shape)}"] = relative(p.grad.numpy(), (g / 2).clip(-0.25, 0.25))
    return judged(errors, BOUND)


def average(setting: Setting) -> Figures:
    """An exponential moving average of changing parameters."""
    p = md.tensor(random(*SHAPES[0]), device=setting.device, requires_grad=True)
    ema, value = md.optim.EMA([p], decay=0.9), torch.from_numpy(random(*SHAPES[0])).double()
    for step in range(STEPS):
        moved = random(*SHAPES[0], seed=1 + step)
        with md.no_grad():
            p[...] = moved
        ema.update()
        value = 0.9 * value + 0.1 * torch.from_numpy(moved)
    return judged({"average": relative(backend.to_host(ema.averages[0]), value)}, BOUND)


def running_statistics(setting: Setting) -> Figures:
    """What training leaves in the running mean and variance."""
    n, h, w, c = (2, 5, 4, 7) if setting.tiny else (16, 28, 28, 96)
    x = 3 + random(n, h, w, c)
    ours = [md.tensor(random(c), device=setting.device), md.tensor(1 + random(c) ** 2, device=setting.device)]
    theirs = [torch.from_numpy(array.numpy()).double() for array in ours]
    one, zero = (md.tensor(np.full(c, v, np.float32), device=setting.device) for v in (1, 0))
    md.ops.batch_norm(md.tensor(x, device=setting.device), one, zero, *ours, training=True, momentum=0.3)
    F.batch_norm(torch.from_numpy(x).double().movedim(3, 1), *theirs, training=True, momentum=0.3)
    return judged({name: relative(a.numpy(), b) for name, a, b in zip(("mean", "var"), ours, theirs)}, BOUND)


def images(setting: Setting) -> Figures:
    """uint8 images made standard, with their channels turned round too."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 11, 3), np.uint8)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])
    array, errors = backend.asarray(pixels, setting.device), {}
    for what, turn in (("as they are", 1), ("turned", -1)):
        y = backend.to_host(backend.of(array).standardise(array[..., ::turn], mean, std))
        errors[what] = relative(y, torch.from_numpy((pixels[..., ::turn] / 255 - mean) / std))
    return judged(errors, BOUND)


def copies(setting: Setting) -> Figures:
    """To the device and back, of every dtype, of nothing, of one number, of views."""
    source = np.random.default_rng(0).integers(0, 2, (5, 6, 7))
    arrays = [source.astype(dtype) for dtype in ("float32", "int64", "int32", "uint8", "bool")]
    arrays += [arrays[0][::2, ::-1].transpose(2, 0, 1), arrays[0][:0], arrays[0][0, 0, 0]]
    wrong = []
    for i, array in enumerate(arrays):
        back = md.tensor(array, device=setting.device).numpy()
        if back.dtype != array.dtype or not np.array_equal(back, array):
            wrong.append(f"{i}: {array.dtype} {array.shape}")
    return exactly(wrong)


OPTIMISERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "SGD": (md.optim.SGD, torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1}),
    "SGD, momentum": (md.optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "SGD, Nesterov": (md.optim.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adam": (md.optim.Adam, torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.1}),
    "AdamW": (md.optim.AdamW, torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1}),
    "RMSprop": (md.optim.RMSprop, PlainRMSprop, {"lr": 0.1, "momentum": 0.9, "eps": 1e-3}),
}
CHECKS: list[tuple[str, Check]] = [
    *((f"dropout {p} of {shape}", partial(dropout, p, shape)) for p in (0.5, 0.3) for shape in SHAPES),
    *((name, partial(optimiser, *three)) for name, three in OPTIMISERS.items()),
    ("clipping of gradients", clipping),
    ("moving average", average),
    ("running statistics", running_statistics),
    ("standardised images", images),
    ("copies", copies),
]
