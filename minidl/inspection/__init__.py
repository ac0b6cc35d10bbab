"""Looking inside a network."""

from minidl.inspection.layers import Row, layer_rows
from minidl.inspection.summary import summary

__all__ = ["Row", "layer_rows", "summary"]
