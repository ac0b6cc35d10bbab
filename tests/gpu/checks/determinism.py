"""Two runs of the same training steps give the same bits; and the emulator computes what the GPU computes."""

import shutil
from functools import partial

import numpy as np
import torch

import minidl as md
from checks import convolutions, operations, training
from checks.agreement import BOUNDS, Case, computed, exactly, expected, judged, poison, relative
from checks.report import Figures, Report, Setting
from checks.training import Task

TASKS = (
    Task("nin", 64, 32),
    Task("googlenet", 8, 224),
    Task("resnet50", 8, 224),
    Task("inception_resnet_v2", 4, 299),
)
TINY = (Task("nin", 2, 8), Task("resnet20", 3, 10))
STEPS = 2  # the second one sees what the first one's backward and update left
# Between the emulator and the GPU: they add in the same order, but one may fuse a product with its addition,
# and tensor cores round sums in their own way.
SAME = {"float32": 1e-5, "tf32": 1e-4}


def state_after(task: Task, device: str, precision: str) -> dict[str, np.ndarray]:
    """Losses, the last gradients, parameters and statistics, after a few steps from the same start."""
    md.set_float32_precision(precision)
    poison(device)
    net, step = training.ours(task, device)
    losses = [step() for _ in range(STEPS)]
    found = {f"loss {i}": loss.numpy() for i, loss in enumerate(losses)}
    found |= {f"grad of {path}": p.grad.numpy() for path, p in net.named_parameters()}
    return found | net.state_dict()


def repeated(task: Task, setting: Setting, precision: str) -> Figures:
    """Whether all of two runs is equal, and finite."""
    first, second = (state_after(task, setting.device, precision) for _ in range(2))
    different = [name for name, value in first.items() if not np.array_equal(value, second[name])]
    infinite = [f"{name} is not finite" for name, value in first.items() if not np.isfinite(value).all()]
    return exactly(different + infinite)


def emulated(case: Case, setting: Setting, precision: str) -> Figures:
    """What the device computes against what the emulator computes from the same numbers."""
    rng = np.random.default_rng(0)
    arrays = [case.draw(rng, shape) for shape in case.shapes]
    _, g, _ = expected(case, arrays, "cpu")
    here, there = (computed(case, arrays, g, device, precision) for device in (setting.device, "cudasim"))
    errors = {name: relative(here[name], torch.from_numpy(there[name]).double()) for name in here}
    return judged(errors, SAME[precision])


def run(setting: Setting, report: Report) -> None:
    """Training steps of a few networks; then small shapes of all kernels on the emulator."""
    for task in report.in_time(TINY if setting.tiny else TASKS):
        for precision in BOUNDS:
            told = f"two runs of {task.network}, {precision}"
            report.record(told, partial(repeated, task, setting, precision))
    if shutil.which("g++") is None:
        report.write("the emulator", {"headline": "not compared with the emulator: there is no g++"})
        return
    cases = [(case, "float32") for case in operations.cases(tiny=True)]
    cases += [(case, precision) for case in operations.products(tiny=True) for precision in BOUNDS]
    cases += [(each.case(1), precision) for each in convolutions.OTHERS for precision in BOUNDS]
    for case, precision in report.in_time(cases):
        told = f"emulated {case.what}, {precision}"
        report.record(told, partial(emulated, case, setting, precision))
