"""Every op of `minidl.ops` as naive loops, straight from its formula: the oracle for all fast code.

Each function has the name and the arguments of the op, takes NumPy arrays (images (N, H, W, C), weights (KH,
KW, C/groups, F)) and returns one new float64 array; nothing is written in place. The one decision behind it:
nothing here may share an idea with the engine. No engine code is imported, padding and window rules are
spelled out again, and sums go through `math.fsum`, which rounds once however many terms there are. So what is
left of a difference is the engine's own rounding (see bounds/).

Beside every op stands `<op>_gradients`, whose first argument g is the gradient arriving at the result. It
returns the gradients of the arrays: a tuple in the order of the op's parameters, None for one that was not
given.
"""

from minidl.testing.reference.dropout import dropout, dropout_gradients, dropout_mask, philox
from minidl.testing.reference.elementwise import (
    abs,
    abs_gradients,
    add,
    add_gradients,
    cast,
    cast_gradients,
    clip,
    clip_gradients,
    div,
    div_gradients,
    exp,
    exp_gradients,
    log,
    log_gradients,
    maximum,
    maximum_gradients,
    minimum,
    minimum_gradients,
    mul,
    mul_gradients,
    neg,
    neg_gradients,
    pow,
    pow_gradients,
    relu,
    relu_gradients,
    sigmoid,
    sigmoid_gradients,
    sqrt,
    sqrt_gradients,
    sub,
    sub_gradients,
    tanh,
    tanh_gradients,
    where,
    where_gradients,
)
from minidl.testing.reference.loss import (
    cross_entropy,
    cross_entropy_gradients,
    log_softmax,
    log_softmax_gradients,
    softmax,
    softmax_gradients,
)
from minidl.testing.reference.norm import (
    batch_norm,
    batch_norm_gradients,
    local_response_norm,
    local_response_norm_gradients,
    running_statistics,
)
from minidl.testing.reference.shapes import (
    concat,
    concat_gradients,
    flatten,
    flatten_gradients,
    getitem,
    getitem_gradients,
    pad,
    pad_gradients,
    reshape,
    reshape_gradients,
    transpose,
    transpose_gradients,
)
from minidl.testing.reference.sums import (
    linear,
    linear_gradients,
    matmul,
    matmul_gradients,
    max,
    max_gradients,
    mean,
    mean_gradients,
    sum,
    sum_gradients,
)
from minidl.testing.reference.windows import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_gradients,
    avg_pool2d,
    avg_pool2d_gradients,
    conv2d,
    conv2d_gradients,
    global_avg_pool,
    global_avg_pool_gradients,
    max_pool2d,
    max_pool2d_gradients,
)
