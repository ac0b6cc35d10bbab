"""The same training step in minidl and in PyTorch: forward, cross-entropy, backward, SGD with momentum.

The networks are those of tests/peers/compare.py, whose batches are a CPU's.
"""

import gc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from compare import CASES

import minidl as md
import minidl_models
import torch_nets
from checks.report import Setting
from minidl.backend import cuda

OPTIMIZER = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}

Ours = tuple[Any, Callable[[], md.Tensor]]
Theirs = tuple[torch.nn.Module, Callable[[], torch.Tensor]]


class Task(NamedTuple):
    """A network, by its name in compare.py, and what it is given."""

    network: str
    batch: int
    size: int

    def images(self) -> np.ndarray:
        """Noise.  -> (N, H, W, 3)"""
        return np.random.default_rng(0).standard_normal((self.batch, self.size, self.size, 3), np.float32)

    def labels(self) -> np.ndarray:
        """One of ten classes for each."""
        return np.arange(self.batch) * 7 % 10


def build(network: str) -> Any:
    """The network in minidl, on the CPU."""
    return eval(CASES[network].minidl, vars(minidl_models))


def twin(network: str) -> torch.nn.Module:
    """The network in PyTorch, on the CPU."""
    return eval(CASES[network].torch, vars(torch_nets))


def ours(task: Task, device: str) -> Ours:
    """(minidl's network, one step of it, which returns the loss), the same each time."""
    md.manual_seed(0)
    net = build(task.network).to(device).train()
    x, labels = md.tensor(task.images(), device=device), task.labels()
    optimizer = md.optim.SGD(net.parameters(), **OPTIMIZER)

    def step() -> md.Tensor:
        optimizer.zero_grad()
        loss = md.ops.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    return net, step


def theirs(task: Task, device: str, layout: torch.memory_format) -> Theirs:
    """(PyTorch's network, one step of it, which returns the loss)."""
    torch.manual_seed(0)
    net = twin(task.network).to(device, memory_format=layout).train()
    x = torch.from_numpy(task.images()).movedim(3, 1).to(device).contiguous(memory_format=layout)
    labels = torch.from_numpy(task.labels()).to(device)
    optimizer = torch.optim.SGD(net.parameters(), **OPTIMIZER)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return net, step


def use_tf32(wanted: bool) -> None:
    """Have both engines multiply on tensor cores, or in float32."""
    md.set_float32_precision("tf32" if wanted else "float32")
    torch.set_float32_matmul_precision("high" if wanted else "highest")
    torch.backends.cudnn.allow_tf32 = wanted


def fast() -> None:
    """Have both engines do their best in TF32; cuDNN tries its algorithms out."""
    use_tf32(True)
    torch.backends.cudnn.benchmark = True


def free(setting: Setting) -> None:
    """Give memory that no array uses back, and forget the most that was in use."""
    gc.collect()
    cuda.free_unused()
    cuda.peak_bytes(reset=True)
    if setting.gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
