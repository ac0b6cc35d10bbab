"""Level-5 .mat files: as scipy writes them, and as nobody should."""

import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io

from minidl.data.mat import read_arrays
from minidl.errors import DataError
from tests.fuzzing import check_reader

LIMIT = 1 << 20
HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
COMPRESSED = pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])


def saved(compressed=False, **arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays, do_compression=compressed)
    return file.getvalue()


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def array(title=b"X", shape=(2, 3), values=bytes(6), kind=9, flags=0, stored=2):
    """An array as an element: flags, axes, name, values."""
    parts = [(6, bytes([kind, flags]) + bytes(6)), (5, struct.pack(f"<{len(shape)}i", *shape)), (1, title)]
    return element(14, b"".join(element(*part) for part in [*parts, (stored, values)]))


def packed(content):
    content = zlib.compress(content)
    return struct.pack("<II", 15, len(content)) + content


@COMPRESSED
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_arrays_are_read_as_scipy_wrote_them(dtype, compressed):
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(dtype)
    y = np.array([[7], [8], [9]], dtype)
    data = saved(compressed, before=np.eye(2), X=x, text="words", other={"a": 1}, y=y, after=x)
    arrays = read_arrays(data, "x.mat", ("y", "X"), LIMIT)
    assert set(arrays) == {"X", "y"}
    for title, array in (("X", x), ("y", y)):
        assert arrays[title].dtype == array.dtype
        assert np.array_equal(arrays[title], array)


def test_values_may_be_stored_in_a_smaller_type_than_the_array_has():
    """MATLAB keeps a double array of small integers in bytes."""
    data = HEADER + array(values=bytes(range(6)), kind=6)
    assert read_arrays(data, "x.mat", ("X",), LIMIT)["X"].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_first_of_two_arrays_of_one_title_is_read():
    data = HEADER + array(values=bytes(6)) + array(values=bytes([1] * 6))
    assert read_arrays(data, "x.mat", ("X", "X"), LIMIT)["X"].max() == 0


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is no little-endian level-5 .mat file: its bytes 124 to 127 are missing, expected 0001494d"),
        (
            HEADER[:-2] + b"MI",
            "its bytes 124 to 127 are 00014d49, expected 0001494d; in MATLAB, save it with -v7",
        ),
        (HEADER, "holds no array X"),
        (HEADER + array(title=b"Z"), "holds no array X"),
        (HEADER + array(kind=4), "holds no array X"),
        (HEADER + array(flags=8), "holds no array X"),
        (HEADER + element(2, bytes(8)), "holds no array X"),
        (HEADER + bytes(7), "is damaged: it ends within a tag"),
        (HEADER + array()[:-1], "is damaged: the element at byte 128 is longer than the file"),
        (HEADER + element(14, bytes(64)), "is damaged: an array in it has no flags or no axes"),
        (
            HEADER + array(shape=(1,) * 9),
            "is damaged: an array in it has 36 bytes of axes, expected at most 32",
        ),
        (HEADER + array(title=b"X" * 300), "is damaged: an array in it has no name"),
        (HEADER + array(shape=(2, 4)), r"is damaged: X is an array \(2, 4\) with 6 bytes of type 2"),
        (HEADER + array(shape=(-2, -3)), r"is damaged: X is an array \(-2, -3\) with 6 bytes of type 2"),
        (HEADER + array(shape=()), r"is damaged: X is an array \(\) with 6 bytes of type 2"),
        (HEADER + array(stored=18), r"is damaged: X is an array \(2, 3\) with 6 bytes of type 18"),
        (
            HEADER + array(shape=(2**20 + 1,), values=bytes(2**20 + 1)),
            "X announces 1,048,577 bytes, more than 1,048,576",
        ),
        (HEADER + element(14, array()[8:] + bytes(8)), "is damaged: X has 72 bytes, its values 6"),
        (HEADER + packed(element(2, bytes(8))), "an element of type 2 is compressed, expected an array, 14"),
        (HEADER + packed(array()[:-1]), "is damaged: X announces 64 bytes, but there are more or fewer"),
        (HEADER + packed(array() + b"x"), "is damaged: X announces 64 bytes, but there are more or fewer"),
        (HEADER + element(15, bytes(8)), "is damaged: an array in it cannot be decompressed"),
    ],
)
def test_file_that_is_not_as_expected_is_refused(data, text):
    with pytest.raises(DataError, match=r"^x\.mat: .*" + text):
        read_arrays(data, "x.mat", ("X",), LIMIT)


@COMPRESSED
def test_an_announced_size_allocates_nothing(compressed):
    """2 GiB announced by a file of a few hundred bytes."""
    start = bytearray(array(shape=(2**15, 2**16 - 1), values=b""))
    start[4:8] = struct.pack("<I", 2**31)
    start[-4:] = struct.pack("<I", 2**15 * (2**16 - 1))
    data = HEADER + (packed(bytes(start)) if compressed else bytes(start))

    def read(data):
        with pytest.raises(DataError, match=r"x\.mat: is damaged: "):
            read_arrays(data, "x.mat", ("X",), 2**40)

    check_reader(read, data, count=0, peak_bytes=1 << 20)


@COMPRESSED
def test_damaged_files_are_read_or_refused(compressed):
    x = np.random.default_rng(0).integers(0, 256, (8, 8, 3, 20), dtype=np.uint8)
    data = saved(compressed, X=x, y=np.arange(20)[:, np.newaxis])

    def read(data):
        read_arrays(data, "x.mat", ("X", "y"), LIMIT)

    assert check_reader(read, data, isolated=True, peak_bytes=32 << 20) > 0


def test_damaged_arrays_in_whole_compressed_elements_are_read_or_refused():
    def read(content):
        read_arrays(HEADER + packed(content), "x.mat", ("X",), LIMIT)

    assert check_reader(read, array(values=bytes(range(120)), shape=(2, 3, 4, 5))) > 0
