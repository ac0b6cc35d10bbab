"""Settings of the whole suite: the Hypothesis profiles, and seeded random streams for every test.

`ci` is the default and draws the same examples every time; `pytest --hypothesis-profile=intense` draws 1,000
new ones per property.
"""

import pytest
from hypothesis import settings

from minidl import streams

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("intense", deadline=None, max_examples=1000)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    streams.manual_seed(0)
