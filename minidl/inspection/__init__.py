"""Looking inside a network."""

from minidl.inspection.explain import ExplainedRow, Explanation, explain
from minidl.inspection.layers import Row, layer_rows
from minidl.inspection.summary import summary

__all__ = ["ExplainedRow", "Explanation", "Row", "explain", "layer_rows", "summary"]
