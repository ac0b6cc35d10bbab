"""Operations on Tensors: each op and its gradients stand in one function."""

from minidl.ops import transfer as transfer  # for Tensor.to
from minidl.ops.activation import log_softmax, relu, sigmoid, softmax, tanh
from minidl.ops.arithmetic import (
    abs,
    add,
    cast,
    clip,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    sqrt,
    sub,
    where,
)
from minidl.ops.conv import conv2d
from minidl.ops.dropout import dropout
from minidl.ops.linear import linear, matmul
from minidl.ops.loss import cross_entropy
from minidl.ops.norm import batch_norm, local_response_norm
from minidl.ops.pool import adaptive_avg_pool2d, avg_pool2d, global_avg_pool, max_pool2d
from minidl.ops.reduce import max, mean, sum
from minidl.ops.shape import concat, flatten, getitem, pad, reshape, transpose

__all__ = [
    "abs",
    "adaptive_avg_pool2d",
    "add",
    "avg_pool2d",
    "batch_norm",
    "cast",
    "clip",
    "concat",
    "conv2d",
    "cross_entropy",
    "div",
    "dropout",
    "exp",
    "flatten",
    "getitem",
    "global_avg_pool",
    "linear",
    "local_response_norm",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "minimum",
    "mul",
    "neg",
    "pad",
    "pow",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "sqrt",
    "sub",
    "sum",
    "tanh",
    "transpose",
    "where",
]
