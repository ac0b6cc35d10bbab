"""Evaluating one model or several: confusions, ensembles, and what is refused."""

import numpy as np
import pytest

import minidl as md
from minidl.data import Dataset, Split
from minidl.errors import CheckpointError, DataError
from minidl.train import Recipe
from minidl.train.evaluate import as_batch, loading

ROUNDING = {"rtol": 1e-5, "atol": 1e-7}  # a mean of float32 probabilities, here and there summed differently


@pytest.fixture
def three(tiny) -> list[md.Model]:
    """Three models of the same classes that differ in weights, preprocessing and class."""
    models = [type(tiny)() for _ in range(3)]
    for i, model in enumerate(models):
        model.preprocess = {"mean": [0.1 * i], "std": [0.5 + i]}
    return models


def test_the_usual_result_has_three_numbers(tiny, data: Dataset):
    assert list(tiny.evaluate(data)) == ["loss", "accuracy", "top5"]
    assert all(isinstance(value, float) for value in tiny.evaluate(data, crops=10).values())


@pytest.mark.parametrize("options", [{}, {"crops": 10}])
def test_confusion_counts_the_images_of_each_class_taken_for_each(tiny, data: Dataset, options: dict):
    usual = tiny.evaluate(data, **options)
    result = tiny.evaluate(data, confusion=True, batch_size=7, **options)
    guesses = tiny.predict(data.test.images, **options).argmax(1)
    expected = np.zeros((3, 3), int)
    for true, guess in zip(data.test.labels, guesses, strict=True):
        expected[true, guess] += 1
    np.testing.assert_array_equal(result["confusion"], expected)
    np.testing.assert_allclose(result["per_class"], expected.diagonal() / np.bincount(data.test.labels))
    assert result["accuracy"] == usual["accuracy"] == expected.trace() / 20
    assert result["loss"] == pytest.approx(usual["loss"])


def test_a_class_without_images_has_no_accuracy(tiny, data: Dataset):
    images = data.test.images[:4]
    result = tiny.evaluate(images, [0, 0, 2, 2], confusion=True)
    np.testing.assert_array_equal(np.isnan(result["per_class"]), [False, True, False])


def test_an_ensemble_averages_the_probabilities(three, data: Dataset):
    images, labels = data.test.images, data.test.labels
    expected = np.mean([model.predict(images).astype(np.float64) for model in three], axis=0)
    ensemble = md.Ensemble(three)
    np.testing.assert_allclose(ensemble.predict(images, batch_size=6), expected, **ROUNDING)
    result = ensemble.evaluate(data, batch_size=6, confusion=True)
    assert result["loss"] == pytest.approx(-np.log(expected[np.arange(20), labels]).mean(), rel=1e-6)
    assert result["accuracy"] == (expected.argmax(1) == labels).mean()
    assert result["confusion"].sum() == 20


@pytest.mark.parametrize("options", [{}, {"crops": 10}])
def test_the_members_own_results_come_along_on_request(three, data: Dataset, options: dict):
    ensemble = md.Ensemble(three)
    result = ensemble.evaluate(data, each=True, **options)
    for found, model in zip(result.pop("members"), three, strict=True):
        assert found == pytest.approx(model.evaluate(data, **options), rel=1e-6)
    assert result == ensemble.evaluate(data, **options)
    assert md.Ensemble(three[:1]).evaluate(data, each=True)["members"] == [three[0].evaluate(data)]


def test_an_ensemble_of_one_is_that_model(tiny, data: Dataset):
    alone, ensemble = tiny.evaluate(data), md.Ensemble([tiny]).evaluate(data)
    assert ensemble == pytest.approx(alone, rel=1e-6)
    images = data.test.images
    np.testing.assert_allclose(md.Ensemble([tiny]).predict(images), tiny.predict(images), **ROUNDING)


def test_members_take_images_in_their_own_sizes(three, data: Dataset):
    larger = type(three[0])()
    larger.input_shape = (10, 10, 3)
    members = [three[0], larger]
    images = data.test.images
    expected = np.mean([model.predict(images, crops=10) for model in members], axis=0)
    np.testing.assert_allclose(md.Ensemble(members).predict(images, crops=10), expected, **ROUNDING)
    larger.preprocess = {"resize": [10, 10]}
    expected = np.mean([model.predict(images) for model in members], axis=0)
    np.testing.assert_allclose(md.Ensemble(members).predict(images), expected, **ROUNDING)


def test_an_ensemble_restores_its_members_modes_and_averages_in_the_widest_type(three, data: Dataset):
    three[0].train()
    three[1].eval()
    three[2].to(dtype="float64")
    assert md.Ensemble(three).predict(data.test.images).dtype == np.float64
    assert (three[0].training, three[1].training) == (True, False)


def test_an_empty_ensemble():
    with pytest.raises(ValueError, match="Ensemble: models is empty; give at least one model"):
        md.Ensemble([])


def test_members_that_are_no_models(tiny):
    with pytest.raises(TypeError, match=r"Ensemble: models\[1\] is a str, expected a Module"):
        md.Ensemble([tiny, "runs/a"])


@pytest.mark.parametrize("models", ["alone", 5])
def test_one_model_is_no_list_of_models(tiny, models):
    models = tiny if models == "alone" else models
    with pytest.raises(
        TypeError, match=f"models is a {type(models).__name__}, expected a list of Modules; g"
    ):
        md.Ensemble(models)


def test_a_network_of_layers_is_no_list_of_models():
    with pytest.raises(TypeError, match=r"models is a Sequential, expected .*; give one model as \[model\]"):
        md.Ensemble(md.nn.Sequential(md.nn.Flatten(), md.nn.Linear(192, 3)))


@pytest.mark.parametrize("options", [{}, {"crops": 10}, "ensemble"])
def test_a_label_of_no_class_is_refused_alike_by_one_model_by_views_and_by_ensembles(
    three, data: Dataset, options: dict | str
):
    pairs = list(zip(data.test.images[:2], [0, 3], strict=True))  # labels that are seen in their batch
    model, options = (md.Ensemble(three), {}) if options == "ensemble" else (three[0], options)
    with pytest.raises(DataError, match=r"labels\[1\] is 3, it must lie in 0 \.\. 2 for 3 classes"):
        model.evaluate(pairs, **options)


def test_members_of_other_classes(tiny):
    with pytest.raises(
        DataError, match=r"ensemble: models\[0\] \(Tiny\) has 3 classes but models\[1\] \(Tiny\) has 5; pred"
    ):
        md.Ensemble([tiny, type(tiny)(5)])
    unknown = type(tiny)(5)
    unknown.num_classes = None
    with pytest.raises(DataError, match="ensemble: member 0 has 3 classes but member 1 has 5"):
        md.Ensemble([tiny, unknown]).predict(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_member_that_the_images_do_not_fit(three):
    three[1].input_shape = (9, 9, 3)
    with pytest.raises(DataError, match=r"the model takes \(9, 9, 3\)"):
        md.Ensemble(three).predict(np.zeros((1, 8, 8, 3), np.uint8))


def test_predict_reads_mapped_images_batch_by_batch(tiny, data: Dataset, tmp_path):
    np.save(tmp_path / "images.npy", data.test.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        tiny.predict(mapped, batch_size=8), tiny.predict(data.test.images, batch_size=8)
    )
    lazy = Split(mapped, data.test.labels).images[2:]
    np.testing.assert_array_equal(tiny.predict(lazy), tiny.predict(data.test.images[2:]))


def test_what_the_host_alone_computes_is_done_by_the_loader_for_any_device(tiny):
    tiny.preprocess = {"mean": [0.5]}
    assert loading(tiny) == {"mean": [0.5]}
    tiny.to("cudasim")
    assert loading(tiny) is None
    tiny.preprocess = {"gcn": {}}
    assert loading(tiny) == {"gcn": {}}


def test_a_mean_image_reaches_a_device_by_way_of_the_host(tiny, data: Dataset):
    tiny.preprocess = {"mean": np.full((8, 8, 3), 0.25, np.float32)}
    expected = as_batch(tiny, data.test.images).numpy()
    found = as_batch(tiny.to("cudasim"), data.test.images)
    assert found.device == "cudasim"
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("decay", [None, 0.5])
def test_a_checkpoint_loads_as_a_model(tiny, data: Dataset, tmp_path, decay: float | None):
    tiny.preprocess = {"mean": [0.5], "std": [0.25]}
    tiny.fit(data, epochs=2, recipe=Recipe(ema_decay=decay), checkpoint=tmp_path, verbose=False)
    file = tmp_path / "epoch-0002.safetensors"
    left = type(tiny).load(file)  # what fit left in the model: the average, where there is one
    assert left.preprocess == tiny.preprocess
    assert left.evaluate(data) == tiny.evaluate(data)
    raw = type(tiny).load(file, weights="raw")
    assert (raw.evaluate(data) == left.evaluate(data)) is (decay is None)
    if decay is not None:
        assert type(tiny).load(file, weights="ema").evaluate(data) == left.evaluate(data)


def test_weights_that_a_file_does_not_have(tiny, data: Dataset, tmp_path):
    tiny.fit(data, epochs=1, checkpoint=tmp_path, verbose=False)
    with pytest.raises(ValueError, match="load: weights is 'best', it must be 'raw' or 'ema'"):
        type(tiny).load(tmp_path / "epoch-0001.safetensors", weights="best")
    with pytest.raises(CheckpointError, match="has no moving average of the weights"):
        type(tiny).load(tmp_path / "epoch-0001.safetensors", weights="ema")
    tiny.save(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds the final weights alone, not the ema ones of a run"):
        type(tiny).load(tmp_path / "model.safetensors", weights="ema")
