"""Files: weights and checkpoints, minidl's own and other libraries'."""

from minidl.io.foreign import as_arrays, read_weights
from minidl.io.layouts import WeightsReport
from minidl.io.weights import load_arrays, save_arrays, write_atomic

__all__ = ["WeightsReport", "as_arrays", "load_arrays", "read_weights", "save_arrays", "write_atomic"]
