"""Every op of `minidl.ops` as naive loops, straight from its formula: the oracle for all fast code.

Each function has the name and the arguments of the op, takes NumPy arrays (images (N, H, W, C), weights (KH,
KW, C/groups, F)) and returns one new float64 array; nothing is written in place. The one decision behind it:
nothing here may share an idea with the engine. No engine code is imported, padding and window rules are
spelled out again, and sums go through `math.fsum`, which rounds once however many terms there are. So what is
left of a difference is the engine's own rounding (see bounds/).
"""

from minidl.testing.reference.dropout import dropout, dropout_mask, philox
from minidl.testing.reference.elementwise import (
    abs,
    add,
    clip,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    relu,
    sigmoid,
    sqrt,
    sub,
    tanh,
    where,
)
from minidl.testing.reference.loss import cross_entropy, log_softmax, softmax
from minidl.testing.reference.norm import batch_norm, local_response_norm, running_statistics
from minidl.testing.reference.shapes import concat, flatten, getitem, pad, reshape, transpose
from minidl.testing.reference.sums import linear, matmul, max, mean, sum
from minidl.testing.reference.windows import (
    adaptive_avg_pool2d,
    avg_pool2d,
    conv2d,
    global_avg_pool,
    max_pool2d,
)
