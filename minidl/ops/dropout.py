"""Dropout. The mask is a function of (seed, stream, call), so the gradient computes it again and nothing is
kept."""

from typing import Any

from minidl import backend, streams
from minidl.backend import Array
from minidl.ops._shapes import check_float
from minidl.recording import op


@op
def dropout(x: Array, p: float, *, training: bool) -> Any:
    """Set each element to 0 with probability p and scale the others by 1 / (1 - p); x itself unless
    training.  Any shape.

    Masks come from the "dropout" stream: Philox4x32-10, the same on every device.  Srivastava et al. 2014,
    JMLR 15. ValueError unless 0 <= p <= 1.
    """
    check_float("dropout", x)
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is {p}, it must be a probability: 0 <= p <= 1")
    if not training or p == 0:
        return x, (lambda g: g,)
    xp, key = backend.of(x), streams.next_dropout_key()

    def grad_x(g: Array) -> Array:
        return xp.dropout(g, p, key)

    return xp.dropout(x, p, key), (grad_x,)
