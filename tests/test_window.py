"""Window geometry, against counting by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.errors import ShapeError
from minidl.window import window


@given(
    n=st.integers(1, 12),
    k=st.integers(1, 5),
    s=st.integers(1, 4),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    d=st.integers(1, 3),
)
def test_the_output_counts_the_windows_that_fit(n: int, k: int, s: int, before: int, after: int, d: int):
    starts = [i for i in range(0, before + n + after, s) if i + (k - 1) * d + 1 <= before + n + after]
    if not starts:
        with pytest.raises(ShapeError, match="does not fit into W"):
            window("op", (50, n), (1, k), stride=s, padding=((0, 0), (before, after)), dilation=d)
        return
    got = window("op", (50, n), (1, k), stride=s, padding=((0, 0), (before, after)), dilation=d)
    assert got.output[1] == len(starts)


@given(n=st.integers(1, 12), k=st.integers(1, 5), s=st.integers(1, 4), d=st.integers(1, 3))
def test_same_gives_ceil_of_size_over_stride_and_pads_the_end_first(n: int, k: int, s: int, d: int):
    got = window("op", (n, n), k, stride=s, padding="same", dilation=d)
    assert got.output == (-(-n // s),) * 2
    before, after = got.padding[0]
    assert 0 <= after - before <= 1


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "expected"),
    [(7, 3, 2, 0, 3), (8, 3, 2, 0, 4), (8, 3, 2, 1, 5), (5, 2, 3, 0, 2), (3, 2, 2, 1, 2)],
)
def test_ceil_mode_keeps_a_last_window_that_starts_inside(n: int, k: int, s: int, p: int, expected: int):
    assert window("op", (n, n), k, stride=s, padding=p, ceil_mode=True).output == (expected, expected)


def test_padding_forms():
    for padding, expected in (
        (0, ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        (((0, 1), (2, 3)), ((0, 1), (2, 3))),
        ("valid", ((0, 0), (0, 0))),
    ):
        assert window("op", (9, 9), 3, padding=padding).padding == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"stride": 0}, "stride is 0, it must be at least 1"),
        ({"stride": (1, 2, 3)}, "give an integer or a pair"),
        ({"padding": -1}, "padding is -1, it must be at least 0"),
        ({"padding": "full"}, "padding is 'full'; the names are 'same' and 'valid'"),
        ({"dilation": 1.5}, "dilation is 1.5; give an integer"),
    ],
)
def test_bad_options(options: dict, text: str):
    with pytest.raises(ValueError, match=text):
        window("conv2d", (9, 9), 3, **options)


def test_a_window_larger_than_the_image_names_all_sizes():
    with pytest.raises(
        ShapeError,
        match=r"conv2d: a window of 5 \(kernel_size .* does not fit into H = 4 .*\(H, W\) is \(4, 9\)",
    ):
        window("conv2d", (4, 9), 5)
