"""One number rules all threads."""

import numba
import pytest

import minidl as md


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
