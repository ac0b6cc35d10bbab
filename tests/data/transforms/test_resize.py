"""Tests of minidl/data/transforms/resize.py."""

import numpy as np
import pytest

from minidl.data.transforms import fit_images
from minidl.errors import ShapeError


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, 7, 6, 3), dtype=np.uint8)


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
        fit_images(images[0, ..., 0], (7, 6, 1))
