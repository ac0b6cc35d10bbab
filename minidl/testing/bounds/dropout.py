"""Bounds for dropout: which elements are kept is exact, 1 / (1 - p) and the product with it round."""

from minidl.testing import reference
from minidl.testing.bounds.common import gradient_roundings, roundings

dropout = roundings(reference.dropout, 3)
dropout_gradients = gradient_roundings(reference.dropout_gradients, 3)
