"""Image files as arrays, and data sets as one picture.

Pillow reads and writes the files; what crosses its border are uint8 arrays (N, H, W, C) like everywhere else.
"""

import os
from pathlib import Path

import numpy as np

from minidl.errors import DataError


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """An image file as a batch of one.  (1, H, W, C) uint8, C = 1 for grey and 3 for colour

    Transparency is dropped. DataError for a file that is missing or that Pillow cannot read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None
    return pixels.reshape(1, *pixels.shape[:2], -1)


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write (H, W, C) uint8 as a PNG file, grey for C = 1 and colour for C = 3."""
    from PIL import Image

    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(Path(path), format="PNG")


def class_grid(images: np.ndarray, labels: np.ndarray, num_classes: int, columns: int) -> np.ndarray:
    """The first images of each class, one row per class, on white.  (N, H, W, C), (N,) -> (GH, GW, C) uint8

    Small images are enlarged to about 32 pixels; float images are stretched to the whole range of grey.
    """
    _, h, w, c = images.shape
    zoom = max(1, 32 // min(h, w))
    h, w = h * zoom, w * zoom
    low, high = (0, 255) if images.dtype == np.uint8 else (images.min(), images.max())
    # one pixel of white around every image
    grid = np.full((num_classes * (h + 1) + 1, columns * (w + 1) + 1, c), 255, np.uint8)
    for row in range(num_classes):
        for column, index in enumerate(np.flatnonzero(labels == row)[:columns]):
            image = np.interp(images[index], (low, high), (0, 255)).astype(np.uint8)
            top, left = row * (h + 1) + 1, column * (w + 1) + 1
            grid[top : top + h, left : left + w] = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return grid
