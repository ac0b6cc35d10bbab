"""PyTorch's files: both formats, written here by hand and by torch; and files made to harm or damaged."""

import io
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.errors import CheckpointError
from minidl.io.torch_file import read_torch
from tests.io.torch_files import (
    EXPECTED,
    FLOATS,
    NEW,
    OLD,
    PICKLED,
    RAW,
    Call,
    Global,
    State,
    Stored,
    new_format,
    old_format,
    ops,
    program,
    state,
    tensor,
    zipped,
)

FORMATS = pytest.mark.parametrize("content", [NEW, OLD], ids=["zip", "legacy"])


def read(content: bytes, folder: Path) -> dict[str, np.ndarray]:
    path = folder / "w.pth"
    path.write_bytes(content)
    return read_torch(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the examples of a property, which a function's fixture would outlive."""
    return tmp_path_factory.mktemp("pth")


@FORMATS
def test_tensors_views_shared_storages_parameters_and_bfloat16(content: bytes, tmp_path: Path):
    arrays = read(content, tmp_path)
    assert list(arrays) == list(EXPECTED)
    for name, expected in EXPECTED.items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].dtype == (np.int64 if name == "n" else np.float32)
        assert not arrays[name].flags.writeable


def test_big_endian_storages(tmp_path: Path):
    pickled = program({"w": tensor(Stored("FloatStorage", "0", 6), (6,), (1,))})
    np.testing.assert_array_equal(
        read(new_format(pickled, {"0": FLOATS.astype(">f4").tobytes()}, b"big"), tmp_path)["w"], FLOATS
    )
    np.testing.assert_array_equal(read(new_format(pickled, {"0": RAW["7"]}, None), tmp_path)["w"], FLOATS)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("DoubleStorage", np.array([0.1, -1e300])),
        ("HalfStorage", np.array([0.5, -65504], np.float16)),
        ("LongStorage", np.array([-(2**62), 3])),
        ("IntStorage", np.array([-(2**30), 3], np.int32)),
        ("ShortStorage", np.array([-(2**14), 3], np.int16)),
        ("CharStorage", np.array([-100, 3], np.int8)),
        ("ByteStorage", np.array([200, 3], np.uint8)),
        ("BoolStorage", np.array([True, False])),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_number_types(kind: str, values: np.ndarray, order: str, tmp_path: Path):
    pickled = program({"w": tensor(Stored(kind, "0", 2), (2,), (1,))})
    raw = values.astype(values.dtype.newbyteorder(order)).tobytes()
    found = read(new_format(pickled, {"0": raw}, b"big" if order == ">" else b"little"), tmp_path)["w"]
    np.testing.assert_array_equal(found, values)
    assert found.dtype == (np.float32 if values.dtype == np.float16 else values.dtype)
    assert found.dtype.isnative


def test_any_byte_of_a_bool_but_zero_is_true(tmp_path: Path):
    pickled = program({"w": tensor(Stored("BoolStorage", "0", 3), (3,), (1,))})
    found = read(new_format(pickled, {"0": b"\x00\x01\x02"}), tmp_path)["w"]
    np.testing.assert_array_equal(found.view(np.uint8), [0, 1, 1])


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (
            lambda s: {
                "state_dict": s,
                "epoch": 7,
                "best": tensor(Stored("FloatStorage", "7", 6), (1,), (1,)),
            },
            "wbgn",
        ),
        (lambda s: {"model": {"state_dict": s}, "arch": "nin"}, "wbgn"),
        (lambda s: State(s, version=2, name="x"), "wbgn"),
    ],
    ids=["state_dict", "model", "others"],
)
def test_wrappers(wrap: Any, names: Any, tmp_path: Path):
    assert list(read(new_format(program(wrap(state(old=False))), RAW), tmp_path)) == list(names)


def test_empty_tensors_and_strides_that_mean_nothing(tmp_path: Path):
    floats = Stored("FloatStorage", "7", 6)
    pickled = program(
        {
            "none": tensor(Stored("FloatStorage", "0", 0), (0, 512), (512, 1)),
            "one": tensor(floats, (1, 6, 1), (2**47, 1, 2**47)),
        }
    )
    arrays = read(new_format(pickled, {**RAW, "0": b""}), tmp_path)
    assert arrays["none"].shape == (0, 512)
    np.testing.assert_array_equal(arrays["one"], FLOATS.reshape(1, 6, 1))


def test_old_pickles_of_python_2(tmp_path: Path):
    """Short byte strings for names, and an OrderedDict of a list of pairs."""
    pair = b"](" + b"U\x01w" + ops(state(old=False)["w"]) + b"e"
    pairs = b"](" + pair + b"e"
    arrays = read(new_format(program(Call(Global("collections", "OrderedDict"), (pairs,))), RAW), tmp_path)
    np.testing.assert_array_equal(arrays["w"], EXPECTED["w"])


def test_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 4)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    content = new_format(program(state(old=False)), RAW)
    monkeypatch.undo()
    assert b"PK\x06\x06" in content
    np.testing.assert_array_equal(read(content, tmp_path)["w"], EXPECTED["w"])


@FORMATS
@pytest.mark.parametrize(("module", "name"), [("os", "system"), ("torch", "load"), ("argparse", "Namespace")])
def test_globals_are_refused_by_name(content: bytes, module: str, name: str, tmp_path: Path):
    pickled = program({"x": Global(module, name)})
    damaged = old_format(pickled, {}) if content is OLD else new_format(pickled, {})
    with pytest.raises(CheckpointError, match=rf"w\.pth asks for .*refuses to run {module}\.{name}\."):
        read(damaged, tmp_path)


@pytest.mark.parametrize(
    ("pickled", "text"),
    [
        (b"]N.", "holds no state dict but a NoneType"),
        (program({1: state(old=False)["w"]}), "holds no tensors by name .its first keys: 1"),
        (program({"epoch": 3, "nothing": "else"}), "no tensors by name .its first keys: epoch, nothing"),
        (program({"\x1b[2J": 3}), r"no tensors by name .its first keys: '\\x1b\[2J'"),
        (program({"\x1b[2J": state(old=False)["w"]}), r"a tensor named '\\x1b\[2J': a name is printable"),
        (
            program({"n" * 501: state(old=False)["w"]}),
            r"named n+\.\.\.: a name .* at most 500 characters; rename",
        ),
    ],
)
def test_pickles_that_make_no_state_dict(pickled: bytes, text: str, tmp_path: Path):
    with pytest.raises(CheckpointError, match=rf"w\.pth .*{text}"):
        read(new_format(pickled, RAW), tmp_path)


def test_an_empty_state_dict(tmp_path: Path):
    assert read(new_format(program({}), RAW), tmp_path) == {}


FLOAT = Stored("FloatStorage", "7", 6)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (tensor(FLOAT, (7,), (1,)), "reaches beyond, or repeats"),
        (tensor(FLOAT, (2, 3), (3, 2)), "reaches beyond"),
        (tensor(FLOAT, (3,), (1,), 4), "reaches beyond"),
        (tensor(FLOAT, (2**30, 2**10), (0, 0)), "repeats numbers"),
        (tensor(FLOAT, (1,), (1,), 2**63 - 1), "shape that is none"),
        (tensor(FLOAT, (3,), (2**62,)), "shape that is none"),
        (tensor(FLOAT, (2**40, 2**40), (1, 1)), "has a tensor of shape"),
        (tensor(FLOAT, (0, 2**40, 2**40), (1, 1, 1)), "has a tensor of shape"),
        (tensor(FLOAT, (3,), (1,), -1), "shape that is none"),
        (tensor(FLOAT, (3,), (-1,), 5), "shape that is none"),
        (tensor(FLOAT, (3,), (1, 1)), "shape that is none"),
        (tensor(FLOAT, (True,), (1,)), "shape that is none"),
        (tensor(FLOAT, "3", (1,)), "shape that is none"),
        (tensor(FLOAT, (1,) * 33, (1,) * 33), "shape that is none"),
        (tensor(3, (1,), (1,)), "tensor without storage"),
        (tensor(Stored("FloatStorage", "7", -1), (1,), (1,)), "without type, key or size"),
        (tensor(Stored("FloatStorage", 7, 6), (1,), (1,)), "without type, key or size"),
        (tensor(Stored("FloatStorage", "7", 6, (None, None)), (1,), (1,)), "other than a storage"),
        (tensor(Stored("FloatStorage", "7", 6, (("8", 0, 2),)), (1,), (1,)), "a part of another"),
        (tensor(Stored("FloatStorage", "none", 6), (1,), (1,)), "no item named 'archive/data/none'"),
        (tensor(Stored("FloatStorage", "7", 7), (1,), (1,)), "storage 7 has 24 bytes, where 7 numbers .*28"),
        (tensor(Stored("DoubleStorage", "7", 6), (1,), (1,)), "storage 7 has 24 bytes"),
        (Call(Global("torch._utils", "_rebuild_parameter"), (3, True, None)), "without a tensor"),
        (Call(Global("torch", "FloatStorage"), ()), "damaged pickle"),
        (Call(Global("torch", "Size"), (3,)), "size that is no list"),
        (Call(Global("collections", "OrderedDict"), (3,)), "damaged pickle"),
        (Call(Global("torch._utils", "_rebuild_tensor_v2"), ()), "damaged pickle"),
        (ops(("module", 1)) + b"Q", "other than a storage"),
        (ops(FLOAT) + b"Q", "other than a storage"),
        (b"N)R", "damaged pickle"),
        (Global("torch", "Size"), "holds no tensors by name"),
    ],
)
def test_tensors_that_cannot_be(value: Any, text: str, tmp_path: Path):
    with pytest.raises(CheckpointError, match=rf"w\.pth .*{text}"):
        read(new_format(program({"x": value}), RAW), tmp_path)


RECORDS = {"archive/data.pkl": PICKLED, **{f"archive/data/{key}": raw for key, raw in RAW.items()}}


def repeated() -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(stream, "w") as archive:
            for name, raw in [*RECORDS.items(), ("archive/data/7", bytes(24))]:
                archive.writestr(name, raw)
    return stream.getvalue()


def overlapping() -> bytes:
    """Fifty records in the directory that are all the same place of the file."""
    large = zipped(
        RECORDS | {f"archive/data/{i}": b"" for i in range(10, 60)} | {"archive/data/9": bytes(4000)}
    )
    with zipfile.ZipFile(io.BytesIO(large)) as archive:
        target = archive.getinfo("archive/data/9")
        for info in archive.infolist()[5:]:
            info.header_offset, info.CRC = target.header_offset, target.CRC
            info.file_size = info.compress_size = target.file_size
        end = archive.start_dir
        stream = io.BytesIO(large[:end])
        stream.seek(end)
        archive.fp, archive.mode, archive._didModify = stream, "a", True  # writes its directory anew
        archive._filePassed, archive._seekable = 1, True
        archive.close()
    return stream.getvalue()


def encrypted() -> bytes:
    content = bytearray(zipped(RECORDS))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (zipped(RECORDS, compression=zipfile.ZIP_DEFLATED), "compressed or encrypted"),
        (encrypted(), "compressed or encrypted"),
        (repeated(), "two records of one name"),
        (overlapping(), "records larger together than the file"),
        (zipped({"archive/version": b"3"}), "zip archive with 0 data.pkl"),
        (zipped({"a/data.pkl": PICKLED, "b/data.pkl": PICKLED}), "zip archive with 2 data.pkl"),
        (zipped(RECORDS | {"archive/byteorder": b"middle"}), "is damaged .*middle"),
        (b"PK", "is damaged"),
        (b"", "is no file of torch.save"),
        (b"\x80\x02K\x01.", "is no file of torch.save, or has a damaged pickle"),
        (program(1) + program(1001), "does not begin with torch's magic number"),
        (program(0x1950A86A20F9469CFC6C) + program(1000), "does not begin with torch's magic number"),
        (old_format(PICKLED, {"7": (5, RAW["7"])}), "has 5 numbers in storage 7 where its pickle says 6"),
        (old_format(PICKLED, {"none": (1, b"    ")}), "lists storages that its pickle does not name"),
        (old_format(PICKLED, {"8": (2, RAW["8"])}), "storage 7 has 0 bytes"),
        (old_format(program(1), {}), "holds no state dict but a int"),
        (
            old_format(program({"a": FLOAT, "b": Stored("FloatStorage", "7", 5)}), {}),
            "describes storage 7 in two ways",
        ),
        (
            new_format(program({"a": FLOAT, "b": Stored("IntStorage", "7", 6)}), RAW),
            "describes storage 7 in two ways",
        ),
    ],
)
def test_files_that_are_none_of_torch(content: bytes, text: str, tmp_path: Path):
    with pytest.raises(CheckpointError, match=rf"w\.pth .*{text}"):
        read(content, tmp_path)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"none\.pth cannot be read \(No such file"):
        read_torch(tmp_path / "none.pth")


def survives(content: bytes, folder: Path) -> bool:
    """Whether a file can be read; if not, the error must be the one that is promised."""
    try:
        read(content, folder)
    except CheckpointError as error:
        if "w.pth" not in str(error):
            raise
        return False
    return True


@FORMATS
def test_every_truncation_is_noticed(content: bytes, tmp_path: Path):
    for length in range(len(content)):
        assert not survives(content[:length], tmp_path), length


@FORMATS
def test_every_flipped_bit_gives_arrays_or_the_promised_error(content: bytes, tmp_path: Path):
    survivors = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        survivors += survives(bytes(damaged), tmp_path)
    assert survivors < len(content) / 2


@pytest.mark.parametrize(
    ("content", "build"),
    [(NEW, bytes), (OLD, bytes), (PICKLED, lambda pickled: new_format(pickled, RAW))],
    ids=["zip", "legacy", "pickle"],  # in a whole zip, checksums notice damage before the pickle is read
)
@given(data=st.data())
def test_larger_damage_gives_arrays_or_the_promised_error(content, build, data: st.DataObject, folder: Path):
    """Runs of bytes that are replaced, left out, or doubled."""
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(start + 40, len(content))))
        middle = data.draw(st.binary(max_size=40) | st.just(content[start:end] * 2))
        content = content[:start] + middle + content[end:]
    survives(build(content), folder)


# The same with torch itself.
def torch_state(torch: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    odd = {"t": base.t(), "cut": base[1:3, ::2], "row": base[2], "whole": base, "zero": torch.zeros(0, 3)}
    kinds = "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
    numbers = {kind: (base * 50).to(getattr(torch, kind)) for kind in kinds}
    last = torch.randn(2, 3, 5, 7, generator=generator).to(memory_format=torch.channels_last)
    return {**odd, **numbers, "last": last, "scalar": torch.tensor(7)}


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model"])
def test_files_of_torch(new: bool, wrap: str, tmp_path: Path):
    torch = pytest.importorskip("torch")
    original = torch_state(torch)
    named = OrderedDict(original)
    named._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]
    named["p"] = torch.nn.Parameter(torch.ones(2))
    saved = named if wrap == "plain" else {"epoch": 3, wrap: named, "best": torch.tensor(0.5)}
    torch.save(saved, tmp_path / "t.pth", _use_new_zipfile_serialization=new)
    arrays = read_torch(tmp_path / "t.pth")
    assert list(arrays) == [*original, "p"]
    for name, expected in original.items():
        wide = expected.float() if expected.dtype in (torch.float16, torch.bfloat16) else expected
        np.testing.assert_array_equal(arrays[name], wide.numpy())
        assert arrays[name].dtype == wide.numpy().dtype
    np.testing.assert_array_equal(arrays["p"], [1, 1])


def test_a_whole_model_of_torch_is_refused_by_name(tmp_path: Path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.pth")
    with pytest.raises(
        CheckpointError, match=r"refuses to run torch\.nn\.modules\.linear\.Linear.*state_dict"
    ):
        read_torch(tmp_path / "m.pth")


def test_what_torch_calls_expanded_is_refused(tmp_path: Path):
    torch = pytest.importorskip("torch")
    torch.save({"x": torch.ones(1).expand(3)}, tmp_path / "e.pth")
    with pytest.raises(CheckpointError, match="repeats numbers; save it anew with torch, contiguous"):
        read_torch(tmp_path / "e.pth")
