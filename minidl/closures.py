"""What functions hold: the arrays in their closures."""

from collections.abc import Iterable, Iterator
from typing import Any

from minidl.backend import Array, is_array


def captured(functions: Iterable[Any]) -> Iterator[Array]:
    """Every array that `functions` hold, once: in closures, defaults, and lists or tuples in them, however
    deep."""
    todo, seen = [f for f in functions if f is not None], set()
    while todo:
        held = todo.pop()
        if id(held) in seen:
            continue
        seen.add(id(held))
        if is_array(held):
            yield held
        elif isinstance(held, (tuple, list)):
            todo += held
        elif callable(held) and hasattr(held, "__closure__"):
            todo += getattr(held, "__defaults__", None) or ()
            for cell in held.__closure__ or ():
                try:
                    todo.append(cell.cell_contents)
                except ValueError:  # an empty cell: a variable that was never set
                    pass
