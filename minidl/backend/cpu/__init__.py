"""The CPU backend: every kernel by name, as ops call it (`backend.of(x).relu(x)`)."""

from minidl.backend.cpu.compile import cache_folder, compilation, is_cold
from minidl.backend.cpu.conv import (
    choose_plan,
    conv2d,
    conv2d_grad_weight,
    conv2d_grad_x,
    measure_plans,
    plan_conditions,
)
from minidl.backend.cpu.dropout import dropout
from minidl.backend.cpu.elementwise import (
    abs,
    add,
    add_into,
    broadcast,
    cast,
    clip,
    compare,
    concat,
    copy,
    div,
    exp,
    getitem,
    getitem_grad,
    log,
    log_softmax,
    max_first,
    max_first_grad,
    maximum,
    minimum,
    mul,
    neg,
    pad,
    pow,
    relu,
    relu_grad,
    reshape,
    setitem,
    sigmoid,
    sign,
    softmax,
    sqrt,
    sub,
    sum,
    tanh,
    transpose,
    where,
    zeros,
)
from minidl.backend.cpu.loss import cross_entropy
from minidl.backend.cpu.memory import free_unused, live_bytes, peak_bytes
from minidl.backend.cpu.norm import (
    batch_statistics,
    column_sums,
    local_response_norm,
    local_response_norm_grad,
    normalize,
    normalize_grad,
)
from minidl.backend.cpu.pool import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_grad,
    avg_pool2d,
    avg_pool2d_grad,
    global_avg_pool,
    global_avg_pool_grad,
    max_pool2d,
    max_pool2d_grad,
)
from minidl.backend.cpu.products import linear, matmul
from minidl.backend.cpu.threads import get_num_threads, set_num_threads
from minidl.backend.cpu.update import (
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
