"""Looking inside a network."""

from minidl.inspection.explain import ExplainedRow, Explanation, explain
from minidl.inspection.layers import Row, layer_rows
from minidl.inspection.profile import LayerTime, StepTimes, profile
from minidl.inspection.summary import summary

__all__ = [
    "ExplainedRow",
    "Explanation",
    "LayerTime",
    "Row",
    "StepTimes",
    "explain",
    "layer_rows",
    "profile",
    "summary",
]
