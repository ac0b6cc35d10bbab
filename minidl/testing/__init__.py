"""Prove a layer right: gradients by `gradcheck`, cases by `strategies`, naive oracles in `reference`, rounding bounds by `agree`.

Public, and built for the reader's own ops as much as for minidl's. It needs Hypothesis (the extra `test`); nothing in the engine
imports this package, `minidl.testing` loads it when first named.
"""

from minidl.testing import reference, strategies
from minidl.testing.agree import agree
from minidl.testing.gradcheck import GradcheckSettings, gradcheck

__all__ = ["GradcheckSettings", "agree", "gradcheck", "reference", "strategies"]
