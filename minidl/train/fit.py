"""Training: one plain loop. `fit` checks and gathers what a run needs into a `Run`, then the loop is `_epoch`
and what follows it."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl import backend, ops, optim, streams
from minidl.autograd import no_grad
from minidl.data import Dataset, Loader, transforms
from minidl.errors import CheckpointError
from minidl.nn import Module
from minidl.train import checkpoint as checkpoints
from minidl.train.callbacks import Callback
from minidl.train.evaluate import as_input, mode, preprocessing, run_over
from minidl.train.metrics import Mean
from minidl.train.recipe import Recipe, default_for
from minidl.train.sources import as_data, check_fit, check_labels, hold_out, shape_and_classes


@dataclass
class History:
    """What each epoch gave: `history` maps loss, accuracy, val_loss, val_accuracy and seconds to a list with
    a number per epoch.

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
    validation: Loader | None
    recipe: Recipe
    optimizer: optim.Optimizer
    schedule: Any
    ema: optim.EMA | None
    epochs: int
    callbacks: Sequence[Callback]
    folder: str | os.PathLike[str] | None
    verbose: bool
    history: History = field(default_factory=History)
    epoch: int = 0
    stop: bool = False


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
    source = as_data(data, labels)
    shape, classes = shape_and_classes(source)
    check_fit(model, shape, classes, "fit")
    train, held_out = _splits(source, validation)
    for split in (train, held_out):
        check_labels(model, split, "fit")
    chosen = _recipe(recipe, model, source)
    prepare = preprocessing(model)
    loader = Loader(
        train, batch_size=batch_size, shuffle=True, augment=_augmentation(augment, chosen), preprocess=prepare
    )
    optimizer, schedule = _optimizer_and_schedule(
        model, optimizer, schedule, recipe is not None, chosen, epochs * len(loader)
    )
    run = Run(
        model,
        loader,
        len(train),
        None if held_out is None else Loader(held_out, batch_size=256, preprocess=prepare),
        chosen,
        optimizer,
        schedule,
        optim.EMA(model.parameters(), chosen.ema_decay) if chosen.ema_decay else None,
        epochs,
        callbacks,
        checkpoint,
        verbose,
    )
    _start(run, resume)
    return _loop(run)


def _loop(run: Run) -> History:
    """Epoch after epoch, until the last one, a callback's `stop`, or Ctrl-C."""
    memory = backend.of(next(run.model.parameters()).data)
    memory.peak_bytes(reset=True)
    for callback in run.callbacks:
        callback.begin(run)
    try:
        while run.epoch < run.epochs and not run.stop:
            start = time.perf_counter()
            with mode(run.model, True):
                seen = _epoch(run)
            row = {"loss": seen.loss, "accuracy": seen.accuracy}
            if run.validation is not None:
                held_out = _validate(run)
                row |= {"val_loss": held_out.loss, "val_accuracy": held_out.accuracy}
            if getattr(run.schedule, "per", None) == "epoch":
                run.schedule.step()
            run.epoch += 1
            run.history.append(row | {"seconds": time.perf_counter() - start})
            if run.folder is not None:
                _save(run)
            for callback in run.callbacks:
                callback.epoch_end(run)
            _say(run, _row_text(run))
    except KeyboardInterrupt:
        run.history.interrupted = True
        kept = "" if run.folder is None else f"; go on with resume=True from {checkpoints.latest(run.folder)}"
        _say(
            run,
            f"interrupted after {run.epoch} of {run.epochs} epochs; the model keeps the weights it has "
            f"now{kept}",
        )
    run.history.peak_bytes = memory.peak_bytes()
    if run.ema is not None and not run.history.interrupted:
        with no_grad():
            for parameter, average in zip(run.model.parameters(), run.ema.averages):
                parameter.data[...] = average
                parameter.mark_written()
    for callback in run.callbacks:
        callback.end(run)
    return run.history


def _epoch(run: Run) -> Mean:
    """One pass over the training images."""
    from tqdm import tqdm

    seen = Mean()
    with tqdm(
        total=run.images,
        unit="img",
        leave=False,
        disable=not run.verbose,
        desc=f"epoch {run.epoch + 1}/{run.epochs}",
    ) as bar:
        for x, y in run.train:
            loss, logits = _step(run, x, y)
            seen.update(loss, logits, y)
            bar.set_postfix_str(f"loss {seen.loss:.4f}, accuracy {seen.accuracy:.4f}", refresh=False)
            bar.update(len(y))
    return seen


def _step(run: Run, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """One batch forward, backward, and the parameters' update.  -> (loss, logits)"""
    logits = run.model(as_input(run.model, x))
    loss = ops.cross_entropy(logits, y, label_smoothing=run.recipe.label_smoothing)
    value = loss.item()
    if not np.isfinite(value):
        raise FloatingPointError(_not_finite(run, x, value))
    run.optimizer.zero_grad()
    loss.backward()
    if run.recipe.clip_norm is not None:
        optim.clip_grad_norm(run.model.parameters(), run.recipe.clip_norm)
    run.optimizer.step()
    if getattr(run.schedule, "per", None) == "step":
        run.schedule.step()
    if run.ema is not None:
        run.ema.update()
    return value, logits.numpy()


def _validate(run: Run) -> Mean:
    """The model, or its moving average, on the validation images."""
    assert run.validation is not None
    if run.ema is None:
        return run_over(run.model, run.validation)
    with run.ema.applied():
        return run_over(run.model, run.validation)


def _not_finite(run: Run, x: np.ndarray, loss: float) -> str:
    """What broke the loss: the first layer whose output is not finite, found by running the batch again."""
    first: list[str] = []

    def look(path: str, module: Module) -> Callable[..., None]:
        def hook(module_: Module, inputs: Any, output: Any) -> None:
            if not first and next(module.children(), None) is None and not np.isfinite(output.numpy()).all():
                weights = any(not np.isfinite(p.data).all() for p in module.parameters())
                first.append(
                    f"{path} ({type(module).__name__})"
                    + (", whose weights are not finite" if weights else "")
                )

        return hook

    handles = [module.register_forward_hook(look(path, module)) for path, module in run.model.named_modules()]
    try:
        with no_grad():
            run.model(as_input(run.model, x))
    finally:
        for handle in handles:
            handle.remove()
    where = (
        f"the first output that is not finite is that of {first[0]}"
        if first
        else "every layer's output is finite"
    )
    kept = "" if run.folder is None else f" The last checkpoint is {checkpoints.latest(run.folder)}."
    source = "the images of this batch are not finite; " if not np.isfinite(x).all() else ""
    return (
        f"fit: the loss is {loss} in epoch {run.epoch + 1}; {source}{where}. Train with a lower learning "
        f"rate, or clip the gradients.{kept}"
    )


def _splits(source: Any, validation: Any) -> tuple[Any, Any]:
    """(training part, validation part or None); the test split of a Dataset is not touched."""
    train = source.train if isinstance(source, Dataset) else source
    if validation is None:
        return train, None
    if isinstance(validation, float):
        return hold_out(train, validation)
    return train, as_data(validation)


def _recipe(recipe: Recipe | str | None, model: Module, source: Any) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in (None, "default"):
        raise ValueError(f"fit: recipe is {recipe!r}; give 'default' or a minidl.train.Recipe")
    return default_for(model, source.name if isinstance(source, Dataset) else None)


def _augmentation(augment: Any, recipe: Recipe) -> Any:
    if augment is None:
        augment = recipe.augment
    if isinstance(augment, str):
        return transforms.parse(augment)
    return augment or None


def _optimizer_and_schedule(
    model: Module, optimizer: Any, schedule: Any, recipe_given: bool, recipe: Recipe, total_steps: int
) -> tuple[optim.Optimizer, Any]:
    """The given ones, functions that make them, or the recipe's.

    A given optimiser without a schedule keeps its learning rate.
    """
    from_recipe = optimizer is None
    if from_recipe:
        optimizer = recipe.build_optimizer(model.parameters())
    elif not hasattr(optimizer, "step"):
        optimizer = optimizer(model.parameters())
    if schedule is None and (from_recipe or recipe_given):
        schedule = recipe.build_schedule(optimizer, total_steps)
    elif schedule is not None and not hasattr(schedule, "step"):
        schedule = schedule(optimizer)
    return optimizer, schedule


def _start(run: Run, resume: bool) -> None:
    """Say what is about to happen; go on from the last checkpoint, or write one of the start."""
    if run.verbose:
        _show_table(run.model)
    if run.folder is None:
        return
    last = checkpoints.latest(run.folder)
    if not resume:
        if last is not None:
            raise CheckpointError(
                f"fit: checkpoint={os.fspath(run.folder)!r} holds a run already ({last.name}); pass "
                "resume=True to go on with it, or another folder"
            )
        _save(run)
    elif last is None:
        _say(run, f"no checkpoint in {os.fspath(run.folder)}: starting from the beginning")
        _save(run)
    else:
        _restore(run, last)
        _say(run, f"resuming after epoch {run.epoch} from {last}")


def _save(run: Run) -> None:
    parts = {"model": run.model._state(), "optimizer": run.optimizer.state_dict()}
    if run.schedule is not None:
        parts["schedule"] = run.schedule.state_dict()
    if run.ema is not None:
        parts["ema"] = run.ema.state_dict()
    assert run.folder is not None
    checkpoints.save(
        run.folder, run.epoch, parts, {"history": run.history.history, "streams": streams.get_state()}
    )


def _restore(run: Run, path: os.PathLike[str]) -> None:
    """Put the run where the checkpoint left off.

    CheckpointError before anything changed if it belongs to another kind of run.
    """
    parts, description = checkpoints.load(path)
    # the model comes last: should one of the others refuse, it is still as it was
    holders: dict[str, Any] = {
        "optimizer": run.optimizer,
        "schedule": run.schedule,
        "ema": run.ema,
        "model": run.model,
    }
    expected = [name for name, holder in holders.items() if holder is not None]
    if sorted(parts) != sorted(expected):
        raise CheckpointError(
            f"{path} holds {', '.join(parts)}, but this run has {', '.join(expected)}; resume with the same "
            "optimizer, schedule and recipe as before"
        )
    for name in expected:
        holders[name].load_state_dict(parts[name])
    streams.set_state(description["streams"])
    run.epoch, run.history.history = description["epoch"], description["history"]


def _say(run: Run, text: str) -> None:
    if run.verbose:
        print(text, flush=True)


def _show_table(model: Module) -> None:
    """The layer table of a Model that knows its input's shape, the first time it is trained."""
    table = getattr(model, "summary", None)
    if table is not None and getattr(model, "input_shape", None) and "_table_shown" not in vars(model):
        print(table(), flush=True)
        vars(model)["_table_shown"] = True


def _row_text(run: Run) -> str:
    row = {key: values[-1] for key, values in run.history.history.items()}
    text = "  ".join(f"{key} {value:.4f}" for key, value in row.items() if key != "seconds")
    rate = run.images / row["seconds"]
    return f"epoch {run.epoch}/{run.epochs}  {text}  {row['seconds']:.1f} s  {rate:.0f} img/s"
