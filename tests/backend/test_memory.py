"""The pool of warm memory: blocks come back, and nothing shares one."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import minidl as md
from minidl import ops
from minidl.backend.cpu import memory

LARGE = (1 << 15,)  # elements: well above the size the pool takes


def test_a_block_is_used_again_after_its_last_array_died():
    a = memory.empty(LARGE, np.float32)
    place = a.ctypes.data
    view = a[5:].reshape(-1, 1)
    del a
    b = memory.empty(LARGE, np.float32)
    assert b.ctypes.data != place  # the view still holds the block
    del view, b
    again = [memory.empty(LARGE, np.float32) for _ in range(2)]
    assert place in {array.ctypes.data for array in again}


def test_a_larger_block_serves_where_no_other_is_idle():
    memory.free_unused()
    large = memory.empty((1 << 20,), np.uint8)
    start = large.ctypes.data
    del large
    much_less = memory.empty((1 << 18,), np.uint8)  # a quarter: the block is kept for larger arrays
    assert much_less.ctypes.data != start
    less = memory.empty((3 << 18,), np.uint8)
    assert less.ctypes.data == start
    live = memory.live_bytes()
    del less
    assert live - memory.live_bytes() >= 1 << 20  # the whole block's


def test_arrays_are_aligned_writable_and_of_the_shape_asked_for():
    a = memory.zeros((3, 100, 111), np.float64)
    assert a.ctypes.data % 64 == 0
    assert a.flags.c_contiguous
    assert a.flags.writeable
    assert a.shape == (3, 100, 111)
    assert not a.any()


def test_live_and_peak_bytes():
    memory.free_unused()  # an idle block may be larger than what is asked for
    before = memory.live_bytes()
    memory.peak_bytes(reset=True)
    a, b = memory.empty(LARGE, np.float32), memory.empty(LARGE, np.float32)
    grown = memory.live_bytes() - before
    assert a.nbytes + b.nbytes <= grown <= 1.2 * (a.nbytes + b.nbytes)
    del a, b
    assert memory.live_bytes() == before
    assert memory.peak_bytes() == before + grown


def test_addresses_of_views():
    a = memory.empty((40, 50, 60), np.float32)
    fixed = np.arange(6.0)
    fixed.flags.writeable = False
    for array in (a, a[3:, ::2], a[::-1, :, 5], a.T, fixed, fixed[1:], np.float32(1).reshape(1), np.zeros(0)):
        assert memory.address(array) == array.ctypes.data


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,)])
def test_small_and_empty_arrays(shape: tuple[int, ...]):
    assert memory.empty(shape, np.float32).shape == shape


def test_a_training_step_asks_for_no_new_blocks_once_warm(monkeypatch: pytest.MonkeyPatch):
    x = md.tensor(np.ones((4, 32, 32, 8), np.float32))
    weight = md.tensor(np.ones((3, 3, 8, 16), np.float32), requires_grad=True)

    def step() -> None:
        weight.grad = None
        y = ops.max_pool2d(ops.conv2d(x, weight, padding=1, activation="relu"), 2)
        ops.cross_entropy(ops.global_avg_pool(y), np.zeros(4, int)).backward()

    memory.free_unused()
    step()
    step()
    fresh: list[tuple[int, ...]] = []
    plain = memory._Memory
    monkeypatch.setattr(memory, "_Memory", lambda shape, dtype: fresh.append(shape) or plain(shape, dtype))
    step()
    assert fresh == []
    held = memory.empty((1 << 24,), np.float32)
    assert fresh == [(held.nbytes + 64,)]  # no step has given back as much


def test_several_threads_share_the_pool():
    failures: list[BaseException] = []

    def churn(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(300):
                held = [memory.empty((int(n),), np.float32) for n in rng.integers(1 << 14, 1 << 18, 4)]
                del held
                if rng.random() < 0.05:
                    memory.free_unused()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_arrays_that_live_until_the_end_of_the_program():
    program = """
import numpy as np
from minidl.backend.cpu import memory
held = memory.empty((1 << 16,), np.float32)
memory.hook = lambda: held  # so the names of this program go after those of the module
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_numpy_integers_in_a_shape():
    assert memory.empty((np.int64(300), 300), np.float32).shape == (300, 300)
