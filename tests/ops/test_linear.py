"""Matrix products: layouts in memory, long sums, errors (test_proofs.py draws the rest)."""

from typing import Any

import numpy as np
import pytest

from minidl import ops
from minidl.errors import ShapeError
from minidl.testing import agree, gradcheck
from minidl.testing.strategies import LinearCase


def test_matmul_of_transposed_views() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((5, 4))
    np.testing.assert_allclose(ops.matmul(a.T, b.T).data, a.T @ b.T, rtol=1e-12)
    assert gradcheck(lambda a, b: ops.matmul(ops.transpose(a), ops.transpose(b)), a, b)


def test_a_long_product_stays_within_its_bound() -> None:
    rng = np.random.default_rng(0)
    assert agree(
        ops.linear,
        LinearCase(
            x=rng.standard_normal((3, 700)), weight=rng.standard_normal((700, 4)), bias=rng.standard_normal(4)
        ),
    )


@pytest.mark.parametrize(
    ("x", "weight", "bias", "text"),
    [
        (
            (2, 3),
            (4, 5),
            None,
            r"linear: x has 3 features \(last axis of \(2, 3\)\) but weight takes 4 \(axis 0 of \(4, 5\)\)",
        ),
        ((2, 3), (3, 5), (4,), r"linear: bias has shape \(4,\), it must be \(5,\) for weight \(3, 5\)"),
        ((2, 3), (3, 5), (1, 5), r"linear: bias has shape \(1, 5\), it must be \(5,\)"),
        ((2, 4, 4, 3), (48, 5), None, r"linear: x has shape \(2, 4, 4, 3\).*Flatten images first"),
    ],
)
def test_linear_shapes_that_do_not_fit(x: Any, weight: Any, bias: Any, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        ops.linear(np.zeros(x), np.zeros(weight), None if bias is None else np.zeros(bias))


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (
            (2, 3),
            (4, 5),
            r"matmul: a has 3 columns \(last axis of \(2, 3\)\) but b has 4 rows \(axis -2 of \(4, 5\)\)",
        ),
        ((3,), (3, 5), r"matmul: a has shape \(3,\), b has \(3, 5\); both need at least two axes"),
        ((2, 4, 3), (5, 3, 4), "matmul: a of shape .* do not broadcast"),
    ],
)
def test_matmul_shapes_that_do_not_fit(a: Any, b: Any, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        ops.matmul(np.zeros(a), np.zeros(b))
