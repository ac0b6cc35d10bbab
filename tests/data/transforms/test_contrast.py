"""Contrast normalisation and whitening against the same formulas written with SciPy's own tools."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, signal
from threadpoolctl import threadpool_info

from minidl.data.transforms import ZCA, fit_zca, global_contrast_normalise, local_contrast_normalise
from minidl.errors import DTypeError, ShapeError

ROUNDING = 1e-5  # relative, of some hundred float32 operations


def pictures(shape: tuple[int, ...], seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    """Neighbouring pixels are alike, as in photographs."""
    noise = np.random.default_rng(seed).random((*shape[:1], shape[1] + 2, shape[2] + 2, shape[3]))
    return sum(noise[:, i : i + shape[1], j : j + shape[2]] for i in range(3) for j in range(3)).astype(dtype)


@given(
    n=st.integers(1, 4),
    shape=st.tuples(st.integers(1, 7), st.integers(2, 7), st.sampled_from([1, 3])),
    scale=st.floats(0.5, 60),
    bias=st.sampled_from([0.0, 10.0]),
)
def test_gcn_centres_each_image_and_gives_it_one_length(n, shape, scale, bias):
    images = pictures((n, *shape))
    before = images.copy()
    y = global_contrast_normalise(images, scale=scale, bias=bias)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(images, before)
    for image, got in zip(images.astype(np.float64), y, strict=True):
        centred = image - image.mean()
        expected = scale * centred / np.sqrt(bias + linalg.norm(centred) ** 2)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=scale * ROUNDING)
        if not bias:
            assert np.isclose(linalg.norm(got), scale, rtol=1e-4)


def test_gcn_of_an_image_without_contrast_is_zero_and_not_nan():
    images = np.full((2, 4, 4, 3), 0.25, np.float32)
    np.testing.assert_array_equal(global_contrast_normalise(images), np.zeros_like(images))


def test_zca_is_the_inverse_root_of_the_covariance():
    images = pictures((300, 4, 5, 3))
    rows = images.reshape(300, -1).astype(np.float64)
    zca = fit_zca([images[:120], images[120:]], bias=0.1)
    expected = linalg.inv(linalg.sqrtm(np.cov(rows.T, bias=True) + 0.1 * np.eye(60)))
    np.testing.assert_allclose(zca.mean, rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(zca.matrix, expected, atol=1e-5)
    np.testing.assert_allclose(zca(images).reshape(300, -1), (rows - rows.mean(axis=0)) @ expected, atol=1e-4)
    np.testing.assert_array_equal(zca.matrix, zca.matrix.T)


def test_zca_without_a_bias_makes_the_covariance_the_identity():
    images = pictures((4000, 3, 3, 1), dtype=np.float64).astype(np.float32)
    white = fit_zca([images], bias=0.0)(images).reshape(4000, -1)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(9), atol=2e-3)


def test_zca_is_exact_for_images_far_from_zero():
    """Sums of products of large float32 numbers would lose the small variance."""
    images = 100 + pictures((500, 2, 3, 1)) / 10
    rows = images.reshape(500, -1).astype(np.float64)
    expected = linalg.inv(linalg.sqrtm(np.cov(rows.T, bias=True) + 0.01 * np.eye(6)))
    np.testing.assert_allclose(fit_zca([images], bias=0.01).matrix, expected, rtol=1e-3, atol=1e-3)


def test_zca_leaves_directions_without_variance_finite():
    images = np.repeat(pictures((50, 2, 2, 1)), 2, axis=2)  # every column twice: half of the directions
    zca = fit_zca([images], bias=0.0)
    assert np.isfinite(zca.matrix).all()
    assert np.abs(zca(images)).max() < 100


def test_zca_works_on_one_thread_and_gives_the_threads_back():
    before = [(each["filepath"], each["num_threads"]) for each in threadpool_info()]
    images = pictures((20, 4, 4, 3))
    fit_zca([images])(images)
    assert [(each["filepath"], each["num_threads"]) for each in threadpool_info()] == before


def test_zca_in_several_threads_at_once_gives_the_threads_back():
    before = [(each["filepath"], each["num_threads"]) for each in threadpool_info()]
    images = pictures((200, 8, 8, 3))
    zca = fit_zca([images])
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(zca, [images] * 40))
    assert all(np.array_equal(result, results[0]) for result in results)
    assert [(each["filepath"], each["num_threads"]) for each in threadpool_info()] == before


@pytest.mark.parametrize(("images", "bias", "text"), [
    (pictures((1, 2, 2, 1)), 0.1, "at least two images, not 1"),
    (pictures((3, 2, 2, 1)), -1.0, "bias is -1.0, it must be at least 0"),
    (np.zeros((2, 224, 224, 3), np.float32), 0.1, "150528 numbers each, the covariance of at most"),
])  # fmt: skip
def test_zca_refuses(images, bias, text):
    with pytest.raises(ValueError, match=text):
        fit_zca([images], bias=bias)


def test_zca_refuses_images_of_another_size():
    zca = ZCA(np.zeros(12, np.float32), np.eye(12, dtype=np.float32))
    with pytest.raises(ShapeError, match=r"images of \(3, 3, 3\) have 27 numbers each, but .* fitted to 12"):
        zca(pictures((2, 3, 3, 3)))


@given(
    shape=st.tuples(st.integers(5, 12), st.integers(5, 12), st.sampled_from([1, 3])),
    size=st.sampled_from([3, 5, 9]),
)
def test_lcn_equals_convolutions_with_the_window(shape, size):
    images = pictures((2, *shape), dtype=np.float64)
    got = local_contrast_normalise(images, size=size)
    line = signal.windows.gaussian(size, std=size / 4)
    window = np.outer(line, line) / np.outer(line, line).sum()

    def around(plane: np.ndarray) -> np.ndarray:
        padded = np.pad(plane, size // 2, mode="symmetric")
        return signal.convolve2d(padded, window, mode="valid")

    for n in range(2):
        for c in range(shape[2]):
            plane = images[n, :, :, c]
            v = plane - around(plane)
            deviation = np.sqrt(around(v**2))
            expected = v / np.maximum(np.maximum(deviation, deviation.mean()), 1e-4)
            np.testing.assert_allclose(got[n, :, :, c], expected, rtol=1e-9, atol=1e-9)


def test_lcn_of_an_image_without_contrast_is_zero_and_not_nan():
    flat = np.full((1, 6, 6, 1), 0.5, np.float32)
    np.testing.assert_allclose(local_contrast_normalise(flat), 0, atol=1e-2)
    assert local_contrast_normalise(flat).dtype == np.float32


@pytest.mark.parametrize("normalise", [global_contrast_normalise, local_contrast_normalise])
def test_bytes_are_refused(normalise):
    with pytest.raises(DTypeError, match="images are uint8, they must be floats; divide them by 255 first"):
        normalise(np.zeros((2, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("size", [0, 1, 4])
def test_lcn_refuses_an_even_window(size):
    with pytest.raises(ValueError, match=f"size is {size}, it must be odd and at least 3"):
        local_contrast_normalise(pictures((1, 8, 8, 1)), size=size)
