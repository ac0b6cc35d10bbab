"""Decompression that stops at a size given beforehand, so that no file can fill the memory.

A parser reads the header of a compressed file first, decides how many bytes there should be, and asks for
those and one more. zlib makes at most 1,032 bytes of one: memory follows what a file really holds, never what
it announces.
"""

import zlib

from minidl.errors import DataError

ZLIB, GZIP = 15, 31  # zlib's `wbits` for its own format and for gzip's, both with the largest window
_CHUNK = 1 << 16  # bytes


def inflate(packed: bytes | memoryview, limit: int, complaint: str, wbits: int = ZLIB) -> bytearray:
    """All bytes compressed in `packed`, or the first `limit` of them if there are more.

    DataError that begins with `complaint` if the stream is damaged or ends before its end.
    """
    stream, content = zlib.decompressobj(wbits), bytearray()
    try:
        for start in range(0, len(packed), _CHUNK):
            content += stream.decompress(packed[start : start + _CHUNK], limit - len(content))
            if stream.eof or len(content) == limit:
                return content
    except zlib.error as error:
        raise DataError(f"{complaint} ({error})") from error
    raise DataError(f"{complaint} (its compressed bytes end too early)")
