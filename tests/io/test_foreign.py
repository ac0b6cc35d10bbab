"""Weights in any format: what is read, how formats are told apart, and damage."""

import io
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
from minidl.io import as_arrays, read_weights, save_arrays

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
    with pytest.raises(
        CheckpointError, match=r"w is damaged, or holds objects .Object arrays cannot be loaded"
    ):
        read(npz({"a": np.array([print], object)}), tmp_path)


def test_an_npz_made_to_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("minidl.io.foreign._LARGE_BYTES", 10_000)
    assert read(npz({"a": np.zeros(1000)}, pack=True), tmp_path)["a"].shape == (1000,)
    with pytest.raises(CheckpointError, match="w unpacks to 1,000,128 bytes, 100 times its size"):
        read(npz({"a": np.zeros(125_000)}, pack=True), tmp_path)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:  # a header that promises more than there is
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}".ljust(117) + b"\n"
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(CheckpointError, match="w is damaged"):
        read(stream.getvalue(), tmp_path)


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
