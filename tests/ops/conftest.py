"""Every op here runs on poisoned memory: what a kernel has not written itself reads as NaN."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minidl.backend.cpu import memory


@pytest.fixture(autouse=True, scope="module")
def _poisoned_memory() -> Iterator[None]:
    empty = memory.empty

    def poisoned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = empty(shape, dtype)
        array.fill(np.nan if array.dtype.kind == "f" else 99)
        return array

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "empty", poisoned)
        yield
