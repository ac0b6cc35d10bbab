"""What happens to images between data set and model: random augmentation, then the fixed way to float32.

An augmentation is a small frozen object called with a batch (N, H, W, C) and a random generator: it returns a
new batch and never writes its input. All its randomness comes from that generator, so the caller alone
decides what repeats. The classes have lower-case names because they are used, and print, as functions:
compose(pad_crop(padding=4), flip()).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import backend
from minidl.errors import DataError, ShapeError

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_KEYS = ("mean", "std", "resize", "bgr", "scale")  # of a config for `preprocess`


@dataclass(frozen=True)
class translate:
    """Move each image by up to `max_pixels` rows and columns, filling with 0.  (N, H, W, C) -> (N, H, W, C)

    Both distances are drawn uniformly from -max_pixels..max_pixels. ValueError for a negative `max_pixels`.
    """

    max_pixels: int

    def __post_init__(self) -> None:
        if self.max_pixels < 0:
            raise ValueError(f"translate: max_pixels is {self.max_pixels}, it must be at least 0")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _random_crop(images, self.max_pixels, rng)


@dataclass(frozen=True)
class pad_crop:
    """Pad every side with `padding` zeros and cut a window of the old size.  (N, H, W, C) -> (N, H, W, C)

    The corner of the window is drawn uniformly: the usual augmentation of CIFAR since Lee et al. 2015,
    arXiv:1409.5185. ValueError for a negative `padding`.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"pad_crop: padding is {self.padding}, it must be at least 0")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _random_crop(images, self.padding, rng)


@dataclass(frozen=True)
class flip:
    """Mirror half of the images, drawn at random, left to right.  (N, H, W, C) -> (N, H, W, C)"""

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = np.flatnonzero(rng.random(len(images)) < 0.5)
        columns = np.arange(images.shape[2])[::-1]
        out = images.copy()
        out[chosen] = images[chosen].take(columns, axis=2)  # twice as fast as images[chosen, :, ::-1]
        return out


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


_BY_NAME: dict[str, Augmentation] = {"crop": pad_crop(4), "flip": flip(), "translate": translate(2)}


def parse(text: str) -> Augmentation:
    """The augmentation that "flip", "crop", "translate" or several of them, as in "crop+flip", stand for.

    crop pads by 4, translate moves by up to 2. ValueError listing the names for any other.
    """
    words = [word.strip() for word in text.split("+")]
    for word in words:
        if word not in _BY_NAME:
            raise ValueError(
                f"augmentation {text!r}: there is no {word!r}; the names are {', '.join(_BY_NAME)}, several "
                "are joined by +"
            )
    steps = [_BY_NAME[word] for word in words]
    return steps[0] if len(steps) == 1 else compose(*steps)


def preprocess(
    images: np.ndarray, config: Mapping[str, Any] | None = None, shape: tuple[int, int, int] | None = None
) -> np.ndarray:
    """The images as a model takes them.  (N, H, W, C) uint8 -> float32

    y = scale * (x / 255 - mean) / std, per channel; without a config y = x / 255. The config is plain data
    with any of the keys "mean" and "std" (C numbers, in units of 0..1, in the order the model sees), "resize"
    ([H, W], bilinear, before the rest), "bgr" (True reverses the channels, as Caffe's models expect) and
    "scale" (1; 255 for models of images in 0..255). Float images pass unchanged: they are taken to be
    preprocessed. Images on another device stay there (resizing them goes by way of the host). With `shape`
    images of either kind are first fitted to it, see `fit_images`. ShapeError
    unless images have four axes, mean and std C numbers, and bgr images 3 channels; ValueError for an unknown
    key, a std or scale that is not positive or a bgr that is no bool; DataError for images of another type.
    """
    _check_axes("preprocess", images)
    config = config or {}
    unknown = [key for key in config if key not in _KEYS]
    if unknown:
        raise ValueError(f"preprocess: unknown key {unknown[0]!r}; the keys are {', '.join(_KEYS)}")
    if shape is not None:
        images = fit_images(images, shape)
    if np.issubdtype(images.dtype, np.floating):
        return images if images.dtype in (np.float32, np.float64) else images.astype(np.float32)
    if images.dtype != np.uint8:
        raise DataError(f"preprocess: images are {images.dtype}, expected uint8 or a float type")
    if "resize" in config:
        h, w = config["resize"]
        images = backend.asarray(_resize(backend.to_host(images), h, w), backend.device_of(images))
    if _reversed(config.get("bgr", False), images):
        images = images[..., ::-1]
    return _standardise(images, config.get("mean", 0.0), config.get("std", 1.0), config.get("scale", 1.0))


def fit_images(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Images resized, grey repeated to three channels, colour averaged to grey.  (N, H, W, C) -> (N, *shape)

    Bilinear. The dtype, uint8 or float, stays. Images that already fit are returned as they are. ShapeError
    if images do not have four axes or the numbers of channels differ in another way.
    """
    _check_axes("fit_images", images)
    h, w, c = shape
    have = images.shape[3]
    if have == 3 and c == 1:
        grey = images.mean(axis=3, keepdims=True)  # float64 for uint8 images
        images = (grey.round() if images.dtype == np.uint8 else grey).astype(images.dtype, copy=False)
    elif have != c and not (have == 1 and c == 3):
        raise ShapeError(
            f"fit_images: images have {have} channels (last axis of {images.shape}) but {c} are "
            f"wanted (last of {tuple(shape)}); only 1 and 3 are turned into each other"
        )
    images = _resize(images, h, w)
    return images.repeat(3, axis=3) if images.shape[3] != c else images


def _check_axes(op: str, images: np.ndarray) -> None:
    if images.ndim != 4:
        raise ShapeError(f"{op}: images have shape {images.shape}, expected (N, H, W, C)")


def _random_crop(images: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
    """Each image's window of the old size, at a random place of the image padded with zeros."""
    n, h, w, c = images.shape
    padded = np.zeros((n, h + 2 * padding, w + 2 * padding, c), images.dtype)
    padded[:, padding : padding + h, padding : padding + w] = images
    tops, lefts = rng.integers(0, 2 * padding + 1, (2, n)).tolist()
    out = np.empty(images.shape, images.dtype)
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        out[i] = padded[i, top : top + h, left : left + w]
    return out


def _reversed(bgr: Any, images: np.ndarray) -> bool:
    if not isinstance(bgr, bool):
        raise ValueError(f"preprocess: bgr is {bgr!r}, it must be True or False")
    if bgr and images.shape[3] != 3:
        raise ShapeError(f"preprocess: bgr is True, but images have {images.shape[3]} channels, not 3")
    return bgr


def _standardise(images: np.ndarray, mean: Any, std: Any, factor: Any) -> np.ndarray:
    """factor * (x / 255 - mean) / std as one multiply-add in float32."""
    n, h, w, c = images.shape
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    for name, values in (("mean", mean), ("std", std)):
        if values.shape not in ((), (1,), (c,)):
            raise ShapeError(
                f"preprocess: {name} has shape {values.shape} but images have {c} channels "
                f"(last axis of {images.shape})"
            )
    if not (std > 0).all():
        raise ValueError(f"preprocess: std is {std.tolist()}, every number must be positive")
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < np.inf:
        raise ValueError(f"preprocess: scale is {factor!r}, it must be a positive number")
    if backend.device_of(images) != "cpu":
        return backend.of(images).standardise(images, mean, std, factor)
    # one long row per image: a loop over C alone would be too short to vectorise
    scale = np.tile(np.broadcast_to(factor / (255 * std), c).astype(np.float32), h * w)
    shift = np.tile(np.broadcast_to(-factor * mean / std, c).astype(np.float32), h * w)
    out = images.reshape(n, h * w * c).astype(np.float32)
    out *= scale
    out += shift
    return out.reshape(n, h, w, c)


def _resize(images: np.ndarray, h: int, w: int) -> np.ndarray:
    """Bilinear, with Pillow's wider filter when shrinking.  (N, H, W, C) -> (N, h, w, C)"""
    if images.shape[1:3] == (h, w):
        return images
    if min(h, w) < 1:
        raise ShapeError(f"resize: size is {(h, w)}, expected (H, W), each at least 1")
    from PIL import Image

    n, c = images.shape[0], images.shape[3]
    planes = images if images.dtype == np.uint8 else images.astype(np.float32, copy=False)
    out = np.empty((n, h, w, c), planes.dtype)
    for i in range(n):
        for channel in range(c):
            plane = Image.fromarray(np.ascontiguousarray(planes[i, :, :, channel]))  # mode L or F
            out[i, :, :, channel] = plane.resize((w, h), Image.Resampling.BILINEAR)
    return out.astype(images.dtype, copy=False)
