"""Files of arrays: round trip, atomic writing, and no damage goes unnoticed."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

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


def signed(text: str) -> bytes:
    """A file with that description and the checksum that belongs to it."""
    checksum = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    return save({}, {"minidl": json.dumps({"sha256": checksum, "description": text})})


def described(metadata: str) -> bytes:
    header = json.dumps({"__metadata__": {"minidl": metadata}}).encode()
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (signed("[]"), "its description is no table"),
        (signed("NaN"), "its description is no table"),
        (signed("[" * 100_000 + "]" * 100_000), "its JSON nests too deep"),
        (signed("[" + "[]," * 300_000 + "[]]"), "its JSON has 300,005 lists and tables, 300,000 at most"),
        (signed('{"a": "\ud800"}'), r"can't encode character '.*ud800'"),
        (signed("9" * 5000), "integer string conversion"),
        (described("[" * 100_000), "its JSON nests too deep"),
        (described("[1, 2]"), "list indices must be integers"),
        (described("{}"), "'description'"),
        (described('{"description": 3, "sha256": ""}'), "a int stands in place of its JSON"),
        (described('{"description": "{}", "sha256": 3}'), "do not match their checksum"),
        (b"\x10\0\0\0\0\0\0\0[" + b" " * 14 + b"]", "its header is no table"),
        (b"\x1c\0\0\0\0\0\0\0" + b'{"__metadata__":null}'.ljust(28), "'NoneType' object"),
        (b"\xff" * 8 + b"{}", "'__metadata__'"),
        (b"\x1b\0\0\0\0\0\0\0" + b'{"__metadata__":{"minidl":3', "delimiter"),
        (b"\x1d\0\0\0\0\0\0\0" + b'{"__metadata__":{"minidl":3}}', "a int stands in place of its JSON"),
    ],
)
def test_files_made_to_harm(content: bytes, text: str, tmp_path: Path):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"/x is .*{text}.*; restore it from a copy or an older"):
        load_arrays(tmp_path / "x")


def test_a_description_may_hold_what_json_has_no_word_for(tmp_path: Path):
    save_arrays(tmp_path / "x", {}, {"loss": [float("nan"), float("inf")]})
    loss = load_arrays(tmp_path / "x")[1]["loss"]
    np.testing.assert_array_equal(loss, [np.nan, np.inf])


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "f"
    write_atomic(target, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"f cannot be written .No space left.*, and the old file is as it was; make"
    ):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


FULL = """
import resource, signal, sys
from minidl.io import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does by itself: a write past the limit is an error
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_atomic(sys.argv[1], bytes(int(sys.argv[2])))
except OSError as error:
    print(error.errno, error)
"""


def test_a_disk_that_fills_up_leaves_the_old_file_and_no_other(tmp_path: Path):
    """A limit on the size of files, in a process of its own, stands for the end of the disk."""
    target = tmp_path / "f"
    write_atomic(target, b"old")

    def write(size: int) -> str:
        command = [sys.executable, "-c", FULL, str(target), str(size)]
        root = Path(__file__).resolve().parents[2]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout

    assert write(1_000_000).startswith(
        f"27 [Errno 27] {target} cannot be written (File too large), and the old file is as it was; make room"
    )
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert write(10_000) == ""
    assert target.read_bytes() == bytes(10_000)


@pytest.mark.parametrize(
    ("place", "kind", "text"),
    [
        ("none/f", FileNotFoundError, "No such file or directory"),
        ("file/f", NotADirectoryError, "Not a directory"),
        ("/proc/f", FileNotFoundError, "No such file or directory"),  # a folder that takes no files
    ],
)
def test_a_folder_that_takes_no_file(place: str, kind: type[OSError], text: str, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"old")
    path = tmp_path / place
    with pytest.raises(
        kind, match=rf"{path} cannot be written \({text}\), and no file was left behind; make"
    ):
        write_atomic(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_atomic(tmp_path / "f", b"old")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # which makes the temporary file; root may write anywhere
    with pytest.raises(
        PermissionError, match=r"f cannot be written .Permission denied., and the old file is"
    ):
        write_atomic(tmp_path / "f", b"new")
    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(
        PermissionError, match=r"f cannot be written .Permission denied., and the old file is"
    ):
        write_atomic(tmp_path / "f", b"new")
    monkeypatch.undo()
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_name_that_a_folder_has(tmp_path: Path):
    (tmp_path / "d").mkdir()
    with pytest.raises(IsADirectoryError, match=r"d cannot be written .Is a directory., and the old file is"):
        write_atomic(tmp_path / "d", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_folder_that_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flush = os.fsync

    def refuse(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(22, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=r"f is written, but its folder cannot be flushed .* .Invalid argument"):
        write_atomic(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"


def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_atomic(tmp_path / "f", b"old")

    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
