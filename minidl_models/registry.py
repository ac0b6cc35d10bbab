"""The zoo's register: every model function by name, so that the command line and saved files can find it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from minidl import Model


@dataclass(frozen=True)
class Entry:
    """One model of the zoo: the function that builds it, and where it comes from."""

    build: Callable[..., Model]
    paper: str
    year: int


_entries: dict[str, Entry] = {}


def zoo_model(*, paper: str, year: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a model function under its own name.

    What it builds remembers the call, so that it can be built again.
    """

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(fn)

        @wraps(fn)
        def build(*args: Any, **kwargs: Any) -> Model:
            arguments = dict(signature.bind(*args, **kwargs).arguments)
            model = fn(**arguments)
            model.remember_call(build, arguments)
            return model

        _entries[fn.__name__] = Entry(build, paper, year)
        return build

    return register


def create(name: str, **arguments: Any) -> Model:
    """Build a model by name.  ValueError for an unknown name or argument."""
    if name not in _entries:
        raise ValueError(f"create: there is no model {name!r}; the models are {', '.join(_entries)}")
    build = _entries[name].build
    taken = inspect.signature(build).parameters
    unknown = [key for key in arguments if key not in taken]
    if unknown:
        raise ValueError(
            f"create: {name} takes no argument {unknown[0]!r}; its arguments are {', '.join(taken)}"
        )
    return build(**arguments)


def names() -> list[str]:
    """All model names, in the order of their papers."""
    return list(_entries)


def entry(name: str) -> Entry:
    """What the register says of a model."""
    return _entries[name]
