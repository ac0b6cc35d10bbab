"""How far rounding alone may take an op from the reference, derived from its formula.

A sum of n terms, added up in any order with unit roundoff u, is off by at most gamma(n) = n*u / (1 - n*u)
times the sum of the terms' sizes (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition,
section 4.2). That sum of sizes is the op itself on absolute values, so for everything linear the bound needs
no constant: it is gamma(n) * reference.op(|x|, |weight|). The other ops add what their formula says. A fast
kernel may order its sums as it likes and stays inside; a missing term, a wrong row of padding or a sum in the
wrong dtype falls out.

A bound is a function (u, *inputs, **options) of the unit roundoff and the op's arguments, in float64. It
returns the largest error allowed, per output element or as one number. `FORWARD` holds them by op.
`GRADIENTS` holds the functions (u, g, *inputs, **options) for the gradients: they return a tuple, in the
order of the reference's `<op>_gradients`, None where that is None. All grow at least in proportion to u.
"""

from minidl.testing.bounds import dropout, elementwise, loss, norm, shapes, sums, windows
from minidl.testing.bounds.common import Bound, exact, exact_gradient, gamma

FORWARD: dict[str, Bound] = {
    **elementwise.FORWARD,
    **shapes.FORWARD,
    "sum": sums.sum,
    "mean": sums.mean,
    "max": exact,
    "matmul": sums.matmul,
    "linear": sums.linear,
    "conv2d": windows.conv2d,
    "max_pool2d": exact,
    "avg_pool2d": windows.avg_pool2d,
    "adaptive_avg_pool2d": windows.adaptive_avg_pool2d,
    "global_avg_pool": windows.global_avg_pool,
    "batch_norm": norm.batch_norm,
    "local_response_norm": norm.local_response_norm,
    "softmax": loss.softmax,
    "log_softmax": loss.log_softmax,
    "cross_entropy": loss.cross_entropy,
    "dropout": dropout.dropout,
}

GRADIENTS: dict[str, Bound] = {
    **elementwise.GRADIENTS,
    **shapes.GRADIENTS,
    "sum": exact_gradient,
    "mean": sums.mean_gradients,
    "max": exact_gradient,
    "matmul": sums.matmul_gradients,
    "linear": sums.linear_gradients,
    "conv2d": windows.conv2d_gradients,
    "max_pool2d": windows.max_pool2d_gradients,
    "avg_pool2d": windows.avg_pool2d_gradients,
    "adaptive_avg_pool2d": windows.adaptive_avg_pool2d_gradients,
    "global_avg_pool": windows.global_avg_pool_gradients,
    "batch_norm": norm.batch_norm_gradients,
    "local_response_norm": norm.local_response_norm_gradients,
    "softmax": loss.softmax_gradients,
    "log_softmax": loss.log_softmax_gradients,
    "cross_entropy": loss.cross_entropy_gradients,
    "dropout": dropout.dropout_gradients,
}
