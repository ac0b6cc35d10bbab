"""The views of an image that a prediction is the mean of: crops, mirrors and sizes, as the papers test with.

Every view is cut from the images as they are stored, so before the model's preprocessing, and a batch gives
one view of all its images at a time: no more is ever in memory.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minidl.data.transforms.resize import centre_crop, resize
from minidl.errors import ShapeError
from minidl.nn import Module
from minidl.train.inputs import Kind, check_fit

Cut = Callable[[np.ndarray], Iterator[np.ndarray]]  # (N, H, W, C) -> views (N, h, w, C), one after another
Size = tuple[int, int]  # rows and columns

COUNTS = (1, 10, 144)
_NATIVE = 224  # of the papers' crops; the sides below belong to it
_TEN_SIDE = 256
_MANY_SIDES = (256, 288, 320, 352)


@dataclass(frozen=True)
class Views:
    """Which views are asked for: the arguments of `Model.evaluate` and `Model.predict` of these names."""

    crops: int = 1
    scales: Sequence[int] | None = None
    crop_size: int | Size | None = None
    resize: int | None = None


def plan(model: Module, kind: Kind, asked: Views, where: str) -> Cut | None:
    """How to cut the views of images of this kind for the model; None for the images as they are.

    ValueError for options that are none or exclude each other, ShapeError for sizes that the model or an
    image cannot have, DataError or ShapeError for images that do not fit the model.
    """
    if _whole(asked.crops) not in COUNTS:
        raise ValueError(f"{where}: crops is {asked.crops!r}, it must be 1, 10 or 144")
    if asked.scales is not None and asked.crops != 1:
        raise ValueError(
            f"{where}: crops={asked.crops} and scales exclude each other: scales shows the whole image, at "
            "several sizes; leave one of them out"
        )
    if asked.crop_size is not None and asked.crops == 1:
        raise ValueError(f"{where}: crop_size is for crops=10 or crops=144; leave it out")
    if asked.resize is not None and asked.crops != 10:
        raise ValueError(f"{where}: resize is for crops=10; leave it out")
    if asked.scales is not None:
        sides = _sides(model, asked.scales, where)
        _check_views(model, kind, (min(sides), min(sides)), where)
        return partial(scaled, sides=sides)
    if asked.crops == 1:
        check_fit(model, kind, where)
        return None
    size = _crop_size(model, asked, where)
    _check_views(model, kind, size, where)
    if asked.crops == 144:
        return partial(many_crops, size=size)
    side = _side(size, _TEN_SIDE) if asked.resize is None else _whole(asked.resize)
    if side is None:
        raise ValueError(f"{where}: resize is {asked.resize!r}, expected a shorter side in pixels, as in 256")
    if side < max(size):
        raise ShapeError(
            f"{where}: crops of {_text(size)} cannot be cut from images whose shorter side is resize={side}; "
            f"give a resize of at least {max(size)}"
        )
    return partial(ten_crops, size=size, side=side)


def ten_crops(images: np.ndarray, size: Size, side: int) -> Iterator[np.ndarray]:
    """The corners and the centre of the middle square, plain and mirrored.  (N, H, W, C) -> 10 (N, *size, C)

    The shorter side is first made `side` long. Krizhevsky et al. 2012, sections 2 (the square) and 4.1.
    """
    square = centre_crop(shorter_side(images, side), side, side)
    for crop in _corners_and_centre(square, size):
        yield from _and_mirror(crop)


def many_crops(images: np.ndarray, size: Size) -> Iterator[np.ndarray]:
    """GoogLeNet's 4 * 3 * 6 * 2 views.  (N, H, W, C) -> 144 (N, *size, C)

    The shorter side is made 256, 288, 320 and 352 long (for crops of 224, in proportion for others); of each
    of these the left, centre and right square (of an upright image the top, centre and bottom one); of each
    square the four corners, the centre and the square itself, resized; of each of these its mirror image.
    Of a square image the three squares are one, and so 48 views are all there are, with the same mean.
    Szegedy et al. 2014, arXiv:1409.4842, section 7.
    """
    for native in _MANY_SIDES:
        for square in _squares(shorter_side(images, _side(size, native))):
            for crop in (*_corners_and_centre(square, size), resize(square, *size)):
                yield from _and_mirror(crop)


def scaled(images: np.ndarray, sides: Sequence[int]) -> Iterator[np.ndarray]:
    """The whole image with its shorter side at each of `sides`, plain and mirrored.  -> 2 * len(sides) views

    He et al. 2015, arXiv:1512.03385, section 3.4: after Simonyan and Zisserman 2014, arXiv:1409.1556.
    """
    for side in sides:
        yield from _and_mirror(shorter_side(images, side))


def shorter_side(images: np.ndarray, side: int) -> np.ndarray:
    """Images resized so that their shorter side is `side` long, in proportion.  (N, H, W, C) -> (N, h, w, C)

    Images that are so already are returned as they are.
    """
    h, w = images.shape[1:3]
    short = min(h, w)
    return resize(images, *(side if each == short else round(each * side / short) for each in (h, w)))


def _corners_and_centre(images: np.ndarray, size: Size) -> Iterator[np.ndarray]:
    h, w = size
    bottom, right = images.shape[1] - h, images.shape[2] - w
    for top, left in ((0, 0), (0, right), (bottom, 0), (bottom, right)):
        yield images[:, top : top + h, left : left + w]
    yield centre_crop(images, h, w)


def _squares(images: np.ndarray) -> Iterator[np.ndarray]:
    h, w = images.shape[1:3]
    side, spare = min(h, w), abs(h - w)
    for start in (0, spare // 2, spare) if spare else (0,):
        top, left = (start, 0) if h > w else (0, start)
        yield images[:, top : top + side, left : left + side]


def _and_mirror(images: np.ndarray) -> Iterator[np.ndarray]:
    yield np.ascontiguousarray(images)
    yield np.ascontiguousarray(images[:, :, ::-1])


def _side(size: Size, native: int) -> int:
    """The shorter side that is to crops of `size` as `native` is to the papers'."""
    return round(max(size) * native / _NATIVE)


def _crop_size(model: Module, asked: Views, where: str) -> Size:
    expected, smallest = getattr(model, "input_shape", None), getattr(model, "smallest", None)
    if asked.crop_size is None:
        if expected is None:
            raise ValueError(
                f"{where}: crops={asked.crops} of which size? {name(model)} has no input_shape; give "
                "crop_size=(H, W)"
            )
        return expected[0], expected[1]
    given = asked.crop_size
    h, w, *more = map(_whole, given if isinstance(given, Sequence) and len(given) > 1 else (given, given))
    if h is None or w is None or more or min(h, w) < 1:
        raise ValueError(
            f"{where}: crop_size is {given!r}, expected a side in pixels or (rows, columns), each at least 1"
        )
    if expected is not None and (h, w) != tuple(expected[:2]) and (smallest is None or min(h, w) < smallest):
        raise ShapeError(
            f"{where}: crop_size is {_text((h, w))}, but {name(model)} takes {_text(expected[:2])}"
            f"{'' if smallest is None else f' or any size from {smallest}x{smallest} on'}"
        )
    return h, w


def _sides(model: Module, scales: Sequence[int], where: str) -> list[int]:
    sides = [_whole(side) or 0 for side in scales] if isinstance(scales, Iterable) else []
    if not sides or min(sides) < 1:
        raise ValueError(f"{where}: scales is {scales!r}, expected shorter sides in pixels, as in (256, 288)")
    expected, smallest = getattr(model, "input_shape", None), getattr(model, "smallest", None)
    if expected is not None and smallest is None:
        raise ShapeError(
            f"{where}: scales is {tuple(sides)}, but {name(model)} takes images of {_text(expected[:2])} "
            "alone; use crops=10 or crops=144"
        )
    if smallest is not None and min(sides) < smallest:
        raise ShapeError(
            f"{where}: scales has {min(sides)}, but the smallest images that {name(model)} takes are "
            f"{smallest}x{smallest}"
        )
    return sides


def _whole(value: Any) -> int | None:
    """An option as an integer; None for what is none, such as 8.0, "8" and True."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _check_views(model: Module, kind: Kind, size: Size, where: str) -> None:
    """`check_fit` for views of this size; images with other channels are reported as they are."""
    expected = getattr(model, "input_shape", None)
    if len(kind.shape) == 3 and (expected is None or kind.shape[2] == expected[2]):
        kind = dataclasses.replace(kind, shape=(*size, kind.shape[2]), is_uint8=False)
    check_fit(model, kind, where)


def name(model: Module) -> str:
    """What a message calls a model: as it was built, else its class."""
    return model.config["name"] if hasattr(model, "config") else type(model).__name__


def _text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
