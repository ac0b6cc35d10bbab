"""Tests of minidl/data/transforms/words.py."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minidl.data.transforms import words


def record(*args, **options):
    """What a word was called with; only numbers will do."""
    if any(isinstance(value, str) for value in args):
        raise ValueError("a number is needed")
    return args, options


def plain():
    return "plain"


MAKERS = {"record": record, "plain": plain}


@pytest.mark.parametrize(
    ("text", "built"),
    [
        ("plain", ["plain"]),
        ("plain()", ["plain"]),
        ("  plain +record ", ["plain", ((), {})]),
        ("record(1, -2.5)+plain", [((1, -2.5), {}), "plain"]),
        ("record(a=(1, 2), b=[3], c='x+y', d=None)", [((), {"a": (1, 2), "b": [3], "c": "x+y", "d": None})]),
        ("plain+plain+plain", ["plain"] * 3),
        ("plain+(plain)", ["plain"] * 2),
    ],
)
def test_words_are_calls_of_what_has_their_name(text, built):
    assert words.build(text, MAKERS, "thing") == built


@pytest.mark.parametrize("text", ["", "+", "plain+", "plain(", "plain plain", "a = 1", "\0", "(" * 5000])
def test_what_is_no_text_of_words_cannot_be_read(text):
    with pytest.raises(
        ValueError, match=r"(?s)thing .*: cannot be read; write names .* the names are record, plain$"
    ):
        words.build(text, MAKERS, "thing")


@pytest.mark.parametrize(
    "text", ["other", "plain+other(1)", "plain-plain", "plain.a", "plain()()", "1", "+plain"]
)
def test_other_names_are_answered_with_those_there_are(text):
    with pytest.raises(ValueError, match=r"thing .*: there is no .*; the names are record, plain, several"):
        words.build(text, MAKERS, "thing")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("plain(1)", r"plain\(1\) does not work: .*positional argument"),
        ("plain+record('x')", r"record\('x'\) does not work: a number is needed"),
        ("record(open('x'))", r"record\(open\('x'\)\) does not work: malformed node"),
        ("record(plain)", "does not work: malformed node"),
        ("record(*[1])", "does not work: malformed node"),
        ("plain(**{'a': 1})", "does not work: .*unexpected keyword argument"),
    ],
)
def test_arguments_are_literals_that_the_maker_takes(text, reason):
    with pytest.raises(ValueError, match=f"thing .*{reason}"):
        words.build(text, MAKERS, "thing")


@given(st.text("record(plain)+,=1'[]{}*.-_ \n#:", max_size=30))
@example("-" * 10_000 + "1")
@example("plain" + ".a" * 10_000)
@example("plain+" * 10_000 + "plain")
def test_any_text_is_built_or_refused(text):
    with suppress(ValueError):
        assert all(built == "plain" or len(built) == 2 for built in words.build(text, MAKERS, "thing"))
