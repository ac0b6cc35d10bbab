"""Whole training steps of minidl and of PyTorch, in TF32, on synthetic batches that lie on the device.

PyTorch runs eager, as NCHW and as channels_last, with cudnn.benchmark; the faster of the two is the peer.
"""

from functools import partial

import torch

from checks import training
from checks.report import Figures, Report, Setting
from checks.timing import seconds
from checks.training import Task
from minidl.backend import cuda

TASKS = (
    Task("nin", 128, 32),
    Task("resnet50", 64, 224),
    Task("inception_v3", 64, 299),
    Task("inception_resnet_v2", 64, 299),
)
TINY = (Task("nin", 2, 8), Task("resnet20", 2, 8))
WARM_UP, TIMED = 5, 20
TINY_WARM_UP, TINY_TIMED = 1, 2
PEERS = {"PyTorch NCHW": torch.contiguous_format, "PyTorch channels_last": torch.channels_last}


def measure(engine: str, task: Task, setting: Setting) -> Figures:
    """Time, rate and the most memory it took."""
    training.free(setting)
    if engine in PEERS:
        _, step = training.theirs(task, setting.torch_device, PEERS[engine])
    else:
        _, step = training.ours(task, setting.device)
    warm_up, timed = (TINY_WARM_UP, TINY_TIMED) if setting.tiny else (WARM_UP, TIMED)
    taken = seconds(setting, lambda _: step(), timed, warm_up)
    figures = {"ms": taken * 1e3, "images_per_s": task.batch / taken, **peaks(engine, setting)}
    return {**figures, "loss": step().item()}


def peaks(engine: str, setting: Setting) -> Figures:
    """The most memory that the engine took from the device, and that arrays took of it, where that is known:
    CuPy's pool does not count the latter, and PyTorch counts nothing on the CPU."""
    if engine not in PEERS:
        return {"peak_mb": cuda.peak_bytes() / 1e6}
    if not setting.gpu:
        return {}
    taken, used = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    return {"peak_mb": taken / 1e6, "peak_of_arrays_mb": used / 1e6}


def run(setting: Setting, report: Report) -> None:
    """Each network with each engine, then the ratio."""
    training.fast()
    for task in report.in_time(TINY if setting.tiny else TASKS):
        told = f"{task.network} {task.batch}x{task.size}x{task.size}"
        found = {
            engine: report.record(f"{told}, {engine}", partial(measure, engine, task, setting))
            for engine in (*PEERS, "minidl")
        }
        times = {engine: figures["ms"] for engine, figures in found.items() if "ms" in figures}
        if "minidl" in times and len(times) > 1:
            best = min((engine for engine in times if engine in PEERS), key=lambda engine: times[engine])
            ratio = times[best] / times["minidl"]
            text = f"{ratio:.2f} of the speed of {best}"
            report.write(told, {"text": text, "ratio": ratio})
