"""From uint8 images to what a model takes: a fixed formula, its numbers plain data (`Model.preprocess`)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minidl import backend
from minidl.data.transforms.contrast import ZCA, global_contrast_normalise, local_contrast_normalise
from minidl.data.transforms.resize import centre_crop, check_axes, fit_images, resize
from minidl.errors import DataError, ShapeError

_CONTRAST: dict[str, Callable[..., np.ndarray]] = {  # in the order they are done
    "gcn": global_contrast_normalise,
    "lcn": local_contrast_normalise,
    "zca": lambda images, mean, matrix: ZCA(mean, matrix)(images),
}
_LARGEST_SIDE = 9000  # pixels: a square of it is what pictures.MAX_PIXELS allows
_KEYS = ("fitted", "resize", "crop", "bgr", *_CONTRAST, "mean", "std", "scale")


def preprocess(
    images: np.ndarray, config: Mapping[str, Any] | None = None, shape: tuple[int, int, int] | None = None
) -> np.ndarray:
    """The images as a model takes them.  (N, H, W, C) uint8 -> float32

    y = scale * (x / 255 - mean) / std; without a config y = x / 255. The config has any of the keys

    fitted     what `fit_preprocess` was asked for; not used
    resize     [H, W], bilinear, before all else
    bgr        True reverses the channels, as Caffe's models expect
    gcn, lcn   options of `global_contrast_normalise` and `local_contrast_normalise`; they take x / 255
    zca        "mean" and "matrix" of a `ZCA`; these three in the order gcn, lcn, zca, see `fit_preprocess`
    mean, std  one number, C of them, or a whole image (H, W, C), in the order the model sees
    scale      1; 255 for models of images in 0..255
    crop       [H, W], the middle, after all else: a mean image is as large as what is cut

    Float images pass unchanged: they are taken to be preprocessed. Images on another device stay there, if by
    way of the host where `on_host` says so. With `shape` images of either kind are first fitted to it, see
    `fit_images`. ShapeError unless images have four axes, mean and std such a shape, bgr images 3 channels;
    ValueError for an unknown key, a std or scale that is not positive or a bgr that is no bool; DataError for
    images of another type.
    """
    check_axes("preprocess", images)
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
    device = backend.device_of(images)
    if device != "cpu" and on_host(config):
        return backend.asarray(preprocess(backend.to_host(images), config), device)
    if "resize" in config:
        images = backend.asarray(resize(backend.to_host(images), *config["resize"]), device)
    if _reversed(config.get("bgr", False), images):
        images = images[..., ::-1]
    for key in _CONTRAST:
        if key in config:
            images = _CONTRAST[key](_as_float(images), **config[key])
    y = _standardise(images, config.get("mean", 0.0), config.get("std", 1.0), config.get("scale", 1.0))
    return centre_crop(y, *config["crop"]) if "crop" in config else y


def check_config(config: Any) -> None:
    """Look at a config from a file.  ValueError, naming the key, for what `preprocess` cannot take.

    Sizes are bounded: an image that is resized takes at most as much memory as the largest that is decoded.
    """
    if config is None:
        return
    if type(config) is not dict:
        raise ValueError(f"preprocess is a {type(config).__name__}, not a table")
    for key, value in config.items():
        if key not in _KEYS:
            raise ValueError(f"preprocess: unknown key {str(key)[:100]!r}; the keys are {', '.join(_KEYS)}")
        if not _plausible(key, value):
            raise ValueError(f"preprocess: {key} is {str(value)[:100]}, which makes no sense")


def _plausible(key: str, value: Any) -> bool:
    if key in ("fitted", "bgr"):
        return isinstance(value, str if key == "fitted" else bool)
    if key in ("resize", "crop"):
        sides = value if isinstance(value, list) and len(value) == 2 else [0]
        return all(type(side) is int and 1 <= side <= _LARGEST_SIDE for side in sides)
    if key in ("gcn", "lcn", "zca"):
        if not isinstance(value, Mapping) or (key == "zca" and set(value) != {"mean", "matrix"}):
            return False
        numbers = all(np.asarray(part).dtype.kind in "if" for part in value.values())
        return numbers and (key != "lcn" or value.get("size", 9) < _LARGEST_SIDE)
    return np.asarray(value).dtype.kind in "if" and np.ndim(value) <= 3


def on_host(config: Mapping[str, Any] | None) -> bool:
    """Whether a config asks for what only the host computes: contrast, whitening, a mean or std image."""
    config = config or {}
    return any(key in config for key in _CONTRAST) or any(
        np.ndim(config.get(key, 0.0)) > 1 for key in ("mean", "std")
    )


def _as_float(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images


def _reversed(bgr: Any, images: np.ndarray) -> bool:
    if not isinstance(bgr, bool):
        raise ValueError(f"preprocess: bgr is {bgr!r}, it must be True or False")
    if bgr and images.shape[3] != 3:
        raise ShapeError(f"preprocess: bgr is True, but images have {images.shape[3]} channels, not 3")
    return bgr


def _standardise(images: np.ndarray, mean: Any, std: Any, factor: Any) -> np.ndarray:
    """factor * (x - mean) / std as one multiply-add in float32; x is divided by 255 first if uint8."""
    n, h, w, c = images.shape
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    for name, values in (("mean", mean), ("std", std)):
        if values.shape not in ((), (1,), (c,), (h, w, c)):
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
    unit = 255 if images.dtype == np.uint8 else 1
    # one long row per image: a loop over C alone would be too short to vectorise
    scale = np.broadcast_to(factor / (unit * std), (h, w, c)).astype(np.float32).reshape(-1)
    shift = np.broadcast_to(-factor * mean / std, (h, w, c)).astype(np.float32).reshape(-1)
    out = images.reshape(n, h * w * c).astype(np.float32)
    out *= scale
    out += shift
    return out.reshape(n, h, w, c)
