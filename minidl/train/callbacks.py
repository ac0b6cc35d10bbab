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

    `run` tells model, optimizer, history, epoch (finished so far) and epochs; set run.stop to end after this
    epoch.
    """

    def begin(self, run: "Run") -> None:
        """Before the first epoch."""

    def epoch_end(self, run: "Run") -> None:
        """After each epoch, its row being the last of run.history."""

    def end(self, run: "Run") -> None:
        """After the last epoch, or when training was interrupted."""


class CSVLogger(Callback):
    """Write the history so far as a table, one row an epoch.

    After a resume it holds the earlier epochs too.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def epoch_end(self, run: "Run") -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *run.history.history])
        writer.writerows([i + 1, *row] for i, row in enumerate(zip(*run.history.history.values())))
        write_atomic(self.path, text.getvalue().encode())


class EarlyStopping(Callback):
    """Stop when `monitor` ("val_loss", or any key of the history) has not fallen for `patience` epochs."""

    def __init__(self, monitor: str = "val_loss", patience: int = 5) -> None:
        self.monitor, self.patience = monitor, patience

    def epoch_end(self, run: "Run") -> None:
        values = run.history.history[self.monitor]
        run.stop = len(values) - 1 - values.index(min(values)) >= self.patience
