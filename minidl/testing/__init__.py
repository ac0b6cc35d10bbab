"""Prove a layer right: `gradcheck`, `agree`, cases drawn by `strategies`, naive oracles in `reference`.

Public, and built for the reader's own ops as much as for minidl's. It needs Hypothesis (the extra `test`);
nothing in the engine imports this package, `minidl.testing` loads it when first named.
"""

from minidl.testing import bounds, reference, strategies
from minidl.testing.agree import agree
from minidl.testing.convergence import Convergence, convergence
from minidl.testing.gradcheck import GradcheckSettings, gradcheck

__all__ = [
    "Convergence",
    "GradcheckSettings",
    "agree",
    "bounds",
    "convergence",
    "gradcheck",
    "reference",
    "strategies",
]
