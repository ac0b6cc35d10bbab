"""Augmentation and preprocessing."""

import numpy as np
import pytest

from minidl.data import transforms
from minidl.data.transforms import compose, fit_images, flip, pad_crop, parse, preprocess, translate
from minidl.errors import DataError, ShapeError

# one unit in the last place of float32, at the largest result below (about 10), some ten times over
TOLERANCE = 1e-5


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (40, 7, 6, 3), dtype=np.uint8)  # no zeros: the filling is 0


def shifted(image, down, right):
    """The image moved by loops over its pixels, 0 where nothing comes from."""
    out = np.zeros_like(image)
    h, w, _ = image.shape
    for i in range(h):
        for j in range(w):
            if 0 <= i - down < h and 0 <= j - right < w:
                out[i, j] = image[i - down, j - right]
    return out


@pytest.mark.parametrize("transform", [pad_crop(2), translate(2)])
def test_every_image_is_moved_by_its_own_distance(transform, images):
    seen = set()
    for before, after in zip(images, transform(images, np.random.default_rng(1)), strict=True):
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


def test_flip_mirrors_about_half_of_the_images(images):
    out = flip()(images, np.random.default_rng(2))
    flipped = (out == images[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (out == images).all(axis=(1, 2, 3))
    assert (flipped ^ same).all()
    assert 10 < flipped.sum() < 30


def test_compose_applies_in_order_with_one_generator(images):
    both = compose(pad_crop(1), flip())(images, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    assert np.array_equal(both, flip()(pad_crop(1)(images, rng), rng))


@pytest.mark.parametrize(
    "transform", [pad_crop(2), pad_crop(0), flip(), translate(3), compose(), compose(flip(), pad_crop(1))]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_augmentation_keeps_shape_and_dtype_and_never_writes_its_input(transform, dtype, images):
    before = images.astype(dtype)[::2, :, ::-1]  # not contiguous
    kept = before.copy()
    after = transform(before, np.random.default_rng(4))
    assert (after.shape, after.dtype) == (before.shape, before.dtype)
    assert np.array_equal(before, kept)
    again = transform(before, np.random.default_rng(4))
    assert np.array_equal(after, again)


def test_augmentations_print_as_they_are_written():
    augment = compose(pad_crop(), flip(), translate(1))
    assert repr(augment) == "compose(pad_crop(padding=4), flip(), translate(max_pixels=1))"
    assert pad_crop(4) == pad_crop()


@pytest.mark.parametrize("make", [pad_crop, translate])
def test_negative_distance_is_refused(make):
    with pytest.raises(ValueError, match="is -1, it must be at least 0"):
        make(-1)


def test_parse():
    assert parse("flip") == flip()
    assert parse("crop") == pad_crop(4)
    assert parse("translate") == translate(2)
    assert parse("crop + flip") == compose(pad_crop(4), flip())
    for text in ("mirror", "crop+", ""):
        with pytest.raises(ValueError, match=r"there is no .*; the names are crop, flip, translate"):
            parse(text)


def test_preprocess_standardises_each_channel(images):
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.1, 0.3]
    out = preprocess(images, {"mean": mean, "std": std})
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    np.testing.assert_allclose(out, (images / 255.0 - mean) / std, rtol=0, atol=TOLERANCE)


def test_preprocess_for_weights_of_caffe(images):
    """BGR in 0..255, less a mean that is given in that order."""
    mean = np.array([104, 117, 123])
    out = preprocess(images, {"mean": (mean / 255).tolist(), "bgr": True, "scale": 255})
    assert out.flags.c_contiguous
    np.testing.assert_allclose(out, images[..., ::-1] - mean, rtol=0, atol=255 * TOLERANCE)
    np.testing.assert_array_equal(preprocess(images, {"bgr": False, "scale": 1}), preprocess(images))


@pytest.mark.parametrize("config", [None, {}])
def test_preprocess_without_config_divides_by_255(config, images):
    images = images[::2, ::-1]  # not contiguous
    np.testing.assert_allclose(preprocess(images, config), images / 255.0, rtol=0, atol=TOLERANCE)


def test_preprocess_leaves_float_images_alone(images):
    config = {"mean": [0.5], "std": [0.2], "resize": [9, 9]}
    for dtype in (np.float32, np.float64):
        floats = images.astype(dtype)
        assert preprocess(floats, config) is floats
    assert preprocess(images.astype(np.float16), config).dtype == np.float32


def test_preprocess_resizes_and_fits():
    flat = np.full((2, 8, 8, 1), 51, np.uint8)
    out = preprocess(flat, {"resize": [28, 20], "mean": [0.1], "std": [0.5]})
    assert out.shape == (2, 28, 20, 1)
    np.testing.assert_allclose(out, 0.2, rtol=0, atol=TOLERANCE)
    assert preprocess(flat, {"mean": [0, 0, 0]}, shape=(4, 4, 3)).shape == (2, 4, 4, 3)
    assert preprocess(flat.astype(np.float32), shape=(4, 4, 3)).shape == (2, 4, 4, 3)


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        ({"mean": [0.5] * 2}, ShapeError, r"mean has shape \(2,\) but images have 3 channels \(last"),
        ({"std": [[0.5] * 3]}, ShapeError, r"std has shape \(1, 3\) but images have 3"),
        ({"std": [0.5, 0.0, 0.5]}, ValueError, r"std is \[0\.5, 0\.0, 0\.5\], every number must be positive"),
        ({"means": [0.5]}, ValueError, "unknown key 'means'; the keys are mean, std, resize, bgr, scale"),
        ({"bgr": 1}, ValueError, "bgr is 1, it must be True or False"),
        ({"scale": 0}, ValueError, "scale is 0, it must be a positive number"),
        ({"scale": True}, ValueError, "scale is True"),
        ({"scale": [255]}, ValueError, r"scale is \[255\]"),
        ({"scale": float("inf")}, ValueError, "scale is inf"),
        ({"resize": [0, 5]}, ShapeError, r"resize: size is \(0, 5\)"),
    ],
)
def test_preprocess_refuses_a_wrong_config(config, error, text, images):
    with pytest.raises(error, match=text):
        preprocess(images, config)


def test_preprocess_refuses_other_images(images):
    with pytest.raises(DataError, match="images are int64, expected uint8 or a float type"):
        preprocess(images.astype(np.int64))
    with pytest.raises(ShapeError, match=r"images have shape \(7, 6, 3\), expected \(N, H, W, C\)"):
        preprocess(images[0])
    with pytest.raises(ShapeError, match="bgr is True, but images have 1 channels, not 3"):
        preprocess(images[..., :1], {"bgr": True})
    assert preprocess(images[:0]).shape == (0, 7, 6, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_resize_is_bilinear_in_each_channel(dtype):
    images = np.zeros((2, 2, 2, 2), dtype)
    images[0, :, 1, 0] = images[1, 1, :, 1] = 200
    out = fit_images(images, (4, 4, 2))
    assert out.dtype == dtype
    # centres of the new pixels lie at 1/4, 3/4, 5/4, 7/4: the inner two mix both old ones, 3 : 1
    assert out[0, :, :, 0].tolist() == [[0, 50, 150, 200]] * 4
    assert out[1, :, :, 1].T.tolist() == [[0, 50, 150, 200]] * 4
    assert not out[0, :, :, 1].any()


def test_fit_images_turns_grey_and_colour_into_each_other(images):
    grey = images[..., :1]
    assert np.array_equal(fit_images(grey, (7, 6, 3)), np.concatenate([grey] * 3, axis=3))
    averaged = fit_images(images, (7, 6, 1))
    assert averaged.dtype == np.uint8
    np.testing.assert_allclose(averaged[..., 0], images.mean(axis=3), atol=0.5)
    assert fit_images(images, (7, 6, 3)) is images
    floats = fit_images(images.astype(np.float32), (5, 5, 1))
    assert (floats.shape, floats.dtype) == ((40, 5, 5, 1), np.float32)


def test_fit_images_refuses_other_channels(images):
    with pytest.raises(ShapeError, match=r"3 channels \(last axis of \(40, 7, 6, 3\)\) but 4 are wanted"):
        fit_images(images, (7, 6, 4))
    with pytest.raises(ShapeError, match=r"fit_images: images have shape \(7, 6\)"):
        transforms.fit_images(images[0, ..., 0], (7, 6, 1))
