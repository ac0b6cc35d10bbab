"""Images of another size or number of channels; bilinear, by Pillow."""

import numpy as np

from minidl.errors import ShapeError


def fit_images(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Images resized, grey repeated to three channels, colour averaged to grey.  (N, H, W, C) -> (N, *shape)

    Bilinear. The dtype, uint8 or float, stays. Images that already fit are returned as they are. ShapeError
    if images do not have four axes or the numbers of channels differ in another way.
    """
    check_axes("fit_images", images)
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
    images = resize(images, h, w)
    return images.repeat(3, axis=3) if images.shape[3] != c else images


def centre_crop(images: np.ndarray, h: int, w: int) -> np.ndarray:
    """The middle of each image, a view.  (N, H, W, C) -> (N, h, w, C)

    Where a margin is odd the spare row or column is cut at the end. ShapeError if images are smaller.
    """
    check_axes("centre_crop", images)
    rows, columns = images.shape[1:3]
    if not (1 <= h <= rows and 1 <= w <= columns):
        raise ShapeError(
            f"centre_crop: {h}x{w} cannot be cut out of images of {rows}x{columns} (axes 1 and 2 of "
            f"{images.shape}); resize them first"
        )
    top, left = (rows - h) // 2, (columns - w) // 2
    return images[:, top : top + h, left : left + w]


def resize(images: np.ndarray, h: int, w: int) -> np.ndarray:
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


def check_axes(op: str, images: np.ndarray) -> None:
    """ShapeError unless images have four axes."""
    if images.ndim != 4:
        raise ShapeError(f"{op}: images have shape {images.shape}, expected (N, H, W, C)")
