"""Tests of minidl/data/pictures.py."""

import io
import os
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from minidl.data import pictures, transforms
from minidl.data.pictures import decode
from minidl.errors import DataError

RAMP = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
COLOURS = np.zeros((48, 64, 3), np.uint8)  # red, green, blue, white: whole quarters, which a JPEG keeps
COLOURS[:24, :32, 0] = COLOURS[:24, 32:, 1] = COLOURS[24:, :32, 2] = COLOURS[24:, 32:] = 255


def encode(image: Image.Image, kind: str, **options) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file made by hand: its header, more chunks, and its rows as they are, filter bytes included."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    all_chunks = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in all_chunks
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("PA", 3), ("RGB", 3), ("RGBA", 3)],
)
def test_images_are_grey_or_colour(mode, channels, kind):
    if kind == "BMP" and mode in ("LA", "PA"):
        return  # there is no such BMP
    image = Image.fromarray(RAMP).convert(mode.removesuffix("A") if mode == "PA" else mode)
    expected = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(48, 64, channels)
    if mode == "PA":  # a palette of which some entries are transparent
        image.info["transparency"] = bytes(range(200))
    got = decode(encode(image, kind))
    assert got.dtype == np.uint8
    assert np.array_equal(got, expected)


def test_a_picture_is_read_as_a_batch_of_one(tmp_path):
    (tmp_path / "image.bmp").write_bytes(encode(Image.fromarray(RAMP), "BMP"))
    assert np.array_equal(pictures.read_image(tmp_path / "image.bmp"), RAMP[None])
    assert np.array_equal(pictures.read_image(str(tmp_path / "image.bmp")), RAMP[None])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_and_the_colour_under_it_stays(mode):
    image = Image.fromarray(RAMP).convert(mode)
    image.putalpha(0)
    colours = image.convert("RGB" if mode == "RGBA" else "L")
    assert np.array_equal(decode(encode(image, "PNG")), np.asarray(colours).reshape(48, 64, -1))


def test_16_bits_of_grey_are_scaled_and_not_cut_off():
    values = np.array([[0, 128, 129, 255, 256, 30000, 65406, 65407, 65535]], np.uint16)
    rows = b"\0" + values.astype(">u2").tobytes()
    assert decode(png(9, 1, 16, 0, rows)).ravel().tolist() == [0, 0, 1, 1, 1, 117, 254, 255, 255]


@pytest.mark.parametrize(("colour", "samples"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "LA", "RGBA"])
def test_16_bits_of_colour_keep_the_upper_8(colour, samples):
    values = np.arange(0, 65536, 5461, np.uint16)[:12].reshape(1, -1, samples)
    got = decode(png(values.shape[1], 1, 16, colour, b"\0" + values.astype(">u2").tobytes()))
    colours = (values >> 8)[..., : 1 if samples == 2 else 3]
    assert got.shape[2] == 3  # even the grey one, whose mode is RGBA for Pillow
    assert np.array_equal(got, np.broadcast_to(colours, got.shape))


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "YCbCr"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_jpegs_have_the_right_colours(mode, options):
    """Adobe stores CMYK inverted, and so does Pillow."""
    data = encode(Image.fromarray(COLOURS).convert(mode), "JPEG", quality=95, subsampling=0, **options)
    assert (b"Adobe" in data) == (mode == "CMYK")
    inside = np.abs(decode(data).astype(int) - COLOURS).reshape(2, 24, 2, 32, 3)[:, 4:-4, :, 4:-4]
    assert inside.max() <= 4


def test_an_inverted_cmyk_with_adobes_transform_is_right_too():
    """YCCK, which Photoshop writes: the Adobe segment's last byte is 2."""
    cmyk = np.asarray(Image.fromarray(COLOURS).convert("CMYK"))
    inverted = 255 - cmyk  # what the file holds; its first three planes are YCbCr of 255 - CMY
    ycc = np.asarray(Image.fromarray(255 - inverted[..., :3]).convert("YCbCr"))
    planes = np.concatenate([ycc, cmyk[..., 3:]], axis=2)
    data = encode(Image.fromarray(planes, "CMYK"), "JPEG", quality=95, subsampling=0)
    at = data.index(b"Adobe")
    data = data[: at + 11] + b"\x02" + data[at + 12 :]
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode(data), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(RAMP)
    data = encode(image, kind, exif=exif, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decode(data), expected)
    small = decode(data, size=(16, 12))  # shape of the upright picture
    assert small.shape == (16, 12, 3)
    plain = decode(encode(Image.fromarray(expected), "PNG"), size=(16, 12))
    assert np.abs(small.astype(int) - plain).mean() < 3


@pytest.mark.parametrize(("kind", "order"), [(3, "<"), (3, ">"), (4, "<"), (4, ">")])
@pytest.mark.parametrize("value", [6, 0, 9])
def test_orientation_is_a_short_or_a_long_in_either_order(kind, order, value):
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    number = struct.pack(order + ("H2x" if kind == 3 else "I"), value)
    entries = (
        struct.pack(order + "HHI4x", 0x010F, 2, 1) + struct.pack(order + "HHI", 0x0112, kind, 1) + number
    )
    exif = start + struct.pack(order + "IH", 8, 2) + entries
    data = encode(Image.fromarray(RAMP), "JPEG", exif=b"Exif\0\0" + exif)
    assert decode(data).shape == ((64, 48, 3) if value == 6 else (48, 64, 3))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x1a\0\5\xff\xff\xff\xff\xff\xff\xff\xff" * 9,
        b"Exif\0\0nonsense",
    ],
)
def test_exif_that_is_broken_neither_fails_nor_warns(exif):
    image = Image.fromarray(RAMP)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encode(image, "JPEG", exif=exif)).shape == (48, 64, 3)
        assert np.array_equal(decode(encode(image, "PNG", exif=exif)), RAMP)


def test_what_pillow_would_warn_of_in_a_png_is_not_there():
    """An animation of no frames, a palette with transparency, and text that inflates to 100 MB."""
    rows = b"\0\0\1" * 2
    chunks = [
        (b"acTL", bytes(8)),
        (b"zTXt", b"text\0\0" + zlib.compress(bytes(100_000_000))),
        (b"PLTE", bytes([9, 8, 7, 6, 5, 4])),
        (b"tRNS", b"\0\x80"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = decode(png(2, 2, 8, 3, rows, *chunks))
    assert got.tolist() == [[[9, 8, 7], [6, 5, 4]]] * 2


def test_a_second_picture_or_junk_in_a_jpeg_does_no_harm():
    data = encode(Image.fromarray(RAMP), "JPEG", comment=b"x" * 1000)
    expected = decode(data)
    assert np.array_equal(decode(data[:20] + b"junk\xff\xff" + data[20:]), expected)  # behind APP0
    mpf = b"\xff\xe2" + struct.pack(">H", 2 + 8) + b"MPF\0II*\0"
    assert np.array_equal(decode(data[:2] + mpf + data[2:] + data), expected)


def scans(count: int) -> bytes:
    """A progressive JPEG of which the last scan is there `count` times more."""
    data = encode(Image.fromarray(RAMP), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[last:]


def test_a_jpeg_of_endless_scans_is_refused():
    assert scans(0).count(b"\xff\xda") == 10
    assert decode(scans(90)).shape == RAMP.shape
    with pytest.raises(DataError, match="cannot be read as an image: it is drawn in more than 100 scans"):
        decode(scans(91))
    video = b"\xff\xda" * 200  # what a phone appends to a picture that moves
    assert np.array_equal(decode(scans(0) + video), decode(scans(0)))


@pytest.mark.parametrize("restart", [1, 7])
def test_marks_within_a_scan_are_left_there(restart):
    data = encode(Image.fromarray(COLOURS), "JPEG", quality=95, restart_marker_blocks=restart)
    assert b"\xff\xd0" in data
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data), np.asarray(image))


@pytest.mark.parametrize("name", ["jpeg", "png"])
def test_a_picture_of_one_format_under_the_name_of_another_is_read(tmp_path, name):
    (tmp_path / f"image.{name}").write_bytes(encode(Image.fromarray(RAMP), "BMP"))
    assert np.array_equal(decode(tmp_path / f"image.{name}"), RAMP)


def test_the_channels_asked_for():
    image = Image.fromarray(COLOURS)
    grey = np.asarray(image.convert("L"))[..., None]
    assert np.array_equal(decode(encode(image, "PNG"), channels=1), grey)
    assert np.array_equal(decode(encode(image, "PNG"), channels=3), COLOURS)
    assert np.array_equal(decode(encode(image.convert("L"), "PNG"), channels=3), grey.repeat(3, axis=2))
    assert np.array_equal(decode(encode(image.convert("P"), "PNG"), channels=1)[30, 5], grey[30, 5])


@pytest.mark.parametrize(
    ("size", "part"),
    [
        ((48, 64), np.s_[:, :]),
        ((48, 48), np.s_[:, 8:56]),
        ((48, 47), np.s_[:, 8:55]),  # a spare column is cut at the end, and nothing is blurred
        ((20, 64), np.s_[14:34]),
    ],
)
def test_a_part_of_the_right_size_is_only_cut_out(size, part):
    assert np.array_equal(decode(encode(Image.fromarray(RAMP), "PNG"), size=size), RAMP[part])


@pytest.mark.parametrize("size", [(24, 24), (31, 31), (7, 29), (100, 100)])
@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (61, 47)])
def test_the_middle_is_cut_out_and_resized(size, shape):
    """As if resized until it covers `size`, then cut; on a smooth picture, to a level or two."""
    image = Image.fromarray(RAMP[:, :, :1].repeat(3, 2)).resize(shape[::-1], Image.Resampling.BICUBIC)
    got = decode(encode(image, "PNG"), size=size)
    h, w = size
    scale = max(h / shape[0], w / shape[1])
    whole = image.resize((round(shape[1] * scale), round(shape[0] * scale)), Image.Resampling.BILINEAR)
    top, left = (whole.height - h) // 2, (whole.width - w) // 2
    expected = np.asarray(whole)[top : top + h, left : left + w].astype(int)
    assert got.shape == (h, w, 3)
    assert np.abs(got - expected).max() <= 5  # a pixel of the whole picture is up to 5 levels


def test_a_large_jpeg_is_decoded_at_a_fraction(monkeypatch):
    """What comes out is within a level, on average, of what the whole picture gives."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    image = Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC)
    data = encode(image, "JPEG", quality=95)
    got = decode(data, size=(100, 100))
    drafts = []
    monkeypatch.setattr(pictures, "_draft", lambda image, size: drafts.append(size))
    whole = decode(data, size=(100, 100))
    assert drafts == [(100, 100)]
    assert not np.array_equal(got, whole)
    assert np.abs(got.astype(int) - whole).mean() < 1


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, channels), np.uint8)
    pictures.write_image(tmp_path / "image.png", image)
    np.testing.assert_array_equal(pictures.read_image(tmp_path / "image.png"), image[None])


@pytest.mark.parametrize("missing", ["none.png", "no/none.png"])
def test_a_missing_image_is_named(tmp_path, missing):
    with pytest.raises(DataError, match=rf"{missing}: there is no such file"):
        pictures.read_image(tmp_path / missing)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
@pytest.mark.parametrize("keep", [0, 1, 3, 20, 60, 0.5, 0.9])
def test_a_truncated_image_is_named(tmp_path, kind, keep):
    path = tmp_path / "cut.png"
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)), kind)
    path.write_bytes(data[: keep if keep >= 1 else int(keep * len(data))])
    with pytest.raises(DataError, match=r"cut\.png cannot be read as an image: ."):
        pictures.read_image(path)


def test_other_files_are_refused(tmp_path):
    gif = encode(Image.fromarray(RAMP), "GIF")
    with pytest.raises(DataError, match=r"the picture cannot be read.*it is no JPEG, PNG or BMP; convert it"):
        decode(gif)
    with pytest.raises(DataError, match="cannot be read as an image: it is not a file"):
        decode(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png cannot be read as an image: it is not a file"):
        decode(tmp_path / "pipe.png")  # and is not waited for


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encode(Image.fromarray(RAMP), "PNG"))

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pictures.Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image: Permission denied"):
        decode(tmp_path / "a.png")


def jpeg_header(width: int, height: int) -> bytes:
    data = encode(Image.fromarray(RAMP), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def bmp_header(width: int, height: int) -> bytes:
    data = encode(Image.fromarray(RAMP), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


@pytest.mark.parametrize(
    "data",
    [
        jpeg_header(60_000, 60_000),
        png(60_000, 60_000, 8, 2, bytes(1000)),
        png(60_000, 60_000, 1, 0, bytes(60_000 * 7501)),  # whole and valid: 3.6 gigapixels in half a megabyte
        bmp_header(60_000, 60_000),
        bmp_header(60_000, -60_000),
    ],
    ids=["jpeg", "png", "whole png", "bmp", "bmp upside down"],
)
def test_a_picture_too_large_is_refused_by_its_header(tmp_path, data):
    path = tmp_path / "bomb.png"
    path.write_bytes(data)
    start = time.process_time()
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(
            DataError, match=r"bomb\.png is 60000 pixels wide and 60000 high, that is more than the 89"
        ),
    ):
        decode(path, size=(224, 224))
    assert time.process_time() - start < 0.5  # decoding takes many seconds


def test_a_bmp_of_a_few_bytes_claims_no_millions_of_pixels():
    """In runs, with the end of the first line at once: Pillow would fill it byte by byte."""
    data = bytearray(bmp_header(80_000_000, 1)[:1000] + b"\1\1\0\0")
    struct.pack_into("<I", data, 10, 1000)
    struct.pack_into("<HI", data, 28, 8, 1)  # eight bits, RLE8
    start = time.process_time()
    with pytest.raises(DataError, match="cannot be read as an image: 1,004 bytes are too few for its pixels"):
        decode(bytes(data))
    assert time.process_time() - start < 0.5


def test_the_largest_picture_is_read_and_a_pixel_more_is_not(monkeypatch, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(RAMP), "PNG"))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 48 * 64)
    assert decode(path).shape == (48, 64, 3)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(DataError, match="64 pixels wide and 48 high, that is more than the 3,071 that"):
        decode(path)
    path.write_bytes(path.read_bytes() + bytes(8 * 48 * 64))
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image: [0-9,]+ bytes are too many"):
        decode(path)


def test_the_grid_has_a_row_for_each_class():
    images = np.stack([np.full((32, 40, 3), shade, np.uint8) for shade in (10, 20, 30, 40)])
    grid = pictures.class_grid(images, np.array([1, 0, 1, 1]), num_classes=3, columns=2)
    assert grid.shape == (3 * 33 + 1, 2 * 41 + 1, 3)
    cells = grid[1::33, 1::41, 0]
    np.testing.assert_array_equal(cells[:, :2], [[20, 255], [10, 30], [255, 255]])


def test_small_images_are_enlarged_and_floats_stretched():
    image = np.array([[-1.0, 1.0], [0.0, 1.0]], np.float32).reshape(1, 2, 2, 1)
    grid = pictures.class_grid(image, np.array([0]), num_classes=1, columns=1)
    assert grid.shape == (34, 34, 1)
    assert [grid[1, 1, 0], grid[1, 32, 0], grid[32, 1, 0]] == [0, 255, 127]


def test_a_row_of_variants_begins_with_the_image_itself():
    images = np.random.default_rng(1).integers(0, 256, (5, 40, 32, 3), dtype=np.uint8)
    labels = np.array([2, 0, 2, 0, 0])
    augment = transforms.compose(transforms.pad_crop(4), transforms.flip())
    grid = pictures.variant_grid(images, labels, 3, 6, augment, seed=4)
    assert grid.shape == (3 * 41 + 1, 6 * 33 + 1, 3)
    np.testing.assert_array_equal(grid[1:41, 1:33], images[1])
    np.testing.assert_array_equal(grid[2 * 41 + 1 : 2 * 41 + 41, 1:33], images[0])
    assert (grid[41:82] == 255).all()  # no image of class 1
    rng = np.random.default_rng(4)
    for row, image in ((0, images[1]), (2, images[0])):
        for column, variant in enumerate(augment(image[None].repeat(5, axis=0), rng), start=1):
            top, left = row * 41 + 1, column * 33 + 1
            np.testing.assert_array_equal(grid[top : top + 40, left : left + 32], variant)
    alone = pictures.variant_grid(images, labels, 3, 1, augment)
    np.testing.assert_array_equal(alone, pictures.class_grid(images, labels, 3, 1))


def test_variants_of_another_size_lie_in_the_middle_of_their_cells():
    image = np.arange(1, 41 * 32 + 1, dtype=np.float32).reshape(1, 41, 32, 1)
    grid = pictures.variant_grid(image, np.array([0]), 1, 3, transforms.random_crop((20, 33 - 3)))
    assert grid.shape == (41 + 2, 3 * 33 + 1, 1)
    cell = grid[1:42, 34:66, 0]
    rows, columns = np.nonzero(cell != 255)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 29, 1, 30)
    larger = pictures.variant_grid(image, np.array([0]), 1, 3, transforms.random_resized_crop(64))
    assert larger.shape == (64 + 2, 3 * 65 + 1, 1)
    assert (larger[1:12, 1:33] == 255).all()
    assert (larger[12:52, 17:48] != 255).all()
