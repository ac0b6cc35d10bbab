"""Looking inside a network."""

from minidl.inspection.summary import Row, layer_rows, multiply_adds, summary

__all__ = ["Row", "layer_rows", "multiply_adds", "summary"]
