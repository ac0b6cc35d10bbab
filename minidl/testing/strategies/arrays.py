"""What a case is, and arrays of every kind of value, shape and layout."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

Array = np.ndarray
Draw = st.DrawFn
Shape = tuple[int, ...]

# No kind holds subnormal numbers, in float32 neither: kernels may flush those to 0, and no bound of relative
# size covers them. What is not exactly 0 is larger than 1e-17 (the generator's grid).
VALUES = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "ties": lambda rng, shape: rng.integers(-2, 3, shape),  # many equal values, many zeros
    "offset": lambda rng, shape: 1000.0 + rng.standard_normal(shape),  # cancellation in variances
    "large": lambda rng, shape: 1e4 * rng.standard_normal(shape),  # exp overflows
    "positive": lambda rng, shape: rng.uniform(0.5, 2.0, shape),  # away from the poles of log and division
    "nonzero": lambda rng, shape: rng.uniform(0.5, 2.0, shape) * rng.choice([-1.0, 1.0], shape),
}

VECTOR_WIDTHS = (7, 8, 9, 16, 17)  # 8 and 16 numbers fill a register of 256 or 512 bits; one less, one more

LAYOUTS = {
    "contiguous": lambda array: array.copy(),
    "transposed": lambda array: array.copy(order="F"),  # the first axis runs fastest through memory
    "reversed": lambda array: array[::-1].copy()[::-1],  # the first axis runs backwards
    "sliced": lambda array: _part(array, slice(1, None, 2)),  # every other channel of a wider array
    "channels": lambda array: _part(array, slice(1, array.shape[-1] + 1)),  # a run of its channels
}


def _part(array: Array, place: slice) -> Array:
    """The same values as a part of the last axis of a wider array that is NaN (99 for integers) elsewhere."""
    fill = np.nan if array.dtype.kind == "f" else 99
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1] + 1), fill).astype(array.dtype)
    wide[..., place] = array
    return wide[..., place]


def laid_out(value: Any, layout: str) -> Any:
    """A copy of an array that lies in memory as `LAYOUTS` says; of a list, of each in it; anything else as
    it is."""
    if isinstance(value, list):
        return [laid_out(item, layout) for item in value]
    if not isinstance(value, np.ndarray):
        return value
    return LAYOUTS[layout](value) if value.ndim else value.copy()


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one call needs: every field but `options` and `layout` is an argument, in order.

    `layout` says how the arrays among them lie in memory: a name in `LAYOUTS`.
    """

    options: dict[str, Any] = field(default_factory=dict)
    layout: str = "contiguous"

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The positional arguments: new copies, laid out; None for an optional array that was not drawn."""
        return tuple(laid_out(getattr(self, name), self.layout) for name in self._names)

    @property
    def _names(self) -> list[str]:
        return [f.name for f in fields(self) if f.name not in ("options", "layout")]

    def astype(self, dtype: Any) -> "Case":
        """The same case with its float arrays, in options too, rounded to another dtype."""
        arguments = {name: _cast(getattr(self, name), dtype) for name in self._names}
        return replace(
            self, options={key: _cast(value, dtype) for key, value in self.options.items()}, **arguments
        )

    def __repr__(self) -> str:
        parts = [f"{name}={_sketch(getattr(self, name))}" for name in self._names]
        parts += [f"{key}={_sketch(value)}" for key, value in self.options.items()]
        parts += [f"layout={self.layout!r}"] if self.layout != "contiguous" else []
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # how Hypothesis prints a failing example
        printer.text(repr(self))


@dataclass(frozen=True, repr=False)
class ArrayCase(Case):
    """One array x and the options of the op."""

    x: Array


@dataclass(frozen=True, repr=False)
class PairCase(Case):
    """Two arrays a and b."""

    a: Array
    b: Array


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
    """An array of `shape`; its values are one of the kinds named in `values`, see `VALUES`."""
    shape = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    kind = draw(st.sampled_from(values))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return np.asarray(VALUES[kind](rng, shape), dtype)


def shapes(*, min_dims: int = 1, max_dims: int = 4, max_side: int = 4) -> st.SearchStrategy[Shape]:
    """Shapes without empty axes."""
    return npst.array_shapes(min_dims=min_dims, max_dims=max_dims, max_side=max_side)


def sides(most: int) -> st.SearchStrategy[int]:
    """Lengths from 1 to `most`, and one time in four or five one around the width of a vector register."""
    usual = tuple(range(1, most + 1))
    return st.sampled_from(usual * -(-15 // most) + VECTOR_WIDTHS)


def layouts() -> st.SearchStrategy[str]:
    """A name in `LAYOUTS`: contiguous half of the time."""
    others = list(LAYOUTS)[1:]
    return st.sampled_from(["contiguous"] * len(others) + others)


@st.composite
def broadcastable_arrays(
    draw: Draw, count: int = 2, *, dtype: Any = np.float64, values: Sequence[str] = ("normal", "ties")
) -> list[Array]:
    """`count` arrays that NumPy broadcasts together: axes of length 1, and missing leading axes."""
    drawn = draw(npst.mutually_broadcastable_shapes(num_shapes=count, max_dims=4, max_side=4))
    return [draw(arrays(shape, dtype=dtype, values=values)) for shape in drawn.input_shapes]
