"""Weights under the names, and in the shapes, of other libraries, both ways.

A layout says what a library calls the tensors of a layer and how it lays out their axes:

                  minidl              timm, torchvision     tf (TF-slim)
    convolution   (KH, KW, C/g, F)    (F, C/g, KH, KW)      (KH, KW, C/g, F); depthwise (KH, KW, C, M)
    linear        (D, F)              (F, D)                (D, F)
    names         weight bias         weight bias           weights (depthwise_ pointwise_) biases
    batch norm    weight bias         weight bias           gamma beta
                  running_mean _var   running_mean _var     moving_mean moving_variance

Any layout but "minidl" and "tf" is PyTorch's. A linear layer may be stored as a convolution, 1x1 or as large
as the flattened image it reads. Only the names of the layers come from the model; what follows from a layer's
kind is computed here. The one decision: a `Rule` says how one tensor is written and read, everything is
checked against the rules first, and the model is filled last, so an error leaves it as it was.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minidl.errors import CheckpointError
from minidl.nn import BatchNorm2d, Conv2d, Linear, Module

Shape = tuple[int, ...]
Image = tuple[int, int, int]

_FLAT = "reshaped"
_TENSORS = ("weight", "bias", "running_mean", "running_var")
_TF_LAYER = {"weight": "weights", "bias": "biases"}
_TF_NORM = dict(zip(_TENSORS, ("gamma", "beta", "moving_mean", "moving_variance")))
_PREFIXES = ("module.", "_orig_mod.")  # of torch's DataParallel, and of torch.compile
_COUNTER = "num_batches_tracked"  # torch counts batches, which a fixed momentum does not need
_TF_TRAINING = re.compile(r"(^|/)(global_step|ExponentialMovingAverage|RMSProp(_1)?|Momentum|Adam(_1)?)$")


@dataclass(frozen=True)
class WeightsReport:
    """What `load_weights` did, by the names of the layout.

    loaded      copied into the model
    missing     wanted by the model, and not loaded: with head="skip" the classifiers, else not in the file
    unexpected  in the file, and unknown to the model
    reshaped    name -> how the file's tensor was transposed, permuted or cut
    notes       name -> why a tensor that only one side has is no error
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{len(self.loaded)} tensors loaded, {len(self.missing)} missing, {len(self.unexpected)} "
            f"unexpected, {len(self.reshaped)} reshaped"
        ]
        for title in ("missing", "unexpected"):
            if names := getattr(self, title):
                lines.append(f"{title}: {listed(names)}")
        for title in ("reshaped", "notes"):
            texts: dict[str, str] = getattr(self, title)
            lines += [f"{title}: {name}: {text}" for name, text in list(texts.items())[:5]]
            if len(texts) > 5:
                lines.append(f"{title}: and {len(texts) - 5} more")
        return "\n".join(lines)


class Rule(NamedTuple):
    """How one tensor is stored.

    shapes     what the file may hold; the first is what is exported
    axis       of the filters, features or classes, in these shapes
    to_own     file's array -> minidl's; `to_public` the way back, but for the shape
    how        in a word, for the report; "" if nothing changes
    """

    shapes: list[Shape]
    axis: int
    to_own: Callable[[np.ndarray], np.ndarray]
    to_public: Callable[[np.ndarray], np.ndarray]
    how: str


@dataclass(frozen=True)
class Place:
    """One tensor of a model: its path in the state dict, its name in a layout, its layer's, and its rule."""

    own: str
    public: str
    layer: str
    rule: Rule
    auxiliary: bool
    classifier: bool
    norm_gamma: bool


def load_weights(
    model: Module,
    places: Sequence[Place],
    arrays: Mapping[str, np.ndarray],
    *,
    layout: str,
    head: str,
    strict: bool,
) -> WeightsReport:
    """Copy arrays into the model by the rules of `plan`; see `Model.load_weights`."""
    if head not in ("load", "skip"):
        raise ValueError(f"load_weights: head is {head!r}; it may be 'load' or 'skip'")
    if layout == "tf":
        arrays = {name.removesuffix(":0"): value for name, value in arrays.items()}
    arrays = _unprefixed(arrays, {place.public for place in places})
    report = WeightsReport()
    own, values, absent = model._state(), {}, []
    heads = {head_of(name) for name in arrays}
    for place in places:
        name, array = place.public, own[place.own]
        if head == "skip" and (place.classifier or place.auxiliary):
            report.missing.append(name)
        elif name in arrays:
            value, how = _read(place, arrays[name], array.shape)
            values[place.own] = _cast(name, value, array.dtype)
            report.loaded.append(name)
            report.reshaped.update({name: how} if how else {})
        elif place.auxiliary and head_of(name) is not None and head_of(name) not in heads:
            report.notes[name] = "the file has no such auxiliary classifier; the model's stays as it is"
        elif layout == "tf" and place.norm_gamma and f"{place.layer}/beta" in arrays:
            values[place.own] = np.ones(array.shape, array.dtype)
            report.notes[name] = "not in the file: a batch norm without gamma; taken as 1"
        else:
            absent.append(name)
    report.missing.extend(absent)
    _sort_out(report, places, arrays, layout=layout, skipped=head == "skip")
    if strict and (absent or report.unexpected):
        raise CheckpointError(
            f"load_weights: missing {listed(absent)}; unexpected {listed(report.unexpected)} (layout "
            f"{layout!r}). Check the layout and the model's variant, or pass strict=False to take what fits "
            "by name"
        )
    model.load_state_dict(values, strict=False)
    return report


def export_weights(model: Module, places: Sequence[Place], *, layout: str) -> dict[str, np.ndarray]:
    """The model's tensors under their names in the layout; see `Model.export_weights`."""
    state = model.state_dict()
    arrays = {}
    for place in places:
        public = place.rule.to_public(state[place.own]).reshape(place.rule.shapes[0])
        arrays[place.public] = np.ascontiguousarray(public)
        if layout not in ("minidl", "tf") and place.own.endswith(".running_var"):
            arrays[f"{place.layer}.{_COUNTER}"] = np.zeros((), np.int64)
    return arrays


def plan(
    model: Module,
    layout: str,
    names: Mapping[str, str],
    *,
    flattened: Mapping[str, Image],
    convolutional: Sequence[str] = (),
) -> list[Place]:
    """Every tensor of the model with its name and rule in a layout, in the order of `names`.

    names          path of each Conv2d, Linear and BatchNorm2d -> its name in the layout
    flattened      path of a Linear that reads a flattened image -> that image's (H, W, C)
    convolutional  paths of Linears that the layout stores as convolutions

    ValueError if the names leave out a tensor or are the same for two.
    """
    state = {path: array.shape for path, array in model._state().items()}
    last = _classifier(model)
    if layout == "minidl":
        return [_identity(path, shape, last) for path, shape in state.items()]
    modules = dict(model.named_modules())
    depthwise = {name for path, name in names.items() if _is_depthwise(modules.get(path))}
    places = []
    for path, layer in names.items():
        module = modules.get(path)
        for tensor in _TENSORS:
            own = f"{path}.{tensor}" if path else tensor
            if own not in state:
                continue
            name = _name(layout, module, layer, tensor, layer in depthwise)
            rule = _rule(layout, module, state[own], flattened.get(path), path in convolutional)
            norm_gamma = isinstance(module, BatchNorm2d) and tensor == "weight"
            places.append(Place(own, name, layer, rule, is_auxiliary(path), path == last, norm_gamma))
    _check_plan(f"weight_names({layout!r}) of {type(model).__name__}", places, list(state))
    return places


def is_auxiliary(path: str) -> bool:
    """Whether a module of ours is, or is part of, an auxiliary classifier: those are called aux..."""
    return path.startswith("aux")


def head_of(name: str) -> str | None:
    """The auxiliary classifier a tensor of any layout belongs to: its name up to a part "aux...", or None."""
    match = re.match(r"(?:.*?[./])?aux[^./]*", name, re.IGNORECASE)
    return match and match[0]


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many more there are; "nothing" for none."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "nothing"


def _unprefixed(arrays: Mapping[str, np.ndarray], wanted: set[str]) -> Mapping[str, np.ndarray]:
    """Without the "module." before every name that torch puts there, where the model does not have it too."""
    while arrays and not wanted.intersection(arrays):
        found = [prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in arrays)]
        if not found:
            break
        arrays = {name.removeprefix(found[0]): value for name, value in arrays.items()}
    return arrays


def _read(place: Place, array: np.ndarray, shape: Shape) -> tuple[np.ndarray, str]:
    """(the file's array as minidl has it, how it was changed).  CheckpointError unless its shape fits."""
    rule, name, found = place.rule, place.public, array.shape
    if array.dtype.kind != "f":
        raise CheckpointError(
            f"load_weights: {name} is of type {array.dtype} in the file; weights are floats"
        )
    heads = place.classifier or place.auxiliary
    texts = []
    if found not in rule.shapes:
        axis, classes = rule.axis, shape[-1]
        if not heads or not any(_without(found, axis) == _without(fits, axis) for fits in rule.shapes):
            raise CheckpointError(
                f"load_weights: {name} has shape {found} in the file, and {rule.shapes[0]} in this network; "
                "check the layout and the model's variant"
            )
        if (found[axis], classes) != (1001, 1000):
            raise CheckpointError(
                f"load_weights: {name} has {found[axis]} classes in the file (shape {found}), and {classes} "
                f"in this network; build it with num_classes={found[axis]}, or pass head='skip' to leave its "
                "classifiers as they are"
            )
        array = np.moveaxis(np.moveaxis(array, axis, 0)[1:], 0, axis)
        texts.append("class 0 of 1001, the background, left out")
    value = rule.to_own(array).reshape(shape)
    if rule.how and (rule.how != _FLAT or array.shape != shape):
        texts.insert(0, f"{rule.how} from {found} to {shape}")
    return value, "; ".join(texts)


def _cast(name: str, value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    try:
        with np.errstate(over="raise"):
            return value.astype(dtype, copy=False)
    except FloatingPointError as error:
        raise CheckpointError(
            f"load_weights: {name} has numbers that {dtype} cannot hold; use model.to(dtype='float64')"
        ) from error


def _sort_out(
    report: WeightsReport,
    places: Sequence[Place],
    arrays: Mapping[str, np.ndarray],
    *,
    layout: str,
    skipped: bool,
) -> None:
    """Fill in what the file has beyond the places."""
    wanted = {place.public for place in places}
    heads = {head_of(place.public) for place in places}
    apart = "/" if layout == "tf" else "."
    for name in arrays:
        counter = _TF_TRAINING.search(name) is not None if layout == "tf" else name.endswith(_COUNTER)
        idle = counter and layout != "minidl"
        idle |= skipped and any(
            name.startswith(place.layer + apart) for place in places if place.classifier or place.auxiliary
        )
        if name in wanted or idle:
            continue
        if head_of(name) is not None and head_of(name) not in heads:
            report.notes[name] = "the model has no such auxiliary classifier; left out"
        else:
            report.unexpected.append(name)


def _check_plan(source: str, places: Sequence[Place], state: Sequence[str]) -> None:
    named, public = {place.own for place in places}, [place.public for place in places]
    if left := [own for own in state if own not in named]:
        raise ValueError(f"{source} leaves out {listed(left)}")
    if twice := [name for name, times in Counter(public).items() if times > 1]:
        raise ValueError(f"{source} gives two tensors the name {listed(twice)}")


def _classifier(model: Module) -> str | None:
    """Path of the layer that gives the logits: the last Linear or Conv2d that is not in an auxiliary head."""
    layers = [path for path, module in model.named_modules() if isinstance(module, (Linear, Conv2d))]
    main = [path for path in layers if not is_auxiliary(path)]
    return main[-1] if main else None


def _identity(path: str, shape: Shape, last: str | None) -> Place:
    layer = path.rpartition(".")[0]
    return Place(
        path, path, layer, Rule([shape], -1, _same, _same, ""), is_auxiliary(path), layer == last, False
    )


def _is_depthwise(module: Any) -> bool:
    return isinstance(module, Conv2d) and module.groups == module.in_channels > 1


def _name(layout: str, module: Any, layer: str, tensor: str, separable: bool) -> str:
    """What the layout calls a layer's tensor; `separable`: a depthwise convolution has that layer name."""
    if layout != "tf":
        return f"{layer}.{tensor}"
    if isinstance(module, BatchNorm2d):
        return f"{layer}/{_TF_NORM[tensor]}"
    half = (
        ("depthwise_" if _is_depthwise(module) else "pointwise_") if separable and tensor == "weight" else ""
    )
    return f"{layer}/{half}{_TF_LAYER[tensor]}"


def _rule(layout: str, module: Any, shape: Shape, image: Image | None, convolutional: bool) -> Rule:
    """How a layout stores a layer's tensor of this shape."""
    if len(shape) == 1:
        return Rule([shape], 0, _same, _same, "")
    if isinstance(module, Linear):
        return _linear_rule(layout, shape, image or (1, 1, shape[0]), convolutional)
    kh, kw, c, f = shape
    if layout != "tf":
        return Rule([(f, c, kh, kw)], 0, _channels_last, _channels_first, "transposed")
    if _is_depthwise(module):
        return Rule([(kh, kw, module.groups, f // module.groups)], -1, _same, _same, _FLAT)
    return Rule([shape], -1, _same, _same, "")


def _linear_rule(layout: str, shape: Shape, image: Image, convolutional: bool) -> Rule:
    """How a layout stores a linear layer that reads a flattened image (1x1 pixels if it reads features)."""
    (h, w, c), (d, f) = image, shape
    if h * w * c != d:
        raise ValueError(
            f"flattened: an image (H, W, C) of {image} has not the {d} features of a Linear of {shape}"
        )
    order = slice(None, None, -1 if convolutional else 1)
    if layout == "tf":
        return Rule([(d, f), (h, w, c, f)][order], -1, _same, _same, _FLAT)
    return Rule(
        [(f, d), (f, c, h, w)][order],
        0,
        lambda array: _channels_last(array.reshape(-1, c, h, w)),
        lambda array: _channels_first(array.reshape(h, w, c, -1)),
        "transposed" if h * w == 1 else "transposed, rows from (C, H, W) to (H, W, C) order,",
    )


def _channels_last(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0)  # (F, C, KH, KW) -> (KH, KW, C, F)


def _channels_first(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1)  # (KH, KW, C, F) -> (F, C, KH, KW)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _without(shape: Shape, axis: int) -> tuple[int, Shape]:
    """The shape but for one axis, and how many axes it has."""
    sizes = list(shape)
    if sizes:
        sizes.pop(axis)
    return len(shape), tuple(sizes)
