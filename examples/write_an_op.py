"""Write an op of your own, and prove its gradients.

PReLU (He et al. 2015, arXiv:1502.01852, equation 1) lets a network learn how much of a negative value
passes, one slope per channel. Run `python examples/write_an_op.py` or `pytest examples/write_an_op.py`; then
break a gradient and see what the check says.
"""

import numpy as np
from hypothesis import given

import minidl as md
from minidl.testing import gradcheck, strategies


@md.op
def prelu(x: np.ndarray, slope: np.ndarray):
    """x where it is positive, else slope * x.  (N, H, W, C), (C,) -> (N, H, W, C)"""
    factor = np.where(x > 0, 1, slope)

    def grad_x(g):
        return g * factor

    def grad_slope(g):
        return np.sum(g * np.minimum(x, 0), axis=(0, 1, 2))

    return x * factor, (grad_x, grad_slope)


@given(x=strategies.arrays((2, 3, 3, 4), values=("normal", "ties")), slope=strategies.arrays((4,)))
def test_prelu(x, slope):
    assert gradcheck(prelu, x, slope)  # zeros are among the ties: at the kink, any slope between passes


if __name__ == "__main__":
    test_prelu()
    print("prelu: both gradients agree with finite differences")
    x, slope = md.tensor(np.ones((1, 1, 2, 4), np.float32) - 2), md.tensor(np.full(4, 0.25), dtype="float32")
    print("prelu(-1), slope 0.25:", prelu(x, slope).numpy()[0, 0, 0, 0])
