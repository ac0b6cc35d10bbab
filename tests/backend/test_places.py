"""Where elements lie: as NumPy has it, for any views that broadcast together."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.backend.cuda.launch import kernel_path
from minidl.backend.cuda.places import places
from minidl.errors import ShapeError


@st.composite
def views(draw: st.DrawFn, shape: tuple[int, ...]) -> np.ndarray:
    """A view of distinct numbers that broadcasts to `shape`: transposed, with gaps, backwards, repeated."""
    own = [n if draw(st.booleans()) else 1 for n in shape]
    while own and own[0] == 1 and draw(st.booleans()):
        own.pop(0)
    order = draw(st.permutations(range(len(own))))
    gaps = [draw(st.integers(1, 3)) for _ in own]
    whole = np.arange(int(np.prod([n * gap for n, gap in zip(own, gaps)])))
    view = whole.reshape([own[axis] * gaps[axis] for axis in order]).transpose(np.argsort(order))
    view = view[tuple(slice(None, None, gap) for gap in gaps)]
    view = view[tuple(slice(None, None, draw(st.sampled_from([1, 1, -1]))) for _ in own)]
    if draw(st.booleans()):  # with strides of 0 of its own
        view = np.broadcast_to(view, shape)
    return view


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], list[np.ndarray | None]]:
    """A shape, and up to three views or numbers that broadcast to it."""
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=5)))
    return shape, draw(st.lists(st.none() | views(shape), min_size=1, max_size=3))


def place(found: np.ndarray, which: int, i: int) -> int:
    """What kernels/places.cuh computes."""
    axes, size, step = found["axes"][0], found["size"][0], found["step"][0, which]
    at = 0
    for axis in range(axes - 1, 0, -1):
        i, rest = divmod(i, int(size[axis]))
        at += rest * int(step[axis])
    return at + i * int(step[0])


@given(cases())
def test_places_are_those_of_numpy(case: Any) -> None:
    shape, arrays = case
    found = places(shape, *arrays)
    for which, array in enumerate(arrays):
        if array is None:
            assert not found["step"][0, which].any()
            continue
        first = int(array.flat[0])  # an element is its own place, from the start of the buffer
        expected = np.broadcast_to(array, shape).ravel()
        assert [first + place(found, which, i) for i in range(expected.size)] == expected.tolist()


@given(st.lists(st.integers(1, 4), max_size=6).map(tuple), st.integers(1, 3))
def test_contiguous_arrays_have_one_axis(shape: tuple[int, ...], count: int) -> None:
    array = np.zeros(shape, np.float32)
    found = places(shape, *[array] * count)
    assert found["axes"][0] == 1
    assert found["size"][0, 0] == array.size
    assert (found["step"][0, :count, 0] == (array.size > 1)).all()


@pytest.mark.parametrize(
    ("shape", "arrays", "expected"),
    [
        ((6, 5, 4), [(6, 5, 4), (4,)], [(30, 4, 0), (4, 1, 1)]),  # a bias per channel
        ((6, 5, 4), [(6, 5, 4), (6, 1, 1)], [(6, 20, 1), (20, 1, 0)]),
        ((6, 5, 4), [(6, 5, 4), (1, 5, 1)], [(6, 20, 0), (5, 4, 1), (4, 1, 0)]),
        ((6, 1, 4), [(1, 1, 4), (6, 1, 1)], [(6, 0, 1), (4, 1, 0)]),
        ((2, 3), [(1, 1), ()], [(6, 0, 0)]),
        ((), [(), ()], [(1, 0, 0)]),
    ],
)
def test_axes_are_merged_where_all_arrays_go_on(shape: Any, arrays: Any, expected: Any) -> None:
    found = places(shape, *(np.zeros(own, np.float32) for own in arrays))
    count = int(found["axes"][0])
    sizes, steps = found["size"][0, :count], found["step"][0, :2, :count]
    assert [(int(n), *map(int, along)) for n, along in zip(sizes, steps.T)] == expected


def _alternating(axes: int) -> np.ndarray:
    """So many axes, none of which goes on where the next one ends."""
    return np.zeros((3,) * axes, np.uint8)[(slice(2),) * axes]


def test_eight_axes_that_cannot_be_merged_are_the_most() -> None:
    x = _alternating(8)
    assert places(x.shape, x)["axes"][0] == 8
    with pytest.raises(ShapeError, match=r"shape \(2, 2, 2, 2, 2, 2, 2, 2, 2\) has 9 axes that .* at most 8"):
        places((2,) * 9, _alternating(9))
    assert places((2,) * 9, np.zeros((2,) * 9))["axes"][0] == 1


def test_a_result_is_kept_and_cannot_be_changed() -> None:
    x = np.zeros((2, 3), np.float32)
    found = places((2, 3), x)
    assert places((2, 3), x + 1) is found
    with pytest.raises(ValueError, match="read-only"):
        found["axes"] = 3


def test_the_struct_is_that_of_the_header() -> None:
    text = kernel_path("places.cuh").read_text(encoding="utf-8")
    assert "constexpr int kAxes = 8;" in text
    assert "  int axes;\n  int size[kAxes];\n  int step[3][kAxes];\n" in text
    dtype = places((2,), np.zeros(2)).dtype
    assert dtype.names == ("axes", "size", "step")
    assert dtype.itemsize == 4 * (1 + 8 + 3 * 8)
