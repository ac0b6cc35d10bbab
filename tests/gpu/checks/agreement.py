"""One thing computed by minidl on a device and by PyTorch in float64: how far apart are they?

Both are given the same float32 numbers, and the same gradient arrives at both results. PyTorch computes on
the GPU too, where there is one: its float64 kernels share nothing with ours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

import minidl as md
from checks.report import Figures, Setting

BOUNDS = {"float32": 1e-5, "tf32": 2e-3}  # of the relative error, by precision
PEAK = 20  # the largest deviation that may hide in a norm: see `relative`
NEAR = 0.02  # so close to 0, in units of the usual size, rounding to TF32 may close a ReLU
POISON = 2**28  # numbers, 1 GB: more than any case takes

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers."""
    return rng.standard_normal(shape, np.float32)


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers between 0.5 and 2."""
    return rng.uniform(0.5, 2, shape).astype(np.float32)


class Case(NamedTuple):
    """The same function twice.

    ours    of minidl Tensors of these shapes
    theirs  of torch's, in the same layout
    relu    `ours` ends in a ReLU, which `theirs` leaves to the comparison
    """

    what: str
    ours: Callable[..., md.Tensor]
    theirs: Callable[..., torch.Tensor]
    shapes: tuple[tuple[int, ...], ...]
    draw: Draw = normal
    relu: bool = False


def agreement(case: Case, setting: Setting, precision: str = "float32") -> Figures:
    """The relative errors of the result and of each gradient, and whether all are within the bound."""
    rng = np.random.default_rng(0)
    arrays = [case.draw(rng, shape) for shape in case.shapes]
    y, g, gradients = expected(case, arrays, setting.torch_device)
    found = computed(case, arrays, g, setting.device, precision)
    errors = {
        name: relative(array, value)
        for (name, array), value in zip(found.items(), [y, *gradients], strict=True)
    }
    return judged(errors, BOUNDS[precision])


def judged(errors: dict[str, float], bound: float) -> Figures:
    """Errors and their bound as figures: NaN is within none."""
    return {"passed": all(error <= bound for error in errors.values()), "bound": bound, "errors": errors}


def exactly(different: list[str]) -> Figures:
    """What is not equal to the last bit, and should be, as figures."""
    failure = {"failure": f"different: {', '.join(different)}"} if different else {}
    return {"passed": not different, **failure}


def expected(
    case: Case, arrays: list[np.ndarray], device: str
) -> tuple[torch.Tensor, np.ndarray, list[torch.Tensor]]:
    """(PyTorch's result, a gradient that arrives there, the gradients that leave), in float64 but for g.

    Where rounding could decide whether a ReLU is open, no gradient arrives.
    """
    leaves = [torch.tensor(a, dtype=torch.float64, device=device, requires_grad=True) for a in arrays]
    y = case.theirs(*leaves)
    g = np.random.default_rng(1).standard_normal(tuple(y.shape), np.float32)
    if case.relu:
        size = y.detach().square().mean().sqrt()
        g[(y.detach().abs() < NEAR * size).cpu().numpy()] = 0
        y = torch.relu(y)
    y.backward(torch.from_numpy(np.asarray(g)).to(y))
    return y.detach(), g, [leaf.grad for leaf in leaves]


def computed(
    case: Case, arrays: list[np.ndarray], g: np.ndarray, device: str, precision: str
) -> dict[str, np.ndarray]:
    """minidl's result "y" and the gradients "grad 0", ... on a device."""
    md.set_float32_precision(precision)
    poison(device)
    inputs = [md.tensor(array, device=device, requires_grad=True) for array in arrays]
    y = case.ours(*inputs)
    y.backward(md.tensor(g, device=device))
    return {"y": y.numpy(), **{f"grad {i}": x.grad.numpy() for i, x in enumerate(inputs)}}


def poison(device: str) -> None:
    """Fill memory that will be given out next with NaN; the emulator does so by itself."""
    if device != "cudasim":
        import cupy

        cupy.full(POISON, np.nan, np.float32)  # back to the pool at once, which does not clear it


def relative(found: Any, value: torch.Tensor) -> float:
    """|found - value| / |value|; or the largest deviation in units of the usual size, divided by PEAK, if
    that is larger: a single wrong number among many is lost in a norm."""
    if found.shape != tuple(value.shape):
        raise ValueError(f"minidl's shape is {found.shape}, PyTorch's {tuple(value.shape)}")
    difference = torch.from_numpy(np.asarray(found)).to(value) - value
    usual = max(float(value.square().mean().sqrt()), np.finfo(np.float32).tiny)
    norm = float(difference.square().mean().sqrt())
    return max(norm, float(difference.abs().max()) / PEAK) / usual
