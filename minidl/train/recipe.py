"""How to train, as data: optimiser, schedule, and the small choices around them.

The default recipe was found on real CIFAR-10 with NIN, the network that is slowest to start: Adam in one
cycle up to 1e-3, or 2.5e-3 with batch normalisation. In a cycle of 100 batches of 128 images, the paper's
network (no batch normalisation, last biases at 5) came to 26 % that way, and stayed at chance with Adam at
2e-3 and SGD at 0.03; with batch normalisation 2.5e-3 gave 49 %, 1e-3 38 %.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from minidl import optim
from minidl.autograd import Tensor
from minidl.nn import BatchNorm2d, Module

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
SCHEDULES = ("one_cycle", "cosine", "exponential", "constant")


@dataclass(frozen=True)
class Recipe:
    """One way to train. `fit` uses every field but the last two, unless its own arguments overrule it.

    optimizer     "adam", "adamw", "sgd" (Nesterov, momentum), or "rmsprop" (decay 0.9, eps 1.0, momentum)
    lr            the highest learning rate of the schedule
    schedule      "one_cycle" and "cosine" (over the whole run), "exponential" (0.94 every two epochs) or
                  "constant"
    ema_decay     evaluate, and end with, the exponential moving average of the parameters; None for none
    clip_norm     largest norm of all gradients together; None for none
    augment       what `transforms.parse` understands: "flip", "crop+flip" ...; None for none
    epochs        for the command line, which passes both to `fit`
    batch_size
    """

    optimizer: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "one_cycle"
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    ema_decay: float | None = None
    augment: str | None = None
    epochs: int = 10
    batch_size: int = 128

    def __post_init__(self) -> None:
        for field, value, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if value not in known:
                raise ValueError(f"Recipe: {field} is {value!r}; it may be {', '.join(known)}")

    def build_optimizer(self, params: Iterable[Tensor]) -> optim.Optimizer:
        """The optimiser, at `lr`."""
        if self.optimizer == "sgd":
            return optim.SGD(
                params,
                self.lr,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                nesterov=self.momentum > 0,
            )
        if self.optimizer == "rmsprop":
            return optim.RMSprop(
                params, self.lr, decay=0.9, momentum=self.momentum, eps=1.0, weight_decay=self.weight_decay
            )
        kind = optim.AdamW if self.optimizer == "adamw" else optim.Adam
        return kind(params, self.lr, weight_decay=self.weight_decay)

    def build_schedule(self, optimizer: optim.Optimizer, total_steps: int) -> "optim.Schedule | None":
        """The schedule for a run of `total_steps` batches; None for a constant learning rate."""
        if self.schedule == "one_cycle":
            return optim.OneCycleLR(optimizer, self.lr, total_steps)
        if self.schedule == "cosine":
            return optim.CosineLR(optimizer, total_steps)
        return optim.ExponentialLR(optimizer) if self.schedule == "exponential" else None


def default_for(model: Module, dataset_name: str | None = None) -> Recipe:
    """The recipe `fit` uses when none is given.

    Batch normalisation bears a higher rate than a network without. Photographs are flipped left to right,
    digits are not.
    """
    normalised = any(isinstance(module, BatchNorm2d) for module in model.modules())
    return Recipe(
        lr=2.5e-3 if normalised else 1e-3,
        augment="flip" if dataset_name in ("cifar10", "cifar100") else None,
        epochs=8 if dataset_name == "digits" else 10,
        batch_size=32 if dataset_name == "digits" else 128,
    )
