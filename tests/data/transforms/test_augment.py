"""Tests of minidl/data/transforms/augment.py, and of what all augmentations have in common."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import streams
from minidl.data import Loader
from minidl.data.transforms import (
    colour_jitter,
    compose,
    cutout,
    flip,
    lighting,
    pad_crop,
    parse,
    random_crop,
    random_resized_crop,
    translate,
)
from minidl.errors import DataError, ShapeError

ALL = [
    pad_crop(2),
    pad_crop(0),
    translate(3),
    flip(),
    random_crop((5, 4)),
    random_resized_crop((5, 9)),
    cutout(3, fill=(9, 8, 7)),
    colour_jitter(hue=0.1),
    lighting(0.5),
    compose(),
    compose(flip(), random_crop(4), colour_jitter(), cutout(2)),
]
SAME_SIZE = [
    pad_crop(2),
    pad_crop(0),
    translate(3),
    flip(),
    cutout(3),
    cutout(1),
    compose(flip(), pad_crop(1)),
]
RANDOM = [each for each in ALL if each not in (pad_crop(0), compose())]

# Chi-square: about as many as there are degrees of freedom, give or take the root of twice that. Draws are
# seeded, so the bound of six such deviations is passed or not once and for all.
DEVIATIONS = 6


def check_uniform(counts):
    """The draws fell into all cells alike."""
    counts = np.asarray(counts).ravel()
    expected = counts.sum() / counts.size
    assert expected >= 20  # below that the bound means little
    surplus = ((counts - expected) ** 2 / expected).sum() - (counts.size - 1)
    assert surplus < DEVIATIONS * np.sqrt(2 * (counts.size - 1))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (40, 7, 6, 3), dtype=np.uint8)  # no zeros: the filling is 0


def numbered(n, h, w, c=1):
    """Images whose pixels are all different."""
    return np.arange(n * h * w * c, dtype=np.float32).reshape(n, h, w, c)


@st.composite
def batches(draw, least=1):
    """Images of any size and type, uint8 or floats in 0..1; half of them are no contiguous array."""
    n, h, w = draw(st.integers(0, 4)), draw(st.integers(least, 9)), draw(st.integers(least, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    images = rng.integers(1, 256, (2 * n, h, w, draw(st.sampled_from([1, 3]))), np.uint8)
    dtype = draw(st.sampled_from([np.uint8, np.float32, np.float64]))
    images = images if dtype == np.uint8 else (images / 255).astype(dtype)
    return images[::2, :, ::-1] if draw(st.booleans()) else images[:n]


def shifted(image, down, right):
    """The image moved by loops over its pixels, 0 where nothing comes from."""
    out = np.zeros_like(image)
    h, w, _ = image.shape
    for i in range(h):
        for j in range(w):
            if 0 <= i - down < h and 0 <= j - right < w:
                out[i, j] = image[i - down, j - right]
    return out


@pytest.mark.parametrize("augment", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_augmentation_keeps_the_type_and_never_writes_its_input(augment, dtype, images):
    if dtype != np.uint8:
        images = (images / 255).astype(dtype)
    before = images[::2, :, ::-1]  # not contiguous
    kept = before.copy()
    before.flags.writeable = False
    after = augment(before, np.random.default_rng(4))
    assert (len(after), after.shape[3], after.dtype) == (20, 3, dtype)
    assert np.array_equal(before, kept)
    assert not np.shares_memory(before, after) or augment == compose()
    assert np.array_equal(after, augment(np.ascontiguousarray(before), np.random.default_rng(4)))
    assert np.isfinite(after).all()


@pytest.mark.parametrize("augment", RANDOM, ids=repr)
def test_all_that_is_random_comes_from_the_generator(augment, images):
    results = [augment(images, np.random.default_rng(seed)).tobytes() for seed in range(5)]
    assert len(set(results)) == 5


@pytest.mark.parametrize("augment", ALL, ids=repr)
def test_a_batch_of_one_and_of_none(augment, images):
    for n in (0, 1):
        after = augment(images[:n], np.random.default_rng(0))
        assert (len(after), after.dtype) == (n, np.uint8)


@given(batches=batches(), seed=st.integers(0, 2**32), augment=st.sampled_from(SAME_SIZE))
def test_shapes_stay(batches, seed, augment):
    after = augment(batches, np.random.default_rng(seed))
    assert (after.shape, after.dtype) == (batches.shape, batches.dtype)
    assert np.isin(after, np.append(batches, 0)).all()


@pytest.mark.parametrize("augment", RANDOM, ids=repr)
def test_an_epoch_is_the_same_however_it_is_prepared(augment, images):
    def epoch(prefetch, workers):
        streams.manual_seed(5)
        loader = Loader(
            images, np.arange(40), 7, shuffle=True, augment=augment, prefetch=prefetch, workers=workers
        )
        return [x.tobytes() for x, _ in loader]

    plain = epoch(0, 1)
    assert len(set(plain)) == 6
    for prefetch, workers in [(1, 1), (3, 1), (1, 2), (2, 3)]:
        assert epoch(prefetch, workers) == plain


@pytest.mark.parametrize("augment", [each for each in ALL if not isinstance(each, compose)], ids=repr)
def test_images_without_four_axes_are_refused(augment, images):
    name = type(augment).__name__
    with pytest.raises(ShapeError, match=rf"{name}: images have shape \(7, 6, 3\), expected \(N, H, W, C\)"):
        augment(images[0], np.random.default_rng(0))


@pytest.mark.parametrize("augment", [pad_crop(2), translate(2)])
def test_every_image_is_moved_by_its_own_distance(augment, images):
    seen = set()
    for before, after in zip(images, augment(images, np.random.default_rng(1)), strict=True):
        moves = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(after, shifted(before, down, right))
        ]
        assert len(moves) == 1
        seen.update(moves)
    assert len(seen) > 15  # of 25
    assert {down for down, _ in seen} == {right for _, right in seen} == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("make", [pad_crop, translate])
def test_distances_are_uniform(make):
    image = np.zeros((1, 7, 7, 1), np.uint8)
    image[0, 3, 3] = 1  # stays in the image wherever it is moved to
    out = make(3)(image.repeat(49 * 100, axis=0), np.random.default_rng(8))
    check_uniform(out.sum(axis=0, dtype=np.int64))


@given(batches=batches(), seed=st.integers(0, 2**32))
def test_flipping_is_its_own_inverse(batches, seed):
    once, twice = flip()(batches, np.random.default_rng(seed)), flip()
    assert np.array_equal(twice(once, np.random.default_rng(seed)), batches)
    for before, after in zip(batches, once, strict=True):
        assert np.array_equal(after, before) or np.array_equal(after, before[:, ::-1])


def test_about_half_of_the_images_are_mirrored():
    out = flip()(numbered(1, 1, 2).repeat(10_000, axis=0), np.random.default_rng(2))
    check_uniform([(out[:, 0, 0, 0] == 0).sum(), (out[:, 0, 0, 0] == 1).sum()])


@given(st.data(), st.integers(0, 2**32))
def test_a_random_crop_is_a_window_of_its_image(data, seed):
    n, h, w, c = (data.draw(st.integers(1, most)) for most in (3, 9, 9, 4))
    rows, columns = data.draw(st.integers(1, h)), data.draw(st.integers(1, w))
    images = numbered(n, h, w, c)
    out = random_crop((rows, columns))(images, np.random.default_rng(seed))
    assert out.shape == (n, rows, columns, c)
    for i in range(n):
        number = int(out[i, 0, 0, 0]) - int(images[i, 0, 0, 0])
        top, left = divmod(number // c, w)
        assert np.array_equal(out[i], images[i, top : top + rows, left : left + columns])


def test_random_crops_are_uniform():
    out = random_crop((4, 3))(numbered(1, 7, 9).repeat(4 * 7 * 100, axis=0), np.random.default_rng(3))
    places, counts = np.unique(out[:, 0, 0, 0], return_counts=True)
    assert places.tolist() == [9 * i + j for i in range(4) for j in range(7)]
    check_uniform(counts)


def test_a_crop_of_the_whole_image_is_the_image(images):
    whole = random_crop((7, 6))(images, np.random.default_rng(0))
    assert np.array_equal(whole, images)
    assert random_crop(6) != random_crop((6, 6))
    assert random_crop(6)(images, np.random.default_rng(0)).shape == (40, 6, 6, 3)


@pytest.mark.parametrize("size", [8, (7, 7), (8, 1)])
def test_a_crop_larger_than_the_images_is_refused(size, images):
    with pytest.raises(
        ShapeError, match=r"random_crop: \dx\d cannot be cut out of images of 7x6 \(axes 1 and 2"
    ):
        random_crop(size)(images, np.random.default_rng(0))


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted),
    st.integers(0, 2**32),
)
def test_resized_windows_have_the_area_and_the_shape_asked_for(h, w, scale, ratio, seed):
    crop = random_resized_crop(4, scale=tuple(scale), ratio=tuple(ratio))
    boxes = crop.boxes(20, h, w, np.random.default_rng(seed))
    left, top, right, bottom = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= w).all()
    assert (bottom <= h).all()
    rows, columns = bottom - top, right - left
    assert (np.minimum(rows, columns) >= 1).all()
    # sides are rounded to whole pixels, and up to 1: these are the bounds of what they were
    (least_h, most_h), (least_w, most_w) = (
        (np.where(side == 1, 0, side - 0.5), side + 0.5) for side in (rows, columns)
    )
    assert (least_w <= ratio[1] * most_h * (1 + 1e-9)).all()
    assert (most_w >= ratio[0] * least_h * (1 - 1e-9)).all()
    middle = (left == (w - columns) // 2) & (top == (h - rows) // 2)  # where no window fits, for one
    assert ((least_h * least_w <= scale[1] * h * w) | middle).all()
    assert ((most_h * most_w >= scale[0] * h * w) | middle).all()


def test_resized_windows_are_uniform_in_area_shape_and_place():
    """In a square image every window of at most 3/4 of the area fits at the first try."""
    side = 1000
    crop = random_resized_crop(4, scale=(0.1, 0.7))
    left, top, right, bottom = crop.boxes(4000, side, side, np.random.default_rng(6)).T
    columns, rows = right - left, bottom - top

    def spread(values, low, high):
        return np.histogram(values, bins=20, range=(low, high))[0]

    area = spread(rows * columns / side**2, 0.1, 0.7)
    shape = spread(np.log(columns / rows), np.log(3 / 4), np.log(4 / 3))
    assert area.sum() > 3980  # rounding to whole pixels takes a few across the border
    assert shape.sum() > 3980
    for counts in (area, shape, spread(left / (side - columns), 0, 1), spread(top / (side - rows), 0, 1)):
        check_uniform(counts)


@pytest.mark.parametrize(("h", "w"), [(10, 30), (30, 10)])
def test_a_window_may_be_as_large_as_the_shorter_side(h, w):
    crop = random_resized_crop(4, scale=(1 / 3, 1 / 3), ratio=(1.0, 1.0))
    boxes = crop.boxes(21 * 50, h, w, np.random.default_rng(0))
    assert (boxes[:, 2:] - boxes[:, :2] == 10).all()
    check_uniform(np.bincount(boxes[:, :2].sum(axis=1), minlength=21))


@pytest.mark.parametrize(
    ("h", "w", "box"),
    [
        (3, 100, [48, 0, 52, 3]),
        (100, 3, [0, 48, 3, 52]),
        (1000, 1000, [0, 0, 1000, 1000]),
        (1, 1, [0, 0, 1, 1]),
    ],
)
def test_where_no_window_fits_the_middle_is_taken(h, w, box):
    crop = random_resized_crop(4, scale=(1.0, 1.0))
    assert crop.boxes(5, h, w, np.random.default_rng(0)).tolist() == [box] * 5


def triangles(length, low, high, out):
    """Weights (out, length) of old pixels in the new ones, which divide low .. high: a triangle each."""
    scale = (high - low) / out
    centres = low + (np.arange(out) + 0.5) * scale
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None])
    weights = np.maximum(1 - distance / max(scale, 1), 0)
    return weights / weights.sum(axis=1, keepdims=True)


@given(batches(), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32))
def test_resized_windows_are_bilinear(images, h, w, seed):
    crop = random_resized_crop((h, w), scale=(0.2, 1.0))
    out = crop(images, np.random.default_rng(seed))
    n, rows, columns, c = images.shape
    assert (out.shape, out.dtype) == ((n, h, w, c), images.dtype)
    boxes = crop.boxes(n, rows, columns, np.random.default_rng(seed))
    # uint8 is rounded after the columns and after the rows; floats are float32
    tolerance = 1.01 if images.dtype == np.uint8 else 1e-6
    for image, after, (left, top, right, bottom) in zip(images, out, boxes, strict=True):
        down, across = triangles(rows, top, bottom, h), triangles(columns, left, right, w)
        expected = np.einsum("ip,jq,pqc->ijc", down, across, image)
        np.testing.assert_allclose(after, expected, rtol=0, atol=tolerance)
        known = image if image.dtype == np.uint8 else image.astype(np.float32)  # as Pillow sees it
        assert known.min() <= after.min()
        assert after.max() <= known.max()


def test_a_window_of_its_own_size_is_copied(images):
    crop = random_resized_crop((7, 6), scale=(1.0, 1.0), ratio=(6 / 7, 6 / 7))
    assert np.array_equal(crop(images, np.random.default_rng(0)), images)


def test_only_images_that_pillow_knows_are_resized(images):
    with pytest.raises(
        DataError, match="random_resized_crop: images are int64, expected uint8 or a float type"
    ):
        random_resized_crop(4)(images.astype(np.int64), np.random.default_rng(0))


@pytest.mark.parametrize("augment", [random_resized_crop(4), cutout()])
def test_images_without_pixels_are_refused(augment, images):
    with pytest.raises(ShapeError, match=r"images of shape \(40, 0, 6, 3\) have no pixels"):
        augment(images[:, :0], np.random.default_rng(0))


@given(batches(), st.integers(1, 12), st.integers(0, 2**32))
def test_cutout_covers_a_square_that_the_border_clips(images, size, seed):
    h, w = images.shape[1:3]
    out = cutout(size)(images, np.random.default_rng(seed))
    reach = range(-(size // 2), size - size // 2)
    for before, after in zip(images, out, strict=True):
        covered = (after == 0).all(axis=2)
        assert np.array_equal(after[~covered], before[~covered])
        squares = [
            {(i + di, j + dj) for di in reach for dj in reach if 0 <= i + di < h and 0 <= j + dj < w}
            for i in range(h)
            for j in range(w)
        ]
        assert set(zip(*map(np.ndarray.tolist, np.nonzero(covered)), strict=True)) in squares


def test_the_centres_of_cutout_are_uniform():
    out = cutout(1)(np.ones((24 * 100, 4, 6, 1), np.uint8), np.random.default_rng(9))
    check_uniform((out == 0).sum(axis=0))


def test_cutout_fills_with_what_is_asked_for(images):
    out = cutout(40, fill=(125, 123, 114))(images, np.random.default_rng(0))
    assert (out == [125, 123, 114]).all()
    floats = images.astype(np.float32)
    assert (cutout(40, fill=-0.5)(floats, np.random.default_rng(0)) == -0.5).all()


@pytest.mark.parametrize("fill", [-1, 256, 0.5, (0, 0, 300)])
def test_uint8_images_cannot_hold_every_fill(fill, images):
    with pytest.raises(
        DataError, match=r"cutout: fill is .*, but uint8 images hold whole numbers in 0\.\.255"
    ):
        cutout(fill=fill)(images, np.random.default_rng(0))


def test_a_fill_has_a_number_for_each_channel(images):
    with pytest.raises(
        ShapeError, match=r"fill has 2 numbers but images have 3 channels \(last axis of \(40, 7,"
    ):
        cutout(fill=(1, 2))(images, np.random.default_rng(0))


def test_compose_applies_in_order_with_one_generator(images):
    both = compose(pad_crop(1), flip())(images, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    assert np.array_equal(both, flip()(pad_crop(1)(images, rng), rng))


@pytest.mark.parametrize("augment", [each for each in ALL if not isinstance(each, compose)], ids=repr)
def test_augmentations_print_as_they_are_written(augment):
    assert parse(repr(augment)) == augment
    assert hash(parse(repr(augment))) == hash(augment)


def test_a_composition_prints_its_steps():
    augment = compose(pad_crop(), flip(), translate(1))
    assert repr(augment) == "compose(pad_crop(padding=4), flip(), translate(max_pixels=1))"


@pytest.mark.parametrize(
    ("make", "options", "text"),
    [
        (pad_crop, {"padding": -1}, "pad_crop: padding is -1, it must be a whole number of at least 0"),
        (pad_crop, {"padding": 1.5}, r"padding is 1\.5, it must be a whole number"),
        (
            translate,
            {"max_pixels": -1},
            "translate: max_pixels is -1, it must be a whole number of at least 0",
        ),
        (translate, {"max_pixels": True}, "max_pixels is True"),
        (
            random_crop,
            {"size": 0},
            r"random_crop: size is 0, it must be a whole number of at least 1, or \(h, w\)",
        ),
        (random_crop, {"size": (3, 0)}, r"size is \(3, 0\)"),
        (random_crop, {"size": (3, 4, 5)}, r"size is \(3, 4, 5\)"),
        (random_crop, {"size": [3, 4]}, r"size is \[3, 4\]"),
        (random_crop, {"size": 2.0}, r"size is 2\.0"),
        (random_resized_crop, {"size": "8"}, "random_resized_crop: size is '8'"),
        (random_resized_crop, {"size": 8, "scale": (0, 1)}, r"scale is \(0, 1\), .* 0 < low <= high <= 1"),
        (random_resized_crop, {"size": 8, "scale": (0.5, 1.1)}, r"scale is \(0\.5, 1\.1\)"),
        (random_resized_crop, {"size": 8, "scale": 0.5}, r"scale is 0\.5, it must be \(low, high\)"),
        (random_resized_crop, {"size": 8, "ratio": (2, 1)}, r"ratio is \(2, 1\), .* 0 < low <= high$"),
        (random_resized_crop, {"size": 8, "ratio": (1, np.inf)}, r"ratio is \(1, inf\)"),
        (random_resized_crop, {"size": 8, "ratio": (1, "2")}, r"ratio is \(1, '2'\)"),
        (cutout, {"size": 0}, "cutout: size is 0, it must be a whole number of at least 1"),
        (cutout, {"fill": np.nan}, "cutout: fill is nan, it must be a finite number, or a tuple of them"),
        (cutout, {"fill": ()}, r"fill is \(\)"),
        (cutout, {"fill": "black"}, "fill is 'black'"),
    ],
)
def test_wrong_options_are_refused(make, options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)


def test_parse():
    assert parse("flip") == flip()
    assert parse("crop") == pad_crop(4)
    assert parse("translate") == translate(2)
    assert parse("crop + flip") == compose(pad_crop(4), flip())
    assert parse("random_resized_crop(112)+flip+colour_jitter(hue=0.1)") == compose(
        random_resized_crop(112), flip(), colour_jitter(hue=0.1)
    )
    assert parse("random_crop((5, 4)) + cutout(8, fill=(1, 2, 3)) + lighting(0.05)") == compose(
        random_crop((5, 4)), cutout(8, fill=(1, 2, 3)), lighting(0.05)
    )


@pytest.mark.parametrize("text", ["mirror", "flip+jitter", "colour_jitter.hue", "(1)(2)"])
def test_parse_lists_the_names(text):
    names = (
        "crop, pad_crop, translate, flip, random_crop, random_resized_crop, colour_jitter, lighting, cutout"
    )
    with pytest.raises(ValueError, match=f"augmentation .*: there is no .*; the names are {names}"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("flip(1)", r"flip\(1\) does not work: .* positional argument"),
        ("crop(-1)", r"crop\(-1\) does not work: pad_crop: padding is -1"),
        ("random_crop", "random_crop does not work: .* missing 1 required positional argument: 'size'"),
        ("flip+colour_jitter(hue=2)", r"colour_jitter\(hue=2\) does not work: colour_jitter: hue is 2"),
    ],
)
def test_parse_says_which_arguments_do_not_work(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse(text)
