"""`fit`: checks and gathers what a run needs, then trains.  The loop itself is in loop.py."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from minidl import optim, streams
from minidl.data import Dataset, Loader, Split, transforms
from minidl.errors import DataError
from minidl.nn import Module
from minidl.train import checkpoint as checkpoints
from minidl.train import lock, loop
from minidl.train.callbacks import Callback
from minidl.train.evaluate import loading, preprocessing
from minidl.train.inputs import (
    as_data,
    check_fit,
    check_labels,
    hold_out,
    kind_of,
    preprocessed_shape,
)
from minidl.train.recipe import Recipe, choose
from minidl.train.run import History, Run


def fit(
    model: Module,
    data: Any,
    labels: Any = None,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    validation: Any = 0.1,
    optimizer: Any = None,
    schedule: Any = None,
    recipe: Recipe | str | None = None,
    augment: Any = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_minutes: float | None = None,
    checkpoint_keep: int = checkpoints.KEEP,
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
    verbose: bool = True,
) -> History:
    """See `Model.fit`."""
    checkpoints.check_options(checkpoint, resume, checkpoint_minutes, checkpoint_keep)
    _check_callbacks(callbacks)
    if seed is not None:
        streams.manual_seed(seed)
    if device is not None:
        model.to(device=device)
    source = as_data(data, labels, "fit")
    kind = kind_of(source, "fit")
    chosen = _recipe(recipe, model, source, epochs, batch_size)
    augmentation = _augmentation(augment, chosen)
    cut = _cut(model, source, augmentation, chosen)
    train, held_out = _splits(model, source, validation, cut)
    with lock.held(checkpoint, partial(_say, verbose)):
        if not resume or checkpoints.latest(checkpoint or "") is None:
            _start(model, chosen, train, verbose)
        chosen.settle(model)
        if cut is not None:  # evaluation cuts out the middle
            vars(model)["preprocess"] = {**preprocessing(model), "crop": [*cut]}
        loader = _loader(train, chosen, augmentation)
        # an optimiser given without a schedule or a recipe keeps its learning rate
        scheduled = chosen if optimizer is None or recipe is not None else None
        optimizer = _optimizer(model, optimizer, chosen)
        run = Run(
            model=model,
            train=loader,
            images=len(train),
            image_shape=preprocessed_shape(model, kind),
            validation=None if held_out is None else Loader(held_out, batch_size=256),
            recipe=chosen,
            optimizer=optimizer,
            schedule=_schedule(optimizer, schedule, scheduled, len(loader), chosen.epochs),
            ema=optim.EMA(model.parameters(), chosen.ema_decay) if chosen.ema_decay else None,
            epochs=chosen.epochs,
            settings=_settings(loader, len(train), held_out, chosen),
            callbacks=callbacks,
            folder=checkpoint,
            checkpoint_minutes=checkpoint_minutes,
            checkpoint_keep=checkpoint_keep,
            verbose=verbose,
        )
        loop.begin(run, resume)
        _prepare_images(run, cut)  # not before: a resumed run has its preprocessing from its checkpoint
        return loop.train(run)


def _say(verbose: bool, text: str) -> None:
    if verbose:
        print(text, flush=True)


def _check_callbacks(callbacks: Any) -> None:
    """TypeError unless `callbacks` is a list of Callbacks."""
    if not isinstance(callbacks, Sequence):
        raise TypeError(f"fit: callbacks is a {type(callbacks).__name__}; give a list of them")
    for i, callback in enumerate(callbacks):
        if not isinstance(callback, Callback):
            what = f"the class {callback.__name__}" if isinstance(callback, type) else repr(callback)
            raise TypeError(
                f"fit: callbacks[{i}] is {what}, not a minidl.train.callbacks.Callback; give an object of a "
                "class made from it"
            )


def _loader(train: Any, recipe: Recipe, augmentation: Any) -> Loader:
    """The batches to learn from; `_prepare_images` will say how they are preprocessed."""
    return Loader(
        train,
        batch_size=recipe.batch_size,
        shuffle=True,
        augment=augmentation,
        augment_last=recipe.preprocess not in (None, "none"),
    )


def _start(model: Module, recipe: Recipe, train: Any, verbose: bool) -> None:
    """What a recipe does to a model once, before the first step: initial weights, fitted preprocessing."""
    if recipe.initial_std is not None:
        if getattr(model, "as_built", True):
            recipe.start(model)
        elif verbose:
            print("the model has been trained or loaded: the recipe's initial weights are not drawn")
    vars(model)["as_built"] = False
    text, config = recipe.preprocess, preprocessing(model)
    if text is None:
        return
    if config.get("fitted") == text:
        if verbose:
            print(f"the preprocessing {text} stays as it was fitted before: the weights belong to it")
        return
    if not isinstance(train, Split) or train.images.dtype != np.uint8:
        raise DataError(
            f"fit: the recipe's preprocess, {text!r}, is fitted to uint8 images; give a Dataset or arrays of "
            "them, or override the field with None and preprocess the images beforehand"
        )
    if verbose:
        print(f"fitting the preprocessing {text} to {len(train)} training images", flush=True)
    vars(model)["preprocess"] = transforms.fit_preprocess(text, train.images, config)


def _cut(model: Module, source: Any, augmentation: Any, recipe: Recipe) -> tuple[int, int] | None:
    """The size of the windows that an augmentation cuts out of uint8 images; None if it keeps their size.

    DataError if the model would resize such windows.
    """
    image = np.asarray((source.train if isinstance(source, Dataset) else source)[0][0])
    if augmentation is None or image.dtype != np.uint8 or image.ndim != 3:
        return None
    h, w = augmentation(image[None], np.random.default_rng(0)).shape[1:3]
    if (h, w) == image.shape[:2]:
        return None
    config = preprocessing(model)
    if "resize" in config and recipe.preprocess in (None, "none"):
        raise DataError(
            f"fit: the augmentation cuts windows of {(h, w)} out of the images, which the model then resizes "
            f"to {config['resize']}; give larger images, or an augmentation that keeps their size"
        )
    return h, w


def _prepare_images(run: Run, cut: tuple[int, int] | None) -> None:
    """Let the run's loaders do to images what the model asks for; windows are cut by the augmentation."""
    # what augmentation comes after must have been done by then, wherever the model computes
    config = preprocessing(run.model) if run.train.augment_last else loading(run.model)
    whole = config if cut is None else config and {k: value for k, value in config.items() if k != "crop"}
    run.train.preprocess = whole
    if run.validation is not None:
        run.validation.preprocess = config


def _splits(model: Module, source: Any, validation: Any, cut: tuple[int, int] | None) -> tuple[Any, Any]:
    """(training part, validation part or None), both checked against the model.

    The test split of a Dataset is not touched.
    """

    def check(data: Any, where: str) -> None:
        kind = kind_of(data, where)
        if cut is not None and (kind.shape[0] < cut[0] or kind.shape[1] < cut[1]):
            raise DataError(
                f"{where}: the images are {kind.shape[0]}x{kind.shape[1]}, smaller than the windows of {cut} "
                "that the augmentation makes of them; give larger images, or another augmentation"
            )
        check_fit(model, kind if cut is None else replace(kind, shape=(*cut, kind.shape[2])), where)

    check(source, "fit")
    train = source.train if isinstance(source, Dataset) else source
    held_out = None
    if isinstance(validation, (int, float)) and not isinstance(validation, bool):
        train, held_out = hold_out(train, validation)
    elif validation is not None:
        held_out = as_data(validation, None, "fit: validation")
        if isinstance(held_out, Dataset):
            raise DataError("fit: validation is a Dataset; give one of its splits, .train or .test")
        check(held_out, "fit: validation")
        check_labels(model, held_out, "fit: validation")
    check_labels(model, train, "fit")
    return train, held_out


def _recipe(
    recipe: Recipe | str | None, model: Module, source: Any, epochs: int | None, batch_size: int | None
) -> Recipe:
    """The recipe with the epochs and the batch size that were asked for.

    A recipe that nobody asked for gives 10 and 128.
    """
    chosen = choose(recipe, model, source.name if isinstance(source, Dataset) else None)
    if recipe is None:
        epochs, batch_size = 10 if epochs is None else epochs, 128 if batch_size is None else batch_size
    given = {"epochs": epochs, "batch_size": batch_size}
    chosen = chosen.overridden({key: value for key, value in given.items() if value is not None})
    if chosen.epochs < 1:
        raise ValueError(f"fit: epochs is {chosen.epochs}, it must be at least 1")
    return chosen


def _augmentation(augment: Any, recipe: Recipe) -> Any:
    """A transform, by itself or by name; "" is none."""
    chosen = recipe.augment if augment is None else augment
    made = transforms.parse(chosen) if chosen and isinstance(chosen, str) else chosen or None
    if made is not None and not callable(made):
        raise ValueError(f"fit: augment is {made!r}; give a transform, a function (images, rng), or its name")
    return made


def _optimizer(model: Module, optimizer: Any, recipe: Recipe) -> optim.Optimizer:
    """The given one, what a given function makes of the parameters, or the recipe's."""
    if optimizer is None:
        return recipe.build_optimizer(model)
    made = optimizer
    if not isinstance(made, optim.Optimizer):
        if not callable(made):
            raise ValueError(
                f"fit: optimizer is {made!r}; give an optimiser, a function of the parameters, or "
                "recipe=Recipe(optimizer=...)"
            )
        made = made(model.parameters())
    if not isinstance(made, optim.Optimizer):
        raise ValueError(f"fit: the function given as optimizer made {made!r}, which is no optimiser")
    if {id(p) for p in made.params} - {id(p) for p in model.parameters()}:
        raise ValueError(
            "fit: optimizer was made for other parameters than this model's; make it from model.parameters()"
        )
    return made


def _schedule(
    optimizer: optim.Optimizer, schedule: Any, recipe: Recipe | None, steps: int, epochs: int
) -> optim.Schedule | None:
    """The given one, what a given function makes of the optimiser, or the recipe's, if there is one."""
    if schedule is None:
        return None if recipe is None else recipe.build_schedule(optimizer, steps * epochs, epochs)
    made = schedule(optimizer) if callable(schedule) else schedule
    if not isinstance(made, optim.Schedule):
        raise ValueError(
            f"fit: schedule is {made!r}; give a schedule, a function of the optimiser, or "
            "recipe=Recipe(schedule=...)"
        )
    if made.optimizer is not optimizer:
        raise ValueError(
            "fit: schedule belongs to another optimiser; make it from the one given as optimizer="
        )
    return made


def _settings(loader: Loader, images: int, held_out: Any, recipe: Recipe) -> dict[str, Any]:
    """What must be the same for a resumed run to go on as if it had never stopped."""
    chosen = recipe.as_data()
    for name in ("epochs", "batch_size", "augment"):
        del chosen[name]
    return {
        "batch_size": loader.batch_size,
        "training images": images,
        "validation images": 0 if held_out is None else len(held_out),
        "augment": _told(loader.augment),
        **chosen,
    }


def _told(augmentation: Any) -> str:
    """An augmentation in words that are the same in every process: a function by its name."""
    text = repr(augmentation)
    if " at 0x" not in text:
        return text
    kind = type(augmentation)
    return f"{kind.__module__}.{getattr(augmentation, '__qualname__', kind.__qualname__)}"
