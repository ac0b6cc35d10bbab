"""Training NIN from identical weights in minidl and in PyTorch: do the losses stay together?

Rounding differs, and training multiplies the difference step by step: the first losses agree to many
digits, in the end the curves only lie in the same place. (In float32 on a CPU, PyTorch's own two memory
formats differ by 1e-3 after ten steps.)
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

import minidl as md
import twins
from checks import training
from checks.report import Figures, Report, Setting

OPTIMIZER = {"lr": 0.002, "momentum": 0.9, "weight_decay": 1e-4}
EARLY, EARLY_BOUND = 10, 1e-2  # the first steps, and how far each loss may lie from the other's, relative
START_BOUND = 1e-5  # of the first loss alone, from weights that are equal
LATE, LATE_BOUND = 20, 0.1  # the last steps, and how far their means may differ, relative to the first loss


class Course(NamedTuple):
    """How many steps, and on what."""

    steps: int
    batch: int
    size: int

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """New images of noise at each step, tinted by their class, and their labels."""
        rng = np.random.default_rng(0)
        colours = rng.standard_normal((10, 1, 1, 3), np.float32)
        shape = self.batch, self.size, self.size, 3
        for _ in range(self.steps):
            labels = rng.integers(0, 10, self.batch)
            yield colours[labels] + rng.standard_normal(shape, np.float32), labels


FULL, TINY = Course(200, 32, 32), Course(12, 4, 8)


def pair() -> tuple[Any, torch.nn.Module]:
    """The network and its twin with the network's weights, without dropout."""
    md.manual_seed(0)
    net, twin = training.build("nin"), training.twin("nin")
    for module in [*net.modules(), *twin.modules()]:
        if isinstance(module, (md.nn.Dropout, torch.nn.Dropout)):
            module.p = 0.0
    with torch.no_grad():
        for _, layer, peer in twins.paired(net, twin):
            peer.weight.copy_(torch.from_numpy(layer.weight.numpy()).permute(3, 2, 0, 1))
            peer.bias.copy_(torch.from_numpy(layer.bias.numpy()))
    return net, twin


def losses(course: Course, setting: Setting, report: Report) -> tuple[list[float], list[float]]:
    """minidl's losses and PyTorch's, step by step."""
    net, twin = pair()
    net.to(setting.device)
    twin.to(setting.torch_device)
    optimizer = md.optim.SGD(net.parameters(), **OPTIMIZER)
    peer = torch.optim.SGD(twin.parameters(), **OPTIMIZER)
    ours, theirs = [], []
    for x, labels in report.in_time([*course.batches()]):
        optimizer.zero_grad()
        loss = md.ops.cross_entropy(net(md.tensor(x, device=setting.device)), labels)
        loss.backward()
        optimizer.step()
        peer.zero_grad()
        images, classes = torch.from_numpy(x).movedim(3, 1), torch.from_numpy(labels)
        peer_loss = F.cross_entropy(twin(images.to(setting.torch_device)), classes.to(setting.torch_device))
        peer_loss.backward()
        peer.step()
        ours.append(loss.item())
        theirs.append(peer_loss.item())
    return ours, theirs


def compared(ours: list[float], theirs: list[float]) -> Figures:
    """How far the curves lie apart, at first and in the end."""
    apart = np.abs(np.array(ours) / np.array(theirs) - 1)
    early = float(apart[:EARLY].max())
    ends = float(np.mean(ours[-LATE:])), float(np.mean(theirs[-LATE:]))
    near = abs(ends[0] - ends[1]) <= LATE_BOUND * theirs[0]
    return {
        "passed": bool(apart[0] <= START_BOUND and early <= EARLY_BOUND and near),
        "headline": f"losses begin at {ours[0]:.4f} ({apart[0]:.1e} from PyTorch's), the first {EARLY} "
        f"differ by up to {early:.1e}, the last {LATE} are {ends[0]:.4f} on average, PyTorch's {ends[1]:.4f}",
        "minidl": ours,
        "torch": theirs,
    }


def run(setting: Setting, report: Report) -> None:
    """One comparison, in float32."""
    training.use_tf32(False)
    course = TINY if setting.tiny else FULL
    report.record(f"{course.steps} steps of nin", lambda: compared(*losses(course, setting, report)))
