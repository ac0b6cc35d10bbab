"""What can be done besides training while `fit` runs: a list of callbacks, called in order."""

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from minidl.io import write_atomic

if TYPE_CHECKING:
    from minidl.train.fit import Run


class Callback:
    """Override what you need.

    `run` tells model, optimizer, history, epoch (how many are done) and epochs (how many there will be). Set
    run.stop to end training there.
    """

    def begin(self, run: "Run") -> None:
        """Before the first epoch; after a resume, run.history holds the epochs before."""

    def epoch_end(self, run: "Run") -> None:
        """After each epoch, its row being the last of run.history."""

    def end(self, run: "Run") -> None:
        """After the last epoch, or when training was interrupted."""


class CSVLogger(Callback):
    """Writes the whole history as a table, one row per epoch, whenever it has changed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def begin(self, run: "Run") -> None:
        if run.epoch:  # the run before may have been killed between its checkpoint and this file
            self.epoch_end(run)

    def epoch_end(self, run: "Run") -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *run.history.history])
        writer.writerows(
            [i + 1, *row] for i, row in enumerate(zip(*run.history.history.values(), strict=True))
        )
        write_atomic(self.path, text.getvalue().encode())


class EarlyStopping(Callback):
    """Stops when `monitor` has not improved for `patience` epochs.

    `monitor` is a key of the history; an accuracy improves upwards, everything else downwards.
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 5) -> None:
        self.monitor, self.patience = monitor, patience

    def begin(self, run: "Run") -> None:
        if run.epoch:
            self.epoch_end(run)

    def epoch_end(self, run: "Run") -> None:
        if self.monitor not in run.history.history:
            raise ValueError(
                f"EarlyStopping: monitor is {self.monitor!r}; the history has "
                f"{', '.join(run.history.history)}"
            )
        values = run.history.history[self.monitor]
        best = max(values) if self.monitor.endswith("accuracy") else min(values)
        run.stop = len(values) - 1 - values.index(best) >= self.patience
