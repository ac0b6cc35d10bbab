"""One number rules all threads."""

import threading

import numba
import pytest

import minidl as md
from minidl.backend import blas_threads
from minidl.backend.blas_threads import numpy_on_one_thread, scipy_on_one_thread


def test_set_and_get():
    before = md.get_num_threads()
    try:
        md.set_num_threads(1)
        assert md.get_num_threads() == numba.get_num_threads() == 1
    finally:
        md.set_num_threads(before)


def test_more_threads_than_there_are():
    with pytest.raises(ValueError, match=r"count is 100000, it must lie in 1 \.\. "):
        md.set_num_threads(100_000)
    with pytest.raises(ValueError, match="count is 0"):
        md.set_num_threads(0)


def test_the_number_holds_in_every_python_thread():
    before, seen = md.get_num_threads(), []
    try:
        md.set_num_threads(1)
        thread = threading.Thread(target=lambda: seen.append(md.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [1]
    finally:
        md.set_num_threads(before)


def test_blas_is_limited_until_the_last_block_ends():
    library = blas_threads.libraries()[0][0]
    before = library.get_num_threads()
    with scipy_on_one_thread:
        with scipy_on_one_thread:
            assert library.get_num_threads() == 1
        assert library.get_num_threads() == 1
    assert library.get_num_threads() == before


def test_numpys_and_scipys_blas_are_limited_apart():
    ours, others = blas_threads.libraries()
    before = [library.get_num_threads() for library in (*ours, *others)]
    with numpy_on_one_thread:
        assert len(others) == 0 or 1 in [library.get_num_threads() for library in others]
        assert [library.get_num_threads() for library in ours] == before[: len(ours)]
        with scipy_on_one_thread:
            assert {library.get_num_threads() for library in ours} == {1}
    assert [library.get_num_threads() for library in (*ours, *others)] == before
