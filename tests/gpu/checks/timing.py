"""How long calls take. CuPy and PyTorch share the GPU's default stream, so one clock is for both."""

import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from checks.report import Setting

AHEAD = 40_000_000  # clock cycles, 20 ms, that the GPU waits while calls are lined up


def seconds(
    setting: Setting, call: Callable[[int], Any], count: int, warm_up: int, *, ahead: bool = False
) -> float:
    """The median of `count` calls, call(i) for the i-th, in a row.

    ahead  the GPU starts when all calls are lined up: their launches cost nothing then
    """
    for i in range(warm_up):
        call(i)
    if not setting.gpu:
        return median(_on_host(call, i) for i in range(count))
    torch.cuda.synchronize()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    if ahead:
        torch.cuda._sleep(AHEAD)
    marks[0].record()
    for i, mark in enumerate(marks[1:]):
        call(i)
        mark.record()
    torch.cuda.synchronize()
    return median(start.elapsed_time(end) for start, end in pairwise(marks)) / 1e3


def _on_host(call: Callable[[int], Any], i: int) -> float:
    start = time.perf_counter()
    call(i)
    return time.perf_counter() - start


def launch_seconds(setting: Setting, call: Callable[[], Any], count: int) -> float:
    """What a call costs the host, on average of many that are not waited for."""
    call()
    if setting.gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        call()
    taken = time.perf_counter() - start
    if setting.gpu:
        torch.cuda.synchronize()
    return taken / count
