"""Training: one plain loop.

`fit` checks and gathers what a run needs into a `Run`; `_loop` is the loop over epochs, `_epoch` the one over
batches, `_step` what happens to a batch.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl import backend, ops, optim, streams
from minidl.autograd import Tensor, no_grad
from minidl.data import Dataset, Loader, transforms
from minidl.errors import CheckpointError, DataError
from minidl.nn import Module, mode
from minidl.train import checkpoint as checkpoints
from minidl.train.callbacks import Callback
from minidl.train.evaluate import as_batch, loading, run_over
from minidl.train.inputs import (
    as_data,
    check_fit,
    check_labels,
    hold_out,
    kind_of,
    preprocessed_shape,
)
from minidl.train.metrics import Metrics
from minidl.train.recipe import Recipe, default_for


@dataclass
class History:
    """What each epoch gave: `history` maps loss, accuracy, val_loss, val_accuracy and seconds to a number
    each.

    `interrupted` tells that Ctrl-C ended the run; `peak_bytes` is the most memory its arrays took at once.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    interrupted: bool = False
    peak_bytes: int = 0

    def append(self, row: dict[str, float]) -> None:
        """Add an epoch."""
        for key, value in row.items():
            self.history.setdefault(key, []).append(value)


@dataclass
class Run:
    """Everything that one call of `fit` works with; callbacks see it."""

    model: Module
    train: Loader
    images: int  # in an epoch
    image_shape: tuple[int, ...]  # (H, W, C), as the model sees them
    validation: Loader | None
    recipe: Recipe
    optimizer: optim.Optimizer
    schedule: optim.Schedule | None
    ema: optim.EMA | None
    epochs: int
    settings: dict[str, Any]  # what a resumed run must have in common with the one before
    callbacks: Sequence[Callback]
    folder: str | os.PathLike[str] | None
    verbose: bool
    history: History = field(default_factory=History)
    epoch: int = 0
    stop: bool = False

    def line(self, epoch: int) -> str:
        """What an epoch (1, 2, ...) gave, in one line."""
        row = {key: values[epoch - 1] for key, values in self.history.history.items()}
        seconds = row.pop("seconds")
        text = "  ".join(f"{key} {value:.4f}" for key, value in row.items())
        return f"epoch {epoch}/{self.epochs}  {text}  {seconds:.1f} s  {self.images / seconds:.0f} img/s"

    def say(self, text: str) -> None:
        """Print a line, unless asked to be quiet."""
        if self.verbose:
            print(text, flush=True)


def fit(
    model: Module,
    data: Any,
    labels: Any = None,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    validation: Any = 0.1,
    optimizer: Any = None,
    schedule: Any = None,
    recipe: Recipe | str | None = None,
    augment: Any = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    seed: int | None = None,
    device: str | None = None,
    verbose: bool = True,
) -> History:
    """See `Model.fit`."""
    if epochs < 1:
        raise ValueError(f"fit: epochs is {epochs}, it must be at least 1")
    if resume and checkpoint is None:
        raise ValueError("fit: resume=True needs checkpoint=, the folder to go on from")
    if seed is not None:
        streams.manual_seed(seed)
    if device is not None:
        model.to(device=device)
    train, held_out, name = _splits(model, as_data(data, labels, "fit"), validation)
    chosen = _recipe(recipe, model, name)
    prepare = loading(model)
    loader = Loader(
        train,
        batch_size=batch_size,
        shuffle=True,
        augment=_augmentation(augment, chosen),
        preprocess=prepare,
    )
    # an optimiser given without a schedule or a recipe keeps its learning rate
    scheduled = chosen if optimizer is None or recipe is not None else None
    optimizer = _optimizer(model, optimizer, chosen)
    run = Run(
        model=model,
        train=loader,
        images=len(train),
        image_shape=preprocessed_shape(model, kind_of(train, "fit")),
        validation=None if held_out is None else Loader(held_out, batch_size=256, preprocess=prepare),
        recipe=chosen,
        optimizer=optimizer,
        schedule=_schedule(optimizer, schedule, scheduled, epochs * len(loader)),
        ema=optim.EMA(model.parameters(), chosen.ema_decay) if chosen.ema_decay else None,
        epochs=epochs,
        settings=_settings(loader, len(train), held_out, chosen),
        callbacks=callbacks,
        folder=checkpoint,
        verbose=verbose,
    )
    _begin(run, resume)
    return _loop(run)


def _loop(run: Run) -> History:
    """Epoch after epoch, until the last one, a callback's `stop`, or Ctrl-C."""
    device = backend.of(next(run.model.parameters()).data)
    device.peak_bytes(reset=True)
    if device.is_cold():
        run.say("compiling for this processor, once: up to a minute (`minidl warmup` does so ahead of time)")
    try:
        while run.epoch < run.epochs and not run.stop:
            start = time.perf_counter()
            row = _epoch(run)
            if run.schedule is not None and run.schedule.per == "epoch":
                run.schedule.step()
            run.epoch += 1
            run.history.append(row | {"seconds": time.perf_counter() - start})
            if run.folder is not None:
                _save(run)
            for callback in run.callbacks:
                callback.epoch_end(run)
            run.say(run.line(run.epoch))
    except KeyboardInterrupt:
        run.history.interrupted = True
        last = "" if run.folder is None else f"; go on with resume=True from {checkpoints.latest(run.folder)}"
        run.say(
            f"interrupted after {run.epoch} of {run.epochs} epochs; the model keeps the weights it has "
            f"now{last}"
        )
    run.history.peak_bytes = device.peak_bytes()
    run.say(f"peak memory of the arrays: {run.history.peak_bytes / 1e6:.0f} MB")
    if run.ema is not None and not run.history.interrupted:
        run.ema.copy_to_params()
    for callback in run.callbacks:
        callback.end(run)
    return run.history


def _epoch(run: Run) -> dict[str, float]:
    """One pass over the training images, then one over the validation images.  -> the history's row"""
    from tqdm import tqdm

    seen = Metrics()
    title = f"epoch {run.epoch + 1}/{run.epochs}"
    with (
        mode(run.model, True),
        tqdm(total=run.images, unit="img", leave=False, disable=not run.verbose, desc=title) as bar,
    ):
        for x, y in run.train:
            loss, logits = _step(run, x, y)
            seen.update(loss, logits, y)
            bar.set_postfix_str(f"loss {seen.loss:.4f}, accuracy {seen.accuracy:.4f}", refresh=False)
            bar.update(len(y))
    _check_weights(run)  # the loss has not seen what the last step did to them
    row = {"loss": seen.loss, "accuracy": seen.accuracy}
    if run.validation is not None:
        held_out = _validate(run)
        row |= {"val_loss": held_out.loss, "val_accuracy": held_out.accuracy}
    return row


def _step(run: Run, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """One batch forward, backward, and the parameters' update.  -> (loss, logits), the classifier's own

    What is minimised adds `aux_weight` times the loss of every auxiliary classifier.
    """
    output = run.model(as_batch(run.model, x))
    logits, *auxiliary = (output[0], *output[1]) if isinstance(output, tuple) else (output,)
    losses = [
        ops.cross_entropy(each, y, label_smoothing=run.recipe.label_smoothing)
        for each in (logits, *auxiliary)
    ]
    value = losses[0].item()
    aux_weight = getattr(run.model, "aux_weight", 0.0)
    loss = sum((each * aux_weight for each in losses[1:]), start=losses[0])
    if not np.isfinite(loss.item()):
        raise FloatingPointError(_not_finite(run, x, loss.item()))
    run.optimizer.zero_grad()
    loss.backward()
    if run.recipe.clip_norm is not None:
        optim.clip_grad_norm(run.model.parameters(), run.recipe.clip_norm)
    run.optimizer.step()
    if run.schedule is not None and run.schedule.per == "step":
        run.schedule.step()
    if run.ema is not None:
        run.ema.update()
    return value, logits.numpy()


def _validate(run: Run) -> Metrics:
    """The model, or its moving average, on the validation images."""
    assert run.validation is not None
    if run.ema is None:
        held_out = run_over(run.model, run.validation)
    else:
        with run.ema.applied():
            held_out = run_over(run.model, run.validation)
    if not np.isfinite(held_out.loss):
        x, _ = next(iter(run.validation))
        raise FloatingPointError(_not_finite(run, x, held_out.loss, "validation loss"))
    return held_out


def _check_weights(run: Run) -> None:
    """FloatingPointError, naming the first of them, if a parameter is not finite."""
    for name, parameter in run.model.named_parameters():
        if not np.isfinite(parameter.numpy()).all():
            raise FloatingPointError(f"fit: {name} is not finite after epoch {run.epoch + 1}. {_advice(run)}")


def _not_finite(run: Run, x: np.ndarray, loss: float, what: str = "loss") -> str:
    """What broke the loss: the first layer whose output is not finite, found by running the batch again."""
    first: list[str] = []

    def look(path: str) -> Callable[..., None]:
        def hook(module: Module, inputs: Any, output: Any) -> None:
            y = output[0] if isinstance(output, tuple) else output
            if not first and isinstance(y, Tensor) and not np.isfinite(y.numpy()).all():
                broken = any(not np.isfinite(p.numpy()).all() for p in module.parameters())
                reason = ", whose weights are not finite" if broken else ""
                first.append(f"{path} ({type(module).__name__}){reason}")

        return hook

    leaves = [(path, m) for path, m in run.model.named_modules() if next(m.children(), None) is None]
    handles = [module.register_forward_hook(look(path)) for path, module in leaves]
    try:
        with no_grad():
            run.model(as_batch(run.model, x))
    finally:
        for handle in handles:
            handle.remove()
    images = "" if np.isfinite(x).all() else "the images of this batch are not finite; "
    layer = (
        f"the first output that is not finite is that of {first[0]}" if first else "all outputs are finite"
    )
    return f"fit: the {what} is {loss} in epoch {run.epoch + 1}; {images}{layer}. {_advice(run)}"


def _advice(run: Run) -> str:
    last = "" if run.folder is None else f" The last checkpoint is {checkpoints.latest(run.folder)}."
    return f"Train with a lower learning rate, or clip the gradients.{last}"


def _splits(model: Module, source: Any, validation: Any) -> tuple[Any, Any, str | None]:
    """(training part, validation part or None, the data set's name), all checked against the model.

    The test split of a Dataset is not touched.
    """
    check_fit(model, kind_of(source, "fit"), "fit")
    name = source.name if isinstance(source, Dataset) else None
    train = source.train if isinstance(source, Dataset) else source
    held_out = None
    if isinstance(validation, (int, float)) and not isinstance(validation, bool):
        train, held_out = hold_out(train, validation)
    elif validation is not None:
        held_out = as_data(validation, None, "fit: validation")
        if isinstance(held_out, Dataset):
            raise DataError("fit: validation is a Dataset; give one of its splits, .train or .test")
        check_fit(model, kind_of(held_out, "fit: validation"), "fit: validation")
        check_labels(model, held_out, "fit: validation")
    check_labels(model, train, "fit")
    return train, held_out, name


def _recipe(recipe: Recipe | str | None, model: Module, name: str | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in (None, "default"):
        raise ValueError(f"fit: recipe is {recipe!r}; give 'default' or a minidl.train.Recipe")
    return default_for(model, name)


def _augmentation(augment: Any, recipe: Recipe) -> Any:
    """A transform, by itself or by name; "" is none."""
    chosen = recipe.augment if augment is None else augment
    return transforms.parse(chosen) if chosen and isinstance(chosen, str) else chosen or None


def _optimizer(model: Module, optimizer: Any, recipe: Recipe) -> optim.Optimizer:
    """The given one, what a given function makes of the parameters, or the recipe's."""
    if optimizer is None:
        return recipe.build_optimizer(model.parameters())
    made = optimizer
    if not isinstance(made, optim.Optimizer):
        if not callable(made):
            raise ValueError(
                f"fit: optimizer is {made!r}; give an optimiser, a function of the parameters, or "
                "recipe=Recipe(optimizer=...)"
            )
        made = made(model.parameters())
    if {id(p) for p in made.params} - {id(p) for p in model.parameters()}:
        raise ValueError(
            "fit: optimizer was made for other parameters than this model's; make it from model.parameters()"
        )
    return made


def _schedule(
    optimizer: optim.Optimizer, schedule: Any, recipe: Recipe | None, total_steps: int
) -> optim.Schedule | None:
    """The given one, what a given function makes of the optimiser, or the recipe's, if there is one."""
    if schedule is None:
        return None if recipe is None else recipe.build_schedule(optimizer, total_steps)
    made = schedule if isinstance(schedule, optim.Schedule) else schedule(optimizer)
    if made.optimizer is not optimizer:
        raise ValueError(
            "fit: schedule belongs to another optimiser; make it from the one given as optimizer="
        )
    return made


def _settings(loader: Loader, images: int, held_out: Any, recipe: Recipe) -> dict[str, Any]:
    """What must be the same for a resumed run to go on as if it had never stopped."""
    chosen = dataclasses.asdict(recipe)
    for name in ("epochs", "batch_size", "augment"):
        del chosen[name]
    return {
        "batch_size": loader.batch_size,
        "training images": images,
        "validation images": 0 if held_out is None else len(held_out),
        "augment": repr(loader.augment),
        **chosen,
    }


def _begin(run: Run, resume: bool) -> None:
    """Say what is about to happen; go on from the last checkpoint, or write one of the start."""
    _show_table(run)
    last = None if run.folder is None else checkpoints.latest(run.folder)
    if last is not None and not resume:
        raise CheckpointError(
            f"fit: checkpoint={str(run.folder)!r} holds a run already ({last.name}); pass resume=True "
            "to go on with it, or another folder"
        )
    if last is not None:
        _restore(run, last)
        run.say(f"resuming after epoch {run.epoch} from {last}")
    elif resume:
        run.say(f"no checkpoint in {run.folder}: starting from the beginning")
    for callback in run.callbacks:
        callback.begin(run)
    if run.folder is not None and last is None:
        _save(run)


def _save(run: Run) -> None:
    parts = {"model": run.model._host_state(), "optimizer": run.optimizer.state_dict()}
    if run.schedule is not None:
        parts["schedule"] = run.schedule.state_dict()
    if run.ema is not None:
        parts["ema"] = run.ema.state_dict()
    description = {"history": run.history.history, "settings": run.settings, "streams": streams.get_state()}
    assert run.folder is not None
    checkpoints.save(run.folder, run.epoch, parts, description)


def _restore(run: Run, path: os.PathLike[str]) -> None:
    """Put the run where the checkpoint left off.

    CheckpointError, and a model as it was, if it belongs to another kind of run.
    """
    parts, description = checkpoints.load(path)
    holders: dict[str, Any] = {"optimizer": run.optimizer, "schedule": run.schedule, "ema": run.ema}
    expected = ["model", *(name for name, holder in holders.items() if holder is not None)]
    if sorted(parts) != sorted(expected):
        raise CheckpointError(
            f"{path} holds {', '.join(parts)}, but this run has {', '.join(expected)}; resume with the same "
            "optimizer, schedule and recipe as before"
        )
    for name, value in run.settings.items():
        before = description["settings"].get(name)
        if before != value:
            raise CheckpointError(
                f"{path}: the run began with {name} = {before} and cannot go on with {value}; resume with "
                f"the "
                "same settings, or start another run from these weights"
            )
    try:
        run.model.check_state_dict(parts["model"])
        for name in expected[1:]:
            holders[name].load_state_dict(parts[name])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    run.model.load_state_dict(parts["model"])
    streams.set_state(description["streams"])
    run.epoch, run.history.history = description["epoch"], description["history"]


def _show_table(run: Run) -> None:
    """Print the layer table of a Model that knows its input's shape, the first time it is trained."""
    model = run.model
    shown = "_table_shown" in vars(model) or not run.verbose
    if not shown and hasattr(model, "summary") and getattr(model, "input_shape", None):
        run.say(model.summary(run.image_shape))
        vars(model)["_table_shown"] = True
