"""What a case is, and arrays of every kind of value and shape."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

Array = np.ndarray
Draw = st.DrawFn
Shape = tuple[int, ...]

VALUES = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "ties": lambda rng, shape: rng.integers(-2, 3, shape),  # many equal values, many zeros
    "offset": lambda rng, shape: 1000.0 + rng.standard_normal(shape),  # cancellation in variances
    "positive": lambda rng, shape: rng.uniform(0.5, 2.0, shape),  # away from the poles of log and division
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one call needs: every field but `options` is an argument, in order."""

    options: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The positional arguments; None for an optional array that was not drawn."""
        return tuple(getattr(self, f.name) for f in fields(self) if f.name != "options")

    def astype(self, dtype: Any) -> "Case":
        """The same case with its float arrays, in options too, rounded to another dtype."""
        arguments = {f.name: _cast(getattr(self, f.name), dtype) for f in fields(self) if f.name != "options"}
        return replace(
            self, options={key: _cast(value, dtype) for key, value in self.options.items()}, **arguments
        )

    def __repr__(self) -> str:
        parts = [f"{f.name}={_sketch(getattr(self, f.name))}" for f in fields(self) if f.name != "options"]
        parts += [f"{key}={_sketch(value)}" for key, value in self.options.items()]
        return f"{type(self).__name__}({', '.join(parts)})"


def _cast(value: Any, dtype: Any) -> Any:
    if isinstance(value, list):
        return [_cast(item, dtype) for item in value]
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def _sketch(value: Any) -> str:
    """Small arrays in full, others by dtype and shape: a failing example must stay readable."""
    if isinstance(value, list):
        return f"[{', '.join(map(_sketch, value))}]"
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"<{value.dtype} {value.shape}>"
    return np.array_repr(value).replace("\n", "") if isinstance(value, np.ndarray) else repr(value)


@st.composite
def arrays(
    draw: Draw,
    shape: Shape | st.SearchStrategy[Shape],
    *,
    dtype: Any = np.float64,
    values: Sequence[str] = ("normal",),
) -> Array:
    """An array of `shape`; its values are one of the kinds in `VALUES`: normal, ties, offset, positive."""
    shape = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    kind = draw(st.sampled_from(values))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return np.asarray(VALUES[kind](rng, shape), dtype)


def shapes(*, min_dims: int = 1, max_dims: int = 4, max_side: int = 4) -> st.SearchStrategy[Shape]:
    """Shapes without empty axes."""
    return npst.array_shapes(min_dims=min_dims, max_dims=max_dims, max_side=max_side)


@st.composite
def broadcastable_arrays(
    draw: Draw, count: int = 2, *, dtype: Any = np.float64, values: Sequence[str] = ("normal", "ties")
) -> list[Array]:
    """`count` arrays that NumPy broadcasts together: axes of length 1, and missing leading axes."""
    drawn = draw(npst.mutually_broadcastable_shapes(num_shapes=count, max_dims=4, max_side=4))
    return [draw(arrays(shape, dtype=dtype, values=values)) for shape in drawn.input_shapes]
