"""Views of images: crops written as slices by hand, and the paper's lists as loops of their own."""

import itertools

import numpy as np
import pytest
from PIL import Image

import minidl as md
from minidl.data import Split
from minidl.errors import DataError, ShapeError
from minidl.train.crops import many_crops, scaled, shorter_side, ten_crops

ROUNDING = {"rtol": 1e-5, "atol": 1e-7}  # a mean of float32 probabilities, here and there summed differently


class Sized(md.Model):
    """One convolution and a classifier; takes any size from `smallest` on."""

    def __init__(self, size: int = 8, smallest: int | None = None, num_classes: int = 3) -> None:
        self.input_shape, self.num_classes, self.smallest = (size, size, 3), num_classes, smallest
        self.conv = md.nn.Conv2d(3, 5, 3, activation="relu")
        self.gap = md.nn.AdaptiveAvgPool2d(2)  # so that a place, and a mirror, make a difference
        self.flat = md.nn.Flatten()
        self.out = md.nn.Linear(20, num_classes)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return self.out(self.flat(self.gap(self.conv(x))))


@pytest.fixture(autouse=True)
def seed():
    md.manual_seed(5)


def pictures(h: int, w: int, n: int = 4, dtype: str = "uint8") -> np.ndarray:
    images = np.random.default_rng(h * w).integers(0, 256, (n, h, w, 3), np.uint8)
    return images if dtype == "uint8" else images.astype(dtype) / 255


def resized(images: np.ndarray, h: int, w: int) -> np.ndarray:
    """uint8 images by Pillow, all channels at once."""
    size, how = (w, h), Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(image).resize(size, how)) for image in images])


def mean_probabilities(model: md.Model, views: list[np.ndarray]) -> np.ndarray:
    return np.mean([model.predict(view).astype(np.float64) for view in views], axis=0)


def ten_by_hand(images: np.ndarray) -> list[np.ndarray]:
    """Crops of 8x8 from images of 9 rows and 12 columns: the middle square is columns 1 to 9."""
    crops = [
        images[:, 0:8, 1:9],
        images[:, 0:8, 2:10],
        images[:, 1:9, 1:9],
        images[:, 1:9, 2:10],
        images[:, 0:8, 1:9],  # the centre: one pixel to spare, cut at the end
    ]
    return [view for crop in crops for view in (crop, crop[:, :, ::-1])]


def test_ten_crops_are_those_cut_by_hand():
    images = pictures(9, 12)  # 8 * 256 / 224 = 9.1: nothing is resized
    found = list(ten_crops(images, (8, 8), 9))
    assert len(found) == 10
    for view, expected in zip(found, ten_by_hand(images), strict=True):
        np.testing.assert_array_equal(view, expected)


def test_ten_crops_of_a_wide_margin():
    images = pictures(14, 14)
    centre = images[:, 3:11, 3:11]
    found = list(ten_crops(images, (8, 8), 14))
    np.testing.assert_array_equal(found[2], images[:, :8, 6:])
    np.testing.assert_array_equal(found[8], centre)
    np.testing.assert_array_equal(found[9], centre[:, :, ::-1])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_mean_over_ten_crops(dtype: str):
    model, images = Sized(), pictures(9, 12, dtype=dtype)
    model.preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "resize": [8, 8], "crop": [7, 7]}
    views = ten_by_hand(images)
    plain = {key: value for key, value in model.preprocess.items() if key in ("mean", "std")}
    got = model.predict(images, crops=10, batch_size=3)
    model.preprocess = plain
    np.testing.assert_allclose(got, mean_probabilities(model, views), **ROUNDING)
    assert got.dtype == np.float32


def test_ten_crops_are_resized_in_proportion_to_the_papers():
    model, images = Sized(32), pictures(50, 61)
    small = resized(images, 37, 45)  # 32 * 256 / 224 = 36.6, and 61 * 37 / 50 = 45.1
    np.testing.assert_array_equal(shorter_side(images, 37), small)
    middle = small[:, :, 4:41]
    corners = [middle[:, :32, :32], middle[:, :32, 5:], middle[:, 5:, :32], middle[:, 5:, 5:]]
    crops = [*corners, middle[:, 2:34, 2:34]]
    views = [view for crop in crops for view in (crop, crop[:, :, ::-1])]
    np.testing.assert_allclose(model.predict(images, crops=10), mean_probabilities(model, views), **ROUNDING)


def test_float_images_are_resized_as_floats():
    images = pictures(14, 14, dtype="float32")
    plane = Image.fromarray(images[1, :, :, 2]).resize((9, 9), Image.Resampling.BILINEAR)  # mode F
    first = next(ten_crops(images, (8, 8), 9))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first[1, :, :, 2], np.asarray(plane)[:8, :8])


def test_resize_and_crop_size_overrule():
    model, images = Sized(8, smallest=4), pictures(20, 20)
    small = resized(images, 11, 11)
    found = list(ten_crops(images, (6, 7), 11))
    np.testing.assert_array_equal(found[6], small[:, 5:, 4:])
    np.testing.assert_allclose(
        model.predict(images, crops=10, resize=11, crop_size=(6, 7)),
        mean_probabilities(model, found),
        **ROUNDING,
    )


def googlenet_by_hand(images: np.ndarray, crop: int) -> list[np.ndarray]:
    """The 144 views as section 7 lists them, for uint8 images."""
    h, w = images.shape[1:3]
    views = []
    for side, place, part, mirror in itertools.product((256, 288, 320, 352), range(3), range(6), range(2)):
        s = round(side * crop / 224)
        whole = resized(images, round(h * s / min(h, w)), round(w * s / min(h, w)))
        top, left = (whole.shape[1] - s) * place // 2, (whole.shape[2] - s) * place // 2
        square = whole[:, top : top + s, left : left + s]
        m = s - crop
        y, x = [(0, 0), (0, m), (m, 0), (m, m), (m // 2, m // 2), (0, 0)][part]
        view = resized(square, crop, crop) if part == 5 else square[:, y : y + crop, x : x + crop]
        views.append(view[:, :, ::-1] if mirror else view)
    return views


@pytest.mark.parametrize("shape", [(13, 20), (21, 13)])
def test_googlenets_views(shape: tuple[int, int]):
    images = pictures(*shape)
    found, expected = list(many_crops(images, (8, 8))), googlenet_by_hand(images, 8)
    assert len(found) == len(expected) == 144
    for view, by_hand in zip(found, expected, strict=True):
        np.testing.assert_array_equal(view, by_hand)


@pytest.mark.parametrize("shape", [(13, 20), (16, 16)])
def test_the_mean_over_144_crops(shape: tuple[int, int]):
    model, images = Sized(), pictures(*shape)
    expected = mean_probabilities(model, googlenet_by_hand(images, 8))
    np.testing.assert_allclose(model.predict(images, crops=144), expected, **ROUNDING)


def test_a_square_images_views_are_not_computed_three_times():
    assert len(list(many_crops(pictures(16, 16), (8, 8)))) == 48


def test_the_mean_over_scales():
    model, images = Sized(8, smallest=8), pictures(10, 15)
    assert shorter_side(images, 10) is images
    views = [images, resized(images, 12, 18), resized(images, 16, 24)]
    both = [each for view in views for each in (view, view[:, :, ::-1])]
    for view, expected in zip(scaled(images, (10, 12, 16)), both, strict=True):
        np.testing.assert_array_equal(view, expected)
    got = model.predict(images, scales=(10, 12, 16))
    np.testing.assert_allclose(got, mean_probabilities(model, both), **ROUNDING)


def test_evaluate_measures_the_mean_of_the_probabilities():
    model, images, labels = Sized(num_classes=7), pictures(13, 20, n=9), np.arange(9) % 7
    chances = model.predict(images, crops=10).astype(np.float64)
    own = chances[np.arange(9), labels]
    result = model.evaluate(images, labels, crops=10, batch_size=4)
    assert result["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-6)
    assert result["accuracy"] == (chances.argmax(1) == labels).mean()
    assert result["top5"] == ((chances > own[:, None]).sum(1) < 5).mean()
    assert result == model.evaluate(images, labels, crops=10, batch_size=4)
    assert result["loss"] != model.evaluate(images, labels, crops=10, resize=20)["loss"]


def test_the_loss_is_finite_however_sure_and_wrong_all_views_are():
    model = Sized()
    model.out.weight.data[:] = 0
    model.out.bias.data[:] = [300, 0, 0]  # exp(-300) is 0 in float32
    result = model.evaluate(pictures(9, 9), [1, 1, 1, 1], crops=10)
    assert result["loss"] == pytest.approx(300)


def test_a_mean_image_fits_the_crop():
    model, images = Sized(), pictures(9, 9)
    mean = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    model.preprocess = {"mean": mean}
    views = [
        view / np.float32(255) - mean
        for view in ten_by_hand(np.pad(images, ((0, 0), (0, 0), (1, 2), (0, 0))))
    ]
    np.testing.assert_allclose(model.predict(images, crops=10), mean_probabilities(model, views), **ROUNDING)
    with pytest.raises(ShapeError, match=r"mean has shape \(8, 8, 3\)"):
        Sized.predict(_with(Sized(smallest=3), mean), images, scales=(9,))


def _with(model: md.Model, mean: np.ndarray) -> md.Model:
    model.preprocess = {"mean": mean}
    return model


def test_the_images_are_not_changed_and_the_mode_is_restored():
    model, images = Sized(), pictures(13, 20)
    before = images.copy()
    for crops in (10, 144):
        model.train().predict(images, crops=crops)
        assert model.training
    np.testing.assert_array_equal(images, before)


def test_one_batch_of_one_view_is_in_memory_at_a_time():
    seen = []
    model = Sized()
    model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    model.predict(pictures(13, 20, n=5), crops=10, batch_size=2)
    assert seen == [(2, 8, 8, 3)] * 20 + [(1, 8, 8, 3)] * 10


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"crops": 5}, ValueError, r"predict: crops is 5, it must be 1, 10 or 144"),
        ({"crops": 10, "scales": (9,)}, ValueError, "crops=10 and scales exclude each other"),
        ({"crop_size": 8}, ValueError, "crop_size is for crops=10 or crops=144"),
        ({"resize": 9}, ValueError, "resize is for crops=10; leave it out"),
        ({"crops": 144, "resize": 9}, ValueError, "resize is for crops=10; leave it out"),
        ({"crops": True}, ValueError, "crops is True, it must be 1, 10 or 144"),
        ({"crops": 10.0}, ValueError, "crops is 10.0, it must be 1, 10 or 144"),
        ({"crops": 10, "crop_size": 0}, ValueError, r"crop_size is 0, expected .* each at least 1"),
        ({"crops": 10, "crop_size": "8"}, ValueError, r"crop_size is '8', expected a side in pixels or \("),
        ({"crops": 10, "crop_size": "88"}, ValueError, "crop_size is '88', expected"),
        ({"crops": 10, "crop_size": (8,)}, ValueError, r"crop_size is \(8,\), expected"),
        ({"crops": 10, "crop_size": ()}, ValueError, r"crop_size is \(\), expected"),
        ({"crops": 10, "crop_size": (8, 8, 3)}, ValueError, r"crop_size is \(8, 8, 3\), expected"),
        ({"crops": 10, "crop_size": 8.0}, ValueError, r"crop_size is 8.0, expected"),
        (
            {"crops": 10, "crop_size": np.array([8, 8])},
            ValueError,
            r"crop_size is array\(\[8, 8\]\), expected",
        ),
        ({"crops": 10, "resize": 8.5}, ValueError, "resize is 8.5, expected a shorter side in pixels"),
        ({"crops": 10, "resize": True}, ValueError, "resize is True, expected"),
        ({"crops": 10, "crop_size": 9}, ShapeError, "crop_size is 9x9, but Sized takes 8x8$"),
        (
            {"crops": 10, "resize": 7},
            ShapeError,
            "crops of 8x8 cannot be cut .* shorter side is resize=7; give",
        ),
        (
            {"scales": (8, 9)},
            ShapeError,
            r"scales is \(8, 9\), but Sized takes images of 8x8 alone; use crops",
        ),
        ({"scales": ()}, ValueError, r"scales is \(\), expected shorter sides in pixels"),
        ({"scales": 9}, ValueError, "scales is 9, expected shorter sides in pixels"),
        ({"scales": (0, 9)}, ValueError, r"scales is \(0, 9\), expected shorter sides"),
        ({"scales": (8.5,)}, ValueError, r"scales is \(8.5,\), expected shorter sides"),
        ({"scales": (True,)}, ValueError, r"scales is \(True,\), expected shorter sides"),
    ],
)
def test_bad_options(options: dict, error: type, text: str):
    with pytest.raises(error, match=text):
        Sized().predict(pictures(9, 9), **options)


def test_sizes_below_the_models_smallest():
    model = Sized(smallest=6)
    with pytest.raises(ShapeError, match="scales has 5, but the smallest images that Sized takes are 6x6"):
        model.evaluate(pictures(9, 9), [0] * 4, scales=(8, 5))
    with pytest.raises(ShapeError, match="crop_size is 5x5, but Sized takes 8x8 or any size from 6x6 on"):
        model.predict(pictures(9, 9), crops=10, crop_size=5)


def test_a_model_without_an_input_shape_is_told_the_crop():
    model = Sized()
    model.input_shape = None
    with pytest.raises(
        ValueError, match=r"crops=10 of which size\? Sized has no input_shape; give crop_size"
    ):
        model.predict(pictures(9, 9), crops=10)
    assert model.predict(pictures(9, 9), crops=10, crop_size=8).shape == (4, 3)


def test_images_with_other_channels_do_not_fit():
    with pytest.raises(DataError, match=r"the images are \(H, W, C\) = \(9, 9, 1\), but the model takes"):
        Sized().predict(pictures(9, 9)[..., :1], crops=10)
    with pytest.raises(ShapeError, match=r"looks like \(C, H, W\)"):
        Sized().predict(pictures(8, 8).transpose(0, 3, 1, 2), crops=10)


def test_a_split_and_pairs_are_cut_alike():
    model, images, labels = Sized(), pictures(13, 20), [0, 1, 2, 0]
    pairs = list(zip(images, labels, strict=True))
    expected = model.evaluate(Split(images, labels), crops=10)
    assert model.evaluate(pairs, crops=10) == expected
