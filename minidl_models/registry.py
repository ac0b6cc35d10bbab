"""The zoo's register: every model function by name, so that the command line and saved files can find it."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from minidl import Model
from minidl_models.recipes import recipes_of


@dataclass(frozen=True)
class Entry:
    """One model of the zoo: the function that builds it, where it comes from, and what it can be.

    variants  label -> arguments of `build`, the default first
    """

    build: Callable[..., Model]
    paper: str
    year: int
    variants: Mapping[str, Mapping[str, Any]]


_entries: dict[str, Entry] = {}


def zoo_model(
    *, paper: str, year: int, variants: Sequence[str | Mapping[str, Any]]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a model function under its own name.

    variants  the networks it can build, the default first: values of its argument `variant`, or other
              arguments; each has a row in the table that the zoo's tests compare it with

    What it builds remembers the call, so that it can be built again.
    """

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        signature, name = inspect.signature(fn), fn.__name__

        @wraps(fn)
        def build(*args: Any, **kwargs: Any) -> Model:
            arguments = dict(signature.bind(*args, **kwargs).arguments)
            model = fn(**arguments)
            model.remember_call(build, arguments)
            label = arguments.get("variant") or arguments.get("dataset") or next(iter(entry(name).variants))
            model.recipes = recipes_of(name, label, model.input_shape)
            return model

        _entries[name] = Entry(build, paper, year, dict(map(_labelled, variants)))
        return build

    return register


def _labelled(variant: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(label, arguments): "v1" stands for variant="v1", {"shortcut": "A"} is labelled "shortcut=A"."""
    if isinstance(variant, str):
        return variant, {"variant": variant}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in variant.items()}
    return " ".join(f"{name}={text}".replace(" ", "") for name, text in texts.items()), dict(variant)


def create(name: str, **arguments: Any) -> Model:
    """Build a model by name.  ValueError for an unknown name or argument."""
    build = entry(name).build
    taken = inspect.signature(build).parameters
    unknown = [key for key in arguments if key not in taken]
    if unknown:
        raise ValueError(
            f"create: {name} takes no argument {unknown[0]!r}; its arguments are {', '.join(taken)}"
        )
    return build(**arguments)


def names() -> list[str]:
    """All model names, in the order of their papers."""
    return sorted(_entries, key=lambda name: _entries[name].year)


def entry(name: str) -> Entry:
    """What the register says of a model.  ValueError for an unknown name."""
    if name not in _entries:
        raise ValueError(f"create: there is no model {name!r}; the models are {', '.join(names())}")
    return _entries[name]
