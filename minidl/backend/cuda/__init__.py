"""The CUDA backend: every kernel by name, as ops call it (`backend.of(x).relu(x)`).

The functions are those of backend/cpu. Each allocates its result and launches kernels of kernels/*.cu, on a
GPU (gpu.py, through CuPy) or on the CPU (emulator.py), whichever its arguments lie on.
"""

from minidl.backend.cuda.conv import choose_plan, conv2d, conv2d_grad_weight, conv2d_grad_x
from minidl.backend.cuda.device import (
    download,
    free_unused,
    is_cold,
    live_bytes,
    peak_bytes,
    upload,
)
from minidl.backend.cuda.dropout import dropout
from minidl.backend.cuda.elementwise import (
    abs,
    add,
    add_into,
    cast,
    clip,
    compare,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    relu,
    relu_grad,
    sigmoid,
    sign,
    sqrt,
    sub,
    tanh,
    where,
)
from minidl.backend.cuda.image import standardise
from minidl.backend.cuda.launch import compilation
from minidl.backend.cuda.loss import cross_entropy
from minidl.backend.cuda.move import (
    broadcast,
    concat,
    copy,
    getitem,
    getitem_grad,
    pad,
    reshape,
    setitem,
    transpose,
)
from minidl.backend.cuda.norm import batch_statistics, normalize, normalize_grad
from minidl.backend.cuda.pool import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_grad,
    avg_pool2d,
    avg_pool2d_grad,
    global_avg_pool,
    global_avg_pool_grad,
    max_pool2d,
    max_pool2d_grad,
)
from minidl.backend.cuda.products import linear, matmul
from minidl.backend.cuda.reduce import column_sums, log_softmax, max_first, max_first_grad, softmax, sum
from minidl.backend.cuda.response import local_response_norm, local_response_norm_grad
from minidl.backend.cuda.update import (
    adam_update,
    adamw_update,
    clip_into,
    copy_into,
    ema_update,
    rmsprop_update,
    scale_into,
    sgd_update,
    sums_of_squares,
)
