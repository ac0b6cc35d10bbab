"""What is asked of a file before it is trusted: archives that promise what they do not hold, above all."""

import io
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest

from minidl.errors import CheckpointError
from minidl.io.guard import check_archive, check_regular, parse_json, read_record, safetensors_header, shown

LARGE = bytes(3_000_000)
SIZES = {"checksum": 16, "packed": 20, "unpacked": 24, "place": 42}  # where they stand in a directory entry


def archive(*records: tuple[str, bytes], method: int = zipfile.ZIP_STORED, **lies: int) -> bytes:
    """A zip archive; `lies` are written over the first record's entry in its directory."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as opened:
        warnings.simplefilter("ignore")  # of two records of one name
        for name, content in records:
            opened.writestr(name, content)
    content = bytearray(stream.getvalue())
    entry = content.index(b"PK\x01\x02")
    for what, value in lies.items():
        content[entry + SIZES[what] : entry + SIZES[what] + 4] = value.to_bytes(4, "little")
    return bytes(content)


def unpack(content: bytes, *, packed: bool = True) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        check_archive(opened, len(content), packed=packed)
        return [read_record(opened, record) for record in opened.infolist()]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_honest_archive_is_read(method: int):
    assert unpack(archive(("a", b"one"), ("b", LARGE), ("c", b""), method=method)) == [b"one", LARGE, b""]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_zipfile_unpacks_without_bound_are_refused(method: int):
    with pytest.raises(CheckpointError, match=r"not compressed by deflate; save it anew with numpy"):
        unpack(archive(("a", LARGE), method=method))


def test_no_packing_where_none_is_expected():
    content = archive(("a", LARGE), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="has compressed or encrypted records: torch writes none"):
        unpack(content, packed=False)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (archive(("a", b"1"), ("a", b"2")), "two records of one name"),
        (archive(("a", b"1"), packed=2**31 - 1), "records larger together than the file"),
    ],
)
def test_archives_that_promise_too_much(content: bytes, text: str, packed: bool):
    with pytest.raises(CheckpointError, match=f"{text}.*; get it anew"):
        unpack(content, packed=packed)


def test_a_stored_archive_is_no_larger_than_its_file():
    with pytest.raises(CheckpointError, match="records larger together than the file"):
        unpack(archive(("a", b"1"), unpacked=2**31), packed=False)


def test_an_archive_may_grow_a_hundredfold_or_to_a_gibibyte(monkeypatch: pytest.MonkeyPatch):
    content = archive(("a", LARGE), method=zipfile.ZIP_DEFLATED)
    assert len(content) * 100 < len(LARGE)
    assert unpack(content) == [LARGE]
    monkeypatch.setattr("minidl.io.guard._LARGE_BYTES", 2_999_999)
    with pytest.raises(
        CheckpointError, match=r"unpacks to 3,000,000 bytes, 100 times its size: .*; save it anew"
    ):
        unpack(content)


def test_a_packed_record_gives_no_more_than_it_promised():
    """Three megabytes in a record of 1,000: zipfile.read would unpack them all before it cuts."""
    content = archive(("a", LARGE), method=zipfile.ZIP_DEFLATED, unpacked=1000)
    tracemalloc.start()
    try:
        with pytest.raises(zipfile.BadZipFile, match="CRC"):
            unpack(content)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_packed_record_that_promised_more_is_noticed():
    content = archive(("a", LARGE), method=zipfile.ZIP_DEFLATED, unpacked=2**30)
    with pytest.raises(CheckpointError, match="a has 3,000,000 bytes, not 1,073,741,824; get it anew"):
        unpack(content)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain ä", "plain ä"),
        ("\x1b[2J", "'\\x1b[2J'"),
        ("\ud800", "'\\ud800'"),
        ("a" * 101, "a" * 100 + "..."),
        ("\n" * 101, ascii("\n" * 100 + "...")),
        (ValueError("x"), "x"),
    ],
)
def test_what_a_file_says_is_fit_to_be_shown(text: object, said: str):
    assert shown(text) == said


def test_json(monkeypatch: pytest.MonkeyPatch):
    assert parse_json('{"a": [1, {}]}') == {"a": [1, {}]}
    monkeypatch.setattr("minidl.io.guard._MOST_BRACKETS", 3)
    assert parse_json("[[{}]]") == [[{}]]
    with pytest.raises(ValueError, match="its JSON has 4 lists and tables, 3 at most are read"):
        parse_json("[[{}], []]")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="its JSON nests too deep"):
        parse_json('{"a":' * 100_000)
    with pytest.raises(ValueError, match="a NoneType stands in place of its JSON"):
        parse_json(None)


def test_the_header_of_safetensors():
    assert safetensors_header(b"\x02" + bytes(7) + b"{}rest") == {}
    with pytest.raises(ValueError, match="its header is no table"):
        safetensors_header(b"\x02" + bytes(7) + b"[]")
    with pytest.raises(ValueError, match="Expecting value"):
        safetensors_header(b"\x02")


def test_a_file_is_a_file(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    check_regular(tmp_path / "file")
    check_regular(str(tmp_path / "link"))
    with pytest.raises(
        CheckpointError, match=r"none cannot be read .No such file or directory.; check the path"
    ):
        check_regular(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"file/x cannot be read .Not a directory.; check the path"):
        check_regular(tmp_path / "file" / "x")
