"""Tests of minidl/data/pictures.py."""

import numpy as np
import pytest
from PIL import Image

from minidl.data import pictures
from minidl.errors import DataError


@pytest.mark.parametrize(
    ("mode", "channels"),
    [
        ("1", 1),
        ("L", 1),
        ("LA", 1),
        ("P", 3),
        ("RGB", 3),
        ("RGBA", 3),
    ],
)
def test_images_are_grey_or_colour(tmp_path, mode, channels):
    path = tmp_path / "image.png"
    Image.new(mode, (5, 4)).save(path)
    image = pictures.read_image(path)
    assert image.shape == (1, 4, 5, channels)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, channels), np.uint8)
    pictures.write_image(tmp_path / "image.png", image)
    np.testing.assert_array_equal(pictures.read_image(tmp_path / "image.png"), image[None])


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: there is no such file"):
        pictures.read_image(tmp_path / "none.png")


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_a_damaged_image_is_named(tmp_path, keep):
    path = tmp_path / "cut.png"
    pictures.write_image(path, np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cut\.png cannot be read as an image"):
        pictures.read_image(path)


def test_the_grid_has_a_row_for_each_class():
    images = np.stack([np.full((32, 40, 3), shade, np.uint8) for shade in (10, 20, 30, 40)])
    grid = pictures.class_grid(images, np.array([1, 0, 1, 1]), num_classes=3, columns=2)
    assert grid.shape == (3 * 33 + 1, 2 * 41 + 1, 3)
    cells = grid[1::33, 1::41, 0]
    np.testing.assert_array_equal(cells[:, :2], [[20, 255], [10, 30], [255, 255]])


def test_small_images_are_enlarged_and_floats_stretched():
    image = np.array([[-1.0, 1.0], [0.0, 1.0]], np.float32).reshape(1, 2, 2, 1)
    grid = pictures.class_grid(image, np.array([0]), num_classes=1, columns=1)
    assert grid.shape == (34, 34, 1)
    assert [grid[1, 1, 0], grid[1, 32, 0], grid[32, 1, 0]] == [0, 255, 127]
