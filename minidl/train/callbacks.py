"""What can be done besides training while `fit` runs: a list of callbacks, called in order.

An epoch's checkpoint is written before its callbacks are called. So none of these has state to keep: what it
needs is in the history, which is in the checkpoint, and after a resume `begin` does again what a kill may
have prevented.
"""

import csv
import io
import json
import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl.errors import DataError
from minidl.io import write_atomic
from minidl.optim.optimizer import number, whole

if TYPE_CHECKING:
    from minidl.train.run import Run


class Callback:
    """Override what you need.

    `run` tells model, optimizer, schedule, history, epoch (how many are done), batch (how many are done of
    the epoch under way) and epochs (how many there will be). Set run.stop to end training after an epoch.
    """

    def begin(self, run: "Run") -> None:
        """Before the first epoch; after a resume, run.history holds the epochs before, and run.batch is not 0
        in the midst of one."""

    def step_end(self, run: "Run", loss: float) -> None:
        """After each optimiser step, with the batch's loss; a schedule has set the rate of the next step."""

    def epoch_end(self, run: "Run") -> None:
        """After each epoch, its row being the last of run.history and its checkpoint written."""

    def end(self, run: "Run") -> None:
        """After the last epoch, or when training was interrupted."""


def improvements(run: "Run", monitor: str, owner: str, threshold: float = 0.0) -> list[bool]:
    """For each epoch of the history, whether its `monitor` was better than the best before it.

    An accuracy is better when higher, everything else when lower, by more than `threshold` times the best; a
    nan never is.  ValueError, naming `owner` and the keys there are, for an unknown monitor.
    """
    history = run.history.history
    if monitor not in history:
        raise ValueError(f"{owner}: monitor is {monitor!r}; the history has {', '.join(history)}")
    sign = -1.0 if monitor.endswith("accuracy") else 1.0
    best, result = math.nan, []
    for value in history[monitor]:
        score = sign * value
        first = math.isnan(best) and not math.isnan(score)
        result.append(first or score < best - threshold * abs(best))
        best = score if result[-1] else best
    return result


def check_monitor(run: "Run", monitor: str, owner: str) -> None:
    """ValueError, naming `owner`, the keys and the cure, unless the history will have a `monitor`."""
    if monitor in run.history.history:  # after a resume
        return
    held_out = [] if run.validation is None else ["val_loss", "val_accuracy"]
    keys = ["loss", "accuracy", *held_out, "seconds"]
    if monitor not in keys:
        cure = "give fit validation=, a share of the images or a split, or " if not held_out else ""
        raise ValueError(
            f"{owner}: monitor is {monitor!r}; the history has {', '.join(keys)}: {cure}monitor one of these"
        )


def check_place(path: Path, owner: str) -> None:
    """FileNotFoundError, naming `owner` and the cure, unless there is a folder for the file."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{owner}: the folder of {path} does not exist; make {path.parent} first, or give another path"
        )


class CSVLogger(Callback):
    """Writes the whole history as a table, one row per epoch, whenever it has changed.

    FileNotFoundError, before the first epoch, without a folder for the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def begin(self, run: "Run") -> None:
        check_place(self.path, "CSVLogger")
        if run.epoch and not run.batch:  # a kill may have come between its checkpoint and this file
            self.epoch_end(run)

    def epoch_end(self, run: "Run") -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *run.history.history])
        writer.writerows(
            [i + 1, *row] for i, row in enumerate(zip(*run.history.history.values(), strict=True))
        )
        write_atomic(self.path, text.getvalue().encode())


class JSONLines(Callback):
    """Writes one JSON object a line for each epoch: epoch, all keys of the history, and lr.

    lr is the learning rate after the epoch, which the next begins with. A number that is not finite is null.
    The file is written whole whenever it has changed, so that no line is ever missing, doubled or torn; lr,
    which is in no history, is taken over from the lines that are there, and null where there is none.
    Before the first epoch, DataError when the file has other lines than these, FileNotFoundError without a
    folder for it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def begin(self, run: "Run") -> None:
        check_place(self.path, "JSONLines")
        self._rates()  # refuse a file of someone else's now, not after an epoch
        if run.epoch and not run.batch:  # a kill may have come between its checkpoint and this file
            self.epoch_end(run)

    def epoch_end(self, run: "Run") -> None:
        rates = self._rates() | {run.epoch: run.optimizer.lr}
        history = run.history.history
        lines = []
        for i in range(run.epoch):
            row = {key: values[i] if math.isfinite(values[i]) else None for key, values in history.items()}
            row = {"epoch": i + 1, **row, "lr": rates.get(i + 1)}
            lines.append(json.dumps(row, allow_nan=False) + "\n")
        write_atomic(self.path, "".join(lines).encode())

    def _rates(self) -> dict[int, float | None]:
        """epoch -> lr, as the file has them."""
        rates = {}
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        for i, line in enumerate(lines):
            try:
                row = json.loads(line)
                rates[row["epoch"]] = row["lr"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DataError(
                    f"JSONLines: line {i + 1} of {self.path} is none of its own; give another path"
                ) from error
        return rates


class TensorBoard(Callback):
    """Writes scalars for TensorBoard: by epoch all keys of the history and lr, by step the loss of its batch.

    They are the runs "epochs" and "steps" of the folder. Steps are counted from 1; after a resume they go on
    from the checkpoint, and what was written beyond it is hidden. Likewise a run from the start hides what an
    earlier one left in the folder.  ImportError without tensorboardX.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError("TensorBoard needs tensorboardX: pip install minidl[tensorboard]") from error
        self.folder, self._new_writer = Path(folder), SummaryWriter
        self._epochs: Any = None
        self._steps: Any = None
        self._step = 0

    def begin(self, run: "Run") -> None:
        self._step = run.epoch * len(run.train) + run.batch
        self._epochs = self._writer("epochs", run, purge_step=run.epoch + bool(run.batch))
        self._steps = self._writer("steps", run, purge_step=self._step + 1)
        if run.epoch and not run.batch:  # a kill may have come between its checkpoint and this
            self.epoch_end(run)

    def step_end(self, run: "Run", loss: float) -> None:
        self._step += 1
        self._steps.add_scalar("step_loss", loss, self._step)

    def epoch_end(self, run: "Run") -> None:
        row = {key: values[-1] for key, values in run.history.history.items()}
        for key, value in {**row, "lr": run.optimizer.lr}.items():
            self._epochs.add_scalar(key, value, run.epoch)
        self._epochs.flush()
        self._steps.flush()

    def end(self, run: "Run") -> None:
        self._epochs.close()
        self._steps.close()

    def _writer(self, name: str, run: "Run", purge_step: int) -> Any:
        """A writer that hides what the folder holds from `purge_step` on.

        The suffix keeps apart the files of runs that follow each other within a second.
        """
        return self._new_writer(
            str(self.folder / name),
            purge_step=purge_step,
            flush_secs=10,
            filename_suffix=f".{run.epoch:06d}.{run.batch:06d}",
        )


class EarlyStopping(Callback):
    """Stops when `monitor` has not improved for `patience` epochs.

    `monitor` is a key of the history; an accuracy improves upwards, everything else downwards.
    ValueError unless patience is a whole number of at least 1 and, before the first epoch, for a monitor that
    the run will not have.
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 5) -> None:
        self.monitor, self.patience = monitor, whole("EarlyStopping", "patience", patience)

    def begin(self, run: "Run") -> None:
        check_monitor(run, self.monitor, "EarlyStopping")
        if run.epoch and not run.batch:  # a kill may have come between its checkpoint and its stop
            self.epoch_end(run)

    def epoch_end(self, run: "Run") -> None:
        better = improvements(run, self.monitor, "EarlyStopping")
        if len(better) > self.patience and not any(better[-self.patience :]):
            run.stop = True


class ReduceOnPlateau(Callback):
    """Multiplies the learning rate by `factor` when `monitor` has not improved for `patience` epochs.

    After a reduction, and after an improvement, the epochs are counted anew; the best stays the best. The
    rate does not fall below min_lr. `monitor` is a key of the history; an accuracy improves upwards,
    everything else downwards, by more than `threshold` times the best so far. PyTorch's, whose defaults these
    are, waits one epoch more.

    ValueError for a number out of range and, before the first epoch, for a monitor that the run will not have
    and in a run with a schedule, which would overwrite the rate.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_lr: float = 0.0,
        threshold: float = 1e-4,
    ) -> None:
        self.monitor, self.patience = monitor, whole("ReduceOnPlateau", "patience", patience)
        self.factor = number("ReduceOnPlateau", "factor", factor, below=1.0)
        self.min_lr = number("ReduceOnPlateau", "min_lr", min_lr)
        self.threshold = number("ReduceOnPlateau", "threshold", threshold)

    def begin(self, run: "Run") -> None:
        if run.schedule is not None:
            raise ValueError(
                f"ReduceOnPlateau: the run's schedule {run.schedule.name} would overwrite the learning rate; "
                'give fit an optimizer and no schedule, or a recipe with schedule="constant"'
            )
        check_monitor(run, self.monitor, "ReduceOnPlateau")
        if run.epoch and not run.batch:  # the checkpoint has the rate from before this epoch's reduction
            self.epoch_end(run)

    def epoch_end(self, run: "Run") -> None:
        if self._reductions(run)[-1]:
            lr = run.optimizer.lr
            run.optimizer.lr = min(lr, max(lr * self.factor, self.min_lr))

    def reason(self, run: "Run") -> str:
        """Why the learning rate is what it is, in a few words."""
        count = sum(self._reductions(run)) if run.epoch else 0
        return f"reduced on plateau of {self.monitor}, {count} so far" if count else "constant"

    def _reductions(self, run: "Run") -> list[bool]:
        """For each epoch of the history, whether a reduction follows it."""
        waited, result = 0, []
        for better in improvements(run, self.monitor, "ReduceOnPlateau", self.threshold):
            waited = 0 if better else waited + 1
            result.append(waited == self.patience)
            waited %= self.patience
        return result


class LearningRate(Callback):
    """Prints the learning rate, with its reason, when training begins and after each epoch.

    It is that of the next step. Beside a ReduceOnPlateau, list it last.
    """

    def begin(self, run: "Run") -> None:
        self.epoch_end(run)

    def epoch_end(self, run: "Run") -> None:
        plateaus = [each for each in run.callbacks if isinstance(each, ReduceOnPlateau)]
        if run.schedule is not None:
            reason = run.schedule.reason()
        else:
            reason = plateaus[0].reason(run) if plateaus else "constant"
        run.say(f"learning rate {run.optimizer.lr:g} ({reason})")


class BestCheckpoint(Callback):
    """Keeps the model of the best epoch in a file, for `Model.load`.

    `monitor` is a key of the history; an accuracy is best when highest, everything else when lowest, and of
    equals the first. With a moving average, its weights are written: those that were validated.

    After a resume: if the last epoch is the best, the file is written again, with the weights of the
    checkpoint, which are the same; else the run before wrote it before it began a later epoch. If it is gone
    since, the run says so and writes the next best.

    Before the first epoch, TypeError for a model that has no `save`, ValueError for a monitor that the run
    will not have, FileNotFoundError without a folder for the file.
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str = "val_accuracy") -> None:
        self.path, self.monitor = Path(path), monitor

    def begin(self, run: "Run") -> None:
        if not hasattr(run.model, "save"):
            raise TypeError(
                f"BestCheckpoint: a {type(run.model).__name__} has no save; make it a minidl.Model, or keep "
                "run.model.state_dict() in a callback of your own"
            )
        check_monitor(run, self.monitor, "BestCheckpoint")
        check_place(self.path, "BestCheckpoint")
        if run.epoch and not run.batch:
            self.epoch_end(run)
        if run.epoch and not self.path.exists():
            run.say(f"BestCheckpoint: {self.path} is missing; only an epoch better than all is written")

    def epoch_end(self, run: "Run") -> None:
        if not improvements(run, self.monitor, "BestCheckpoint")[-1]:
            return
        model: Any = run.model
        with nullcontext() if run.ema is None else run.ema.applied():
            model.save(self.path)
