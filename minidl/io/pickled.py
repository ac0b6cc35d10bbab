"""Pickles read as plain data: dicts, lists, tuples, numbers and strings, and nothing that could run.

A pickle is a program for a small machine. `pickle.Unpickler`, even with its own find_class, still calls what
the program names, takes objects out of copyreg's cache without asking, reserves memory for whatever memo
number it meets, and hashes any key. So that machine is not used: pickletools splits the program into
instructions, and the few that plain data needs are carried out here. A global stays a name until the caller's
`calls` gives it a function.
"""

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from minidl.errors import CheckpointError
from minidl.io.guard import shown

# ResNet-152's state dict takes 60,000. At 64 bytes for an empty dict, the bound holds memory to 130 MB. What
# a call copies counts too, or one long list and many calls with it would take any amount.
_MOST_INSTRUCTIONS = 2_000_000
_LARGEST_KEY = 1 << 60  # a number hashes in the time of its length, each time it is met
_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_MARK = object()


@dataclass(frozen=True, slots=True)
class Name:
    """A global that a pickle mentions: its dotted name, never the thing."""

    text: str


def interpret(
    stream: IO[bytes], calls: Mapping[str, Callable[..., Any] | None], fetch: Callable[[Any], Any]
) -> Any:
    """The data of the pickle at the stream's place, which moves behind it.

    calls  the globals that may be named -> what calling them does; None if they are only mentioned
    fetch  persistent id -> the object it stands for

    CheckpointError for a damaged pickle, any other global (by name), and any instruction that plain data does
    not need. The text goes on after a file's name.
    """
    machine = _Machine(calls, fetch)
    try:
        with warnings.catch_warnings():  # an odd escape in a string is no matter
            warnings.simplefilter("ignore")
            for instruction, argument, _ in pickletools.genops(stream):
                machine.run(instruction.name, argument)
        return machine.pop()
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"has a damaged pickle ({shown(error, 200)}); get it anew") from error


class _Machine:
    """The stack and the memo of a pickle's program, and what each instruction does to them."""

    def __init__(self, calls: Mapping[str, Callable[..., Any] | None], fetch: Callable[[Any], Any]) -> None:
        self._calls, self._fetch = calls, fetch
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._spent = 0

    def pop(self) -> Any:
        """The top of the stack, taken off."""
        return self._stack.pop()

    def run(self, name: str, argument: Any) -> None:
        """Carry out one instruction, by its name in pickletools."""
        self._spend(1)
        if name in _LITERALS:
            self._stack.append(argument)
            return
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self._stack.append(_MARK)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self._stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                self._stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self._stack.append(self._memo[argument])
            case "GLOBAL":
                self._name(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                self._name(module, attribute)
            case "BINPERSID":
                self._stack.append(self._fetch(self.pop()))
            case "REDUCE":
                self._call()
            case "BUILD":
                self._build()
            case _:
                self._collect(name)

    def _collect(self, name: str) -> None:
        """The instructions that gather what lies on the stack."""
        match name:
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._stack.append(tuple(reversed([self.pop() for _ in range(int(name[-1]))])))
            case "TUPLE":
                self._stack.append(tuple(self._above_mark()))
            case "LIST":
                self._stack.append(self._above_mark())
            case "DICT":
                pairs = self._above_mark()
                self._stack.append({})
                self._set(pairs)
            case "APPEND":
                self._extend([self.pop()])
            case "APPENDS":
                self._extend(self._above_mark())
            case "SETITEM":
                value, key = self.pop(), self.pop()
                self._set([key, value])
            case "SETITEMS":
                self._set(self._above_mark())
            case _:
                raise CheckpointError(
                    f"has a pickle with the instruction {name}, which weights do not need; minidl refuses to "
                    "run it. Save the state_dict() alone, with torch.save"
                )

    def _above_mark(self) -> list[Any]:
        found = []
        while (item := self.pop()) is not _MARK:
            found.append(item)
        return found[::-1]

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise TypeError("items for something that is no list")
        self._stack[-1].extend(items)

    def _set(self, pairs: list[Any]) -> None:
        if type(self._stack[-1]) is not dict:
            raise TypeError("entries for something that is no dict")
        self._stack[-1].update(entries(zip(pairs[::2], pairs[1::2], strict=True)))

    def _name(self, module: Any, attribute: Any) -> None:
        name = (
            f"{module}.{attribute}" if isinstance(module, str) and isinstance(attribute, str) else "a number"
        )
        if name not in self._calls:
            raise CheckpointError(
                f"asks for {shown(name)}: minidl reads weights without running code, and refuses to run "
                f"{shown(name)}. "
                "If you trust the file, open it where it was written and save its state_dict() alone"
            )
        self._stack.append(Name(name))

    def _call(self) -> None:
        arguments, function = self.pop(), self.pop()
        body = self._calls[function.text] if type(function) is Name else None
        if body is None or type(arguments) is not tuple:
            raise TypeError("a call of something that is no function")
        self._spend(len(arguments) + sum(len(a) for a in arguments if type(a) in (list, tuple, dict)))
        self._stack.append(body(*arguments))

    def _spend(self, steps: int) -> None:
        self._spent += steps
        if self._spent > _MOST_INSTRUCTIONS:
            raise CheckpointError(
                f"has a pickle of more than {_MOST_INSTRUCTIONS:,} instructions: no weights do; save the "
                "state_dict() alone"
            )

    def _build(self) -> None:
        """Attributes of an OrderedDict (a state dict's `_metadata`): read, and dropped."""
        self.pop()
        if type(self._stack[-1]) is not dict:
            raise TypeError("attributes for something that has none")


def entries(pairs: Any) -> dict[Any, Any]:
    """A dict of (key, value) pairs.  TypeError unless the keys are strings or numbers of a usual size."""
    found = {}
    for key, value in pairs:
        if type(key) is not str and not (type(key) is int and abs(key) < _LARGEST_KEY):
            raise TypeError(f"a {type(key).__name__} as a key")
        found[key] = value
    return found
