"""Hypothesis strategies for what a convolutional network is made of: arrays, windows, cases for every op,
small stacks of layers.

A case holds the arrays and options of one call, valid by construction: `op(*case.inputs, **case.options)`
never raises, and every array has influence on what it returns. `CASES` holds a strategy for each op of
`minidl.ops` by its name.

    @given(strategies.conv2d_cases(), strategies.plans())
    def test_my_conv(case, plan):
        with md.force_plan(plan):
            gradcheck(my_conv, *case.inputs, **case.options)

Two decisions behind it. Nothing is drawn and thrown away: a window draws how many outputs it gives, and the
image follows from that. And Hypothesis draws shapes, options and a seed, not single numbers: arrays of any
size cost one draw, and what shrinks is what a reader wants small (shapes, options), down to batch 1, one
channel, a 1x1 window.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from minidl.testing.strategies.arrays import (
    LAYOUTS,
    VALUES,
    ArrayCase,
    Case,
    PairCase,
    arrays,
    broadcastable_arrays,
    laid_out,
    layouts,
    shapes,
    sides,
)
from minidl.testing.strategies.choices import devices, plans, usable_devices
from minidl.testing.strategies.elementwise import (
    CastCase,
    WhereCase,
    broadcast_cases,
    cast_cases,
    clip_cases,
    dropout_cases,
    extremum_cases,
    unary_cases,
    where_cases,
)
from minidl.testing.strategies.loss import CrossEntropyCase, cross_entropy_cases, softmax_cases
from minidl.testing.strategies.moves import (
    ConcatCase,
    concat_cases,
    getitem_cases,
    pad_cases,
    reshape_cases,
    transpose_cases,
)
from minidl.testing.strategies.norm import BatchNormCase, batch_norm_cases, local_response_norm_cases
from minidl.testing.strategies.stacks import Layer, StackCase, layer_stacks
from minidl.testing.strategies.sums import LinearCase, linear_cases, matmul_cases, reduction_cases
from minidl.testing.strategies.windows import (
    Conv2dCase,
    WindowDraw,
    adaptive_pool_cases,
    conv2d_cases,
    image_cases,
    kernels,
    pool_cases,
    windows,
)

_positive = partial(unary_cases, values=("positive",))
_saturating = partial(unary_cases, values=("normal", "ties", "large"), live=0.25)

# Op name -> strategy of cases, called with dtype=.
CASES: dict[str, Callable[..., Any]] = {
    "abs": unary_cases,
    "adaptive_avg_pool2d": adaptive_pool_cases,
    "add": broadcast_cases,
    "avg_pool2d": partial(pool_cases, average=True),
    "batch_norm": batch_norm_cases,
    "cast": cast_cases,
    "clip": clip_cases,
    "concat": concat_cases,
    "conv2d": partial(conv2d_cases, activations=(None, "relu")),
    "cross_entropy": cross_entropy_cases,
    "div": partial(broadcast_cases, b_values=("nonzero",)),
    "dropout": dropout_cases,
    "exp": unary_cases,
    "flatten": partial(unary_cases, min_dims=1),
    "getitem": getitem_cases,
    "global_avg_pool": image_cases,
    "linear": linear_cases,
    "local_response_norm": local_response_norm_cases,
    "log": _positive,
    "log_softmax": softmax_cases,
    "matmul": matmul_cases,
    "max": reduction_cases,
    "max_pool2d": pool_cases,
    "maximum": extremum_cases,
    "mean": reduction_cases,
    "minimum": extremum_cases,
    "mul": broadcast_cases,
    "neg": unary_cases,
    "pad": pad_cases,
    "pow": partial(broadcast_cases, values=("positive",), b_values=("normal", "ties")),
    "relu": partial(unary_cases, live=0.25),
    "reshape": reshape_cases,
    "sigmoid": _saturating,
    "softmax": softmax_cases,
    "sqrt": _positive,
    "sub": broadcast_cases,
    "sum": reduction_cases,
    "tanh": _saturating,
    "transpose": transpose_cases,
    "where": where_cases,
}
