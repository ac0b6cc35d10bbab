"""Learning-rate schedules: each a closed form of the number of steps taken, so a resumed run goes on exactly.

A schedule writes `optimizer.lr` when it is made and at every `step()`. Its attribute `per` says when that is
due, after each epoch or after each step of the optimiser; `Model.fit` looks at it.
"""

import copy
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from minidl.errors import CheckpointError
from minidl.optim.optimizer import Optimizer, State, check_keys, check_kind, number, read_number, whole

Per = Literal["epoch", "step"]
Shape = Literal["line", "constant"]


class Schedule(ABC):
    """Sets the optimiser's learning rate to `lr_at(count)`, where `count` is how often `step` was called.

    base_lr is the optimiser's learning rate when the schedule is made.
    ValueError unless per is "epoch" or "step", or for a factor, a rate or a number of steps out of range.
    """

    def __init__(self, optimizer: Optimizer, per: Per) -> None:
        if per not in ("epoch", "step"):
            raise ValueError(f'{self.name}: per is {per!r}, it must be "epoch" or "step"')
        self.optimizer, self.per = optimizer, per
        self.base_lr = optimizer.lr
        self._go_to(0)

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def lr(self) -> float:
        """The learning rate this schedule has set."""
        return self.lr_at(self.count)

    @abstractmethod
    def lr_at(self, count: int) -> float:
        """The learning rate after `count` steps."""

    def reason(self) -> str:
        """Why the learning rate is what it is, in a few words."""
        return f"{self.name}, after {_counted(self.count, self.per)}"

    def step(self) -> None:
        """Count one epoch or one step of the optimiser, and set the learning rate of the next."""
        self._go_to(self.count + 1)

    def state_dict(self) -> State:
        """Everything needed to continue exactly, as plain numbers."""
        return {"schedule": self.name, "count": self.count, "base_lr": self.base_lr}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned, and set the optimiser's learning rate.

        CheckpointError, naming the key, when it is another schedule's, or no rate follows from it; then
        nothing has changed.
        """
        trial = copy.deepcopy(self, {id(self.optimizer): copy.copy(self.optimizer)})
        try:
            trial._load(state)
        except CheckpointError:
            raise
        except (ValueError, OverflowError) as error:
            raise CheckpointError(
                f"{self.name}.load_state_dict: no learning rate follows from this state ({error})"
            ) from error
        self._load(state)

    def _load(self, state: Mapping[str, Any]) -> None:
        count, self.base_lr = self._read(state)
        self._go_to(count)

    def _read(self, state: Mapping[str, Any]) -> tuple[int, float]:
        """count and base_lr from a state, checked."""
        where = f"{self.name}.load_state_dict"
        check_kind(state, "schedule", self.name, where)
        check_keys(state, list(self.state_dict()), where)
        return read_number(state, "count", 0, where), read_number(state, "base_lr", 0.0, where)

    def _go_to(self, count: int) -> None:
        self.count = count
        self.optimizer.lr = self.lr_at(count)


class StepLR(Schedule):
    """lr = base_lr * gamma ** (count // step_size): a drop every step_size epochs."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, *, per: Per = "epoch"
    ) -> None:
        self.step_size = whole("StepLR", "step_size", step_size)
        self.gamma = number("StepLR", "gamma", gamma)
        super().__init__(optimizer, per)

    def lr_at(self, count: int) -> float:
        return self.base_lr * self.gamma ** (count // self.step_size)

    def reason(self) -> str:
        return f"{self.gamma:g} ** {self.count // self.step_size}: after {_counted(self.count, self.per)}"


class MultiStepLR(Schedule):
    """lr = base_lr * gamma ** (how many milestones are <= count): a drop at each milestone.

    He et al. 2015, arXiv:1512.03385, section 4.2: milestones (32000, 48000), per="step".
    ValueError unless the milestones are whole numbers of at least 1, each above the one before.
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, *, per: Per = "epoch"
    ) -> None:
        self.milestones = [whole("MultiStepLR", f"milestones[{i}]", m) for i, m in enumerate(milestones)]
        if not self.milestones or self.milestones != sorted(set(self.milestones)):
            raise ValueError(
                f"MultiStepLR: milestones is {list(milestones)}, it must have at least one number, each "
                "above the one before"
            )
        self.gamma = number("MultiStepLR", "gamma", gamma)
        super().__init__(optimizer, per)

    def lr_at(self, count: int) -> float:
        return self.base_lr * self.gamma ** bisect_right(self.milestones, count)

    def reason(self) -> str:
        passed = bisect_right(self.milestones, self.count)
        then = f"next at {self.per} {self.milestones[passed]}" if self.milestones[passed:] else "none to come"
        return f"{passed} of {len(self.milestones)} milestones passed, {then}"


class ExponentialLR(Schedule):
    """lr = base_lr * gamma ** (count // step_size), or without staircase gamma ** (count / step_size).

    The defaults, 0.94 every two epochs, are those of Szegedy et al. 2015, arXiv:1512.00567, section 8.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        gamma: float = 0.94,
        step_size: int = 2,
        *,
        staircase: bool = True,
        per: Per = "epoch",
    ) -> None:
        self.gamma = number("ExponentialLR", "gamma", gamma)
        self.step_size = whole("ExponentialLR", "step_size", step_size)
        self.staircase = staircase
        super().__init__(optimizer, per)

    def lr_at(self, count: int) -> float:
        return self.base_lr * self.gamma ** self._exponent(count)

    def reason(self) -> str:
        exponent = self._exponent(self.count)
        return f"{self.gamma:g} ** {exponent:g}: after {_counted(self.count, self.per)}"

    def _exponent(self, count: int) -> float:
        return count // self.step_size if self.staircase else count / self.step_size


class CosineLR(Schedule):
    """Half a cosine from base_lr down to min_lr, reached after total_steps and kept from there on.

    lr = min_lr + (base_lr - min_lr) * (1 + cos(pi * count / total_steps)) / 2
    Loshchilov and Hutter 2016, arXiv:1608.03983, equation 5, without restarts.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, min_lr: float = 0.0, *, per: Per = "step"
    ) -> None:
        self.total_steps = whole("CosineLR", "total_steps", total_steps)
        self.min_lr = number("CosineLR", "min_lr", min_lr)
        super().__init__(optimizer, per)

    def lr_at(self, count: int) -> float:
        return _cosine(self.base_lr, self.min_lr, min(count / self.total_steps, 1.0))

    def reason(self) -> str:
        if self.count >= self.total_steps:
            return f"cosine: done after {_counted(self.total_steps, self.per)}"
        return (
            f"cosine: {self.per} {self.count} of {self.total_steps}, from {self.base_lr:g} down to "
            f"{self.min_lr:g}"
        )


class OneCycleLR(Schedule):
    """Half a cosine up to max_lr, then half a cosine down in the rest of total_steps; there it stays.

    It starts at max_lr * start_factor, is at max_lr after warmup_fraction * total_steps, and ends at
    max_lr * end_factor; the optimiser's own learning rate is not used.
    Smith and Topin 2017, arXiv:1708.07120, with cosines for the paper's straight lines.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int,
        *,
        warmup_fraction: float = 0.3,
        start_factor: float = 1 / 25,
        end_factor: float = 1e-4,
        per: Per = "step",
    ) -> None:
        self.max_lr = number("OneCycleLR", "max_lr", max_lr)
        self.total_steps = whole("OneCycleLR", "total_steps", total_steps)
        self.warmup_fraction = number("OneCycleLR", "warmup_fraction", warmup_fraction, below=1.0)
        self.start_factor = number("OneCycleLR", "start_factor", start_factor)
        self.end_factor = number("OneCycleLR", "end_factor", end_factor)
        super().__init__(optimizer, per)

    def lr_at(self, count: int) -> float:
        warmup = self.warmup_fraction * self.total_steps
        if count < warmup:
            return _cosine(self.max_lr * self.start_factor, self.max_lr, count / warmup)
        done = min((count - warmup) / (self.total_steps - warmup), 1.0)
        return _cosine(self.max_lr, self.max_lr * self.end_factor, done)

    def reason(self) -> str:
        if self.count >= self.total_steps:
            return f"one cycle: done after {_counted(self.total_steps, self.per)}"
        warmup = self.warmup_fraction * self.total_steps
        way = "rising" if self.count < warmup else "falling"
        return (
            f"one cycle: {way}, {self.per} {self.count} of {self.total_steps}, highest {self.max_lr:g} at "
            f"{self.per} {warmup:g}"
        )


class Warmup(Schedule):
    """A straight line up to the full learning rate in `steps`, then the schedule `after`, counted from there.

    lr = full * (start_factor + (1 - start_factor) * count / steps), full being what `after` begins with, or
    base_lr without one. With the default start_factor the first step has learning rate 0; with per="epoch"
    that would be a whole epoch, so give a start_factor there. With shape="constant" lr = full * start_factor
    during all of `steps`. Make `after` for the same optimiser and the same `per`, and step the Warmup alone.
    ValueError when they differ, for another shape, or for a constant of 0.
    Goyal et al. 2017, arXiv:1706.02677, section 2.2, gradual and constant warmup. The latter is from He et
    al. 2015, arXiv:1512.03385, section 4.2: 110 layers at 0.1, after about 400 steps at start_factor 0.1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steps: int,
        after: Schedule | None = None,
        start_factor: float = 0.0,
        *,
        shape: Shape = "line",
        per: Per = "step",
    ) -> None:
        if shape not in ("line", "constant"):
            raise ValueError(f'Warmup: shape is {shape!r}, it must be "line" or "constant"')
        if after is not None and after.optimizer is not optimizer:
            raise ValueError(f"Warmup: after={after.name} was made for another optimiser")
        if after is not None and after.per != per:
            raise ValueError(
                f'Warmup: it counts per="{per}" but after={after.name} per="{after.per}"; '
                f"give both the same per"
            )
        self.steps = whole("Warmup", "steps", steps)
        self.after = after
        self.shape = shape
        self.start_factor = number("Warmup", "start_factor", start_factor)
        if shape == "constant" and not start_factor:
            raise ValueError(
                'Warmup: start_factor is 0, so that nothing is learned in a warm-up of shape="constant"; '
                "give one above 0"
            )
        super().__init__(optimizer, per)

    def lr_at(self, count: int) -> float:
        if count >= self.steps:
            return self.after.lr_at(count - self.steps) if self.after else self.base_lr
        full = self.after.lr_at(0) if self.after else self.base_lr
        if self.shape == "constant":
            return full * self.start_factor
        return full * (self.start_factor + (1.0 - self.start_factor) * count / self.steps)

    def reason(self) -> str:
        if self.count < self.steps:
            return f"warm-up: {self.per} {self.count} of {self.steps}"
        return self.after.reason() if self.after else f"constant after {_counted(self.steps, self.per)}"

    def state_dict(self) -> State:
        after = self.after.state_dict() if self.after else {}
        return super().state_dict() | {f"after.{key}": value for key, value in after.items()}

    def _load(self, state: Mapping[str, Any]) -> None:
        self._read(state)
        if self.after:
            own = "after."
            self.after._load({key[len(own) :]: state[key] for key in state if key.startswith(own)})
        super()._load(state)

    def _go_to(self, count: int) -> None:
        if self.after:
            self.after._go_to(max(0, count - self.steps))
        super()._go_to(count)


def _counted(count: int, per: Per) -> str:
    """ "1 step", "3 epochs"."""
    return f"{count} {per}{'' if count == 1 else 's'}"


def _cosine(start: float, end: float, done: float) -> float:
    """Half a cosine from start (done = 0) to end (done = 1)."""
    return end + (start - end) * (1.0 + math.cos(math.pi * done)) / 2.0
