"""One call of `fit`: what it works with (`Run`) and what it gave (`History`)."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minidl import optim
from minidl.data import Loader
from minidl.nn import Module
from minidl.train.checkpoint import KEEP
from minidl.train.metrics import Metrics
from minidl.train.recipe import Recipe

if TYPE_CHECKING:
    from minidl.train.callbacks import Callback


@dataclass
class History:
    """What each epoch gave: `history` maps loss, accuracy, val_loss, val_accuracy and seconds to a number
    each.

    `interrupted` tells that Ctrl-C or SIGTERM ended the run; `peak_bytes` is the most memory its arrays took
    at once.
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
    callbacks: Sequence["Callback"]
    folder: str | os.PathLike[str] | None
    verbose: bool
    checkpoint_minutes: float | None = None
    checkpoint_keep: int = KEEP
    history: History = field(default_factory=History)
    stop: bool = False
    epoch: int = 0  # how many are done
    batch: int = 0  # how many are done of the epoch under way
    seen: Metrics = field(default_factory=Metrics)  # of that epoch so far
    epoch_streams: dict[str, Any] | None = None  # the random streams as it began
    started: float = field(default_factory=time.perf_counter)  # when it began, without the time in between
    saved: float = field(default_factory=time.monotonic)  # when the last checkpoint was written

    @property
    def place(self) -> str:
        """How far the run is, in words."""
        batches = f" and {self.batch} of {len(self.train)} batches" if self.batch else ""
        return f"{self.epoch} of {self.epochs} epochs{batches}"

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
