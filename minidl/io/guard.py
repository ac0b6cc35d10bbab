"""What every reader asks of a file before it trusts a number in it.

A file of weights may be damaged, or made to harm: it may promise more than it holds, nest without end, or
name one thing twice. Sizes are compared with the bytes that are there before any memory is reserved, so that
reading takes a small multiple of the file's size, or a bound that stands beside the check.
"""

import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

from minidl.errors import CheckpointError

# A tensor in a safetensors header has three brackets and takes some 1200 bytes to read: 120 MB at most.
# ResNet-152 with the state of Adam has 8,000 brackets.
_MOST_BRACKETS = 300_000
# Weights hardly compress: an .npz that unpacks to 1 GiB and to 100 times its size is made to fill the memory.
_LARGE_BYTES, _LARGE_RATIO = 1 << 30, 100


def check_regular(path: str | os.PathLike[str]) -> None:
    """CheckpointError unless the path leads to a file: a pipe or a device may have no end."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} cannot be read ({reason}); check the path") from error
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "device, pipe or socket"
        raise CheckpointError(f"{path} cannot be read (it is a {kind}); give the path of a file")


def shown(text: object, longest: int = 100) -> str:
    """What a file says, for the text of an error: cut if it is long, escaped if it is not printable."""
    whole = str(text)
    cut = whole if len(whole) <= longest else f"{whole[:longest]}..."
    return cut if cut.isprintable() else ascii(cut)


def parse_json(text: Any) -> Any:
    """What JSON says.  ValueError if it is no text, no JSON, too deep, or has too many lists and dicts."""
    if type(text) is not str:
        raise ValueError(f"a {type(text).__name__} stands in place of its JSON")
    brackets = text.count("[") + text.count("{")
    if brackets > _MOST_BRACKETS:
        raise ValueError(f"its JSON has {brackets:,} lists and tables, {_MOST_BRACKETS:,} at most are read")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its JSON nests too deep") from error


def safetensors_header(content: bytes) -> dict[str, Any]:
    """The JSON at the begin of a safetensors file.  ValueError if there is none."""
    length = int.from_bytes(content[:8], "little")
    header = parse_json(content[8 : 8 + length].decode())
    if type(header) is not dict:
        raise ValueError("its header is no table")
    return header


def check_archive(archive: zipfile.ZipFile, size: int, *, packed: bool) -> None:
    """CheckpointError for a zip archive, in a file of `size` bytes, that could take any amount of memory.

    That is one with encrypted or repeated records, with records that reach over each other or beyond the
    file, or, unless `packed`, with compressed ones. A compressed archive may grow to a hundred times its
    size, or a gibibyte.
    """
    records = archive.infolist()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if packed else (zipfile.ZIP_STORED,)
    if any(r.flag_bits & 1 or r.compress_type not in methods for r in records):
        raise CheckpointError(
            "has encrypted records, or ones that are not compressed by deflate; save it anew with numpy"
            if packed
            else "has compressed or encrypted records: torch writes none; save it anew with torch"
        )
    if len({record.filename for record in records}) < len(records):
        raise CheckpointError("has two records of one name: it is damaged, or made to harm; get it anew")
    unpacked = sum(record.file_size for record in records)
    if sum(r.compress_size for r in records) > size or (not packed and unpacked > size):
        raise CheckpointError(
            "has records larger together than the file: it is damaged, or made to harm; get it anew"
        )
    if unpacked > max(_LARGE_BYTES, _LARGE_RATIO * size):
        raise CheckpointError(
            f"unpacks to {unpacked:,} bytes, {_LARGE_RATIO} times its size: no weights do; save it anew, "
            "with numpy.savez"
        )


def read_record(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bytes:
    """The content of a record that `check_archive` passed, no more of it than its directory entry promises.

    ZipFile.read would unpack all there is before it looks at the promise. CheckpointError if there is less.
    """
    with archive.open(record) as stream:
        content = stream.read(record.file_size + 1)  # one more: the end, where the checksum is compared
    if len(content) != record.file_size:
        raise CheckpointError(
            f"is damaged: {shown(record.filename)} has {len(content):,} bytes, not {record.file_size:,}; get "
            "it anew"
        )
    return content
