"""Contrast normalisation and whitening, on images of any float type.

The formulas are those of the networks that used them: Maxout (Goodfellow et al. 2013, arXiv:1302.4389) and
Network in Network after it took CIFAR with every image's contrast made equal and ZCA-whitened, SVHN with the
contrast made equal from place to place.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from minidl.backend.blas_threads import numpy_on_one_thread
from minidl.data.transforms.resize import check_axes
from minidl.errors import DTypeError, ShapeError

_NUMBERS = 1000 * 32 * 32 * 3  # of images looked at together, so that a data set is never held as floats
_LARGEST = 12_288  # numbers in an image that can be whitened: its covariance takes 1.2 GB


def global_contrast_normalise(
    images: np.ndarray, *, scale: float = 55.0, bias: float = 0.0, eps: float = 1e-8
) -> np.ndarray:
    """Each image less its mean, at one length.  (N, H, W, C) -> (N, H, W, C)

    y = scale * (x - mean(x)) / sqrt(bias + sum((x - mean(x))**2)), per image, over all its channels; an image
    whose root is below eps is only centred. With the default scale a 32x32x3 image has about unit variance.
    Goodfellow et al. 2013, arXiv:1302.4389, section 5.2, with the constants of their code.  DTypeError unless
    images are floats.
    """
    _check_float("global_contrast_normalise", images)
    flat = images.reshape(len(images), -1)
    centred = flat - flat.mean(axis=1, dtype=np.float64, keepdims=True).astype(flat.dtype)
    length = np.sqrt(bias + np.einsum("nd,nd->n", centred, centred, dtype=np.float64))
    centred *= np.where(length < eps, 1.0, scale / np.maximum(length, eps)).astype(flat.dtype)[:, None]
    return centred.reshape(images.shape)


def local_contrast_normalise(images: np.ndarray, *, size: int = 9, eps: float = 1e-4) -> np.ndarray:
    """Each pixel less the mean around it, over the deviation around it.  (N, H, W, C) -> (N, H, W, C)

    v = x - w * x; y = v / max(s, mean(s), eps), s = sqrt(w * v**2), each channel by itself: w is a Gaussian
    window of size x size pixels, normalised, with standard deviation size / 4; beyond the border the image
    is mirrored. The mean of s is over the image's channel.
    Jarrett et al. 2009, "What is the best multi-stage architecture for object recognition?", section 2.1, on
    each channel as in Zeiler and Fergus 2013, arXiv:1301.3557.  ValueError unless size is odd, DTypeError
    unless images are floats.
    """
    _check_float("local_contrast_normalise", images)
    if size < 3 or size % 2 == 0:
        raise ValueError(f"local_contrast_normalise: size is {size}, it must be odd and at least 3")
    from scipy import ndimage

    reach = np.arange(size) - size // 2
    window = np.exp(-0.5 * (reach / (size / 4)) ** 2)
    window /= window.sum()

    def around(x: np.ndarray) -> np.ndarray:
        rows = ndimage.correlate1d(x, window, axis=1, mode="reflect")
        return ndimage.correlate1d(rows, window, axis=2, mode="reflect")

    v = images - around(images)
    deviation = np.sqrt(around(v * v))
    least = np.maximum(deviation.mean(axis=(1, 2), keepdims=True), eps)
    return v / np.maximum(deviation, least)


class ZCA(NamedTuple):
    """A whitening: y = (x - mean) @ matrix, x an image as a row of D = H * W * C numbers.

    mean (D,), matrix (D, D) symmetric, float32
    """

    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, C) -> (N, H, W, C).  ShapeError unless H * W * C = D"""
        flat = images.reshape(len(images), -1)
        if flat.shape[1:] != self.mean.shape:
            raise ShapeError(
                f"ZCA: images of {images.shape[1:]} have {flat.shape[1]} numbers each, but the whitening was "
                f"fitted to {len(self.mean)}"
            )
        with numpy_on_one_thread:  # beside the training step, which uses all cores
            return ((flat - self.mean) @ self.matrix).reshape(images.shape)


def fit_zca(rows: Any, bias: float = 0.1) -> ZCA:
    """The whitening that turns the covariance of images into (nearly) the identity, changing them least.

    matrix = (X'X / N + bias * I)**(-1/2), X the centred images as rows. `rows` is an iterable of arrays
    (n, H, W, C), gone through once; sums are in float64.
    Bell and Sejnowski 1997, "The independent components of natural scenes are edge filters"; the bias of 0.1
    is that of Goodfellow et al. 2013.  ValueError for a negative bias, fewer than two images, or larger ones
    than a covariance can be computed of.
    """
    if not bias >= 0:
        raise ValueError(f"zca: bias is {bias}, it must be at least 0")
    count, origin, total, products = 0, np.zeros(0), np.zeros(0), np.zeros((0, 0))
    for images in rows:
        flat = images.reshape(len(images), -1)
        if not count:  # any point near the mean: float32 products of large numbers would lose the small ones
            if flat.shape[1] > _LARGEST:
                raise ValueError(
                    f"zca: images of {images.shape[1:]} have {flat.shape[1]} numbers each, the covariance of "
                    f"at most {_LARGEST} is computed; use smaller images, or another preprocessing"
                )
            origin = flat.mean(axis=0)
            total, products = np.zeros(len(origin)), np.zeros((len(origin), len(origin)))
        flat = flat - origin
        count += len(flat)
        total += flat.sum(axis=0, dtype=np.float64)
        products += flat.T @ flat
    if count < 2:
        raise ValueError(f"zca: a covariance needs at least two images, not {count}")
    from scipy import linalg

    mean = total / count
    covariance = products / count - np.outer(mean, mean)
    covariance[np.diag_indices(len(mean))] += bias
    values, vectors = linalg.eigh(covariance, overwrite_a=True, check_finite=False)
    lowest = np.finfo(np.float32).eps * values[-1]  # a direction without variance must not become infinite
    matrix = (vectors / np.sqrt(np.maximum(values, lowest))) @ vectors.T
    return ZCA((mean + origin).astype(np.float32), matrix.astype(np.float32))


def _check_float(op: str, images: np.ndarray) -> None:
    check_axes(op, images)
    if not np.issubdtype(images.dtype, np.floating):
        raise DTypeError(f"{op}: images are {images.dtype}, they must be floats; divide them by 255 first")


def batches(images: Any) -> Iterator[np.ndarray]:
    """The images of a data set, some at a time."""
    count = max(1, _NUMBERS // math.prod(images.shape[1:]))
    for start in range(0, len(images), count):
        yield np.asarray(images[start : start + count])
