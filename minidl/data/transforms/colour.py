"""Random changes of colour, the same for all pixels of an image.

They work on images as they come, uint8 or floats in 0..1: the limits are part of their formulas, so what has
been standardised or whitened is refused. The numbers are computed in float32 (float64 for float64 images),
kept within the limits, and rounded once for uint8.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.data.transforms.resize import check_axes
from minidl.errors import DataError, ShapeError

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey: ITU-R 601, as Pillow and torchvision have it
_CHUNK = 2**18  # numbers that are worked on at a time: they stay in the processor's cache
_PIXELS = 2**20  # pixels that fit_lighting holds as float64 at a time

# Eigenvalues and eigenvectors (as columns) of the covariance of ImageNet's colours, in 0..1: those of
# fb.resnet.torch, datasets/imagenet.lua, from where others have copied them. Imagenette's are 0.217, 0.017,
# 0.003.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@dataclass(frozen=True)
class colour_jitter:
    """Change brightness, contrast, saturation and hue by random factors.  (N, H, W, C) -> (N, H, W, C)

    For x in 0..top (255 for uint8, 1 for floats), grey(x) = 0.299 red + 0.587 green + 0.114 blue and a factor
    f drawn uniformly from 1 - strength..1 + strength (never below 0) for each image and step:

    brightness    y = f * x
    contrast      y = f * x + (1 - f) * m, m the mean of grey(x) over the image
    saturation    y = f * x + (1 - f) * grey(x), at each pixel
    hue           H of HSV is moved by a share of the circle drawn uniformly from -hue..hue

    after each of which y is clipped to 0..top. The order is drawn at random for each image. A step of
    strength 0 is left out. Grey images (C = 1) have no saturation and no hue: these two leave them as they
    are.
    Howard 2013, arXiv:1312.5402, with the formulas of fb.resnet.torch and torchvision.
    ValueError for a negative strength or a hue above 0.5, ShapeError unless C is 1 or 3, DataError for images
    that are neither uint8 nor floats in 0..1.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            _check_number("colour_jitter", name, getattr(self, name))
        _check_number("colour_jitter", "hue", self.hue, most=0.5)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        check_axes("colour_jitter", images)
        n, h, w, c = images.shape
        if c not in (1, 3):
            raise ShapeError(
                f"colour_jitter: images have {c} channels (last axis of {images.shape}), not 1 or 3"
            )
        top = _top("colour_jitter", images)
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        low = [max(0, 1 - strength) for strength in strengths[:3]] + [-self.hue]
        high = [1 + strength for strength in strengths[:3]] + [self.hue]
        factors = rng.uniform(low, high, (n, 4)).T
        steps = [step for step, strength in enumerate(strengths[: 4 if c == 3 else 2]) if strength > 0]
        orders = list(itertools.permutations(steps))
        chosen = rng.integers(0, len(orders), n)
        out = np.empty(images.shape, images.dtype)
        size = max(1, _CHUNK // max(1, h * w * c))
        for number, order in enumerate(orders):
            alike = np.flatnonzero(chosen == number)
            for start in range(0, len(alike), size):
                part = alike[start : start + size]
                out[part] = _jitter(images[part], order, factors[:, part], top)
        return out


def _jitter(images: np.ndarray, order: Sequence[int], factors: np.ndarray, top: int) -> np.ndarray:
    """Images whose steps have the same order.  (n, H, W, C), factors (4, n) -> (n, H, W, C)"""
    kind = np.result_type(images.dtype, np.float32)
    planes = np.empty((images.shape[3], *images.shape[:3]), kind)  # a loop over 3 channels would be too short
    planes[...] = np.moveaxis(images, 3, 0)
    for step in order:
        _STEPS[step](planes, factors[step].astype(kind)[:, None, None])
        np.clip(planes, 0, top, out=planes)
    return np.stack(list(_rounded(planes, images.dtype)), axis=3)


def _brightness(planes: np.ndarray, factor: np.ndarray) -> None:
    planes *= factor


def _contrast(planes: np.ndarray, factor: np.ndarray) -> None:
    mean = _grey(planes).mean(axis=(1, 2), keepdims=True)
    planes *= factor
    planes += (1 - factor) * mean


def _saturation(planes: np.ndarray, factor: np.ndarray) -> None:
    grey = _grey(planes)
    grey *= 1 - factor
    planes *= factor
    planes += grey


def _hue(planes: np.ndarray, turn: np.ndarray) -> None:
    """To HSV and back: V the largest, chroma V less the smallest, H in sixths of a circle from red."""
    red, green, blue = planes
    value = planes.max(axis=0)
    chroma = value - planes.min(axis=0)
    sixth = 1 / np.where(chroma > 0, chroma, 1)
    hue = np.where(
        value == red,
        (green - blue) * sixth,
        np.where(value == green, 2 + (blue - red) * sixth, 4 + (red - green) * sixth),
    )
    hue += 6 * turn
    # a channel is V in the third of the circle around its own colour, V - chroma in the opposite third
    for plane, before in zip(planes, (5, 3, 1), strict=True):
        k = hue + before
        k -= 6 * np.floor(k / 6)
        plane[...] = value - chroma * np.clip(np.minimum(k, 4 - k), 0, 1)


_STEPS: tuple[Callable[[np.ndarray, np.ndarray], None], ...] = (_brightness, _contrast, _saturation, _hue)


@dataclass(frozen=True)
class lighting:
    """Add the same random colour to all pixels of an image.  (N, H, W, 3) -> (N, H, W, 3)

    y = x + [p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T, for x in 0..1, with p and l the eigenvectors and eigenvalues
    of the covariance of the training images' colours and a drawn for each image from N(0, std); then clipped
    to 0..1. uint8 images are taken as x = image / 255 and rounded. vectors: l1 p1, l2 p2, l3 p3 as rows, such
    as `fit_lighting` finds; None for ImageNet's.
    Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks", section 4.1.
    ValueError for a negative std or unless vectors are three times three finite numbers, ShapeError unless C
    is 3, DataError for images that are neither uint8 nor floats in 0..1.
    """

    std: float = 0.1
    vectors: tuple[tuple[float, float, float], ...] | None = None

    def __post_init__(self) -> None:
        _check_number("lighting", "std", self.std)
        if self.vectors is not None:
            try:
                vectors = np.array(self.vectors, np.float64)
            except (TypeError, ValueError):
                vectors = np.array(np.nan)
            if vectors.shape != (3, 3) or not np.isfinite(vectors).all():
                raise ValueError(f"lighting: vectors is {self.vectors!r}, it must be 3 x 3 finite numbers")
            object.__setattr__(self, "vectors", tuple(map(tuple, vectors.tolist())))

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n, h, w, _ = _check_colour("lighting", images)
        top = _top("lighting", images)
        vectors = (
            np.transpose(np.multiply(_EIGENVECTORS, _EIGENVALUES)) if self.vectors is None else self.vectors
        )
        shift = top * (rng.normal(0, self.std, (n, 3)) @ np.asarray(vectors))  # (n, 3)
        kind = np.result_type(images.dtype, np.float32)
        rows = np.tile(shift, w).astype(kind)  # one long row: a loop over 3 channels would be too short
        out = np.empty(images.shape, images.dtype)
        for image, row, place in zip(images, rows, out, strict=True):
            values = image.reshape(h, w * 3) + row
            np.clip(values, 0, top, out=values)
            place[...] = _rounded(values, images.dtype).reshape(h, w, 3)
        return out


def fit_lighting(images: Any, std: float = 0.1) -> lighting:
    """The `lighting` of training images of one's own.  (N, H, W, 3)

    Its vectors are the eigenvectors of the covariance of all pixels in 0..1, each times its eigenvalue,
    largest first. Images are read some at a time. ShapeError, DataError and ValueError as for `lighting`, and
    ValueError for images without pixels.
    """
    total, products, count = np.zeros(3), np.zeros((3, 3)), 0
    step = max(1, _PIXELS // max(1, math.prod(np.shape(images[:1])[1:3])))
    for start in range(0, len(images), step):
        part = np.asarray(images[start : start + step])
        _check_colour("fit_lighting", part)
        planes = np.array(part.reshape(-1, 3).T, np.float64, order="C")  # (3, pixels)
        planes /= _top("fit_lighting", part)
        total += planes.sum(axis=1)
        products += planes @ planes.T
        count += planes.shape[1]
    if count == 0:
        raise ValueError("fit_lighting: images have no pixels")
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    return lighting(std, tuple(map(tuple, (values * vectors).T[::-1].tolist())))


def _grey(planes: np.ndarray) -> np.ndarray:
    """(C, n, H, W) -> (n, H, W), a new array"""
    if len(planes) == 1:
        return planes[0].copy()
    grey = planes[0] * _LUMA[0]
    for plane, share in zip(planes[1:], _LUMA[1:], strict=True):
        grey += plane * share
    return grey


def _rounded(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values within the limits as `dtype`; may write them."""
    if dtype == np.uint8:
        values += 0.5  # the cast cuts off what is behind the point
    return values.astype(dtype, copy=False)


def _top(op: str, images: np.ndarray) -> int:
    """The value of full colour: 255 for uint8, 1 for floats.  DataError for other images"""
    if images.dtype == np.uint8:
        return 255
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{op}: images are {images.dtype}, expected uint8 or floats in 0..1")
    low, high = (images.min(), images.max()) if images.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"{op}: images hold values from {low:.4g} to {high:.4g}; it works on uint8 images or floats in "
            "0..1: put it before the preprocessing"
        )
    return 1


def _check_colour(op: str, images: np.ndarray) -> tuple[int, ...]:
    check_axes(op, images)
    if images.shape[3] != 3:
        raise ShapeError(f"{op}: images have {images.shape[3]} channels (last axis of {images.shape}), not 3")
    return images.shape


def _check_number(op: str, name: str, value: Any, most: float = math.inf) -> None:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= most:
        limit = "of at least 0" if most == math.inf else f"in 0..{most}"
        raise ValueError(f"{op}: {name} is {value!r}, it must be a number {limit}")
