"""Decompression that stops where it is told to."""

import gzip
import tracemalloc
import zlib

import pytest

from minidl.data.inflate import GZIP, inflate
from minidl.errors import DataError

CONTENT = bytes(range(256)) * 1000


@pytest.mark.parametrize("limit", [1, 255, 70_000, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 1])
def test_all_bytes_or_the_first_of_them(limit):
    assert inflate(zlib.compress(CONTENT), limit, "x") == CONTENT[:limit]
    assert inflate(memoryview(gzip.compress(CONTENT)), limit, "x", GZIP) == CONTENT[:limit]


def test_bytes_that_compress_badly_need_many_pieces():
    content = bytes(hash((i, "x")) & 255 for i in range(200_000))
    assert inflate(zlib.compress(content, 0), len(content) + 1, "x") == content


def test_memory_follows_the_limit_and_not_the_file():
    packed = zlib.compress(bytes(300 << 20), 1)
    tracemalloc.start()
    try:
        assert inflate(packed, 1 << 20, "x") == bytes(1 << 20)
        assert inflate(zlib.compress(b"short"), 1 << 60, "x") == b"short"
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        (b"", r"x\.bin: no \(its compressed bytes end too early\)"),
        (zlib.compress(CONTENT)[:-1], r"x\.bin: no \(its compressed bytes end too early\)"),
        (b"no stream", r"x\.bin: no \(Error -3 while decompressing data: incorrect header check\)"),
        (zlib.compress(CONTENT)[:-1] + b"\0", r"x\.bin: no \(Error -3 .* incorrect data check\)"),
    ],
    ids=["nothing", "cut", "another format", "checksum"],
)
def test_damaged_stream_is_refused(packed, text):
    with pytest.raises(DataError, match=text):
        inflate(packed, len(CONTENT) + 1, "x.bin: no")
