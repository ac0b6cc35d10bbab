"""The pool of warm memory: ranges come back, and no two arrays share one."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as md
from minidl import ops
from minidl.autograd import owner_of
from minidl.backend import cpu
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


def test_neighbours_that_died_make_room_for_a_larger_array():
    memory.free_unused()
    pieces = [memory.empty((1 << 18,), np.uint8) for _ in range(8)]
    start = pieces[2].ctypes.data
    touched = memory.touched_bytes()
    del pieces[2:6]
    large = memory.empty((1 << 20,), np.uint8)
    assert large.ctypes.data == start
    assert memory.touched_bytes() == touched


def test_an_array_gets_the_smallest_range_that_holds_it():
    memory.free_unused()
    pieces = [memory.empty((size << 16,), np.uint8) for size in (4, 1, 2, 1, 3, 1)]
    wanted = pieces[2].ctypes.data
    del pieces[4], pieces[2], pieces[0]
    assert memory.empty((2 << 16,), np.uint8).ctypes.data == wanted


@given(st.data())
def test_no_two_arrays_share_a_byte_and_ranges_merge(data: st.DataObject):
    arena = memory._Arena(1 << 16)
    held: dict[int, int] = {}
    for _ in range(data.draw(st.integers(1, 40))):
        if held and data.draw(st.booleans()):
            start = data.draw(st.sampled_from(sorted(held)))
            arena.give(start, held.pop(start))
        else:
            size = 64 * data.draw(st.integers(1, 300))
            *between, last = gaps(held, 1 << 16)
            fitting = [gap for gap in sorted(between) if gap[0] >= size]
            if not fitting and last[0] >= size:
                fitting = [last]
            start = arena.take(size)
            assert start == (fitting[0][1] if fitting else None)
            if start is not None:
                held[start] = size
    for start, size in held.items():
        arena.give(start, size)
    assert arena.release()
    assert arena.take(1 << 16) == 0  # one range again


def gaps(held: dict[int, int], size: int) -> list[tuple[int, int]]:
    """(size, start) of the free ranges between the arrays held (start -> size), and of the one at the end."""
    starts = sorted(held)
    ends = [0, *(start + held[start] for start in starts)]
    return [
        (start - end, end)
        for start, end in zip([*starts, size], ends, strict=True)
        if start > end or start == size
    ]


def test_arrays_are_aligned_writable_and_of_the_shape_asked_for():
    a = memory.zeros((3, 100, 111), np.float64)
    assert a.ctypes.data % 64 == 0
    assert a.flags.c_contiguous
    assert a.flags.writeable
    assert a.shape == (3, 100, 111)
    assert not a.any()


def test_live_and_peak_bytes():
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


def test_a_training_step_touches_no_new_memory_once_warm():
    x = md.tensor(np.ones((4, 32, 32, 8), np.float32))
    weight = md.tensor(np.ones((3, 3, 8, 16), np.float32), requires_grad=True)

    def step() -> None:
        weight.grad = None
        y = ops.max_pool2d(ops.conv2d(x, weight, padding=1, activation="relu"), 2)
        ops.cross_entropy(ops.global_avg_pool(y), np.zeros(4, int)).backward()

    memory.free_unused()
    step()
    step()
    touched = memory.touched_bytes()
    step()
    assert memory.touched_bytes() == touched > 0
    held = memory.empty((1 << 24,), np.float32)
    assert memory.touched_bytes() >= touched + held.nbytes / 2  # no step has given back as much


def test_every_range_has_an_owner_of_its_own():
    a, b = memory.empty(LARGE, np.float32), memory.empty(LARGE, np.float32)
    assert owner_of(a) is not owner_of(b)
    assert owner_of(a[3:].reshape(-1, 1)[::2]) is owner_of(a)


def test_a_gradient_that_nobody_shares_is_not_copied(monkeypatch: pytest.MonkeyPatch):
    weight = md.tensor(np.ones((3, 3, 64, 64), np.float32), requires_grad=True)
    monkeypatch.setattr(cpu, "copy", None)
    ops.conv2d(md.tensor(np.ones((1, 8, 8, 64), np.float32)), weight).sum().backward()
    assert weight.grad is not None


def test_more_than_an_arena(monkeypatch: pytest.MonkeyPatch):
    memory.free_unused()
    monkeypatch.setattr(memory, "_ARENA_BYTES", 1 << 20)
    arrays = [memory.zeros((size << 18,), np.uint8) for size in (3, 3, 9, 1)]
    assert all(array.flags.writeable for array in arrays)
    touched = memory.touched_bytes()
    assert touched >= sum(array.nbytes for array in arrays)
    del arrays
    again = [memory.empty((size << 18,), np.uint8) for size in (9, 3, 1, 3)]
    assert memory.touched_bytes() == touched
    del again


def test_what_is_given_back_to_the_system_and_what_stays():
    memory.free_unused()
    before = memory.touched_bytes()
    first, kept, last = (memory.zeros((1 << 22,), np.uint8) for _ in range(3))
    kept[...] = 7
    del first, last
    memory.free_unused()
    assert memory.touched_bytes() <= before + (2 << 22)
    assert (kept == 7).all()
    again = memory.empty((1 << 22,), np.uint8)
    again[...] = 1
    assert (kept == 7).all()


def test_more_than_the_machine_has():
    with pytest.raises(MemoryError, match=r"no 1152921504\.6 GB for arrays; take smaller"):
        memory.empty((1 << 60,), np.uint8)
    assert memory.empty(LARGE, np.float32).size == LARGE[0]


def test_interrupted_in_the_midst_of_a_change(monkeypatch: pytest.MonkeyPatch):
    held = memory.zeros(LARGE, np.float32)

    def interrupted(arena: object, start: int, size: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(memory._Arena, "_add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            memory.empty(LARGE, np.float32)
    fresh = memory.empty(LARGE, np.float32)
    fresh[...] = 1
    assert not held.any()
    del held, fresh
    assert memory.empty(LARGE, np.float32).size == LARGE[0]


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
