"""Recipes: what each field does to training, and what is refused."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl.data import Dataset, Split, transforms
from minidl.errors import DataError
from minidl.train import Recipe
from minidl.train.callbacks import Callback

PLAIN: dict[str, Any] = {
    "optimizer": "sgd",
    "momentum": 0.0,
    "schedule": "constant",
    "epochs": 1,
    "batch_size": 27,
}


class Watch(Callback):
    """Notes the learning rate before each step, and the run."""

    def begin(self, run: Any) -> None:
        self.run, self.rates = run, [run.optimizer.lr]

    def step_end(self, run: Any, loss: float) -> None:
        self.rates.append(run.optimizer.lr)


def trained(model: md.Model, data: Any, recipe: Recipe | str, **options: Any) -> Watch:
    watch = Watch()
    model.fit(data, recipe=recipe, seed=0, verbose=False, callbacks=[watch], **options)
    return watch


def test_epochs_and_batch_size_are_the_recipes_unless_given(tiny, data: Dataset):
    recipe = Recipe(**{**PLAIN, "epochs": 3, "batch_size": 20})
    run = trained(tiny, data, recipe).run
    assert (run.epochs, run.train.batch_size, len(run.history.history["loss"])) == (3, 20, 3)
    run = trained(tiny, data, recipe, epochs=1, batch_size=9).run
    assert (run.epochs, run.train.batch_size) == (1, 9)
    tiny.fit(data, epochs=1, verbose=False)  # what nobody asked for has the signature's 10 and 128
    assert md.train.default_for(tiny, "digits").epochs == 8


@pytest.mark.parametrize(("fields", "rates"), [
    ({"schedule": "steps", "gamma": 0.1, "milestones": (0.5, 0.75)}, [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
    ({"schedule": "exponential", "gamma": 0.5, "every": 1}, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]),
    ({"warmup_steps": 2, "warmup_factor": 0.1}, [0.1, 0.1, 1, 1, 1, 1, 1, 1]),
    ({"schedule": "steps", "gamma": 0.1, "milestones": (0.5,), "warmup_steps": 1},
     [0.1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1]),
])  # fmt: skip
def test_schedules_over_eight_steps_in_four_epochs(tiny, data: Dataset, fields, rates):
    recipe = Recipe(**{**PLAIN, **fields, "lr": 1e-3, "epochs": 4})
    assert np.allclose(np.array(trained(tiny, data, recipe).rates[:8]) / 1e-3, rates)


def groups_of(model: md.Model, **fields: Any) -> dict[str, tuple[float, float]]:
    """(lr factor, weight decay) of every parameter, by name."""
    made = Recipe(**{**PLAIN, "weight_decay": 0.1, **fields}).build_optimizer(model)
    names = {id(p): name for name, p in model.named_parameters()}
    decays = [made.weight_decay if decay is None else decay for decay in made.weight_decays]
    return {names[id(p)]: pair for p, *pair in zip(made.params, made.lr_factors, decays, strict=True)}


def test_biases_and_norms_may_learn_and_decay_differently(tiny):
    assert set(map(tuple, groups_of(tiny).values())) == {(1.0, 0.1)}
    found = groups_of(tiny, decay_biases=False, lr_factors={"bias": 2.0, "out.*": 0.5}, decay_norms=False)
    assert found == {
        "conv.weight": [1.0, 0.1],
        "bn.weight": [1.0, 0.0],
        "bn.bias": [1.0, 0.0],
        "out.weight": [0.5, 0.1],
        "out.bias": [1.0, 0.0],  # 2.0 * 0.5
    }
    assert groups_of(tiny, decay_biases=False)["bn.bias"] == [1.0, 0.1]


def test_a_factor_is_the_ratio_of_two_updates(tiny, data: Dataset):
    start = tiny.state_dict()

    def step(**fields: Any) -> np.ndarray:
        tiny.load_state_dict(start)
        trained(tiny, data, Recipe(**{**PLAIN, "lr": 0.1, "batch_size": 60, **fields}))
        return tiny.state_dict()["out.bias"] - start["out.bias"]

    np.testing.assert_allclose(step(lr_factors={"bias": 2.0}), 2 * step(), rtol=1e-4)


def test_initial_weights_of_a_model_as_it_was_built(tiny, data: Dataset):
    recipe = Recipe(**{**PLAIN, "lr": 0.0, "initial_std": {"conv": 0.3, "*": 0.01}})
    before = tiny.state_dict()
    trained(tiny, data, recipe)
    drawn = tiny.state_dict()
    assert not np.array_equal(drawn["conv.weight"], before["conv.weight"])
    assert drawn["conv.weight"].std() == pytest.approx(0.3, rel=0.2)
    assert drawn["out.weight"].std() == pytest.approx(0.01, rel=0.5)
    np.testing.assert_array_equal(drawn["out.bias"], np.zeros(3))
    trained(tiny, data, recipe)  # now it has been trained: its weights stay
    np.testing.assert_array_equal(tiny.state_dict()["conv.weight"], drawn["conv.weight"])
    tiny.reset()
    trained(tiny, data, recipe)  # drawn again, by the same seed
    np.testing.assert_array_equal(tiny.state_dict()["conv.weight"], drawn["conv.weight"])
    tiny.reset()
    tiny.load_state_dict(before)
    trained(tiny, data, recipe)
    np.testing.assert_array_equal(tiny.state_dict()["conv.weight"], before["conv.weight"])


def test_it_is_said_that_initial_weights_are_not_drawn(tiny, data: Dataset, capsys):
    tiny.load_state_dict(tiny.state_dict())
    tiny.fit(data, recipe=Recipe(**PLAIN, initial_std=0.1))
    assert "the model has been trained or loaded: the recipe's initial weights" in capsys.readouterr().out


def test_dropout_and_aux_weight_are_set(tiny, data: Dataset):
    trained(tiny, data, Recipe(**PLAIN, dropout=0.75, aux_weight=0.4))
    assert (tiny.drop.p, tiny.aux_weight) == (0.75, 0.4)


def test_fitted_preprocessing_sees_the_training_images_alone_and_is_kept(tiny, data: Dataset):
    held_out = Split(data.test.images, data.test.labels)
    trained(tiny, data, Recipe(**PLAIN, preprocess="mean(per='pixel')"), validation=held_out)
    mean = (data.train.images / 255.0).mean(axis=0)
    np.testing.assert_allclose(tiny.preprocess["mean"], mean, atol=1e-6)
    others = Dataset("other", data.classes, held_out, held_out)
    trained(tiny, others, Recipe(**PLAIN, preprocess="mean(per='pixel')"))
    np.testing.assert_allclose(tiny.preprocess["mean"], mean, atol=1e-6)  # the weights belong to it


def test_augmentation_comes_after_fitted_preprocessing(tiny, data: Dataset):
    """Padding is then zero, which is the mean, and not black."""
    seen: list[np.ndarray] = []

    def note(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        seen.append(images)
        return images

    trained(tiny, data, Recipe(**PLAIN, preprocess="gcn+zca"), augment=note)
    assert {images.dtype for images in seen[1:]} == {np.dtype(np.float32)}
    seen.clear()
    trained(tiny, data, Recipe(**PLAIN), augment=note)
    assert {images.dtype for images in seen} == {np.dtype(np.uint8)}


def test_windows_that_augmentation_cuts_are_the_middle_in_evaluation(tiny, data: Dataset):
    class cut:
        def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return images[:, :8, :8]

    large = md.data.synthetic(60, 20, shape=(12, 10, 3), num_classes=3)
    trained(tiny, large, Recipe(**PLAIN), augment=cut())
    assert tiny.preprocess == {"crop": [8, 8]}
    middle = large.test.images[:, 2:10, 1:9]
    np.testing.assert_array_equal(tiny.predict(large.test.images), tiny.predict(middle))
    with pytest.raises(DataError, match=r"the images are \(H, W, C\) = \(12, 10, 3\)"):
        type(tiny)().fit(large, verbose=False)
    small = md.data.synthetic(60, 20, shape=(6, 10, 3), num_classes=3)
    with pytest.raises(DataError, match=r"are 6x10, smaller than the windows of \(8, 8\) that"):
        tiny.fit(small, augment="random_resized_crop(8)", verbose=False)
    tiny.preprocess = {"resize": [9, 9]}
    with pytest.raises(DataError, match=r"which the model then resizes to \[9, 9\]; give larger images"):
        tiny.fit(large, augment="random_crop(8)", verbose=False)


def test_a_middle_that_is_asked_for_without_augmentation_is_cut_in_training_too(tiny, data: Dataset):
    large = md.data.synthetic(60, 20, shape=(12, 10, 3), num_classes=3)
    middle = Split(large.train.images[:, 2:10, 1:9], large.train.labels)
    start = tiny.state_dict()
    trained(tiny, middle, Recipe(**PLAIN))
    expected = tiny.state_dict()["conv.weight"]
    tiny.load_state_dict(start)
    tiny.preprocess = {"crop": [8, 8]}
    trained(tiny, large, Recipe(**PLAIN))
    np.testing.assert_array_equal(tiny.state_dict()["conv.weight"], expected)


def test_windows_are_cut_out_of_images_less_their_mean(tiny):
    """AlexNet's way: one mean image, as large as the images, and any window of what is left."""
    large = md.data.synthetic(60, 20, shape=(12, 10, 3), num_classes=3)
    trained(tiny, large, Recipe(**PLAIN, preprocess="mean(per='pixel')", augment="random_crop(8)"))
    assert tiny.preprocess["mean"].shape == (12, 10, 3)
    assert tiny.predict(large.test.images).shape == (20, 3)


def test_reset_undoes_what_a_recipe_did_to_the_model(tiny, data: Dataset):
    built = (tiny.preprocess, tiny.drop.p, tiny.aux_weight)
    recipe = Recipe(**PLAIN, dropout=0.9, aux_weight=0.7, preprocess="mean", augment="random_crop(8)")
    trained(tiny, md.data.synthetic(60, 20, shape=(9, 9, 3), num_classes=3), recipe)
    assert (tiny.drop.p, tiny.preprocess["crop"]) == (0.9, [8, 8])
    tiny.reset()
    assert (tiny.preprocess, tiny.drop.p, tiny.aux_weight) == built


def test_preprocessing_of_floats_is_refused(tiny, data: Dataset):
    floats = Split(data.train.images.astype(np.float32), data.train.labels)
    with pytest.raises(DataError, match="'gcn', is fitted to uint8 images; give a Dataset or arrays of them"):
        tiny.fit(floats, recipe=Recipe(**PLAIN, preprocess="gcn"), verbose=False)


def test_a_model_without_recipes_names_none(tiny, data: Dataset):
    with pytest.raises(ValueError, match=r"recipe is 'paper'; give a minidl\.train\.Recipe or 'default'$"):
        tiny.fit(data, recipe="paper")


def test_a_models_own_recipe_by_name(tiny, data: Dataset):
    tiny.recipes = {"slow": Recipe(**{**PLAIN, "lr": 1e-5})}
    assert trained(tiny, data, "slow").run.optimizer.lr == 1e-5
    with pytest.raises(ValueError, match="or 'default' or 'slow'"):
        tiny.fit(data, recipe="fast")


@pytest.mark.parametrize(("make", "text"), [
    (lambda: Recipe(schedule="steps"), r"milestones are \(\) with schedule 'steps'; give increasing shares"),
    (lambda: Recipe(schedule="steps", milestones=(0.5, 0.4)), "give increasing shares of the run"),
    (lambda: Recipe(schedule="steps", milestones=(0.5, 1.0)), "between 0 and 1"),
    (lambda: Recipe(milestones=(0.5,)), "for 'steps' alone"),
    (lambda: Recipe(schedule="stairs"), "schedule is 'stairs'; it may be one_cycle, cosine"),
    (lambda: Recipe(schedule="steps", milestones=0.5), "milestones are 0.5 with"),  # type: ignore[arg-type]
    (lambda: Recipe(schedule="steps", milestones=["a"]), r"milestones are \['a'\] with"),  # type: ignore[list-item]
    (lambda: Recipe(nesterov=3), "nesterov is 3, it must be True or False"),  # type: ignore[arg-type]
    (lambda: Recipe(preprocess=7), "preprocess is 7, it must be text$"),  # type: ignore[arg-type]
    (lambda: Recipe(dropout=1.5), "dropout is 1.5, it must be in 0 <= dropout < 1"),
    (lambda: Recipe(ema_decay=2), "ema_decay is 2, it must be"),
    (lambda: Recipe(lr="fast"), "lr is 'fast', it must be at least 0"),  # type: ignore[arg-type]
    (lambda: Recipe(every=0), "every is 0"),
    (lambda: Recipe(preprocess="zca+gcn"), "'gcn' comes too late"),
    (lambda: Recipe(augment=transforms.flip()), r"augment is flip\(\), it must be text"),  # type: ignore[arg-type]
    (lambda: Recipe(preprocess="gcn", augment="flip+lighting"), "changes colours, but augment comes after"),
    (lambda: Recipe().overridden({"rate": 1}), "there is no field 'rate'; the fields are optimizer, lr"),
])  # fmt: skip
def test_recipes_that_make_no_sense(make: Callable[[], Recipe], text: str):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(("fields", "text"), [
    ({"lr_factors": {"fc9.*": 2.0}}, r"lr_factors has 'fc9\.\*', which fits the path of no parameter"),
    ({"initial_std": -1.0}, "initial_std is -1.0; give numbers of at least 0 by pattern"),
    ({"lr_factors": 3}, "lr_factors is 3; give numbers of at least 0 by pattern"),
    ({"warmup_steps": 1.5}, "warmup_steps is 1.5, it must be a whole number"),
    ({"initial_std": {"fc9": 2.0}}, "initial_std has 'fc9', which fits the path of no layer"),
    ({"preprocess": "whiten"}, "there is no 'whiten'"),
    ({"augment": "spin"}, "there is no 'spin'"),
    ({"epochs": 0}, "epochs is 0, it must be at least 1"),
])  # fmt: skip
def test_recipes_that_do_not_fit_the_model(tiny, data: Dataset, fields, text: str):
    with pytest.raises(ValueError, match=text):
        tiny.fit(data, recipe=Recipe(**{**PLAIN, **fields}), verbose=False)


def test_a_recipe_is_plain_data():
    recipe = Recipe(schedule="steps", milestones=(0.5, 0.75), lr_factors={"bias": 2.0})
    again = Recipe(**json.loads(json.dumps(recipe.as_data())))
    assert again.as_data() == recipe.as_data()
