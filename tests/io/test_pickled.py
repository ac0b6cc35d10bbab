"""Pickles as plain data: nothing in them runs, and they take no more memory or time than they should."""

import contextlib
import copyreg
import io
import pickle
import re
import tracemalloc
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.errors import CheckpointError
from minidl.io.pickled import Name, entries, interpret

CALLS = {"collections.OrderedDict": lambda pairs=(): entries(pairs), "torch.FloatStorage": None}


def read(pickled: bytes) -> Any:
    stream = io.BytesIO(pickled + b"behind")
    found = interpret(stream, CALLS, lambda identity: ("fetched", identity))
    assert stream.read() == b"behind"
    return found


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(0, 9), inner)
    ),
)


@given(value=plain, protocol=st.integers(0, 5))
def test_plain_data_of_every_protocol(value: Any, protocol: int):
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
def test_bytes_are_a_call_in_old_protocols(protocol: int):
    pickled = pickle.dumps(b"\xff", protocol)
    if protocol < 3:
        with pytest.raises(CheckpointError, match=r"refuses to run _codecs\.encode"):
            read(pickled)
    else:
        assert read(pickled) == b"\xff"


def test_what_refers_to_itself():
    value: list[Any] = [1, {}]
    value[1]["self"] = value
    found = read(pickle.dumps(value))
    assert found[1]["self"] is found


@pytest.mark.parametrize("protocol", range(6))
def test_ordered_dicts_with_attributes_are_dicts(protocol: int):
    value = OrderedDict(b=1, a=OrderedDict(c=2))
    value._metadata = {"version": 1}  # type: ignore[attr-defined]
    found = read(pickle.dumps(value, protocol))
    assert found == {"b": 1, "a": {"c": 2}}
    assert list(found) == ["b", "a"]
    assert type(found) is dict


def test_python_2_gave_ordered_dicts_a_list_of_pairs():
    assert read(b"ccollections\nOrderedDict\n](](U\x01wK\x01ee\x85R.") == {"w": 1}


def test_names_and_persistent_ids_reach_the_caller():
    assert read(b"ctorch\nFloatStorage\n.") == Name("torch.FloatStorage")
    assert read(b"(K\x01X\x01\x00\x00\x00atQ.") == ("fetched", (1, "a"))


# Pickles that want to run code.
ran: list[str] = []


def trap(*arguments: Any) -> str:
    """What the pickles below would call."""
    ran.append("trap")
    return "trapped"


TRAP = f"{__name__}\ntrap\n".encode()
SET_TRAP = b"X" + len(__name__).to_bytes(4, "little") + __name__.encode() + b"X\x04\x00\x00\x00trap\x93"
CODE = {
    "call": b"c" + TRAP + b")R.",
    "call, by names on the stack": b"\x80\x04" + SET_TRAP + b")R.",
    "instance": b"(i" + TRAP + b".",
    "object": b"(c" + TRAP + b"o.",
    "new object": b"\x80\x02c" + TRAP + b")\x81.",
    "new object with keywords": b"\x80\x04c" + TRAP + b")}\x92.",
    "extension": b"\x80\x02\x82\xf0)R.",
    "state": b"ccollections\nOrderedDict\n)R}X\x0c\x00\x00\x00__setstate__c" + TRAP + b"sbNb.",
    "persistent name": b"Pstorage\n.",
    "inside a persistent id": b"(X\x07\x00\x00\x00storagec" + TRAP + b")RX\x01\x00\x00\x000NK\x01tQ.",
    "inside an entry": b"}(X\x01\x00\x00\x00wc" + TRAP + b")Ru.",
}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap as extension 0xF0: what the cache holds, `pickle` never asks find_class for."""
    monkeypatch.setitem(copyreg._inverted_registry, 0xF0, (__name__, "trap"))
    monkeypatch.setitem(copyreg._extension_cache, 0xF0, trap)
    ran.clear()


@pytest.mark.parametrize("name", CODE)
@pytest.mark.usefixtures("registered")
def test_no_pickle_runs_code(name: str):
    with pytest.raises(CheckpointError, match=r"^(asks for|has a pickle with) .*refuses to run"):
        read(CODE[name])
    assert ran == []


@pytest.mark.parametrize("name", ["call", "call, by names on the stack", "instance", "object", "extension"])
@pytest.mark.usefixtures("registered")
def test_these_pickles_do_run_code_in_pickle_loads(name: str, monkeypatch: pytest.MonkeyPatch):
    loader = pickle._Unpickler(io.BytesIO(CODE[name]))
    monkeypatch.setattr(loader, "find_class", lambda module, attribute: trap)
    assert loader.load() == "trapped"
    assert ran == ["trap"]


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "builtins eval",
        "collections OrderedDict.fromkeys",
        "torch load",
        "torch.serialization load",
        "torch FloatStorage.from_file",
    ],
)
def test_globals_are_refused_by_name_even_if_nothing_calls_them(name: str):
    shown = re.escape(name.replace(" ", "."))
    with pytest.raises(CheckpointError, match=f"^asks for {shown}: .*, and refuses to run {shown}\\."):
        read(f"}}X\x01\0\0\0ac{name.replace(' ', chr(10))}\ns.".encode())


def test_a_global_with_an_odd_name_is_shown_in_ascii():
    with pytest.raises(CheckpointError, match=r"refuses to run '\\x1b\[2J\.a+\.\.\.'\."):
        read(b"c\x1b[2J\n" + b"a" * 1000 + b"\n.")


@pytest.mark.parametrize(
    ("pickled", "text"),
    [
        (b"", "has a damaged pickle"),
        (b"\x80\x02.", "has a damaged pickle"),
        (b"(", "has a damaged pickle"),
        (b"e.", "has a damaged pickle"),
        (b"}h\x05.", "has a damaged pickle"),
        (b"\x80\x02]K\x01u.", "has a damaged pickle"),
        (b"(K\x01K\x01a.", "has a damaged pickle .*items for something that is no list"),
        (b"(K\x01K\x01K\x01s.", "has a damaged pickle .*entries for something that is no dict"),
        (b"}(K\x01u.", "has a damaged pickle"),
        (b"}]Ns.", "has a damaged pickle .*a list as a key"),
        (b"}\x8a\x09" + (2**64).to_bytes(9, "little") + b"Ns.", "has a damaged pickle .*a int as a key"),
        (b"N]b.", "has a damaged pickle .*attributes for something that has none"),
        (b"N)R.", "has a damaged pickle .*a call of something that is no function"),
        (b"ctorch\nFloatStorage\n)R.", "has a damaged pickle .*a call of something that is no function"),
        (b"ccollections\nOrderedDict\n]R.", "has a damaged pickle .*a call of something that is no function"),
        (b"ccollections\nOrderedDict\n)))\x87R.", "has a damaged pickle"),
        (b"ccollections\nOrderedDict\nK\x01\x85R.", "has a damaged pickle"),
        (b"\x80\x04NN\x93.", "asks for a number"),
        (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".", "has a damaged pickle"),
        (b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b".", "has a damaged pickle"),
        (b"\x80\x04\x8f.", "has a pickle with the instruction EMPTY_SET"),
    ],
)
def test_programs_that_make_no_sense(pickled: bytes, text: str):
    with pytest.raises(CheckpointError, match=f"^{text}"):
        read(pickled)


def test_an_odd_escape_in_a_string_is_no_warning():
    assert read(b"S'\\o'\n.") == r"\o"


def test_a_key_that_would_hash_for_ever():
    """Sixty tuples, each of two of the one before: small in memory, but 2**60 steps to hash."""
    doubled = b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    assert read(b"N" + doubled + b".")[0][1][0][0] is not None
    with pytest.raises(CheckpointError, match="a tuple as a key"):
        read(b"}N" + doubled + b"Ns.")


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p2147483647\n"])
def test_a_large_memo_number_takes_no_memory(put: bytes):
    tracemalloc.start()
    try:
        assert read(b"}" + put + b".") == {}
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_a_pickle_without_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("minidl.io.pickled._MOST_INSTRUCTIONS", 1000)
    with pytest.raises(CheckpointError, match="has a pickle of more than 1,000 instructions"):
        read(b"}" * 2000 + b".")


@pytest.mark.parametrize(
    "function", ["torch.Size", "torch._utils._rebuild_tensor", "torch._utils._rebuild_parameter"]
)
@pytest.mark.parametrize("whole", [True, False], ids=["arguments", "argument"])
def test_calls_that_copy_the_same_list_again_and_again(
    function: str, whole: bool, monkeypatch: pytest.MonkeyPatch
):
    """A long list, stored once, and many calls with it: small in the file, without end in memory."""
    monkeypatch.setattr("minidl.io.pickled._MOST_INSTRUCTIONS", 10_000)
    copied = []
    calls = {function: lambda *arguments: copied.append(len(arguments[0]) if not whole else len(arguments))}
    module, name = function.rsplit(".", 1)
    many = b"(" + b"N" * 1000 + b"tq\x00"
    call = b"h\x01h\x00" + (b"" if whole else b"\x85") + b"R"
    program = b"\x80\x02" + many + f"c{module}\n{name}\n".encode() + b"q\x01" + call * 1000 + b"."
    with pytest.raises(CheckpointError, match="has a pickle of more than 10,000 instructions"):
        interpret(io.BytesIO(program), calls, lambda identity: identity)
    assert sum(copied) < 10_000


DEEP = 100_000


@pytest.mark.parametrize(
    ("pickled", "inner"),
    [
        (b")" + b"\x85" * DEEP, 0),
        (b"]" * (DEEP + 1) + b"a" * DEEP, 0),
        (b"}U\x01a" * DEEP + b"}" + b"s" * DEEP, "a"),
    ],
    ids=["tuples", "lists", "dicts"],
)
def test_what_nests_deep_takes_no_stack(pickled: bytes, inner: Any):
    """Neither reading it nor forgetting it."""
    found, depth = read(b"\x80\x02" + pickled + b"."), 0
    while found:
        found, depth = found[inner], depth + 1
    assert depth == DEEP


INSTRUCTIONS = [bytes([code]) for code in b"(.0N\x88\x89]}t)\x85\x86\x87aesubQRq\x00K\x01cX\x8a\x93\x94"]


@given(st.lists(st.sampled_from(INSTRUCTIONS) | st.binary(max_size=3)))
def test_any_program_gives_data_or_the_promised_error(instructions: list[bytes]):
    with contextlib.suppress(CheckpointError):
        interpret(io.BytesIO(b"".join(instructions) + b"."), CALLS, lambda identity: identity)
