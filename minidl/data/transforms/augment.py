"""Random changes to the images that a network learns from: where they are cut, mirrored and covered.

An augmentation is a small frozen object called with a batch (N, H, W, C) and a random generator: it returns a
new batch of the same type and never writes its input. All its randomness comes from that generator, so the
caller alone decides what repeats. The classes have lower-case names because they are used, and print, as
functions: compose(pad_crop(padding=4), flip()). Those that change colours are in colour.py.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.data.transforms import words
from minidl.data.transforms.colour import colour_jitter, lighting
from minidl.data.transforms.resize import check_axes
from minidl.errors import DataError, ShapeError

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Size = int | tuple[int, int]  # of a square, or (h, w)

_TRIES = 10  # to find a window that lies in the image, as in fb.resnet.torch and torchvision


@dataclass(frozen=True)
class translate:
    """Move each image by up to `max_pixels` rows and columns, filling with 0.  (N, H, W, C) -> (N, H, W, C)

    Both distances are drawn uniformly from -max_pixels..max_pixels. ValueError for a negative `max_pixels`.
    """

    max_pixels: int = 2

    def __post_init__(self) -> None:
        _check_whole("translate", "max_pixels", self.max_pixels, 0)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        check_axes("translate", images)
        return _pad_crop(images, self.max_pixels, rng)


@dataclass(frozen=True)
class pad_crop:
    """Pad every side with `padding` zeros and cut a window of the old size.  (N, H, W, C) -> (N, H, W, C)

    The corner of the window is drawn uniformly: the usual augmentation of CIFAR since Lee et al. 2015,
    arXiv:1409.5185. ValueError for a negative `padding`.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        _check_whole("pad_crop", "padding", self.padding, 0)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        check_axes("pad_crop", images)
        return _pad_crop(images, self.padding, rng)


@dataclass(frozen=True)
class random_crop:
    """Cut a window of `size` out of each image, its corner drawn uniformly.  (N, H, W, C) -> (N, h, w, C)

    size: a number for a square, or (h, w). Krizhevsky et al. 2012, section 4.1, cut 224 out of 256.
    ValueError for another size, ShapeError if images are smaller.
    """

    size: Size

    def __post_init__(self) -> None:
        _pair("random_crop", self.size)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        check_axes("random_crop", images)
        h, w = _pair("random_crop", self.size)
        rows, columns = images.shape[1:3]
        if h > rows or w > columns:
            raise ShapeError(
                f"random_crop: {h}x{w} cannot be cut out of images of {rows}x{columns} (axes 1 and 2 of "
                f"{images.shape}); resize or pad them first"
            )
        return _windows(images, h, w, rng)


@dataclass(frozen=True)
class random_resized_crop:
    """Cut a window of random place, area and shape, and resize it to `size`.  (N, H, W, C) -> (N, h, w, C)

    size: a number for a square, or (h, w). scale: the window's share of the image's area, drawn uniformly.
    ratio: width over height, its logarithm drawn uniformly. Of ten windows the first one that fits into the
    image is taken; if none does, the largest one in the middle whose shape lies within `ratio`. Bilinear, by
    Pillow, over a wider neighbourhood where the window shrinks; at the window's edge this may see the pixels
    beside it.
    Szegedy et al. 2014, arXiv:1409.4842, section 6; ten tries and the middle as in fb.resnet.torch and
    torchvision.  ValueError for another size, or unless 0 < low <= high, and high <= 1 for scale.
    """

    size: Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _pair("random_resized_crop", self.size)
        _check_range("random_resized_crop", "scale", self.scale, most=1)
        _check_range("random_resized_crop", "ratio", self.ratio)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        check_axes("random_resized_crop", images)
        n, rows, columns, c = images.shape
        _check_pixels("random_resized_crop", images)
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise DataError(f"random_resized_crop: images are {images.dtype}, expected uint8 or a float type")
        h, w = _pair("random_resized_crop", self.size)
        out = np.empty((n, h, w, c), images.dtype)
        for image, box, place in zip(images, self.boxes(n, rows, columns, rng).tolist(), out, strict=True):
            _resample(image, box, place)
        return out

    def boxes(self, n: int, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
        """The windows of n images of rows x columns.  -> (n, 4) whole numbers: left, top, right, bottom"""
        area = rows * columns * rng.uniform(*self.scale, (_TRIES, n))
        low, high = np.log(self.ratio)
        ratio = np.exp(rng.uniform(low, high, (_TRIES, n)))
        h, w = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
        fits = (1 <= h) & (h <= rows) & (1 <= w) & (w <= columns)
        first, found = (fits.argmax(axis=0), np.arange(n)), fits.any(axis=0)
        h0, w0 = self._fallback(rows, columns)
        h = np.where(found, h[first], h0).astype(np.int64)
        w = np.where(found, w[first], w0).astype(np.int64)
        top = np.where(found, rng.integers(0, rows - h + 1), (rows - h0) // 2)
        left = np.where(found, rng.integers(0, columns - w + 1), (columns - w0) // 2)
        return np.stack([left, top, left + w, top + h], axis=1)

    def _fallback(self, rows: int, columns: int) -> tuple[int, int]:
        """The sides of the largest window that is neither too narrow nor too wide."""
        low, high = self.ratio
        if columns < low * rows:
            return max(1, round(columns / low)), columns
        if columns > high * rows:
            return rows, max(1, round(rows * high))
        return rows, columns


@dataclass(frozen=True)
class flip:
    """Mirror half of the images, drawn at random, left to right.  (N, H, W, C) -> (N, H, W, C)"""

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        check_axes("flip", images)
        chosen = np.flatnonzero(rng.random(len(images)) < 0.5)
        columns = np.arange(images.shape[2])[::-1]
        out = images.copy()
        out[chosen] = images[chosen].take(columns, axis=2)  # twice as fast as images[chosen, :, ::-1]
        return out


@dataclass(frozen=True)
class cutout:
    """Cover a square of size x size at a random place of each image.  (N, H, W, C) -> (N, H, W, C)

    The square's centre is drawn uniformly from the image's pixels, so part of it may lie outside; size is 16
    for CIFAR-10 and 8 for CIFAR-100 in the paper. fill: a number or C of them. The paper covers with 0 after
    the mean was subtracted: in images that still have theirs, such as uint8, pass the mean to do the same; 0
    is black.
    DeVries and Taylor 2017, arXiv:1708.04552.  ValueError for a size below 1 or a fill that is no finite
    number, ShapeError for another number of them than C, DataError for one that uint8 images cannot hold.
    """

    size: int = 16
    fill: float | tuple[float, ...] = 0

    def __post_init__(self) -> None:
        _check_whole("cutout", "size", self.size, 1)
        values = self.fill if isinstance(self.fill, tuple) else (self.fill,)
        if not values or not all(map(_is_number, values)):
            raise ValueError(f"cutout: fill is {self.fill!r}, it must be a finite number, or a tuple of them")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        check_axes("cutout", images)
        _check_pixels("cutout", images)
        n, h, w, _ = images.shape
        fill = self._fill_for(images)
        tops, lefts = rng.integers(0, h, n), rng.integers(0, w, n)
        boxes = np.stack([tops, tops + self.size, lefts, lefts + self.size], axis=1) - self.size // 2
        out = images.copy()
        for image, (top, bottom, left, right) in zip(out, boxes.clip(0).tolist(), strict=True):
            image[top:bottom, left:right] = fill
        return out

    def _fill_for(self, images: np.ndarray) -> np.ndarray:
        fill = np.asarray(self.fill, np.float64)
        if fill.shape not in ((), images.shape[3:]):
            raise ShapeError(
                f"cutout: fill has {len(fill)} numbers but images have {images.shape[3]} channels (last axis "
                f"of {images.shape})"
            )
        if images.dtype == np.uint8 and not np.isin(fill, range(256)).all():
            raise DataError(f"cutout: fill is {self.fill}, but uint8 images hold whole numbers in 0..255")
        return fill.astype(images.dtype)


@dataclass(frozen=True, init=False)
class compose:
    """One augmentation after another, in the order given.  (N, H, W, C) -> (N, H, W, C)"""

    steps: tuple[Augmentation, ...]

    def __init__(self, *steps: Augmentation) -> None:
        object.__setattr__(self, "steps", steps)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for step in self.steps:
            images = step(images, rng)
        return images

    def __repr__(self) -> str:
        return f"compose({', '.join(map(repr, self.steps))})"


_BY_NAME: dict[str, Callable[..., Augmentation]] = {
    "crop": pad_crop,
    "pad_crop": pad_crop,
    "translate": translate,
    "flip": flip,
    "random_crop": random_crop,
    "random_resized_crop": random_resized_crop,
    "colour_jitter": colour_jitter,
    "lighting": lighting,
    "cutout": cutout,
}


def parse(text: str) -> Augmentation:
    """The augmentation that a text such as "flip", "crop+flip" or "random_crop(28)+cutout(8)" stands for.

    crop is another name of pad_crop; arguments are literals. ValueError listing the names for any other, or
    for arguments that do not work.
    """
    steps = words.build(text, _BY_NAME, "augmentation")
    return steps[0] if len(steps) == 1 else compose(*steps)


def _pad_crop(images: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
    """Each image's window of the old size, at a random place of the image padded with zeros."""
    n, h, w, c = images.shape
    padded = np.zeros((n, h + 2 * padding, w + 2 * padding, c), images.dtype)
    padded[:, padding : padding + h, padding : padding + w] = images
    return _windows(padded, h, w, rng)


def _windows(images: np.ndarray, h: int, w: int, rng: np.random.Generator) -> np.ndarray:
    """A window h x w at a random place of each image."""
    n, rows, columns, c = images.shape
    tops = rng.integers(0, rows - h + 1, n).tolist()
    lefts = rng.integers(0, columns - w + 1, n).tolist()
    out = np.empty((n, h, w, c), images.dtype)
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        out[i] = images[i, top : top + h, left : left + w]
    return out


def _resample(image: np.ndarray, box: list[int], out: np.ndarray) -> None:
    """Write the box (left, top, right, bottom) of an image, resized, to `out`.  (H, W, C), (h, w, C)"""
    from PIL import Image

    def resized(plane: np.ndarray) -> Any:
        return Image.fromarray(np.ascontiguousarray(plane)).resize(
            size, Image.Resampling.BILINEAR, box=bounds
        )

    size, bounds = (out.shape[1], out.shape[0]), (box[0], box[1], box[2], box[3])
    if image.dtype != np.uint8:
        image = image.astype(np.float32, copy=False)
    if image.dtype == np.uint8 and image.shape[2] == 3:
        out[...] = resized(image)  # mode RGB, in one go
        return
    for channel in range(image.shape[2]):
        out[..., channel] = resized(image[..., channel])  # mode L or F


def _pair(op: str, size: Any) -> tuple[int, int]:
    """(h, w).  ValueError unless size is a positive whole number or two of them"""
    h, w = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    if not all(_is_whole(side) and side >= 1 for side in (h, w)):
        raise ValueError(
            f"{op}: size is {size!r}, it must be a whole number of at least 1, or (h, w) of them"
        )
    return h, w


def _check_pixels(op: str, images: np.ndarray) -> None:
    if min(images.shape[1:3]) < 1:
        raise ShapeError(f"{op}: images of shape {images.shape} have no pixels")


def _check_whole(op: str, name: str, value: Any, least: int) -> None:
    if not _is_whole(value) or value < least:
        raise ValueError(f"{op}: {name} is {value!r}, it must be a whole number of at least {least}")


def _check_range(op: str, name: str, value: Any, most: float = math.inf) -> None:
    good = isinstance(value, tuple) and len(value) == 2 and all(map(_is_number, value))
    if not good or not 0 < value[0] <= value[1] <= most:
        limit = "" if most == math.inf else f" <= {most}"
        raise ValueError(f"{op}: {name} is {value!r}, it must be (low, high) with 0 < low <= high{limit}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)
