"""Files: weights and checkpoints."""

from minidl.io.weights import load_arrays, save_arrays, write_atomic

__all__ = ["load_arrays", "save_arrays", "write_atomic"]
