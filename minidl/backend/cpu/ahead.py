"""Compiling on a second core while the first step compiles on the first.

A first step needs the kernels of its gradients last. Where no machine code has been kept yet, compile.py runs
this file as a program of its own, which makes those kernels by running each on a few numbers; what it has
made when the step gets there is read from the cache folder. Nothing depends on it: a kernel that is not there
in time is compiled where it is needed.
"""

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np

from minidl.backend.cpu import direct, elementwise, norm, pool, products, update, winograd
from minidl.backend.cpu.dropout import dropout
from minidl.backend.cpu.microkernel import lanes
from minidl.backend.cpu.transpose import transposed
from minidl.window import window


def kernels() -> Iterator[Callable[[], object]]:
    """Calls that run what the gradients of a step run.

    In about the order opposite to a network's, for the two processes work towards each other; but what only
    some networks need comes last.
    """
    g = np.ones((2, 32, 32, 16), np.float32)  # as many numbers as several threads share
    channel = np.ones(16, np.float32)
    half = window("max_pool2d", (64, 64), 2, stride=2)
    for size in (g.size, 1):
        p, velocity, slope = np.ones((3, size), np.float32)
        sgd = functools.partial(update.sgd_update, lr=0.1, momentum=0.9, weight_decay=0.0, nesterov=False)
        yield functools.partial(sgd, p, slope, velocity)
    yield lambda: pool.max_pool2d_grad(g, np.zeros(g.shape, np.uint8), half)
    yield lambda: norm.column_sums(g)
    yield lambda: elementwise.relu_grad(g, g)
    yield lambda: direct.correlate_weight(g, (0,), (0,), (1, 1), g)
    yield lambda: winograd.correlate_weight(g, (-1, 0, 1), (-1, 0, 1), (1, 1), g)
    yield lambda: pool.avg_pool2d_grad(g, half, False)
    yield lambda: transposed(np.ones((1, 1, 16, 16), np.float32), lanes())
    yield lambda: norm.normalize_grad(g, g, channel, channel, channel, channel, True, True)
    yield lambda: products.matmul(g.reshape(-1, 32), g.reshape(32, -1))
    yield lambda: dropout(g, 0.5, (0, 0, 0))


def main() -> None:
    """Run them all, unless the process that started this one ends first: it holds the other end of stdin."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
    for kernel in kernels():
        with contextlib.suppress(Exception):  # whoever needs it will meet the same, and say so
            kernel()


if __name__ == "__main__":
    main()
