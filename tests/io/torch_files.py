"""Files of PyTorch without PyTorch: values become the instructions of pickle protocol 2, in both formats."""

import io
import zipfile
from typing import Any, NamedTuple

import numpy as np


class Global(NamedTuple):
    module: str
    name: str


class Call(NamedTuple):
    function: Global
    arguments: tuple


class Stored(NamedTuple):
    """A storage: its persistent id."""

    kind: str
    key: Any
    numel: Any
    rest: tuple = ()


class State(dict):
    """An OrderedDict with attributes, as torch's state dicts."""


def ops(value: Any) -> bytes:
    """The instructions that put a value on the stack."""
    match value:
        case None | bool():
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8b" + len(raw).to_bytes(4, "little") + raw
        case str():
            return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return ops(value.function) + ops(value.arguments) + b"R"
        case Stored():
            identity = ("storage", Global("torch", value.kind), value.key, "cpu", value.numel, *value.rest)
            return ops(identity) + b"Q"
        case State():
            empty = Call(Global("collections", "OrderedDict"), ())
            return ops(empty) + ops(dict(value))[1:] + ops({"_metadata": empty}) + b"b"
        case tuple():
            return b"(" + b"".join(map(ops, value)) + b"t"
        case list():
            return b"](" + b"".join(map(ops, value)) + b"e"
        case dict():
            return b"}(" + b"".join(ops(each) for pair in value.items() for each in pair) + b"u"
        case bytes():  # instructions as they are
            return value
    raise TypeError(value)


def program(value: Any) -> bytes:
    return b"\x80\x02" + ops(value) + b"."


def tensor(storage: Stored, shape: Any, strides: Any, offset: Any = 0, rebuild: str = "v2") -> Call:
    empty = Call(Global("collections", "OrderedDict"), ())
    if rebuild == "v1":
        return Call(Global("torch._utils", "_rebuild_tensor"), (storage, offset, shape, strides))
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, strides, False, empty))


def zipped(records: dict[str, bytes], **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return stream.getvalue()


def new_format(pickled: bytes, storages: dict[str, bytes], order: bytes | None = b"little") -> bytes:
    records = {"archive/data.pkl": pickled, "archive/version": b"3\n"}
    records |= {} if order is None else {"archive/byteorder": order}
    return zipped(records | {f"archive/data/{key}": raw for key, raw in storages.items()})


def old_format(pickled: bytes, storages: dict[str, tuple[int, bytes]]) -> bytes:
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    head = b"".join(program(each) for each in (0x1950A86A20F9469CFC6C, 1001, facts))
    tail = b"".join(numel.to_bytes(8, "little") + raw for numel, raw in storages.values())
    return head + pickled + program(list(storages)) + tail


FLOATS, BRAINS = np.arange(6, dtype="<f4"), np.array([0x3F80, 0xC000], "<u2")
EXPECTED = {
    "w": FLOATS.reshape(2, 3).T,
    "b": FLOATS[4:],
    "g": np.array([1, -2], np.float32),
    "n": np.array(6.0, np.float32),
}


def state(old: bool) -> State:
    rest = (None,) if old else ()
    floats = Stored("FloatStorage", "7", 6, rest)
    brains = tensor(Stored("BFloat16Storage", "8", 2, rest), (2,), (1,))
    last = Stored("LongStorage", "9", 1, rest)
    return State(
        w=tensor(floats, (3, 2), (1, 3)),
        b=tensor(floats, (2,), (1,), 4, rebuild="v1"),
        g=Call(Global("torch._utils", "_rebuild_parameter"), (brains, True, None)),
        n=tensor(last, (), ()),
    )


RAW = {"7": FLOATS.tobytes(), "8": BRAINS.tobytes(), "9": np.array([6]).tobytes()}
NEW = new_format(program(state(old=False)), RAW)
OLD = old_format(program(state(old=True)), {k: (n, RAW[k]) for k, n in (("8", 2), ("7", 6), ("9", 1))})
PICKLED = program(state(old=False))
