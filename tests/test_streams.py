"""Random streams: separate, repeatable, and their state is plain data."""

import json

import pytest

from minidl import streams


def test_one_seed_repeats_every_stream_and_another_changes_it():
    def draws(seed: int) -> list[float]:
        streams.manual_seed(seed)
        return [float(streams.generator(name).random()) for name in streams.NAMES]

    assert draws(1) == draws(1)
    assert all(a != b for a, b in zip(draws(1), draws(2)))
    assert len(set(draws(1))) == len(streams.NAMES)


def test_drawing_from_one_stream_leaves_the_others():
    streams.manual_seed(3)
    expected = streams.generator("shuffle").random()
    streams.manual_seed(3)
    streams.generator("init").random(100)
    streams.next_dropout_key()
    assert streams.generator("shuffle").random() == expected


def test_the_state_survives_json():
    streams.manual_seed(5)
    streams.generator("augment").random(7)
    streams.next_dropout_key()
    state = json.loads(json.dumps(streams.get_state()))

    def following() -> tuple[float, tuple[int, int, int]]:
        return float(streams.generator("augment").random()), streams.next_dropout_key()

    expected = following()
    streams.manual_seed(99)
    streams.set_state(state)
    assert following() == expected


def test_a_bad_state_changes_nothing():
    streams.manual_seed(5)
    before = streams.get_state()
    with pytest.raises(KeyError):
        streams.set_state({"seed": 1, "dropout_calls": 0, "generators": {}})
    assert streams.get_state() == before


def test_dropout_calls_are_counted():
    streams.manual_seed(8)
    assert [streams.next_dropout_key() for _ in range(2)] == [(8, 2, 0), (8, 2, 1)]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed: int):
    with pytest.raises(ValueError, match=f"seed is {seed}, it must lie in"):
        streams.manual_seed(seed)


def test_unknown_stream():
    with pytest.raises(ValueError, match="there is no stream 'noise'; the streams are init, shuffle"):
        streams.generator("noise")
