"""The machine: what is installed, what it can do at most, and what it costs to start a kernel.

Comes first also because its training steps compile all kernels, which the phases after it find in a cache.
"""

import platform
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

import minidl as md
from checks import training
from checks.report import Figures, Report, Setting
from checks.timing import launch_seconds, seconds
from checks.training import Task

COPIED, TINY_COPIED = 10**9, 10**6  # bytes
SIDE, TINY_SIDE = 8192, 256  # of the matrices
LAUNCHES, TINY_LAUNCHES = 500, 5  # fewer than a GPU's queue holds
SMALL = (Task("nin", 2, 8), Task("resnet20", 2, 8))


def versions(setting: Setting) -> Figures:
    """What computes, and with what."""
    ask = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    found = {
        "commit": commit,
        "gpu": "the emulator",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }
    if setting.gpu:
        import cupy

        gpu = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": gpu.name,
            "multiprocessors": gpu.multi_processor_count,
            "memory_gb": round(gpu.total_memory / 1e9),
            "cupy": cupy.__version__,
            "driver": cupy.cuda.runtime.driverGetVersion(),
            "cudnn": torch.backends.cudnn.version(),
        }
    return {"headline": f"{found['gpu']}, torch {torch.__version__}, commit {commit}", **found}


def first_steps(setting: Setting) -> Figures:
    """How long the first training steps take in both precisions: the kernels are compiled in them."""
    start = time.perf_counter()
    for task in SMALL:
        _, step = training.ours(task, setting.device)
        for wanted in (False, True):
            training.use_tf32(wanted)
            step().item()
    taken = time.perf_counter() - start
    return {"headline": f"the first training steps take {taken:.1f} s", "first_steps_s": taken}


def copy_rate(setting: Setting) -> Figures:
    """PyTorch's copy, bytes read and bytes written."""
    size = TINY_COPIED if setting.tiny else COPIED
    source = torch.randn(size // 4, device=setting.torch_device)
    target = torch.empty_like(source)
    rate = 2 * size / seconds(setting, lambda _: target.copy_(source), 10, 2) / 1e9
    return {"headline": f"copies {rate:.0f} GB/s", "gb_per_s": rate}


def product_rate(precision: str, setting: Setting) -> Figures:
    """PyTorch's product of two square matrices."""
    training.use_tf32(precision == "tf32")
    side = TINY_SIDE if setting.tiny else SIDE
    a, b = (torch.randn(side, side, device=setting.torch_device) for _ in range(2))
    rate = 2 * side**3 / seconds(setting, lambda _: a @ b, 10, 2) / 1e12
    return {"headline": f"{precision} products {rate:.3g} TFLOP/s", "tflops": rate}


def launch_cost(setting: Setting) -> Figures:
    """What one small op costs the host, in both engines, forward alone."""
    count = TINY_LAUNCHES if setting.tiny else LAUNCHES
    x = md.tensor(np.ones(1024, np.float32), device=setting.device)
    twin = torch.ones(1024, device=setting.torch_device)
    ours = launch_seconds(setting, lambda: md.ops.relu(x), count) * 1e6
    theirs = launch_seconds(setting, lambda: torch.relu(twin), count) * 1e6
    headline = f"starting an op takes {ours:.1f} us, PyTorch {theirs:.1f} us"
    return {"headline": headline, "minidl_us": ours, "torch_us": theirs}


def run(setting: Setting, report: Report) -> None:
    """All of it."""
    report.record("versions", partial(versions, setting))
    report.record("first steps", partial(first_steps, setting))
    report.record("copy", partial(copy_rate, setting))
    for precision in ("float32", "tf32"):
        report.record(f"product in {precision}", partial(product_rate, precision, setting))
    report.record("launch", partial(launch_cost, setting))
