"""Damaged pictures are read or refused, in bounded time and memory, and nothing else happens.

In a child process, since Pillow's decoders are native code.
"""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from minidl.data.pictures import MAX_PIXELS, decode
from tests.fuzzing import check_reader

# a header may claim MAX_PIXELS: four bytes each for Pillow and three for the array; and coefficients of
# two bytes in a progressive JPEG
PEAK_BYTES = 16 * MAX_PIXELS
SECONDS = 60.0  # Pillow reads palettes and runs of a BMP in Python, which tracing memory slows down by 50
EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x010F] = 6, "maker"
PHOTO = np.linspace(0, 255, 20 * 24 * 3).reshape(20, 24, 3).astype(np.uint8)


def encoded(mode: str, kind: str, **options) -> bytes:
    """A small picture as a file."""
    file = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(file, kind, **options)
    return file.getvalue()


def run_length_bmp() -> bytes:
    """A BMP of 24x20 pixels in runs, one to a row: 24 times a colour, end of the line."""
    data = bytearray(encoded("P", "BMP"))
    (start,) = struct.unpack_from("<I", data, 10)
    struct.pack_into("<I", data, 30, 1)  # compression: RLE8
    return bytes(data[:start]) + b"".join(bytes([24, row, 0, 0]) for row in range(20)) + b"\0\1"


@pytest.mark.parametrize(
    "data",
    [
        encoded("RGB", "JPEG", exif=EXIF),
        encoded("RGB", "JPEG", progressive=True, subsampling=0),
        encoded("CMYK", "JPEG"),
        encoded("RGB", "PNG", exif=EXIF),
        encoded("P", "PNG", transparency=3),
        encoded("RGB", "BMP"),
        encoded("P", "BMP"),
        run_length_bmp(),
    ],
    ids=["jpeg", "progressive", "cmyk", "png", "palette png", "bmp", "palette bmp", "run-length bmp"],
)
def test_damaged_pictures_are_read_or_refused(data):
    def read(data: bytes) -> None:
        image = decode(data)
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] in (1, 3)
        assert decode(data, size=(8, 6), channels=3).shape == (8, 6, 3)

    assert check_reader(read, data, peak_bytes=PEAK_BYTES, seconds=SECONDS, isolated=True) > 0
