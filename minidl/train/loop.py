"""The training loop: `train` goes over epochs, `_pass` over batches; `_step` is what happens to a batch."""

import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np

from minidl import backend, ops, optim, streams
from minidl.data import Loader
from minidl.nn import mode
from minidl.train import checkpoint as checkpoints
from minidl.train import signals, state
from minidl.train.diverged import check_weights, not_finite
from minidl.train.evaluate import as_batch, run_over
from minidl.train.metrics import Metrics
from minidl.train.run import History, Run
from minidl.train.signals import Watch

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def begin(run: Run, resume: bool) -> None:
    """Say what is about to happen; go on from the last checkpoint, or write one of the start."""
    last = None
    if run.folder is not None:
        if not resume:
            checkpoints.check_unused(run.folder)
        last = checkpoints.latest(run.folder)
    _show_table(run)
    if last is not None:
        state.restore(run, last)
        batches = f" and {run.batch} of {len(run.train)} batches of the next" if run.batch else ""
        run.say(f"resuming after epoch {run.epoch}{batches} from {last}")
        if run.epoch >= run.epochs:
            run.say(f"nothing is left to train: epochs={run.epochs}, with resume the total, are done")
    elif resume:
        run.say(f"no checkpoint in {run.folder}: starting from the beginning")
    for callback in run.callbacks:
        callback.begin(run)
    if run.folder is not None and last is None:
        state.save(run)


def train(run: Run) -> History:
    """Epoch after epoch, until the last one, a callback's `stop`, Ctrl-C or SIGTERM."""
    device = backend.of(next(run.model.parameters()).data)
    device.peak_bytes(reset=True)
    if device.is_cold():
        run.say("compiling for this processor, once: up to a minute (`minidl warmup` does so ahead of time)")
    # without a folder there is nothing that SIGTERM should wait for
    numbers = (signal.SIGINT,) if run.folder is None else (signal.SIGINT, signal.SIGTERM)
    with signals.watching(numbers, loud=run.verbose) as watch:
        try:
            while not _done(run):
                watch.check()
                _epoch(run, watch)
        except signals.Stopped:
            if run.folder is not None and run.batch:  # else the last epoch's checkpoint has it all
                _save_midway(run)
        except KeyboardInterrupt:
            if watch.asked is not None:  # the second Ctrl-C
                raise
            run.history.interrupted = not _done(run)
    run.history.interrupted |= watch.asked is not None and not _done(run)
    _finish(run)
    watch.raise_again()
    return run.history


def _done(run: Run) -> bool:
    """Whether there is nothing left to train."""
    return run.stop or run.epoch >= run.epochs


def _finish(run: Run) -> None:
    """The last words, and what is due after the last epoch alone."""
    if run.history.interrupted:
        last = "" if run.folder is None else f"; go on with resume=True from {checkpoints.latest(run.folder)}"
        run.say(f"interrupted after {run.place}; the model keeps the weights it has now{last}")
    elif run.ema is not None:
        run.ema.copy_to_params()
    run.history.peak_bytes = backend.of(next(run.model.parameters()).data).peak_bytes()
    run.say(f"peak memory of the arrays: {run.history.peak_bytes / 1e6:.0f} MB")
    for callback in run.callbacks:
        callback.end(run)


def _epoch(run: Run, watch: Watch) -> None:
    """An epoch, or what is left of it: training, validation, its row of the history, its checkpoint."""
    if run.batch == 0:
        run.started, run.seen = time.perf_counter(), Metrics()
    _pass(run, watch)
    check_weights(run)  # the loss has not seen what the last step did to them
    row = {"loss": run.seen.loss, "accuracy": run.seen.accuracy}
    if run.validation is not None:
        held_out = _validate(run, run.validation, watch)
        row |= {"val_loss": held_out.loss, "val_accuracy": held_out.accuracy}
    if run.schedule is not None and run.schedule.per == "epoch":
        run.schedule.step()
    run.epoch, run.batch = run.epoch + 1, 0
    run.history.append(row | {"seconds": time.perf_counter() - run.started})
    if run.folder is not None:
        state.save(run)
    for callback in run.callbacks:
        callback.epoch_end(run)
    run.say(run.line(run.epoch))


def _pass(run: Run, watch: Watch) -> None:
    """The batches of an epoch that are still to be done.  Stopped after the one at which a signal came."""
    from tqdm import tqdm

    bar = tqdm(
        total=run.images,
        initial=run.seen.images,
        unit="img",
        leave=False,
        disable=not run.verbose,
        desc=f"epoch {run.epoch + 1}/{run.epochs}",
    )
    with mode(run.model, True), bar:
        for x, y in _batches(run):
            loss, logits = _step(run, x, y)
            run.seen.update(loss, logits, y)
            run.batch += 1
            for callback in run.callbacks:
                callback.step_end(run, loss)
            bar.set_postfix_str(f"loss {run.seen.loss:.4f}, accuracy {run.seen.accuracy:.4f}", refresh=False)
            bar.update(len(y))
            watch.check()
            if state.due(run):
                _save_midway(run)


def _save_midway(run: Run) -> None:
    """A checkpoint in the midst of an epoch, and none of weights that are lost already."""
    check_weights(run)
    state.save(run)


def _batches(run: Run) -> Batches:
    """The batches of an epoch from `run.batch` on, as if those before had just been made.

    Order and augmentation are drawn when an epoch begins; the dropout masks since then stay as they are.
    """
    if run.batch == 0:
        run.epoch_streams = streams.get_state()
        return run.train.batches()
    assert run.epoch_streams is not None
    now = streams.get_state()
    streams.set_state(run.epoch_streams)
    batches = run.train.batches(run.batch)
    streams.set_state(now)
    return batches


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
        raise FloatingPointError(not_finite(run, x, loss.item()))
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


def _validate(run: Run, images: Loader, watch: Watch) -> Metrics:
    """The model, or its moving average, on the validation images.  Stopped when a signal comes."""
    held_out = Metrics()

    def watched() -> Batches:
        for x, y in images:
            watch.check()
            yield x, y
            if not np.isfinite(held_out.loss):  # told from here, where the mode and the averages are in force
                raise FloatingPointError(not_finite(run, x, held_out.loss, "validation loss"))

    with nullcontext() if run.ema is None else run.ema.applied():
        return run_over(run.model, watched(), held_out)


def _show_table(run: Run) -> None:
    """Print the layer table of a Model that knows its input's shape, the first time it is trained."""
    model = run.model
    shown = "_table_shown" in vars(model) or not run.verbose
    if not shown and hasattr(model, "summary") and getattr(model, "input_shape", None):
        run.say(model.summary(run.image_shape))
        vars(model)["_table_shown"] = True
