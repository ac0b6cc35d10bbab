"""fit, evaluate and predict: they learn, continue, leave things as they were, and refuse what does not
fit."""

import gc
import signal
from types import FunctionType, SimpleNamespace

import numpy as np
import pytest

import minidl as md
import minidl_models
from minidl import optim
from minidl.autograd import Node, Tensor
from minidl.backend.cpu import memory
from minidl.data import Dataset, Split, synthetic, transforms
from minidl.errors import DataError, ShapeError
from minidl.train import History, Recipe
from minidl.train.callbacks import Callback, CSVLogger, EarlyStopping

QUICK = {"epochs": 1, "batch_size": 20, "verbose": False}


def test_it_learns(tiny, data: Dataset):
    history = tiny.fit(data, epochs=8, batch_size=10, seed=0, recipe=Recipe(lr=0.02), verbose=False).history
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    assert [len(values) for values in history.values()] == [8] * 5
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    result = tiny.evaluate(data)
    assert list(result) == ["loss", "accuracy", "top5"]
    assert result["accuracy"] > 0.8
    assert result["top5"] == 1


@pytest.mark.parametrize("form", ["dataset", "function", "name", "arrays", "pair", "items"])
def test_every_form_of_data(tiny, data: Dataset, form: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("minidl.train.inputs.load", {"small": data}.__getitem__)
    images, labels = data.train.images, data.train.labels
    given = {
        "dataset": (data,),
        "function": (lambda: data,),
        "name": ("small",),
        "arrays": (images, labels),
        "pair": ((images, labels),),
        "items": (list(zip(images, labels.tolist())),),
    }[form]
    start = tiny.state_dict()
    losses = tiny.fit(*given, **QUICK, seed=1).history["loss"]
    tiny.load_state_dict(start)
    assert losses == tiny.fit(data, **QUICK, seed=1).history["loss"]


def test_the_same_seed_gives_the_same_bits(data: Dataset):
    from tests.train.conftest import Tiny

    def trained() -> dict[str, np.ndarray]:
        md.manual_seed(4)
        model = Tiny()
        model.fit(data, epochs=2, batch_size=20, augment="crop+flip", seed=5, verbose=False)
        return model.state_dict()

    first, second = trained(), trained()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_a_second_call_goes_on_and_reset_starts_afresh(tiny, data: Dataset):
    fresh = tiny.state_dict()
    tiny.fit(data, **QUICK)
    once = tiny.state_dict()
    assert not np.array_equal(fresh["out.weight"], once["out.weight"])
    tiny.fit(data, **QUICK, optimizer=optim.SGD(tiny.parameters(), 0.0))
    np.testing.assert_array_equal(tiny.state_dict()["out.weight"], once["out.weight"])
    tiny.reset()
    assert not np.array_equal(tiny.state_dict()["out.weight"], once["out.weight"])
    np.testing.assert_array_equal(tiny.state_dict()["bn.running_mean"], np.zeros(6))


def test_validation_holds_out_the_same_images_every_time_and_never_the_test_split(tiny, data: Dataset):
    from minidl.train.inputs import hold_out

    rest, held = hold_out(data.train, 0.1)
    again = hold_out(data.train, 0.1)[1]
    assert (len(rest), len(held)) == (54, 6)
    np.testing.assert_array_equal(held.images, again.images)
    both = np.concatenate([rest.images, held.images]).reshape(60, -1)
    assert len(np.unique(both, axis=0)) == len(np.unique(data.train.images.reshape(60, -1), axis=0))


def test_the_test_split_is_never_looked_at(tiny, data: Dataset):
    object.__setattr__(data, "test", None)
    tiny.fit(data, **QUICK)


def test_validation_none_and_a_split(tiny, data: Dataset):
    assert list(tiny.fit(data, **QUICK, validation=None).history) == ["loss", "accuracy", "seconds"]
    assert "val_loss" in tiny.fit(data, **QUICK, validation=data.test).history


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored(tiny, data: Dataset, training: bool):
    tiny.train(training)
    tiny.drop.training = not training
    tiny.fit(data, **QUICK)
    tiny.evaluate(data)
    tiny.predict(data.test.images)
    assert tiny.training is training
    assert tiny.drop.training is not training


def test_predict_gives_probabilities_and_is_repeatable(tiny, data: Dataset):
    p = tiny.predict(data.test.images, batch_size=7)
    assert p.shape == (20, 3)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(p, tiny.predict(data.test.images), rtol=1e-5)


def test_predict_applies_the_models_preprocessing_to_uint8_only(tiny, data: Dataset):
    tiny.preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3}
    images = data.test.images
    ready = transforms.preprocess(images, tiny.preprocess)
    np.testing.assert_allclose(tiny.predict(images), tiny.predict(ready), rtol=1e-6)


def test_a_given_optimiser_and_schedule_are_used(tiny, data: Dataset):
    made = []

    def optimizer(params: object) -> optim.SGD:
        made.append(optim.SGD(params, 0.1, momentum=0.9))
        return made[0]

    tiny.fit(
        data,
        epochs=3,
        batch_size=60,
        verbose=False,
        optimizer=optimizer,
        schedule=lambda o: optim.StepLR(o, 1, gamma=0.5),
    )
    assert made[0].lr == pytest.approx(0.1 * 0.5**3)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("sgd", 0.05, schedule="cosine"),
        Recipe("rmsprop", schedule="exponential"),
        Recipe("adamw", weight_decay=0.01, schedule="constant"),
        Recipe(clip_norm=0.1, label_smoothing=0.1),
    ],
)
def test_recipes(tiny, data: Dataset, recipe: Recipe):
    assert np.isfinite(tiny.fit(data, **QUICK, recipe=recipe).history["loss"][0])


def test_a_moving_average_is_what_is_left_at_the_end(tiny, data: Dataset):
    seen = []

    class Watch(Callback):
        def epoch_end(self, run: object) -> None:
            seen.append(run.ema.averages[0].copy())

    tiny.fit(data, **QUICK, recipe=Recipe(ema_decay=0.5), callbacks=[Watch()])
    np.testing.assert_array_equal(next(tiny.parameters()).data, seen[-1])


def test_unknown_recipe_names(tiny, data: Dataset):
    with pytest.raises(ValueError, match=r"recipe is 'fast'; give a minidl\.train\.Recipe or 'default'"):
        tiny.fit(data, recipe="fast")
    with pytest.raises(ValueError, match="optimizer is 'lion'; it may be adam, adamw"):
        Recipe("lion")


def test_no_array_of_a_step_is_alive_after_it(tiny, data: Dataset):
    tiny.fit(data, **QUICK)
    gc.collect()
    graph = [o for o in gc.get_objects() if type(o) is Node]
    assert graph == []
    tiny.zero_grad()
    before = memory.live_bytes()
    tiny.fit(data, **QUICK)
    tiny.zero_grad()
    assert memory.live_bytes() == before
    kept = {id(p) for p in tiny.parameters()} | {id(p.grad) for p in tiny.parameters()}
    assert [
        o
        for o in gc.get_objects()
        if issubclass(type(o), Tensor) and o.shape and o.shape[0] in (20, 14) and id(o) not in kept
    ] == []


def test_float32_stays_float32(tiny, data: Dataset):
    tiny.fit(data, **QUICK)
    assert {value.dtype for value in tiny.state_dict().values()} == {np.dtype("float32")}
    assert tiny.predict(data.test.images).dtype == np.float32


def test_a_float64_model_trains_in_float64(tiny, data: Dataset):
    tiny.to(dtype="float64").fit(data, **QUICK)
    assert {value.dtype for value in tiny.state_dict().values()} == {np.dtype("float64")}


def test_csv_logger(tiny, data: Dataset, tmp_path):
    tiny.fit(data, epochs=2, batch_size=30, verbose=False, callbacks=[CSVLogger(tmp_path / "m.csv")])
    lines = (tmp_path / "m.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,accuracy,val_loss,val_accuracy,seconds"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2"]


def test_early_stopping(tiny, data: Dataset):
    frozen = optim.SGD(tiny.parameters(), 0.0)
    stopping = EarlyStopping("val_accuracy", patience=2)
    options = {"epochs": 9, "batch_size": 60, "verbose": False, "validation": data.test}
    assert len(tiny.fit(data, **options, optimizer=frozen, callbacks=[stopping]).history["loss"]) == 3


@pytest.mark.parametrize(
    ("monitor", "values", "stops"),
    [
        ("val_accuracy", [0.1, 0.2, 0.3], False),
        ("val_accuracy", [0.3, 0.2, 0.1], True),
        ("val_loss", [3, 2, 1], False),
        ("val_loss", [1, 2, 3], True),
    ],
)
def test_early_stopping_knows_which_way_is_better(monitor: str, values: list[float], stops: bool):
    run = SimpleNamespace(history=History({monitor: values}), stop=False, epoch=3, batch=0)
    EarlyStopping(monitor, patience=2).begin(run)
    assert run.stop is stops


def test_ctrl_c_leaves_a_usable_model_and_says_where_the_checkpoint_is(tiny, data: Dataset, tmp_path, capsys):
    class Interrupt(Callback):
        def epoch_end(self, run: object) -> None:
            raise KeyboardInterrupt

    history = tiny.fit(data, epochs=5, batch_size=20, checkpoint=tmp_path / "c", callbacks=[Interrupt()])
    assert history.interrupted
    assert len(history.history["loss"]) == 1
    assert tiny.predict(data.test.images).shape == (20, 3)
    assert "interrupted after 1 of 5 epochs" in (out := capsys.readouterr().out)
    assert "epoch-0001.safetensors" in out


def test_the_table_is_printed_once_and_every_epoch_has_a_line(tiny, data: Dataset, capsys):
    tiny.fit(data, epochs=2, batch_size=30)
    tiny.fit(data, epochs=1, batch_size=30)
    out, err = capsys.readouterr()
    assert out.count("multiply-adds") == 1
    assert out.count("epoch 1/2  loss ") == 1
    assert "img/s" in out
    assert "epoch 1/2" in err
    assert "/54 " in err  # images, without those held out


def test_peak_memory_is_reported(tiny, capsys):
    large = synthetic(200, 20, shape=(8, 8, 3), num_classes=3)
    history = tiny.fit(large, epochs=1, batch_size=180)
    assert history.peak_bytes > 180 * 8 * 8 * 6 * 4  # the first layer's output, at least
    assert f"peak memory of the arrays: {history.peak_bytes / 1e6:.0f} MB" in capsys.readouterr().out


# What does not fit, each with its text.
def test_a_nan_loss_stops_and_names_the_first_layer(tiny, data: Dataset):
    tiny.bn.weight.data[0] = np.inf
    with pytest.raises(
        FloatingPointError,
        match=r"the loss is nan in epoch 1; .* that of bn \(BatchNorm2d\), whose weights are not finite",
    ):
        tiny.fit(data, **QUICK)


def test_nan_images_are_told_apart_from_nan_weights(tiny):
    images = np.full((20, 8, 8, 3), np.nan, np.float32)
    with pytest.raises(
        FloatingPointError, match=r"the images of this batch are not finite; .* that of conv \(Conv2d\)"
    ):
        tiny.fit(images, np.zeros(20, int), **QUICK)


def test_labels_out_of_range(tiny, data: Dataset):
    with pytest.raises(DataError, match=r"labels reach 3, but the model's num_classes is 3 .*num_classes=4"):
        tiny.fit(data.train.images, np.full(60, 3), **QUICK)
    with pytest.raises(DataError, match=r"labels\[0\] is -1"):
        tiny.fit(data.train.images, np.full(60, -1), **QUICK)
    with pytest.raises(DataError, match="labels reach 7"):
        tiny.evaluate(data.test.images, np.full(20, 7))


def test_float_labels(tiny, data: Dataset):
    with pytest.raises(DataError, match="dtype is float64, expected integer class numbers"):
        tiny.fit(data.train.images, np.zeros(60), **QUICK)


def test_num_classes_that_does_not_match_the_data(data: Dataset):
    from tests.train.conftest import Tiny

    with pytest.raises(
        DataError,
        match="the data has 3 classes, but the model's num_classes is 10; build the model with num_classes=3",
    ):
        Tiny(num_classes=10).fit(data, **QUICK)


def test_images_that_do_not_fit_the_model(tiny):
    grey = synthetic(20, 5, shape=(9, 8, 1), num_classes=3)
    with pytest.raises(
        DataError,
        match=r"images are \(H, W, C\) = \(9, 8, 1\), but the model takes \(8, 8, 3\).*--fit-images",
    ):
        tiny.fit(grey, **QUICK)


def test_an_empty_batch(tiny):
    with pytest.raises(ShapeError, match="a batch of size 0"):
        tiny(md.tensor(np.zeros((0, 8, 8, 3), np.float32)))
    with pytest.raises(ShapeError, match="a batch of size 0"):
        tiny.predict(np.zeros((0, 8, 8, 3), np.float32))
    with pytest.raises(DataError, match="holds no images"):
        tiny.fit(np.zeros((0, 8, 8, 3), np.float32), np.zeros(0, int), **QUICK)


def test_an_nchw_image_is_recognised(tiny):
    with pytest.raises(ShapeError, match=r"looks like \(N, C, H, W\).*x\.transpose\(0, 2, 3, 1\)"):
        tiny(md.tensor(np.zeros((2, 3, 8, 8), np.float32)))


def test_nchw_images_are_recognised_by_fit_evaluate_and_predict(tiny):
    images, labels = np.zeros((20, 3, 8, 8), np.float32), np.zeros(20, int)
    for call in (
        lambda: tiny.fit(images, labels, **QUICK),
        lambda: tiny.evaluate(images, labels),
        lambda: tiny.predict(images),
    ):
        with pytest.raises(ShapeError, match=r"looks like \(C, H, W\).*images\.transpose\(0, 2, 3, 1\)"):
            call()


def test_float_images_are_not_resized_and_must_fit():
    model = minidl_models.nin("digits")
    assert model.predict(np.zeros((1, 8, 8, 1), np.uint8)).shape == (1, 10)
    with pytest.raises(DataError, match=r"\(8, 8, 1\), but the model takes \(28, 28, 1\)"):
        model.predict(np.zeros((1, 8, 8, 1), np.float32))


def test_a_validation_split_must_fit_too(tiny, data: Dataset):
    large = synthetic(20, 5, shape=(10, 10, 3), num_classes=3)
    with pytest.raises(DataError, match=r"fit: validation: the images are .*\(10, 10, 3\)"):
        tiny.fit(data, **QUICK, validation=large.test)
    with pytest.raises(DataError, match=r"validation is a Dataset; give one of its splits"):
        tiny.fit(data, **QUICK, validation=data)


def test_a_last_step_that_breaks_the_weights_is_not_saved(tiny, data: Dataset, tmp_path):
    class Breaking(optim.SGD):
        def step(self) -> None:
            self.params[0].data[0] = np.inf

    with pytest.raises(
        FloatingPointError, match=r"conv\.weight is not finite after epoch 1\. Train with a lower"
    ):
        tiny.fit(
            data,
            epochs=1,
            batch_size=60,
            verbose=False,
            checkpoint=tmp_path,
            optimizer=Breaking(tiny.parameters(), 0.1),
        )
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-0000.safetensors"]


def test_optimisers_and_schedules_of_others_are_refused(tiny, data: Dataset):
    other = type(tiny)()
    with pytest.raises(ValueError, match="optimizer was made for other parameters"):
        tiny.fit(data, **QUICK, optimizer=optim.SGD(other.parameters(), 0.1))
    mine, strange = optim.SGD(tiny.parameters(), 0.1), optim.SGD(tiny.parameters(), 0.1)
    with pytest.raises(ValueError, match="schedule belongs to another optimiser"):
        tiny.fit(data, **QUICK, optimizer=mine, schedule=optim.StepLR(strange, 1))
    with pytest.raises(ValueError, match="optimizer is 'sgd'; give an optimiser"):
        tiny.fit(data, **QUICK, optimizer="sgd")


def test_ctrl_c_in_the_middle_of_an_epoch_restores_the_mode(tiny, data: Dataset):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    tiny.eval()
    tiny.out.register_forward_hook(interrupt)
    history = tiny.fit(data, **QUICK, recipe=Recipe(ema_decay=0.5))
    assert history.interrupted
    assert history.history == {}
    assert not any(module.training for module in tiny.modules())


def test_labels_out_of_range_in_a_list_of_pairs(tiny, data: Dataset):
    pairs = [(image, 3) for image in data.train.images]
    with pytest.raises(DataError, match=r"labels\[0\] is 3, it must lie in 0 \.\. 2 for 3 classes"):
        tiny.fit(pairs, **QUICK)


def test_predict_of_a_single_image(tiny):
    with pytest.raises(ShapeError, match=r"images have shape \(8, 8, 3\).*pass image\[None\]"):
        tiny.predict(np.zeros((8, 8, 3), np.float32))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 0}, "epochs is 0, it must be at least 1"),
        ({"resume": True}, "resume=True needs checkpoint="),
        ({"validation": 1.5}, "validation is 1.5; give a share"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_options(tiny, data: Dataset, options: dict, text: str):
    with pytest.raises(ValueError, match=text):
        tiny.fit(data, **{"verbose": False, **options})


def test_too_few_images_to_hold_any_out(tiny, data: Dataset):
    with pytest.raises(DataError, match=r"validation=0\.1 of 3 training images leaves 0 to validate"):
        tiny.fit(Split(data.train.images[:3], data.train.labels[:3]), **QUICK)


def test_data_of_no_known_kind(tiny):
    with pytest.raises(DataError, match="data is a int; give a Dataset, its name"):
        tiny.fit(3)


class WithHead(md.Model):
    """Two linear classifiers on the same image; the second is auxiliary."""

    def __init__(self) -> None:
        self.input_shape, self.num_classes, self.smallest = (8, 8, 3), 3, 2
        self.gap, self.out, self.head = md.nn.GlobalAvgPool(), md.nn.Linear(3, 3), md.nn.Linear(3, 3)

    def forward(self, x: Tensor):
        x = self.gap(x)
        return (self.out(x), (self.head(x),)) if self.training else self.out(x)


def test_auxiliary_losses_are_minimised_with_their_weight(data: Dataset):
    """One step of SGD moves the head by aux_weight times what the same classifier would move by itself."""
    steps = {}
    for weight in (0.0, 0.5, 1.0):
        model = WithHead()
        model.aux_weight = weight
        state = {name: np.full_like(value, 0.1) for name, value in model.state_dict().items()}
        model.load_state_dict(state)
        model.fit(
            (data.train.images, data.train.labels),
            epochs=1,
            batch_size=60,
            validation=None,
            optimizer=lambda params: optim.SGD(params, 0.1),
            seed=0,
            verbose=False,
        )
        steps[weight] = {name: value - state[name] for name, value in model.state_dict().items()}
    np.testing.assert_array_equal(steps[0.0]["head.weight"], 0)
    np.testing.assert_allclose(steps[0.5]["head.weight"], 0.5 * steps[1.0]["head.weight"], rtol=1e-4)
    np.testing.assert_allclose(steps[1.0]["head.weight"], steps[1.0]["out.weight"], rtol=1e-4)
    np.testing.assert_array_equal(steps[0.0]["out.weight"], steps[1.0]["out.weight"])


def test_the_loss_reported_is_the_classifiers_own(data: Dataset):
    losses = []
    for weight in (0.0, 100.0):
        md.manual_seed(0)
        model = WithHead()
        model.aux_weight = weight
        history = model.fit(
            data, epochs=1, batch_size=54, optimizer=lambda p: optim.SGD(p, 0.0), verbose=False
        )
        losses.append(history.history["loss"])
    assert losses[0] == losses[1]


def test_a_model_of_any_size_takes_images_from_its_smallest_on(capsys):
    model = WithHead()
    model.fit(synthetic(20, 5, shape=(5, 9, 3), num_classes=3), epochs=1, batch_size=10)
    assert "input 5x9x3" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"takes \(8, 8, 3\) or any size from 2x2 on"):
        model.fit(synthetic(20, 5, shape=(1, 9, 3), num_classes=3), **QUICK)
    with pytest.raises(DataError, match=r"are \(H, W, C\) = \(8, 8, 1\), but the model takes"):
        model.fit(synthetic(20, 5, shape=(8, 8, 1), num_classes=3), **QUICK)


@pytest.mark.parametrize(("options", "error", "text"), [
    ({"schedule": "cosine"}, ValueError, "schedule is 'cosine'; give a schedule, a function of"),
    ({"schedule": lambda optimizer: None}, ValueError, "schedule is None; give a schedule"),
    ({"optimizer": lambda params: None}, ValueError, "the function given as optimizer made None"),
    ({"augment": 5}, ValueError, r"augment is 5; give a transform, a function \(images, rng\), or its name"),
    ({"callbacks": EarlyStopping()}, TypeError, "callbacks is a EarlyStopping; give a list of them"),
    ({"callbacks": [EarlyStopping]}, TypeError, r"callbacks\[0\] is the class EarlyStopping, not a minidl"),
    ({"epochs": 1.5}, ValueError, "epochs is 1.5, it must be a whole number"),
])  # fmt: skip
def test_arguments_of_other_kinds_are_refused(tiny, data: Dataset, options, error, text):
    with pytest.raises(error, match=text):
        tiny.fit(data, verbose=False, **options)


def test_a_function_as_augmentation_survives_a_resume_in_another_process(tiny, data: Dataset, tmp_path):
    def mirror(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return images[:, :, ::-1]

    options = {"batch_size": 20, "verbose": False, "checkpoint": tmp_path}
    tiny.fit(data, epochs=1, augment=mirror, **options)
    another = FunctionType(mirror.__code__, globals(), closure=mirror.__closure__)  # at another address
    another.__qualname__ = mirror.__qualname__
    history = tiny.fit(data, epochs=2, augment=another, resume=True, **options)
    assert len(history.history["loss"]) == 2


def test_ctrl_c_after_the_last_step_interrupts_nothing(tiny, data: Dataset):
    class Late(Callback):
        def epoch_end(self, run):
            if run.epoch == run.epochs:
                signal.raise_signal(signal.SIGINT)

    history = tiny.fit(data, **QUICK, recipe=Recipe(ema_decay=0.5), callbacks=[Late()])
    assert not history.interrupted
