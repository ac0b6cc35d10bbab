"""Files of arrays: round trip, atomic writing, and no damage goes unnoticed."""

import os
from pathlib import Path

import numpy as np
import pytest

from minidl.errors import CheckpointError
from minidl.io import load_arrays, save_arrays, write_atomic

ARRAYS = {"a": np.arange(12, dtype=np.float32).reshape(3, 4).T, "b": np.array(2.5), "c": np.arange(8)[::2]}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_arrays(tmp_path / "x.safetensors", ARRAYS, {"epoch": 3, "names": ["ä"]})
    return tmp_path / "x.safetensors"


def test_round_trip_of_strided_and_zero_dimensional_arrays(saved: Path):
    arrays, description = load_arrays(saved)
    assert description == {"epoch": 3, "names": ["ä"]}
    for name, value in ARRAYS.items():
        assert arrays[name].shape == value.shape
        assert arrays[name].dtype == value.dtype
        np.testing.assert_array_equal(arrays[name], value)


def test_the_same_content_gives_the_same_bytes(saved: Path, tmp_path: Path):
    save_arrays(tmp_path / "y.safetensors", ARRAYS, {"epoch": 3, "names": ["ä"]})
    assert saved.read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def same(path: Path) -> bool:
    """Whether a file still loads, and to what was saved: a flip in the blanks between header and data changes
    nothing."""
    try:
        arrays, description = load_arrays(path)
    except CheckpointError:
        return False
    return description == {"epoch": 3, "names": ["ä"]} and all(
        np.array_equal(arrays[n], v) for n, v in ARRAYS.items()
    )


def test_every_flipped_bit_is_noticed(saved: Path):
    content = bytearray(saved.read_bytes())
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        saved.write_bytes(damaged)
        if content[place : place + 1] == b" " and same(saved):
            continue
        with pytest.raises(CheckpointError, match=r"x\.safetensors is"):
            load_arrays(saved)


def test_every_truncation_is_noticed(saved: Path):
    content = saved.read_bytes()
    for length in range(len(content)):
        saved.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"x\.safetensors is"):
            load_arrays(saved)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"none.safetensors cannot be read \(No such file"):
        load_arrays(tmp_path / "none.safetensors")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "f"
    write_atomic(target, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
