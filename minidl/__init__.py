"""minidl: a deep-learning engine to read, and to train with.

    import minidl as md
    x = md.tensor([[1.0, 2.0]], requires_grad=True)
    md.ops.sum(x * x).backward()
    x.grad                                      # [[2., 4.]]

Letters of array axes, everywhere in code and docstrings: N images, H W rows and columns, C channels in, F
filters (channels out), KH KW window, OH OW output, D features, K classes. Images are channels-last, (N, H, W,
C); convolution weights are (KH, KW, C, F).

`import minidl` loads NumPy alone; everything heavier is loaded where it is first used.
"""

from importlib import import_module
from typing import Any

from minidl import errors, ops
from minidl.autograd import Tensor, no_grad, tensor
from minidl.backend import get_default_device, set_default_device, set_float32_precision
from minidl.backend.plans import force_plan
from minidl.recording import op
from minidl.streams import manual_seed

__version__ = "0.1.0"

_LAZY = {name: f"minidl.{name}" for name in ("data", "inspection", "io", "nn", "optim", "testing", "train")}
_LAZY_HOMES = {"Ensemble": "minidl.ensemble", "Model": "minidl.model", "explain": "minidl.inspection"}

__all__ = [
    "Tensor",
    "errors",
    "force_plan",
    "get_default_device",
    "get_num_threads",
    "manual_seed",
    "no_grad",
    "op",
    "ops",
    "set_default_device",
    "set_float32_precision",
    "set_num_threads",
    "tensor",
    *_LAZY_HOMES,
    *(name for name in _LAZY if name != "testing"),  # `import *` need not load Hypothesis
]


def set_num_threads(count: int) -> None:
    """Compute with `count` threads from now on."""
    from minidl.backend import cpu

    cpu.set_num_threads(count)


def get_num_threads() -> int:
    """How many threads compute."""
    from minidl.backend import cpu

    return cpu.get_num_threads()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return import_module(_LAZY[name])
    if name in _LAZY_HOMES:
        return getattr(import_module(_LAZY_HOMES[name]), name)
    raise AttributeError(f"module 'minidl' has no attribute {name!r}")
