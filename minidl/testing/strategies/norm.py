"""Cases for normalisation: over the batch, and over neighbouring channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minidl.testing.strategies.arrays import ArrayCase, Case, arrays, layouts, sides

Array = np.ndarray
Draw = st.DrawFn


@dataclass(frozen=True, repr=False)
class BatchNormCase(Case):
    """x (N, H, W, C); gamma, beta, running_mean, running_var (C,).

    In training the op writes into the running statistics: `inputs` gives it copies.
    """

    x: Array
    gamma: Array
    beta: Array
    running_mean: Array
    running_var: Array


@st.composite
def batch_norm_cases(
    draw: Draw,
    *,
    dtype: Any = np.float64,
    training: bool | None = None,
    fused: bool = True,
    values: Sequence[str] = ("normal", "ties", "offset"),
) -> BatchNormCase:
    """At least two values per channel, in `training`, not in training, or (None) either.

    With `fused` the options also draw the activation and the residual. Channel 0 varies, and its first pixel
    or, in training, its largest one passes the activation, so every argument has influence; other channels
    may be constant, or dead.
    """
    h, w, c = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(sides(3))
    shape = (draw(st.integers(1 if h * w > 1 else 2, 3)), h, w, c)
    vector = arrays((c,), dtype=dtype)
    x, gamma, beta, running_mean = (
        draw(arrays(shape, dtype=dtype, values=values)),
        *(draw(vector) for _ in "gbm"),
    )
    x[0, 0, 0, 0] = x[-1, -1, -1, 0] + 1
    options: dict[str, Any] = {
        "training": draw(st.booleans()) if training is None else training,
        "momentum": draw(st.sampled_from((0.1, 0.5))),
        "eps": draw(st.sampled_from((1e-5, 1e-3))),
    }
    if fused and draw(st.booleans()):
        options["activation"] = "relu"
        gamma[0] = np.copysign(gamma[0], x[0, 0, 0, 0] - running_mean[0])
        beta[0] = abs(beta[0])
    if fused and draw(st.booleans()):
        options["residual"] = draw(arrays(shape, dtype=dtype))
        options["residual"][..., 0] = abs(options["residual"][..., 0])
    return BatchNormCase(
        x=x,
        gamma=gamma,
        beta=beta,
        running_mean=running_mean,
        running_var=draw(arrays((c,), dtype=dtype, values=("positive",))),
        options=options,
        layout=draw(layouts()),
    )


@st.composite
def local_response_norm_cases(
    draw: Draw, *, dtype: Any = np.float64, values: Sequence[str] = ("normal", "ties")
) -> ArrayCase:
    """x (N, H, W, C) and an odd size, below and above the number of channels; both conventions of alpha."""
    n, h, w, c = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(sides(6))
    options = {
        "size": draw(st.sampled_from((1, 3, 5))),
        "alpha": draw(st.sampled_from((1e-4, 0.5))),
        "beta": draw(st.sampled_from((0.75, 0.5))),
        "k": draw(st.sampled_from((1.0, 2.0))),
        "divide_alpha": draw(st.booleans()),
    }
    x = draw(arrays((n, h, w, c), dtype=dtype, values=values))
    return ArrayCase(x=x, options=options, layout=draw(layouts()))
