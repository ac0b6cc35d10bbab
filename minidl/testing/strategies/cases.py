"""Cases, one kind per op."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from minidl.testing.strategies.arrays import Case, arrays, shapes
from minidl.testing.strategies.windows import windows

Array = np.ndarray
Draw = st.DrawFn


@dataclass(frozen=True, repr=False)
class Conv2dCase(Case):
    """x (N, H, W, C), weight (KH, KW, C/groups, F), bias (F,) or None; stride, padding, dilation, groups."""

    x: Array
    weight: Array
    bias: Array | None


@st.composite
def conv2d_cases(
    draw: Draw,
    *,
    dtype: Any = np.float64,
    max_channels: int = 3,
    max_batch: int = 2,
    activations: Sequence[str | None] = (None,),
) -> Conv2dCase:
    """Convolutions of every geometry, plain, grouped and depthwise, with and without bias."""
    window = draw(windows())
    channels = st.integers(1, max_channels)
    groups, c, f = draw(channels), draw(channels), draw(channels)
    x = draw(arrays((draw(st.integers(1, max_batch)), *window.size, groups * c), dtype=dtype))
    weight = draw(arrays((*window.kernel_size, c, groups * f), dtype=dtype))
    bias = draw(st.none() | arrays((groups * f,), dtype=dtype))
    options = {
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
        "groups": groups,
    }
    activation = draw(st.sampled_from(activations))
    return Conv2dCase(
        x=x, weight=weight, bias=bias, options=options | ({"activation": activation} if activation else {})
    )


@dataclass(frozen=True, repr=False)
class ArrayCase(Case):
    """One array x and the options of the op."""

    x: Array


@st.composite
def pool_cases(
    draw: Draw, *, dtype: Any = np.float64, average: bool = False, values: Sequence[str] = ("normal", "ties")
) -> ArrayCase:
    """x (N, H, W, C) for max_pool2d, or with `average` for avg_pool2d.

    Windows overlap or leave gaps, read padding, and in ceil mode may hang over the edge.
    """
    window = draw(windows(max_dilation=1, spare=0))
    x = draw(
        arrays((draw(st.integers(1, 2)), *window.size, draw(st.integers(1, 3))), dtype=dtype, values=values)
    )
    options = {
        "kernel_size": window.kernel_size,
        "stride": window.stride,
        "padding": window.padding,
        "ceil_mode": draw(st.booleans()),
    }
    return ArrayCase(x=x, options=options | ({"count_include_pad": draw(st.booleans())} if average else {}))


@st.composite
def adaptive_pool_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """x (N, H, W, C) and output_size: dividing the image, overlapping, or larger than it."""
    side, output = st.integers(1, 7), st.integers(1, 4)
    x = draw(arrays((draw(st.integers(1, 2)), draw(side), draw(side), draw(st.integers(1, 3))), dtype=dtype))
    return ArrayCase(x=x, options={"output_size": draw(st.tuples(output, output))})


@dataclass(frozen=True, repr=False)
class BatchNormCase(Case):
    """x (N, H, W, C); gamma, beta, running_mean, running_var (C,).

    In training the op writes into the running statistics: give it copies.
    """

    x: Array
    gamma: Array
    beta: Array
    running_mean: Array
    running_var: Array


@st.composite
def batch_norm_cases(
    draw: Draw,
    *,
    dtype: Any = np.float64,
    training: bool | None = None,
    fused: bool = True,
    values: Sequence[str] = ("normal", "ties", "offset"),
) -> BatchNormCase:
    """At least two values per channel, in `training`, not in training, or (None) either.

    With `fused` the options also draw the activation and the residual.
    """
    h, w, c = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    shape = (draw(st.integers(1 if h * w > 1 else 2, 3)), h, w, c)
    vector = arrays((c,), dtype=dtype)
    options: dict[str, Any] = {
        "training": draw(st.booleans()) if training is None else training,
        "momentum": draw(st.sampled_from((0.1, 0.5))),
        "eps": draw(st.sampled_from((1e-5, 1e-3))),
    }
    if fused and draw(st.booleans()):
        options["activation"] = "relu"
    if fused and draw(st.booleans()):
        options["residual"] = draw(arrays(shape, dtype=dtype))
    return BatchNormCase(
        x=draw(arrays(shape, dtype=dtype, values=values)),
        gamma=draw(vector),
        beta=draw(vector),
        running_mean=draw(vector),
        running_var=draw(arrays((c,), dtype=dtype, values=("positive",))),
        options=options,
    )


@st.composite
def local_response_norm_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """x (N, H, W, C) and an odd size, below and above the number of channels; both conventions of alpha."""
    side = st.integers(1, 3)
    x = draw(arrays((draw(st.integers(1, 2)), draw(side), draw(side), draw(st.integers(1, 7))), dtype=dtype))
    return ArrayCase(
        x=x,
        options={
            "size": draw(st.sampled_from((1, 3, 5))),
            "alpha": draw(st.sampled_from((1e-4, 0.5))),
            "beta": draw(st.sampled_from((0.75, 0.5))),
            "k": draw(st.sampled_from((1.0, 2.0))),
            "divide_alpha": draw(st.booleans()),
        },
    )


@dataclass(frozen=True, repr=False)
class LinearCase(Case):
    """x (N, D), weight (D, F), bias (F,) or None."""

    x: Array
    weight: Array
    bias: Array | None


@st.composite
def linear_cases(draw: Draw, *, dtype: Any = np.float64) -> LinearCase:
    """Matrices of any small shape, single rows and columns too."""
    n, d, f = (draw(st.integers(1, 5)) for _ in range(3))
    bias = draw(st.none() | arrays((f,), dtype=dtype))
    return LinearCase(
        x=draw(arrays((n, d), dtype=dtype)), weight=draw(arrays((d, f), dtype=dtype)), bias=bias
    )


@dataclass(frozen=True, repr=False)
class PairCase(Case):
    """Two arrays a and b."""

    a: Array
    b: Array


@st.composite
def matmul_cases(draw: Draw, *, dtype: Any = np.float64) -> PairCase:
    """(..., M, K) and (..., K, N) whose leading axes broadcast."""
    lead = draw(npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    return PairCase(
        a=draw(arrays((*lead[0], m, k), dtype=dtype)), b=draw(arrays((*lead[1], k, n), dtype=dtype))
    )


@dataclass(frozen=True, repr=False)
class ConcatCase(Case):
    """Arrays whose shapes differ along the option `axis` alone."""

    arrays: list[Array]


@st.composite
def concat_cases(draw: Draw, *, dtype: Any = np.float64) -> ConcatCase:
    """One to four arrays along any axis, counted from either end."""
    shape = draw(shapes())
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    parts = []
    for length in lengths:
        part = list(shape)
        part[axis] = length
        parts.append(draw(arrays(tuple(part), dtype=dtype)))
    return ConcatCase(arrays=parts, options={"axis": axis})


@st.composite
def reduction_cases(
    draw: Draw, *, dtype: Any = np.float64, values: Sequence[str] = ("normal", "ties")
) -> ArrayCase:
    """An array, and one axis, several in any order, or all of them to reduce; with and without keepdims."""
    x = draw(arrays(shapes(), dtype=dtype, values=values))
    one, several = st.integers(-x.ndim, x.ndim - 1), npst.valid_tuple_axes(x.ndim, min_size=1)
    return ArrayCase(x=x, options={"axis": draw(st.none() | one | several), "keepdims": draw(st.booleans())})


@dataclass(frozen=True, repr=False)
class CrossEntropyCase(Case):
    """logits (N, K), labels (N,) integers."""

    logits: Array
    labels: Array


@st.composite
def cross_entropy_cases(draw: Draw, *, dtype: Any = np.float64) -> CrossEntropyCase:
    """Every reduction, label smoothing, class weights, and ignored labels (never all of them)."""
    n, k = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    labels = np.array(draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)), np.int64)
    options: dict[str, Any] = {
        "label_smoothing": draw(st.sampled_from((0.0, 0.1))),
        "reduction": draw(st.sampled_from(("mean", "sum", "none"))),
    }
    if draw(st.booleans()):
        options["ignore_index"] = draw(st.sampled_from((-100, 255)))
        labels[draw(st.integers(1, n)) :] = options["ignore_index"]
    if draw(st.booleans()):
        options["class_weight"] = draw(arrays((k,), dtype=dtype, values=("positive",)))
    return CrossEntropyCase(logits=draw(arrays((n, k), dtype=dtype)), labels=labels, options=options)


@st.composite
def softmax_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """An array with at least two values along the option `axis`; moderate or large values."""
    shape = draw(shapes())
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    longer = list(shape)
    longer[axis] += 1
    return ArrayCase(
        x=draw(arrays(tuple(longer), dtype=dtype, values=("normal", "ties", "offset"))),
        options={"axis": axis},
    )


@st.composite
def pad_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """An array, (before, after) for every axis, and the value between."""
    x = draw(arrays(shapes(), dtype=dtype))
    width = st.tuples(st.integers(0, 2), st.integers(0, 2))
    return ArrayCase(
        x=x,
        options={
            "widths": tuple(draw(width) for _ in range(x.ndim)),
            "value": draw(st.sampled_from((0.0, 1.5))),
        },
    )


@st.composite
def transpose_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """An array and an order of its axes, or None."""
    x = draw(arrays(shapes(), dtype=dtype))
    return ArrayCase(x=x, options={"axes": draw(st.none() | st.permutations(range(x.ndim)).map(tuple))})


@st.composite
def getitem_cases(draw: Draw, *, dtype: Any = np.float64) -> ArrayCase:
    """An array and an index: integers, slices with steps, ellipsis, new axes, or arrays of integers."""
    x = draw(arrays(shapes(), dtype=dtype))
    basic = npst.basic_indices(x.shape, allow_newaxis=True)
    advanced = npst.integer_array_indices(x.shape, result_shape=npst.array_shapes(max_dims=2, max_side=3))
    return ArrayCase(x=x, options={"index": draw(basic | advanced)})
