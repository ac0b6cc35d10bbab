"""Weights in any format: what is read, how formats are told apart, and damage."""

import io
import json
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import TensorSpec, serialize
from safetensors.numpy import save

import minidl as md
from minidl.errors import CheckpointError
from minidl.io import as_arrays, load_arrays, read_weights, save_arrays

STATE = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "half": np.array([0.5, -65504], np.float16),
    "double": np.array([0.1, 1e300]),
    "count": np.array(3),
    "mask": np.array([True, False]),
    "none": np.zeros((0, 3), np.float32),
}


def npz(state: dict[str, np.ndarray], pack: bool = False) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if pack else np.savez)(stream, **state)
    return stream.getvalue()


FILES = {"safetensors": save(STATE), "npz": npz(STATE), "packed npz": npz(STATE, pack=True)}


def read(content: bytes, folder: Path) -> dict[str, np.ndarray]:
    (folder / "w").write_bytes(content)
    arrays, description = read_weights(folder / "w")
    assert description == {}
    return arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the examples of a property, which a function's fixture would outlive."""
    return tmp_path_factory.mktemp("foreign")


@pytest.mark.parametrize("kind", FILES)
def test_formats_are_told_by_their_content(kind: str, tmp_path: Path):
    arrays = read(FILES[kind], tmp_path)
    assert list(arrays) == list(STATE) or kind == "safetensors"
    assert sorted(arrays) == sorted(STATE)
    for name, expected in STATE.items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].dtype == (np.float32 if name == "half" else expected.dtype)


def test_bfloat16_of_safetensors(tmp_path: Path):
    bits = np.array([0x3F80, 0xC000], np.uint16)
    spec = TensorSpec(dtype="bfloat16", shape=[2], data_ptr=bits.ctypes.data, data_len=4)
    arrays = read(bytes(serialize({"b": spec}, {"format": "pt"})), tmp_path)
    np.testing.assert_array_equal(arrays["b"], np.array([1, -2], np.float32))
    assert arrays["b"].dtype == np.float32


def test_a_type_that_numpy_does_not_have(tmp_path: Path):
    bits = np.zeros(2, np.uint8)
    spec = TensorSpec(dtype="float8_e4m3fn", shape=[2], data_ptr=bits.ctypes.data, data_len=2)
    with pytest.raises(CheckpointError, match=r"w has eight in the type F8_E4M3, .* save it as float32"):
        read(bytes(serialize({"eight": spec}, None)), tmp_path)


def test_a_file_of_minidl_keeps_its_description(tmp_path: Path):
    save_arrays(tmp_path / "m", STATE, {"format": "minidl-model", "preprocess": {"mean": [0.5]}})
    arrays, description = read_weights(tmp_path / "m")
    assert description["preprocess"] == {"mean": [0.5]}
    np.testing.assert_array_equal(arrays["double"], STATE["double"])
    content = bytearray((tmp_path / "m").read_bytes())
    content[-1] ^= 1
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(CheckpointError, match="do not match their checksum"):
        read_weights(tmp_path / "m")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is no file of weights that minidl reads: those are .safetensors, .npz and torch's .pth"),
        (b"\x89HDF\r\n\x1a\n and more", "is no file of weights"),
        (b"\x80\x02K\x01.", "does not begin with torch's magic number|is no file of torch.save"),
        (b"PK\x03\x04", "is damaged"),
        (b"\xff\0\0\0\0\0\0\0{}", "is damaged"),
        (save({})[:-1], "is damaged"),
    ],
)
def test_other_files(content: bytes, text: str, tmp_path: Path):
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/w {text}"):
        read(content, tmp_path)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"none cannot be read \(No such file.*check the path"):
        read_weights(tmp_path / "none")


def test_objects_in_an_npz_are_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"w has a\.npy in the type object: .* save the numbers alone"):
        read(npz({"a": np.array([print], object)}), tmp_path)


def test_an_npz_made_to_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("minidl.io.guard._LARGE_BYTES", 10_000)
    assert read(npz({"a": np.zeros(1000)}, pack=True), tmp_path)["a"].shape == (1000,)
    with pytest.raises(CheckpointError, match="w unpacks to 1,000,128 bytes, 100 times its size"):
        read(npz({"a": np.zeros(125_000)}, pack=True), tmp_path)


def record(
    shape: object = "(2,)", data: bytes = bytes(16), descr: object = "'<f8'", version: int = 1
) -> bytes:
    """An array in numpy's format, with whatever header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode("latin1")
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2 * version, "little") + header + data


def archive(records: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as opened:
        for name, content in records.items():
            opened.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            record((10**9,)),
            r"is damaged: a\.npy has 16 bytes for the shape .1000000000,. of float64",
        ),
        (record((10**15,)), "has 16 bytes for the shape"),
        (record((2**32, 2**32)), "has 16 bytes for the shape"),
        (record((0, 2**70)), "has 16 bytes for the shape"),
        (record((0, 2**70), b""), "is damaged"),
        (record((-2,)), "has 16 bytes for the shape"),
        (record((-1, -2)), "has 16 bytes for the shape"),
        (record((3,)), "has 16 bytes for the shape"),
        (record((1,)), "has 16 bytes for the shape"),
        (record((2,) + (1,) * 99), "is damaged"),
        (record((10**12,), b"", "'<U0'"), "in the type <U0: objects and texts are no weights"),
        (record((10**12,), b"", "'|V0'"), "in the type .V0: objects"),
        (record((2,), bytes(8), "'|S4'"), "in the type .S4: objects"),
        (record((1,), bytes(16), "'<c16'"), "in the type complex128: objects"),
        (record((1,), bytes(16), "[('a', '<f8'), ('b', '<f8')]"), r"in the type \[\('a', .*: objects"),
        (record(descr="('<f8',)"), "no array of numpy"),
        (record(descr="'\x1b'"), "no array of numpy"),
        (record(shape='"""'), "no array of numpy"),
        (record(shape="(" * 300), "no array of numpy"),
        (record(shape="-" * 900 + "1"), "no array of numpy"),
        (record(shape="(" * 2000), "no array of numpy"),
        (record(version=3), "no array of numpy"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "no array of numpy"),
        (b"no magic", "no array of numpy"),
        (b"", "no array of numpy"),
    ],
)
def test_records_of_an_npz_made_to_harm(content: bytes, text: str, tmp_path: Path):
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=rf"{tmp_path}/w .*{text}.*; save"):
            read(archive({"a.npy": content}), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_records_of_an_npz_that_other_programs_write(tmp_path: Path):
    records = {
        "python2.npy": record("(2L,)"),
        "big.npy": record((2,), np.array([1.5, -2]).astype(">f8").tobytes(), "'>f8'"),
        "half.npy": record((2,), np.array([0.5, -65504]).astype(">f2").tobytes(), "'>f2'"),
        "long.npy": record((2,), version=2),
        "bools.npy": record((3,), b"\x00\x01\x02", "'|b1'"),
        "fortran.npy": record((2, 3), np.arange(6.0).tobytes()).replace(b"False", b"True "),
    }
    arrays = read(archive(records), tmp_path)
    assert arrays["python2"].tolist() == arrays["long"].tolist() == [0, 0]
    assert arrays["big"].tolist() == [1.5, -2]
    assert arrays["half"].tolist() == [0.5, -65504]
    assert (arrays["big"].dtype, arrays["half"].dtype) == (np.float64, np.float32)
    assert arrays["bools"].view(np.uint8).tolist() == [0, 1, 1]
    np.testing.assert_array_equal(arrays["fortran"], np.arange(6).reshape(3, 2).T)


def test_names_that_lead_elsewhere_are_only_names(tmp_path: Path):
    (tmp_path / "in").mkdir()
    arrays = read(archive({"../../x.npy": record(), "/etc/y.npy": record()}), tmp_path / "in")
    assert list(arrays) == ["../../x", "/etc/y"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "w"]
    with pytest.raises(CheckpointError, match=r"a tensor named 'a\\nb': a name is printable"):
        read(archive({"a\nb.npy": record()}), tmp_path)


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
NONE = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_metadata_of_any_kind(tmp_path: Path):
    for metadata in (None, {}, {"format": "pt"}):
        assert list(read(safetensors({"__metadata__": metadata, "a": ONE}, bytes(4)), tmp_path)) == ["a"]


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"a": {**ONE, "shape": [1] * 65}}, "is damaged"),
        ({"a": {**NONE, "shape": [0, 2**63]}, "b": ONE}, "is damaged"),
        ({"a": {**NONE, "shape": [0, 2**62]}, "b": ONE}, "is damaged"),
        ({"a": {**ONE, "shape": [2**62, 4]}}, "is damaged"),
        ({"a": {**ONE, "shape": [-1]}}, "is damaged"),
        ({"a": {**ONE, "shape": [2**32, 2**32, 2**32]}}, "is damaged"),
        ({"a": {**ONE, "data_offsets": [0, 2**63]}}, "is damaged"),
        ({"a": {**ONE, "data_offsets": [4, 0]}}, "is damaged"),
        ({"a": ONE, "b": ONE}, "is damaged"),
        ({"a": {**ONE, "dtype": "F31"}}, "is damaged"),
        ({"a": {**ONE, "x": float("nan")}}, "is damaged"),
        ({"a": {**ONE, "x": 10**4000}}, "is damaged"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is damaged .its JSON nests too deep"),
        (b'{"a":[' + b"[]," * 300_000 + b"[]]}", "is damaged .its JSON has 300,003 lists and tables"),
        (b"[" + b" " * 20 + b"]", "is no file of weights"),
        (b'{"a":3, "\xff":0}', "is damaged"),
        ({"__metadata__": {"minidl": "{}"}, "a": ONE}, "is not a file minidl saved, or it is damaged"),
        ({"__metadata__": "minidl", "a": ONE}, "is damaged"),
        ({"\x1b[2J": {**ONE, "dtype": "U32"}}, r"has '\\x1b\[2J' in the type U32, .*save it as float32"),
        ({"\x1b[2J": ONE}, r"has a tensor named '\\x1b\[2J': a name is printable"),
        ({"n" * 10_000: {**ONE, "dtype": "U32"}}, r"has n{100}\.\.\. in the type U32"),
    ],
)
def test_safetensors_made_to_harm(header: Any, text: str, tmp_path: Path):
    with pytest.raises(CheckpointError, match=rf"^{tmp_path}/w {text}"):
        read(safetensors(header, bytes(4)), tmp_path)


@pytest.mark.parametrize("reader", [read_weights, load_arrays])
def test_what_is_no_file_is_not_waited_for(reader: Any, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(
            CheckpointError, match=f"{name} cannot be read .it is a device, pipe or socket.; "
        ):
            reader(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"cannot be read .it is a folder.; give the path of a file"):
        reader(tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot be read .embedded null byte"):
        reader("a\0b")


@pytest.mark.parametrize("kind", FILES)
def test_truncations_are_noticed(kind: str, tmp_path: Path):
    for length in range(0, len(FILES[kind]), 7):
        with pytest.raises(CheckpointError, match=f"{tmp_path}/w"):
            read(FILES[kind][:length], tmp_path)


@pytest.mark.parametrize("kind", FILES)
@given(data=st.data())
def test_damage_gives_arrays_or_the_promised_error(kind: str, data: st.DataObject, folder: Path):
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    try:
        read(bytes(content), folder)
    except CheckpointError as error:
        if f"{folder}/w" not in str(error):
            raise


def test_a_dict_of_whatever_numpy_takes():
    torch = pytest.importorskip("torch")
    state = {"a": torch.arange(3.0), "b": md.tensor([1.0, 2.0]), "c": np.float32(3)}
    arrays = as_arrays({"state_dict": state, "epoch": 3})
    assert {name: array.tolist() for name, array in arrays.items()} == {"a": [0, 1, 2], "b": [1, 2], "c": 3}


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ([1, 2], "load_weights: the dict holds no state dict but a list"),
        ({"epoch": 3}, "load_weights: the dict holds no tensors by name .its first keys: epoch"),
        ({3: np.zeros(1)}, "load_weights: the dict holds no tensors by name .its first keys: 3"),
    ],
)
def test_dicts_without_arrays(state: Any, text: str):
    with pytest.raises(CheckpointError, match=text):
        as_arrays(state)


def test_a_value_that_is_no_array():
    torch = pytest.importorskip("torch")
    with pytest.raises(CheckpointError, match="load_weights: a cannot be read as an array"):
        as_arrays({"a": torch.zeros(2, dtype=torch.bfloat16)})
