"""The heaviest convolutions of the timed networks, pass by pass, against cuDNN: TF32 on both sides.

Both get their arrays channels-last. They take turns with enough sets of arrays that none is found in the L2
cache, and launches are lined up in front, so that kernels are timed and not Python.
"""

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from checks import steps, training
from checks.convolutions import Convolution, of_network
from checks.report import Figures, Report, Setting
from checks.timing import seconds
from minidl import backend
from minidl.window import Window, window

MOST, TINY_MOST = 40, 3
TIMED, WARM_UP = 10, 3
PASSES = ("forward", "grad_x", "grad_weight")
COPIES = 16  # sets of arrays at most

Call = Callable[[], Any]


def heaviest(setting: Setting) -> list[tuple[Convolution, int]]:
    """(convolution, images), those that cost the timed networks most multiply-adds first."""
    found: Counter[tuple[Convolution, int]] = Counter()
    for task in steps.TINY if setting.tiny else steps.TASKS:
        for each, count in of_network(task.network, task.size).items():
            found[each._replace(bias=False), task.batch] += each.macs() * count * task.batch
    return [key for key, _ in found.most_common(TINY_MOST if setting.tiny else MOST)]


def geometry(each: Convolution) -> Window:
    """As minidl's backends take it."""
    options = {"stride": each.stride, "padding": each.padding, "dilation": each.dilation}
    return window("conv2d", each.size, each.kernel, **options)


def arrays(each: Convolution, images: int) -> list[np.ndarray]:
    """x, weight and g: a million random numbers, again and again."""
    block = np.random.default_rng(0).standard_normal(2**20, np.float32)
    shapes = *each.shapes(images), (images, *geometry(each).output, each.filters)
    return [np.resize(block, shape) for shape in shapes]


def ours(which: str, each: Convolution, x: Any, weight: Any, g: Any) -> Call:
    """One pass on minidl's arrays."""
    xp, shape = backend.of(x), geometry(each)
    return {
        "forward": lambda: xp.conv2d(x, weight, None, shape, each.groups, None),
        "grad_x": lambda: xp.conv2d_grad_x(g, weight, shape, each.groups),
        "grad_weight": lambda: xp.conv2d_grad_weight(g, x, shape, each.groups),
    }[which]


def theirs(which: str, each: Convolution, x: torch.Tensor, weight: torch.Tensor, g: torch.Tensor) -> Call:
    """One pass on PyTorch's arrays."""
    (top, _), (left, _) = each.padding  # that of a network's layer is even
    options = each.stride, (top, left), each.dilation
    if which == "forward":
        return lambda: torch.nn.functional.conv2d(x, weight, None, *options, each.groups)
    wanted = [which == "grad_x", which == "grad_weight", False]
    rest = None, *options, False, (0, 0), each.groups, wanted
    return lambda: torch.ops.aten.convolution_backward(g, x, weight, *rest)


def as_torch(x: np.ndarray, weight: np.ndarray, g: np.ndarray, device: str) -> list[torch.Tensor]:
    """The same arrays for PyTorch, channels-last in memory."""
    weight = np.ascontiguousarray(weight.transpose(3, 0, 1, 2))
    return [torch.from_numpy(array).to(device).movedim(3, 1) for array in (x, weight, g)]


def timed(calls: list[Call], setting: Setting) -> float:
    """Seconds of a call, taking turns."""
    return seconds(setting, lambda i: calls[i % len(calls)](), TIMED, WARM_UP, ahead=True)


def compare(each: Convolution, images: int, setting: Setting, report: Report) -> None:
    """A row for each pass; none for the gradient of pictures, which nobody wants."""
    training.free(setting)
    host, copies = arrays(each, images), 1
    if setting.gpu:
        cached = torch.cuda.get_device_properties(0).L2_cache_size
        copies = min(COPIES, math.ceil(2 * cached / sum(array.nbytes for array in host)))
    mine = [[backend.asarray(array, setting.device) for array in host] for _ in range(copies)]
    peers = [as_torch(*host, setting.torch_device) for _ in range(copies)]
    for which in PASSES:
        if which == "grad_x" and each.channels == 3:
            continue
        calls = [ours(which, each, *three) for three in mine]
        peer_calls = [theirs(which, each, *three) for three in peers]
        report.record(
            f"{which} {images}x{each}", partial(row, calls, peer_calls, 2 * each.macs() * images, setting)
        )


def row(calls: list[Call], peer_calls: list[Call], flops: int, setting: Setting) -> Figures:
    """Rates of both, and the ratio: above 1 minidl is faster."""
    own, peer = timed(calls, setting), timed(peer_calls, setting)
    rate, peer_rate = flops / own / 1e12, flops / peer / 1e12
    return {
        "text": f"{rate:.3g} TFLOP/s, PyTorch {peer_rate:.3g}, ratio {peer / own:.2f}",
        "ratio": peer / own,
        "minidl_ms": own * 1e3,
        "torch_ms": peer * 1e3,
        "minidl_tflops": rate,
        "torch_tflops": peer_rate,
    }


def run(setting: Setting, report: Report) -> None:
    """The table."""
    training.fast()
    for each, images in report.in_time(heaviest(setting)):
        compare(each, images, setting, report)
