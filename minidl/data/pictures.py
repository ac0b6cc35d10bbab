"""Image files as arrays, and data sets as one picture.

Pillow reads and writes the files; what crosses its border are uint8 arrays (N, H, W, C) like everywhere else.
"""

import io
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.data import headers
from minidl.data.transforms import Augmentation
from minidl.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 2**30 // 12  # 89 million, where Pillow begins to warn: a quarter of a gigabyte of RGB
_MAX_BYTES_PER_PIXEL = 8  # of a file that is not compressed: RGBA in 16 bits
_BMP_PIXELS_PER_BYTE = 128  # of one in runs of 255; Pillow would fill what is not there for many seconds
_GAP = 3.0  # Pillow's documentation: hardly told from a picture that was resized in one step


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """An image file as a batch of one, see `decode`.  (1, H, W, C) uint8, C = 1 for grey and 3 for colour"""
    return decode(path)[None]


def decode(
    source: str | os.PathLike[str] | bytes,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> np.ndarray:
    """The pixels of a JPEG, PNG or BMP.  path, or the file's bytes -> (H, W, C) uint8, C = 1 or 3

    Grey pictures have one channel and all others, those with a palette too, three: red, green, blue. As in
    the loaders of PyTorch and Keras transparency is dropped, whatever colour lies under it, and colour
    profiles are not applied. 16 bits of grey are divided by 257; of colour (and of grey with transparency,
    which comes as colour) the upper 8 are kept. Pictures are turned upright as EXIF says.

    size: (H, W); the largest part of this shape is cut from the middle and resized to it, bilinear with
    Pillow's wider filter when shrinking: to (S, S) as if the shorter side were resized to S and the middle
    square cut out. A JPEG six times as large or more is decoded at 1/2, 1/4 or 1/8 of its size, but never
    below three times what is wanted, which changes pixels by less than a level in 256 on average. channels: 1
    or 3, in place of what the picture has; the luminance of ITU-R 601, or grey in all three.

    DataError, naming the path, for a file that is missing, of another format, cut short or damaged, or (by
    its header, before it is decoded) of more than MAX_PIXELS pixels.
    """
    name = "the picture" if isinstance(source, bytes) else os.fspath(source)
    data = source if isinstance(source, bytes) else _read_file(source)
    try:
        data, orientation = headers.strip(data)
        if size is not None and orientation > 4:  # rows and columns change places at the end
            size = size[::-1]
        image = _open(data, name)
        if size is not None:
            _draft(image, size)
        picture = _eight_bits(image, channels)
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name} cannot be read as an image: {error}") from None
    pixels = np.asarray(picture if size is None else _fit(picture, size))
    return _upright(pixels.reshape(*pixels.shape[:2], -1), orientation)


def _read_file(path: str | os.PathLike[str]) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise DataError(f"{path} cannot be read as an image: it is not a file")
        if status.st_size > _MAX_BYTES_PER_PIXEL * MAX_PIXELS:
            raise DataError(
                f"{path} cannot be read as an image: {status.st_size:,} bytes are too many for one"
            )
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read as an image: {error.strerror}") from None


def _open(data: bytes, name: str) -> "Image":
    """The picture in a file's bytes, of which only the header has been looked at yet.

    `Image.open` is not asked: it knows 40 formats, of which some run other programs, and its answer to huge
    pictures is a warning.
    """
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin

    formats: dict[bytes, type] = {
        headers.JPEG: JpegImagePlugin.JpegImageFile,
        headers.PNG: PngImagePlugin.PngImageFile,
        headers.BMP: BmpImagePlugin.BmpImageFile,
    }
    kind = next((formats[start] for start in formats if data.startswith(start)), None)
    if kind is None:
        raise DataError(f"{name} cannot be read as an image: it is no JPEG, PNG or BMP; convert it to one")
    image = kind(io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{name} is {image.width} pixels wide and {image.height} high, that is more than the "
            f"{MAX_PIXELS:,} that are read; resize it first"
        )
    if data.startswith(headers.BMP) and image.width * image.height > _BMP_PIXELS_PER_BYTE * len(data):
        raise DataError(f"{name} cannot be read as an image: {len(data):,} bytes are too few for its pixels")
    return image


def _draft(image: "Image", size: tuple[int, int]) -> None:
    """Let a JPEG be decoded at a fraction of its size, if even that is `_GAP` times what is wanted."""
    scale = min(image.width / size[1], image.height / size[0]) / _GAP
    if scale > 1:
        image.draft(None, (math.ceil(image.width / scale), math.ceil(image.height / scale)))


def _eight_bits(image: "Image", channels: int | None) -> "Image":
    """The picture, decoded, as mode L or RGB."""
    from PIL import Image

    image.load()
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    mode = "L" if channels == 1 or (channels is None and image.mode in ("1", "L", "LA")) else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _fit(image: "Image", size: tuple[int, int]) -> "Image":
    """The largest part of shape (H, W) from the middle, resized to it."""
    from PIL import Image

    (h, w), (width, height) = size, image.size
    if (width, height) == (w, h):
        return image
    scale = min(width / w, height / h)
    cut_w, cut_h = min(width, w * scale), min(height, h * scale)
    left, top = (width - cut_w) // 2, (height - cut_h) // 2  # whole pixels: a mere crop must not blur
    box = (left, top, min(width, left + cut_w), min(height, top + cut_h))
    return image.resize((w, h), Image.Resampling.BILINEAR, box=box)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo what EXIF's orientation tells.  (H, W, C) -> (H, W, C), or (W, H, C) from 5 on"""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write (H, W, C) uint8 as a PNG file, grey for C = 1 and colour for C = 3."""
    from PIL import Image

    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(Path(path), format="PNG")


def class_grid(images: Any, labels: np.ndarray, num_classes: int, columns: int) -> np.ndarray:
    """The first images of each class, one row per class, on white.  (N, H, W, C), (N,) -> (GH, GW, C) uint8

    Small images are enlarged to about 32 pixels; float images are stretched to the whole range of grey.
    """
    rows = [[images[i] for i in np.flatnonzero(labels == label)[:columns]] for label in range(num_classes)]
    return _grid(rows, columns)


def variant_grid(
    images: Any, labels: np.ndarray, num_classes: int, columns: int, augment: Augmentation, seed: int = 0
) -> np.ndarray:
    """As `class_grid`, but a row holds the first image of its class and then random variants of it."""
    rng = np.random.default_rng(seed)
    rows: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    for label, row in enumerate(rows):
        for i in np.flatnonzero(labels == label)[:1]:
            image = np.asarray(images[i])
            row += [image, *augment(image[None].repeat(columns - 1, axis=0), rng)]
    return _grid(rows, columns)


def _grid(rows: list[list[np.ndarray]], columns: int) -> np.ndarray:
    """Images in rows and columns, each in the middle of its cell, one pixel of white around every cell."""
    shown = [image for row in rows for image in row]
    h, w, c = np.max([image.shape for image in shown], axis=0)
    zoom = max(1, 32 // min(h, w))
    low, high = (0, 255) if shown[0].dtype == np.uint8 else (min(map(np.min, shown)), max(map(np.max, shown)))
    h, w = h * zoom, w * zoom
    grid = np.full((len(rows) * (h + 1) + 1, columns * (w + 1) + 1, c), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            pixels = np.interp(image, (low, high), (0, 255)).astype(np.uint8)
            pixels = pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)
            top = row * (h + 1) + 1 + (h - pixels.shape[0]) // 2
            left = column * (w + 1) + 1 + (w - pixels.shape[1]) // 2
            grid[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return grid
