"""The arguments of model functions: checked in one way, and shared by the members of a family."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any


def choose(model: str, argument: str, value: Any, choices: Sequence[Any]) -> Any:
    """`value`, or the first of `choices` in place of None.  ValueError, naming them, for anything else."""
    if value is None:
        return choices[0]
    if value not in choices:
        raise ValueError(f"{model}: {argument} is {value!r}; it may be {' or '.join(map(repr, choices))}")
    return value


def no_heads(model: str, aux: bool | None) -> None:
    """ValueError if auxiliary classifiers are asked of a network that has none."""
    if aux:
        raise ValueError(f"{model}: aux=True, but this network has no auxiliary classifiers")


def like(builder: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of the members of a family: each takes what `builder` takes after its first argument, and
    its help says so, below its own lines."""

    def member(fn: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(builder)
        members = signature.replace(parameters=[*signature.parameters.values()][1:])
        fn.__signature__ = members  # type: ignore[attr-defined]
        fn.__doc__ = f"{inspect.getdoc(fn)}\n\n{inspect.getdoc(builder)}"
        return fn

    return member
