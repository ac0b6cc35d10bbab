"""How to train, as data: optimiser, schedule, and the small choices around them.

A `Recipe` is a table of plain values, so that it can stand in a file, be overridden field by field, and be
written into a run's folder. A model names those of its paper in `Model.recipes`.

The default recipe was found on real CIFAR-10 with NIN, the network that is slowest to start: Adam in one
cycle up to 1e-3, or 2.5e-3 with batch normalisation. In a cycle of 100 batches of 128 images, the paper's
network (no batch normalisation, last biases at 5) came to 26 % that way, and stayed at chance with Adam at
2e-3 and SGD at 0.03; with batch normalisation 2.5e-3 gave 49 %, 1e-3 38 %.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

import numpy as np

from minidl import optim
from minidl.autograd import Tensor
from minidl.data import transforms
from minidl.nn import BatchNorm2d, Conv2d, Dropout, Linear, Module, init

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
_RANGES = {  # low <= field < below
    "lr": (0, math.inf),
    "momentum": (0, 1),
    "weight_decay": (0, math.inf),
    "label_smoothing": (0, 1),
    "clip_norm": (0, math.inf),
    "ema_decay": (0, 1),
    "epochs": (1, math.inf),
    "batch_size": (1, math.inf),
    "gamma": (0, math.inf),
    "every": (1, math.inf),
    "warmup_steps": (0, math.inf),
    "warmup_factor": (0, math.inf),
    "aux_weight": (0, math.inf),
    "dropout": (0, 1),
}
_WHOLE = ("epochs", "batch_size", "every", "warmup_steps")
_OPTIONAL = ("clip_norm", "ema_decay", "aux_weight", "dropout")
SCHEDULES = ("one_cycle", "cosine", "exponential", "steps", "constant")


@dataclass(frozen=True)
class Recipe:
    """One way to train. `fit` uses every field, unless its own arguments overrule it.

    optimizer      "adam", "adamw", "sgd", or "rmsprop" (decay 0.9, eps 1.0: Szegedy et al. 2015)
    lr             the highest learning rate of the schedule
    momentum       of "sgd" and "rmsprop"
    nesterov       whether the momentum of "sgd" is Nesterov's
    weight_decay   of the weights
    decay_biases   whether biases decay too
    decay_norms    whether gamma and beta of batch norms decay too
    lr_factors     {"bias": 2.0} lets biases learn at twice the rate, {"fc8.*": 10.0} what lies below fc8
    schedule       "one_cycle" and "cosine" (over the whole run), "exponential" (times gamma every `every`
                   epochs), "steps" (times gamma at each of the milestones) or "constant"
    gamma, every   of "exponential", gamma also of "steps"
    milestones     when the rate drops, as shares of the run: with (0.5, 0.75) a shorter run keeps its shape
    warmup_steps   so many steps at `warmup_factor` times the rate come first
    label_smoothing, clip_norm (the largest norm of all gradients together; None for none)
    ema_decay      evaluate, and end with, the exponential moving average of the parameters; None for none
    aux_weight     of the auxiliary losses; None leaves the model's
    dropout        p of all Dropouts; None leaves the model's
    initial_std    weights start normal with this deviation, biases at 0; {"conv1.*": 0.001, "*": 0.05} gives
                   one for each layer, by the first pattern that fits. None leaves the model's own start
    preprocess     what `transforms.fit_preprocess` understands: "gcn+zca", "mean(per='pixel')" ..., fitted to
                   the training images; augmentation then comes after it. "none" divides by 255 alone; None
                   leaves the model's
    augment        what `transforms.parse` understands: "flip", "pad_crop(4)+flip" ...; None for none
    epochs, batch_size
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
    nesterov: bool = True
    decay_biases: bool = True
    decay_norms: bool = True
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    gamma: float = 0.94
    every: int = 2
    milestones: Sequence[float] = ()
    warmup_steps: int = 0
    warmup_factor: float = 0.1
    aux_weight: float | None = None
    dropout: float | None = None
    initial_std: float | Mapping[str, float] | None = None
    preprocess: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise ValueError(f"Recipe: {name} is {getattr(self, name)!r}; it may be {', '.join(known)}")
        listed = isinstance(self.milestones, Sequence) and not isinstance(self.milestones, str)
        shares = [0.0, *self.milestones, 1.0] if listed and all(map(_is_number, self.milestones)) else []
        if (self.schedule == "steps") != bool(self.milestones) or sorted({0.0, *shares}) != shares:
            raise ValueError(
                f"Recipe: milestones are {self.milestones} with schedule {self.schedule!r}; give "
                "increasing shares of the run between 0 and 1, and for 'steps' alone"
            )
        for name, (low, below) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not _is_number(value) or not low <= value < below:
                wanted = f"at least {low}" if below == math.inf else f"in {low} <= {name} < {below}"
                raise ValueError(f"Recipe: {name} is {value!r}, it must be {wanted}")
            if name in _WHOLE and int(value) != value:
                raise ValueError(f"Recipe: {name} is {value!r}, it must be a whole number")
        for name in ("nesterov", "decay_biases", "decay_norms"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"Recipe: {name} is {getattr(self, name)!r}, it must be True or False")
        for name in ("lr_factors", "initial_std"):
            self._check_numbers(name)
        self._check_images()

    def _check_numbers(self, name: str) -> None:
        """ValueError unless the field is a table of numbers from 0 on, or, for initial_std, one of them."""
        given = getattr(self, name)
        if given is None or (name == "initial_std" and not isinstance(given, Mapping)):
            given = {"*": 0.0 if given is None else given}
        numbers = isinstance(given, Mapping) and all(
            _is_number(value) and 0 <= value < math.inf for value in given.values()
        )
        if not numbers:
            raise ValueError(
                f"Recipe: {name} is {getattr(self, name)!r}; give numbers of at least 0 by pattern, such as "
                '{"conv1.*": 0.5}'
            )

    def _check_images(self) -> None:
        """ValueError for texts of augment and preprocess that cannot be read, or cannot follow each other."""
        for name in ("augment", "preprocess"):
            if not isinstance(getattr(self, name), str | None):
                cure = "; fit takes an augmentation by itself as augment=" if name == "augment" else ""
                raise ValueError(f"Recipe: {name} is {getattr(self, name)!r}, it must be text{cure}")
        augmentation = transforms.parse(self.augment) if self.augment else None
        if self.preprocess and transforms.check_preprocess(self.preprocess):
            steps = augmentation.steps if isinstance(augmentation, transforms.compose) else [augmentation]
            for step in steps:
                if isinstance(step, (transforms.colour_jitter, transforms.lighting)):
                    raise ValueError(
                        f"Recipe: {step} changes colours, but augment comes after preprocess="
                        f"{self.preprocess!r}, which leaves none; drop one of the two"
                    )

    def as_data(self) -> dict[str, Any]:
        """All fields, as JSON gives them back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def overridden(self, changes: Mapping[str, Any]) -> "Recipe":
        """This recipe with other values of some fields.  ValueError for an unknown one, listing them."""
        known = [each.name for each in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise ValueError(f"Recipe: there is no field {name!r}; the fields are {', '.join(known)}")
        return dataclasses.replace(self, **changes)

    def check(self, model: Module) -> None:
        """ValueError if the recipe names layers or parameters that the model does not have."""
        self.build_optimizer(model)
        with init.blank():
            self._drawn(model)

    def build_optimizer(self, model: Module) -> optim.Optimizer:
        """The optimiser of the model's parameters, at `lr`."""
        params = self._groups(model)
        if self.optimizer == "sgd":
            return optim.SGD(
                params,
                self.lr,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                nesterov=self.nesterov and self.momentum > 0,
            )
        if self.optimizer == "rmsprop":
            return optim.RMSprop(
                params, self.lr, decay=0.9, momentum=self.momentum, eps=1.0, weight_decay=self.weight_decay
            )
        kind = optim.AdamW if self.optimizer == "adamw" else optim.Adam
        return kind(params, self.lr, weight_decay=self.weight_decay)

    def build_schedule(
        self, optimizer: optim.Optimizer, total_steps: int, epochs: int
    ) -> "optim.Schedule | None":
        """The schedule for a run of `total_steps` batches in `epochs`; None for a constant learning rate."""
        steps = max(1, total_steps - self.warmup_steps)  # a schedule counts from the end of the warm-up
        schedule: optim.Schedule | None = None
        if self.schedule == "one_cycle":
            schedule = optim.OneCycleLR(optimizer, self.lr, steps)
        elif self.schedule == "cosine":
            schedule = optim.CosineLR(optimizer, steps)
        elif self.schedule == "exponential":
            schedule = optim.ExponentialLR(
                optimizer, self.gamma, self.every * (total_steps // epochs), per="step"
            )
        elif self.schedule == "steps":
            drops = sorted(
                {max(1, round(share * total_steps) - self.warmup_steps) for share in self.milestones}
            )
            schedule = optim.MultiStepLR(optimizer, sorted(drops), self.gamma, per="step")
        if not self.warmup_steps:
            return schedule
        return optim.Warmup(
            optimizer, self.warmup_steps, schedule, self.warmup_factor, per="step", shape="constant"
        )

    def start(self, model: Module) -> None:
        """Draw the initial weights, if the recipe has any of its own.

        ValueError if a pattern of `initial_std` fits no layer.
        """
        drawn = self._drawn(model)
        if drawn:
            dtype = next(model.parameters()).dtype
            model.load_state_dict({name: a.astype(dtype) for name, a in drawn.items()}, strict=False)

    def _drawn(self, model: Module) -> dict[str, np.ndarray]:
        """Initial weights by the names of their parameters."""
        if self.initial_std is None:
            return {}
        given = self.initial_std if isinstance(self.initial_std, Mapping) else {"*": self.initial_std}
        layers = [(path, m) for path, m in model.named_modules() if isinstance(m, (Conv2d, Linear))]
        for pattern in given:
            if not any(fnmatchcase(path, pattern) for path, _ in layers):
                raise ValueError(f"Recipe: initial_std has {pattern!r}, which fits the path of no layer")
        drawn: dict[str, np.ndarray] = {}
        for path, layer in layers:
            fitting = (given[pattern] for pattern in given if fnmatchcase(path, pattern))
            if (chosen := next(fitting, None)) is not None:
                drawn[f"{path}.weight"] = init.normal(layer.weight.shape, chosen)
                if layer.bias is not None:
                    drawn[f"{path}.bias"] = init.zeros(layer.bias.shape)
        return drawn

    def settle(self, model: Module) -> None:
        """Set what the recipe says of the model itself: dropout, the weight of auxiliary losses."""
        if self.dropout is not None:
            for module in model.modules():
                if isinstance(module, Dropout):
                    module.p = self.dropout
        if self.aux_weight is not None:
            vars(model)["aux_weight"] = self.aux_weight

    def _groups(self, model: Module) -> Any:
        """The parameters, in groups where they differ in learning rate or decay."""
        norms = {path for path, module in model.named_modules() if isinstance(module, BatchNorm2d)}
        factors = dict(self.lr_factors)
        matched = {"bias"}
        rows: list[tuple[float, float, Tensor]] = []
        for name, p in model.named_parameters():
            path, _, last = name.rpartition(".")
            bias = last == "bias" and path not in norms
            fits = [key for key in factors if (bias if key == "bias" else fnmatchcase(name, key))]
            matched.update(fits)
            decays = self.decay_norms if path in norms else self.decay_biases or not bias
            factor = float(np.prod([factors[key] for key in fits]))
            rows.append((factor, self.weight_decay if decays else 0.0, p))
        for key in factors:
            if key not in matched:
                raise ValueError(f"Recipe: lr_factors has {key!r}, which fits the path of no parameter")
        if all(row[:2] == (1.0, self.weight_decay) for row in rows):
            return [p for *_, p in rows]
        return [
            {"params": [p for *_, p in group], "lr_factor": factor, "weight_decay": decay}
            for (factor, decay), group in groupby(rows, key=lambda row: row[:2])
        ]


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


def choose(recipe: Recipe | str | None, model: Module, dataset_name: str | None = None) -> Recipe:
    """The recipe meant: itself, "default" (or None), or one that the model names, such as "paper".

    ValueError, listing the names, for any other.
    """
    if isinstance(recipe, Recipe):
        return recipe
    named: Mapping[str, Recipe] = getattr(model, "recipes", {})
    if recipe in (None, "default"):
        return default_for(model, dataset_name)
    if not isinstance(recipe, str) or recipe not in named:
        raise ValueError(
            f"fit: recipe is {recipe!r}; give a minidl.train.Recipe or "
            f"{' or '.join(map(repr, ['default', *named]))}"
        )
    return named[recipe]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
