"""Preprocessing fitted to training images: what it holds, what it makes of images, and that it survives a
file."""

import json
from typing import ClassVar

import numpy as np
import pytest

import minidl as md
from minidl.data import transforms
from minidl.data.transforms import fit_preprocess, preprocess

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 5, 3)).astype(np.uint8)
UNIT = IMAGES / 255.0


def test_gcn_and_zca_as_the_papers_have_them():
    config = fit_preprocess("gcn+zca", IMAGES)
    contrast = transforms.global_contrast_normalise(UNIT.astype(np.float32))
    white = transforms.fit_zca([contrast], bias=0.1)
    assert config["fitted"] == "gcn+zca"
    assert config["gcn"] == {"scale": 55.0, "bias": 0.0, "eps": 1e-8}
    np.testing.assert_array_equal(config["zca"]["matrix"], white.matrix)
    np.testing.assert_array_equal(preprocess(IMAGES, config), white(contrast))


@pytest.mark.parametrize(("per", "axes"), [("pixel", 0), ("channel", (0, 1, 2)), ("all", None)])
def test_mean_and_deviation_over_the_data_set(per, axes):
    config = fit_preprocess(f"standardise(per={per!r})", IMAGES)
    mean, std = UNIT.mean(axis=axes), UNIT.std(axis=axes)
    np.testing.assert_allclose(config["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(config["std"], std, rtol=1e-5)
    np.testing.assert_allclose(preprocess(IMAGES, config), (UNIT - mean) / std, atol=1e-4)
    only_mean = fit_preprocess(f"mean(per={per!r})", IMAGES)
    np.testing.assert_allclose(preprocess(IMAGES, only_mean), UNIT - mean, atol=1e-6)


def test_a_later_step_sees_what_the_earlier_ones_made():
    config = fit_preprocess("gcn+standardise(per='pixel')", IMAGES)
    y = preprocess(IMAGES, config)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=0), 1, rtol=1e-4)


def test_a_pixel_that_is_always_the_same_is_only_centred():
    images = IMAGES.copy()
    images[:, 0, 0] = 7
    y = preprocess(images, fit_preprocess("standardise(per='pixel')", images))
    np.testing.assert_allclose(y[:, 0, 0], 0, atol=1e-6)


def test_images_are_resized_before_and_cut_after():
    config = fit_preprocess("mean", IMAGES, {"resize": [6, 6], "crop": [4, 4], "mean": [0.1, 0.2, 0.3]})
    assert (config["resize"], config["crop"]) == ([6, 6], [4, 4])
    assert config["mean"].shape == (6, 6, 3)  # a window may be cut anywhere in it
    whole = preprocess(IMAGES, {key: value for key, value in config.items() if key != "crop"})
    np.testing.assert_array_equal(preprocess(IMAGES, config), whole[:, 1:5, 1:5])


def test_images_are_read_some_at_a_time():
    class Streamed:
        """Images that are not in memory: only slices of at most a thousand can be had."""

        shape = (2500, 64, 64, 3)
        read: ClassVar[list[int]] = []

        def __len__(self) -> int:
            return 2500

        def __getitem__(self, part: slice) -> np.ndarray:
            self.read.append(min(part.stop, 2500) - part.start)
            return np.resize(IMAGES, (self.read[-1], *self.shape[1:]))

    assert fit_preprocess("mean(per='pixel')", Streamed())["mean"].shape == (64, 64, 3)
    assert Streamed.read == [250] * 10


def test_none_divides_by_255_alone():
    config = fit_preprocess("none", IMAGES, {"resize": [4, 5], "mean": 0.5})
    assert config == {"fitted": "none", "resize": [4, 5]}
    np.testing.assert_allclose(preprocess(IMAGES, config), UNIT, rtol=1e-6)


@pytest.mark.parametrize(("text", "message"), [
    ("whiten", "preprocess 'whiten': there is no 'whiten'; the names are gcn, lcn, zca, mean, standardise"),
    ("zca+gcn", "'gcn' comes too late; the order is gcn, lcn, zca, then mean or standardise"),
    ("gcn+gcn", "'gcn' comes too late"),
    ("mean+zca", "'zca' comes too late"),
    ("mean(per='row')", "per is 'row', it may be 'pixel', 'channel', 'all'"),
    ("gcn(size=3)", r"gcn\(size=3\) does not work: .*unexpected keyword"),
    ("gcn(", "cannot be read; write names with their arguments, joined by"),
    ("__import__('os')", "there is no '__import__'"),
])  # fmt: skip
def test_texts_that_mean_nothing(text, message):
    with pytest.raises(ValueError, match=message):
        fit_preprocess(text, IMAGES)


@pytest.mark.parametrize("text", ["gcn+zca", "mean(per='pixel')", "mean(per='all')", "lcn", "none"])
def test_a_config_survives_a_file(text):
    config = fit_preprocess(text, IMAGES)
    plain, arrays = transforms.split_arrays(config)
    again = transforms.join_arrays(json.loads(json.dumps(plain)), arrays)
    np.testing.assert_array_equal(preprocess(IMAGES, again), preprocess(IMAGES, config))
    assert list(transforms.split_arrays(again)[1]) == list(arrays)


def test_whether_the_host_must_compute_it():
    assert transforms.on_host(fit_preprocess("gcn", IMAGES))
    assert transforms.on_host(fit_preprocess("mean(per='pixel')", IMAGES))
    assert not transforms.on_host(fit_preprocess("standardise(per='channel')", IMAGES))
    assert not transforms.on_host(None)


def test_a_model_saves_what_was_fitted(tmp_path):
    from minidl_models import nin

    images = np.random.default_rng(1).integers(0, 256, (20, 28, 28, 1)).astype(np.uint8)
    model = nin("mnist")
    model.preprocess = fit_preprocess("gcn+zca", images)
    model.save(tmp_path / "model.safetensors")
    loaded = md.Model.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(images), model.predict(images))
    other = nin("mnist")
    other.load_weights(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(other.predict(images), model.predict(images))
    assert model.preprocess["fitted"] == "gcn+zca"
    model.reset()  # which forgets what belongs to other images
    assert model.preprocess == nin("mnist").preprocess
