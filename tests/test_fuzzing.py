"""The fuzzing tool: mutants are reproducible, and readers that crash, hang or allocate are caught."""

import os
import signal
import time

import pytest

from minidl.errors import DataError
from tests.fuzzing import check_reader, mutation, mutations

DATA = bytes(range(256)) * 4


def strict(data):
    if data != DATA:
        raise DataError("not what it was")


def damaged(action):
    """A reader that accepts DATA and does `action` at anything that is shorter."""

    def read(data):
        if len(data) < len(DATA):
            action()

    return read


def test_mutants_differ_from_the_data_and_each_other_and_come_back():
    mutants = list(mutations(DATA, 200))
    assert len(set(mutants)) > 190
    assert DATA not in mutants
    assert mutants == list(mutations(DATA, 200))
    assert mutants[123] == mutation(DATA, 123)
    assert mutation(DATA, 5, seed=1) != mutants[5]
    assert any(len(mutant) < len(DATA) // 2 for mutant in mutants)
    assert any(len(mutant) > len(DATA) for mutant in mutants)


@pytest.mark.parametrize("data", [b"", b"x"])
def test_hardly_any_bytes_can_be_mutated(data):
    assert data not in list(mutations(data, 100))


@pytest.mark.parametrize("isolated", [False, True])
def test_reader_that_refuses_every_mutant_passes(isolated):
    assert check_reader(strict, DATA, count=50, isolated=isolated) == 50
    assert check_reader(len, DATA, count=50, isolated=isolated) == 0


def test_reader_of_a_path_finds_the_mutant_there(tmp_path):
    seen = []
    check_reader(lambda path: seen.append(path.read_bytes()), DATA, count=5, path=tmp_path / "x.bin")
    assert seen == [DATA, *mutations(DATA, 5)]


def test_reader_that_refuses_the_data_itself_fails():
    with pytest.raises(AssertionError, match=r"the file as it is: DataError: not what it was"):
        check_reader(strict, DATA + b"x", count=5)


@pytest.mark.parametrize("isolated", [False, True])
def test_exception_that_is_not_allowed_fails_and_names_the_mutant(isolated):
    text = r"mutation\(data, \d+, seed=3\): ZeroDivisionError: (.*)\n.* bytes, SHA-256 \w{64}"
    with pytest.raises(AssertionError, match=text):
        check_reader(damaged(lambda: 1 / 0), DATA, count=50, seed=3, isolated=isolated)


@pytest.mark.parametrize("isolated", [False, True])
def test_allocation_beyond_the_bound_fails(isolated):
    with pytest.raises(AssertionError, match=r"MemoryError|allocated \d\d,\d{3},\d{3} bytes"):
        check_reader(
            damaged(lambda: bytes(50_000_000)), DATA, count=50, peak_bytes=40 << 20, isolated=isolated
        )


def test_a_reader_that_catches_everything_does_not_get_round_the_bounds():
    def sleep():
        try:
            time.sleep(60)
        except Exception:
            pass

    with pytest.raises(AssertionError, match=r"not done after 0\.3 seconds"):
        check_reader(damaged(sleep), DATA, (Exception,), count=50, seconds=0.3)
    with pytest.raises(AssertionError, match=r"allocated 50,\d{3},\d{3} bytes, 41,943,040 allowed"):
        check_reader(damaged(lambda: bytes(50_000_000)), DATA, (Exception,), count=50, peak_bytes=40 << 20)


@pytest.mark.parametrize("isolated", [False, True])
def test_hang_fails(isolated):
    with pytest.raises(AssertionError, match=r"mutation\(.*: not done after 0\.3 seconds"):
        check_reader(damaged(lambda: time.sleep(60)), DATA, count=50, seconds=0.3, isolated=isolated)


def test_crash_of_native_code_fails_and_names_the_mutant():
    crash = damaged(lambda: os.kill(os.getpid(), signal.SIGKILL))  # as a segmentation fault, less noisily
    with pytest.raises(AssertionError, match=r"mutation\(data, \d+, seed=0\): died of SIGKILL\n"):
        check_reader(crash, DATA, count=50, isolated=True)
