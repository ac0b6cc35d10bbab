"""How weights start: ranges, spreads, and the stream they come from."""

import numpy as np
import pytest

import minidl as md
from minidl.nn import init

# 500,000 draws: one standard error of their spread is 0.1 %
SHAPE = (5, 5, 200, 100)
FAN_IN = 5 * 5 * 200


@pytest.fixture(autouse=True)
def _seed():
    md.manual_seed(0)


def test_truncated_normal_stays_within_two_standard_deviations():
    draw = init.truncated_normal(SHAPE, 0.1)
    assert 0.1999 < np.abs(draw).max() <= 0.2
    assert draw.std() == pytest.approx(0.0880, rel=0.005)  # the cut takes 12 % of the spread
    assert abs(draw.mean()) < 1e-3
    # what is drawn again must not pile up at the edges: 1.25 % of the cut distribution lies beyond 1.9
    assert np.mean(np.abs(draw) > 0.19) == pytest.approx(0.0125, rel=0.05)


def test_he_truncated_normal_has_he_variance_after_the_cut():
    draw = init.he_truncated_normal(SHAPE)
    assert draw.var() == pytest.approx(2 / FAN_IN, rel=0.01)
    assert np.abs(draw).max() <= 2 * np.sqrt(2 / FAN_IN) / 0.8796


def test_he_normal_by_fan_in_and_by_fan_out():
    fan_out = 5 * 5 * 100
    assert init.he_normal(SHAPE).var() == pytest.approx(2 / FAN_IN, rel=0.01)
    assert init.he_normal_fan_out(SHAPE).var() == pytest.approx(2 / fan_out, rel=0.01)
    assert init.he_normal_fan_out((200, 100)).var() == pytest.approx(2 / 100, rel=0.05)  # a dense layer's


def test_xavier_uniform():
    draw = init.xavier_uniform(SHAPE)
    bound = np.sqrt(3 / FAN_IN)
    assert -bound <= draw.min() < -0.999 * bound
    assert 0.999 * bound < draw.max() <= bound
    assert draw.var() == pytest.approx(1 / FAN_IN, rel=0.01)


@pytest.mark.parametrize(
    "draw", [lambda s: init.truncated_normal(s, 1.0), init.he_truncated_normal, init.xavier_uniform]
)
def test_draws_are_float32_and_follow_the_seed(draw):
    first = draw((3, 3, 4, 5))
    assert first.shape == (3, 3, 4, 5)
    assert first.dtype == np.float32
    assert not np.array_equal(first, draw((3, 3, 4, 5)))
    md.manual_seed(0)
    np.testing.assert_array_equal(first, draw((3, 3, 4, 5)))


def test_blank_draws_nothing_and_ends_with_the_block():
    before = md.streams.get_state()
    with init.blank():
        for draw in (
            init.he_normal,
            init.he_normal_fan_out,
            init.he_truncated_normal,
            init.xavier_uniform,
        ):
            np.testing.assert_array_equal(draw((3, 3, 4, 5)), np.zeros((3, 3, 4, 5), np.float32))
        with init.blank():
            pass
        assert not init.he_normal((4, 5)).any()
    assert md.streams.get_state() == before
    assert init.he_normal((4, 5)).all()
