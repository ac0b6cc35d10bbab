"""Hypothesis strategies for what a convolutional network is made of: arrays, windows, cases for every op.

A case holds the arrays and options of one call, valid by construction: `op(*case.inputs, **case.options)`
never raises.

    @given(strategies.conv2d_cases())
    def test_my_conv(case):
        gradcheck(my_conv, *case.inputs, **case.options)

Two decisions behind it. Nothing is drawn and thrown away: a window draws how many outputs it gives, and the
image follows from that. And Hypothesis draws shapes, options and a seed, not single numbers: arrays of any
size cost one draw, and what shrinks is what a reader wants small (shapes, options), down to batch 1, one
channel, a 1x1 window.
"""

from minidl.testing.strategies.arrays import VALUES, Case, arrays, broadcastable_arrays, shapes
from minidl.testing.strategies.cases import (
    ArrayCase,
    BatchNormCase,
    ConcatCase,
    Conv2dCase,
    CrossEntropyCase,
    LinearCase,
    PairCase,
    adaptive_pool_cases,
    batch_norm_cases,
    concat_cases,
    conv2d_cases,
    cross_entropy_cases,
    getitem_cases,
    linear_cases,
    local_response_norm_cases,
    matmul_cases,
    pad_cases,
    pool_cases,
    reduction_cases,
    softmax_cases,
    transpose_cases,
)
from minidl.testing.strategies.windows import WindowDraw, kernels, windows
