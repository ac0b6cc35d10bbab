"""Tests of minidl/data/transforms/preprocess.py."""

import numpy as np
import pytest

from minidl.data.transforms import preprocess
from minidl.errors import DataError, ShapeError

# one unit in the last place of float32, at the largest result below (about 10), some ten times over
TOLERANCE = 1e-5


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, 7, 6, 3), dtype=np.uint8)


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
        ({"means": [0.5]}, ValueError, "unknown key 'means'; the keys are .*mean, std, scale"),
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
