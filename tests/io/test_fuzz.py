"""Damaged files of weights, hundreds per format: each is read, or refused by a CheckpointError with a cure.

Checksums would keep most damage from the code behind them, so descriptions, headers, records and pickles are
also damaged by themselves, and packed into files that are sound. MINIDL_FUZZ=10000 damages more.
"""

import hashlib
import io
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from minidl.errors import CheckpointError
from minidl.io import load_arrays, read_weights, save_arrays
from minidl.io.pickled import entries, interpret
from tests.fuzzing import check_reader
from tests.io.torch_files import NEW, OLD, PICKLED, RAW, new_format, zipped

CURE = re.compile(r"get it anew|[Ss]ave|restore|check the path|rename|Convert|minidl reads weights without")
SMALL = 4 << 20  # bytes that files of a kilobyte may take; what imports take comes before
NATIVE = 128 << 20  # and where the library of safetensors, whose memory is counted by the page, reads them
STATE = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "half": np.array([0.5, -65504], np.float16),
    "double": np.array([0.1, 1e300]),
    "count": np.array(3),
    "mask": np.array([True, False]),
}


def fuzz(read: Callable[[Path], object], data: bytes, path: Path, **options: Any) -> None:
    """Some of the damaged files are refused, each by an error that names the file and the cure."""

    def check(path: Path) -> None:
        try:
            read(path)
        except CheckpointError as error:
            if str(path) not in str(error) or not CURE.search(str(error)):
                raise AssertionError(f"no name or no cure: {error}") from error
            raise

    assert check_reader(check, data, (CheckpointError,), path=path, **options) > 0


def packed(read: Callable[[Path], object], pack: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """A reader of damaged parts: it packs them into sound files, and lets `read` have those."""

    def reader(path: Path) -> object:
        path.write_bytes(pack(path.read_bytes()))
        return read(path)

    return reader


def npz(save: Callable[..., None]) -> bytes:
    stream = io.BytesIO()
    save(stream, **STATE)
    return stream.getvalue()


def sized(header: bytes) -> bytes:
    """A safetensors file with a header of any kind, and some data."""
    return len(header).to_bytes(8, "little") + header + bytes(200)


def signed(description: bytes) -> bytes:
    """A file of minidl whose checksum belongs to whatever description."""
    text = description.decode(errors="replace")
    entry = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "description": text}
    return save({}, {"minidl": json.dumps(entry)})


def test_files_of_minidl(tmp_path: Path):
    save_arrays(tmp_path / "w", STATE, {"epoch": 3, "names": ["ä"]})
    fuzz(load_arrays, (tmp_path / "w").read_bytes(), tmp_path / "w", peak_bytes=NATIVE, isolated=True)


def test_descriptions_of_files_of_minidl(tmp_path: Path):
    description = json.dumps({"format": "x", "model": {"a": [1, 2.5, None, True, {"b": "c"}]}}).encode()
    fuzz(packed(load_arrays, signed), description, tmp_path / "w", peak_bytes=SMALL)


def test_files_of_safetensors(tmp_path: Path):
    fuzz(read_weights, save(STATE), tmp_path / "w", peak_bytes=NATIVE, isolated=True)


def test_headers_of_safetensors(tmp_path: Path):
    content = save({**STATE, "fill": np.zeros(200 - sum(a.nbytes for a in STATE.values()), np.uint8)})
    header = content[8:-200]
    fuzz(packed(read_weights, sized), header, tmp_path / "w", peak_bytes=NATIVE, isolated=True)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "packed"])
def test_archives_of_numpy(save: Callable[..., None], tmp_path: Path):
    fuzz(read_weights, npz(save), tmp_path / "w", peak_bytes=SMALL)


@pytest.mark.parametrize("name", ["conv.weight", "mask"])
def test_records_of_numpy(name: str, tmp_path: Path):
    stream = io.BytesIO()
    np.save(stream, STATE[name])
    pack = packed(read_weights, lambda record: zipped({"a.npy": record}))
    fuzz(pack, stream.getvalue(), tmp_path / "w", peak_bytes=SMALL)


@pytest.mark.parametrize("content", [NEW, OLD], ids=["zip", "legacy"])
def test_files_of_torch(content: bytes, tmp_path: Path):
    fuzz(read_weights, content, tmp_path / "w", peak_bytes=SMALL)


def test_pickles_of_torch(tmp_path: Path):
    pack = packed(read_weights, lambda pickled: new_format(pickled, RAW))
    fuzz(pack, PICKLED, tmp_path / "w", peak_bytes=SMALL)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_of_plain_data(protocol: int):
    value = {"a": [1, -(2**70), 0.5, None, True, "ä", ()], 7: ({}, [{"b": "c" * 300}])}
    calls = {"collections.OrderedDict": lambda pairs=(): entries(pairs)}

    def read(pickled: bytes) -> None:
        interpret(io.BytesIO(pickled), calls, lambda identity: identity)

    assert check_reader(read, pickle.dumps(value, protocol), (CheckpointError,), peak_bytes=SMALL) > 0


@pytest.mark.parametrize("strict", [True, False])
def test_weights_for_a_network(strict: bool, fresh: Callable[..., Any], tmp_path: Path):
    """Names, shapes and types that do not fit: the network says so, and stays as it was."""
    source, target = fresh(seed=1), fresh(seed=2)
    content = save(source.export_weights(layout="timm"))
    length = int.from_bytes(content[:8], "little")
    before = target.state_dict()

    def load(path: Path) -> None:
        try:
            target.load_weights(path, layout="timm", strict=strict)
        except CheckpointError as error:
            for name, array in target.state_dict().items():
                np.testing.assert_array_equal(array, before[name])
            raise CheckpointError(f"{path}: {error}") from error
        target.load_state_dict(before)

    def pack(header: bytes) -> bytes:
        return len(header).to_bytes(8, "little") + header + content[8 + length :]

    refused = check_reader(
        packed(load, pack), content[8 : 8 + length], (CheckpointError,), path=tmp_path / "w", peak_bytes=SMALL
    )
    assert refused > 0
