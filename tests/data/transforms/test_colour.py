"""Tests of minidl/data/transforms/colour.py."""

import colorsys
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from minidl.data.transforms import colour, colour_jitter, fit_lighting, lighting
from minidl.errors import DataError, ShapeError

STEPS = ("brightness", "contrast", "saturation", "hue")
NONE = dict.fromkeys(STEPS, 0.0)
# The reference computes in float64. Contrast of an almost grey image and hue of an almost grey pixel divide
# float32 differences by each other: some ten times its unit in the last place.
TOLERANCE = 1e-5


class Scripted:
    """A generator whose uniform numbers all lie at `share` of their range, and whose choice is `order`."""

    def __init__(self, share, order=0):
        self.share, self.order = share, order

    def uniform(self, low, high, size):
        return np.broadcast_to(np.add(low, self.share * np.subtract(high, low)), size)

    def integers(self, low, high, size):
        return np.full(size, low + self.order)


def photo(seed, dtype=np.uint8, h=6, w=5, c=3, n=1):
    """Images of smooth colours with some noise, all values from 0 to full."""
    rng = np.random.default_rng(seed)
    corners = rng.random((n, 2, 2, c))
    down, across = (np.stack([1 - x, x]) for x in (np.linspace(0, 1, h), np.linspace(0, 1, w)))
    image = np.einsum("nabc,ai,bj->nijc", corners, down, across) + rng.normal(0, 0.1, (n, h, w, c))
    image = image.clip(0, 1)
    return (image * 255).round().astype(np.uint8) if dtype == np.uint8 else image.astype(dtype)


def grey(pixel):
    return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def jittered(image, steps):
    """The steps, (name, factor) each, done pixel by pixel to an image in 0..1."""
    image = [[tuple(map(float, pixel)) for pixel in row] for row in image]
    for name, f in steps:
        mean = np.mean([grey(pixel) for row in image for pixel in row])

        def changed(pixel, name=name, f=f, mean=mean):
            if name == "hue":
                h, s, v = colorsys.rgb_to_hsv(*pixel)
                return colorsys.hsv_to_rgb((h + f) % 1, s, v)
            other = {"brightness": 0, "contrast": mean, "saturation": grey(pixel)}[name]
            return tuple(min(max(f * x + (1 - f) * other, 0), 1) for x in pixel)

        image = [[changed(pixel) for pixel in row] for row in image]
    return np.array(image)


@given(
    st.integers(0, 2**32),
    st.floats(0, 1),
    st.fixed_dictionaries({name: st.floats(0, 0.5) for name in STEPS}),
    st.integers(0, 23),
    st.sampled_from([np.uint8, np.float32, np.float64]),
)
def test_every_step_is_its_formula_in_the_order_drawn(seed, share, strengths, order, dtype):
    active = [name for name in STEPS if strengths[name] > 0]
    orders = list(itertools.permutations(active))
    image = photo(seed, dtype)
    out = colour_jitter(**strengths)(image, Scripted(share, order % len(orders)))
    steps = [
        (name, strengths[name] * (2 * share - 1) + (name != "hue")) for name in orders[order % len(orders)]
    ]
    assert (out.shape, out.dtype) == (image.shape, dtype)
    if dtype == np.uint8:
        np.testing.assert_allclose(out[0] / 255, jittered(image[0] / 255, steps), rtol=0, atol=0.501 / 255)
    else:
        np.testing.assert_allclose(out[0], jittered(image[0], steps), rtol=0, atol=TOLERANCE)


@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0.05, 1))
@pytest.mark.parametrize(
    ("name", "enhance", "levels"),
    [
        ("brightness", ImageEnhance.Brightness, 1),  # Pillow cuts off what we round
        ("contrast", ImageEnhance.Contrast, 2),  # ... and takes a whole number for the mean
        ("saturation", ImageEnhance.Color, 2),  # ... and for each pixel's grey
    ],
)
def test_a_step_alone_agrees_with_pillow(name, enhance, levels, seed, share, strength):
    image = photo(seed, h=16, w=12)
    out = colour_jitter(**NONE | {name: strength})(image, Scripted(share))
    expected = enhance(Image.fromarray(image[0])).enhance(1 + strength * (2 * share - 1))
    assert np.abs(out[0].astype(int) - np.asarray(expected)).max() <= levels


@given(st.integers(0, 2**32), st.sampled_from([0, 1 / 3, 0.5, 2 / 3, 1]))
def test_hue_alone_agrees_with_colorsys(seed, share):
    pixels = photo(seed, np.float64)
    turn = 0.5 * (2 * share - 1)
    out = colour_jitter(**NONE | {"hue": 0.5})(pixels, Scripted(share))
    for before, after in zip(pixels.reshape(-1, 3), out.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before)
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb((h + turn) % 1, s, v), rtol=0, atol=TOLERANCE)


def test_pure_colours_go_round_the_circle():
    wheel = np.uint8([[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255]])
    turn = colour_jitter(**NONE | {"hue": 0.5})
    for sixths in range(-3, 4):
        out = turn(wheel[None, None], Scripted(0.5 + sixths / 6))
        assert np.array_equal(out[0, 0], np.roll(wheel, -sixths, axis=0))


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_extreme_strengths_stay_within_the_limits(seed, share):
    for dtype, top in ((np.uint8, 255), (np.float32, 1)):
        out = colour_jitter(5, 5, 5, 0.5)(photo(seed, dtype), Scripted(share))
        assert np.isfinite(out).all()
        assert out.min() >= 0
        assert out.max() <= top


def test_factors_are_never_negative():
    flat = np.full((1, 1, 1, 3), 0.1, np.float32)
    for share in (0, 0.3, 1):
        out = colour_jitter(**NONE | {"brightness": 5})(flat, Scripted(share))
        np.testing.assert_allclose(out, 0.1 * 6 * share, rtol=TOLERANCE)


def test_factors_are_uniform_and_each_image_has_its_own():
    flat = np.full((6000, 1, 1, 1), 0.5, np.float32)
    out = colour_jitter(**NONE | {"brightness": 0.4})(flat, np.random.default_rng(3)).ravel()
    counts, _ = np.histogram(out / 0.5, bins=30, range=(0.6, 1.4))
    assert counts.sum() == 6000
    assert ((counts - 200) ** 2 / 200).sum() < 29 + 6 * np.sqrt(2 * 29)  # chi-square


def test_steps_are_drawn_independently():
    """Of two levels in an image, their mean tells the brightness and their ratio the contrast."""
    image = np.float32([0.4, 0.6]).reshape(1, 1, 2, 1).repeat(4000, axis=0)
    low, high = colour_jitter(0.2, 0.2)(image, np.random.default_rng(5)).reshape(4000, 2).T
    brightness = (low + high) / 1.0
    contrast = (high - low) / brightness / 0.2
    assert np.abs(np.corrcoef(brightness, contrast)[0, 1]) < 4 / np.sqrt(4000)
    for factor in (brightness, contrast):
        assert 0.8 - TOLERANCE <= factor.min() < 0.81
        assert 1.19 < factor.max() <= 1.2 + TOLERANCE


def test_all_orders_are_drawn_alike():
    image = photo(1)
    jitter = colour_jitter(hue=0.2)
    results = [jitter(image, Scripted(0.95, order)).tobytes() for order in range(24)]
    assert len(set(results)) > 12  # some orders make no difference: only clipping makes one, and hue

    class Fixed(Scripted):
        def integers(self, low, high, size):
            return np.random.default_rng(7).integers(low, high, size)

    many = jitter(image.repeat(24 * 100, axis=0), Fixed(0.95))
    found = [each.tobytes() for each in many]
    for result in set(results):
        expected = 100 * results.count(result)
        assert abs(found.count(result) - expected) < 5 * np.sqrt(expected)


def test_large_batches_are_worked_on_in_parts(monkeypatch):
    images = photo(2, n=30)
    whole = colour_jitter(hue=0.1)(images, np.random.default_rng(0))
    monkeypatch.setattr(colour, "_CHUNK", 1)
    assert np.array_equal(colour_jitter(hue=0.1)(images, np.random.default_rng(0)), whole)


def test_strength_nought_changes_nothing():
    for dtype in (np.uint8, np.float16, np.float32, np.float64):
        images = photo(4, dtype, n=3)
        out = colour_jitter(**NONE)(images, np.random.default_rng(0))
        assert np.array_equal(out, images)
        assert not np.shares_memory(out, images)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_grey_images_have_no_saturation_and_no_hue(dtype):
    images = photo(5, dtype, n=7, c=1)
    out = colour_jitter(0, 0, 0.9, 0.5)(images, np.random.default_rng(0))
    assert np.array_equal(out, images)
    for order in (0, 1):
        one = colour_jitter(0.5, 0.5)(images, Scripted(0.8, order))
        three = colour_jitter(0.5, 0.5, 0)(images.repeat(3, axis=3), Scripted(0.8, order))
        np.testing.assert_allclose(one.repeat(3, axis=3), three, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("make", [colour_jitter, lighting])
def test_what_is_no_image_in_its_limits_is_refused(make):
    images = photo(6, np.float32)
    rng = np.random.default_rng(0)
    standardised = (images - 0.5) / 0.25
    name = make.__name__
    cure = r"it works on uint8 images or floats in 0\.\.1: put it before the preprocessing"
    with pytest.raises(DataError, match=rf"^{name}: images hold values from -[12].* to [12].*; {cure}$"):
        make()(standardised, rng)
    for value in (-0.01, 1.01, np.nan, np.inf):
        images[0, 2, 3, 1] = value
        with pytest.raises(DataError, match=f"images hold values from .*; {cure}"):
            make()(images, rng)
    with pytest.raises(DataError, match=rf"{name}: images are int64, expected uint8 or floats in 0\.\.1"):
        make()(photo(6).astype(np.int64), rng)


def test_only_grey_and_colour_are_jittered():
    with pytest.raises(
        ShapeError, match=r"colour_jitter: images have 4 channels \(last axis of \(1, 6, 5, 4\)\)"
    ):
        colour_jitter()(photo(0, c=4), np.random.default_rng(0))


@pytest.mark.parametrize("c", [1, 4])
@pytest.mark.parametrize("use", [lambda images: lighting()(images, np.random.default_rng(0)), fit_lighting])
def test_lighting_is_for_colour(c, use):
    with pytest.raises(
        ShapeError, match=rf"lighting: images have {c} channels \(last axis of \(1, 6, .*, not 3"
    ):
        use(photo(0, c=c))


@pytest.mark.parametrize(
    ("make", "options", "text"),
    [
        (colour_jitter, {"brightness": -0.1}, r"brightness is -0\.1, it must be a number of at least 0"),
        (colour_jitter, {"contrast": np.nan}, "colour_jitter: contrast is nan"),
        (colour_jitter, {"saturation": np.inf}, "saturation is inf"),
        (colour_jitter, {"saturation": (0, 1)}, r"saturation is \(0, 1\)"),
        (colour_jitter, {"hue": 0.6}, r"colour_jitter: hue is 0\.6, it must be a number in 0\.\.0\.5"),
        (colour_jitter, {"hue": True}, "hue is True"),
        (lighting, {"std": -1}, "lighting: std is -1, it must be a number of at least 0"),
        (
            lighting,
            {"vectors": ((1, 2, 3),)},
            r"vectors is \(\(1, 2, 3\),\), it must be 3 x 3 finite numbers",
        ),
        (lighting, {"vectors": "ImageNet"}, "vectors is 'ImageNet'"),
        (lighting, {"vectors": np.full((3, 3), np.nan)}, "it must be 3 x 3 finite numbers"),
    ],
)
def test_wrong_options_are_refused(make, options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)


# Krizhevsky et al. 2012, section 4.1, for ImageNet: columns are eigenvectors
P = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
L = np.array([0.2175, 0.0188, 0.0045])


@given(st.integers(0, 2**32), st.floats(0, 3), st.sampled_from([np.uint8, np.float32, np.float64]))
def test_lighting_is_its_formula(seed, std, dtype):
    images = photo(seed, dtype, n=3)
    top = 255 if dtype == np.uint8 else 1
    out = lighting(std)(images, np.random.default_rng(seed))
    assert (out.shape, out.dtype) == (images.shape, dtype)
    a = np.random.default_rng(seed).normal(0, std, (3, 3))
    for before, after, factors in zip(images, out, a, strict=True):
        noise = sum(P[:, i] * factors[i] * L[i] for i in range(3))
        expected = (before / top + noise).clip(0, 1)
        atol = 0.501 / 255 if dtype == np.uint8 else TOLERANCE
        np.testing.assert_allclose(after / top, expected, rtol=0, atol=atol)


def test_the_eigenvectors_of_imagenet_are_orthonormal():
    np.testing.assert_allclose(P.T @ P, np.eye(3), atol=2e-4)  # they have four decimals
    middle = np.full((20_000, 1, 1, 3), 0.5)
    shift = (lighting(0.1)(middle, np.random.default_rng(1)) - 0.5).reshape(-1, 3)
    np.testing.assert_allclose(np.std(shift @ P, axis=0), 0.1 * L, rtol=0.03)
    np.testing.assert_allclose(shift.mean(axis=0), 0, atol=5 * 0.1 * L[0] / np.sqrt(20_000))


def test_lighting_moves_along_the_vectors_given():
    vectors = np.array([[0.2, 0, 0], [0, 0.01, 0], [0, 0, 0]])
    red = lighting(1.0, vectors)
    assert red.vectors == ((0.2, 0.0, 0.0), (0.0, 0.01, 0.0), (0.0, 0.0, 0.0))
    shift = red(np.full((1000, 2, 2, 3), 0.5), np.random.default_rng(0)) - 0.5
    assert not shift[..., 2].any()
    assert np.ptp(shift, axis=(1, 2)).max() == 0
    assert np.std(shift[..., 0]) > 10 * np.std(shift[..., 1]) > 0


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_lighting_is_fitted_to_the_covariance_of_the_colours(dtype, monkeypatch):
    monkeypatch.setattr(colour, "_PIXELS", 7 * 30)  # seven images at a time
    images = photo(7, dtype, n=40)
    images[..., 2] //= 2 if dtype == np.uint8 else 1
    fitted = fit_lighting(images, std=0.2)
    assert fitted.std == 0.2
    vectors = np.array(fitted.vectors)
    values = np.linalg.norm(vectors, axis=1)
    assert values[0] > values[1] > values[2]
    colours = images.reshape(-1, 3) / (255.0 if dtype == np.uint8 else 1.0)
    covariance = np.cov(colours.T, bias=True)
    directions = vectors / values[:, None]
    np.testing.assert_allclose(directions.T @ np.diag(values) @ directions, covariance, rtol=0, atol=1e-6)


def test_lighting_of_images_without_pixels_cannot_be_fitted():
    with pytest.raises(ValueError, match="fit_lighting: images have no pixels"):
        fit_lighting(photo(0)[:0])
    with pytest.raises(
        ShapeError, match=r"fit_lighting: images have shape \(6, 5, 3\), expected \(N, H, W, C\)"
    ):
        fit_lighting(photo(0)[0])
    with pytest.raises(
        DataError, match=r"fit_lighting: images hold values from 1\.?.* to 1\..*; it works on"
    ):
        fit_lighting(photo(0, np.float32) + 1)
