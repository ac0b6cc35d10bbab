"""Compiling loops to machine code: numba, always with the same options, and where the result is kept.

`compiled` makes kernels, functions of arrays. numba compiles into a kernel, once more for each, all compiled
functions that it calls. For small ones that is as it should be; large generated ones (microkernel.py,
sandwich.py, transpose.py) would take most of the time, so they are compiled by themselves: `procedure` makes
one of integers, `call` runs it by its address.

Compiling still takes most of a minute in all, so machine code is kept between processes, in `cache_folder()`,
and where nothing has been kept yet, a second process makes a part of it meanwhile (ahead.py). numba notices
by itself when the file that a kernel stands in has changed, but not when a function that emits code for it
has: therefore every state of this package's source has a folder of its own.
"""

import atexit
import functools
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils, event
from numba.extending import intrinsic

from minidl.backend import cache

Note = Callable[[str], None]

_notes: list[Note] = []
# What else numba would share out, expressions of whole arrays, kernels do inside their loops; to look for it
# takes time in every compilation.
_PRANGE_ALONE = {"prange": True} | dict.fromkeys(
    ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion"), False
)


@functools.cache
def cache_folder() -> Path:
    """The folder of the machine code, one for each state of the source."""
    source = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source.update(path.read_bytes())
    return cache.cache_folder("kernels", source.hexdigest()[:16])


def is_cold() -> bool:
    """Whether no kernel has been kept yet: the first step will compile."""
    return next(cache_folder().rglob("*.nbi"), None) is None


@functools.cache
def _start_ahead() -> None:
    """Has ahead.py run on another core if nothing is kept yet, once for each `cache_folder()`."""
    if numba.config.NUMBA_NUM_THREADS < 2 or not is_cold():
        return
    root = str(Path(__file__).parents[3])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        (cache_folder() / "ahead").touch(exist_ok=False)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.ahead"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": paths},
        )
    except OSError:  # another process was first, or nothing can be kept or started: it saves time, no more
        return

    @atexit.register
    def stop() -> None:
        process.kill()
        process.communicate()


class _Compiling(event.Listener):
    """Sees a kernel of this package being compiled, not read from the cache."""

    def on_start(self, started: event.Event) -> None:
        if started.data["dispatcher"].py_func.__module__.startswith(__package__):
            _start_ahead()

    def on_end(self, ended: event.Event) -> None:
        pass


event.register("numba:compile", _Compiling())


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorator: machine code for a function of arrays and numbers, kept in `cache_folder()`. It releases the
    GIL.

    options: numba's (parallel=True shares out the `prange` loops among the threads, and nothing else).
    """
    if function is None:
        return functools.partial(compiled, **options)
    if options.get("parallel"):
        options["parallel"] = _PRANGE_ALONE
    with _in_cache_folder():
        return numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)


def procedure(function: Callable[..., None], arguments: int) -> int:
    """The address of the machine code of a function of so many int64 that returns nothing; see `call`.

    Numbers and strings that the function takes from around it are constants to it: each makes its own code.
    """
    _start_ahead()
    with _in_cache_folder():
        made = numba.cfunc(types.void(*[types.int64] * arguments), cache=True)(function)
    if not made.cache_hits:
        for note in _notes:
            note(function.__name__)
    _procedures.append(made)
    return int(made.address)


_procedures: list[Any] = []  # machine code lives as long as these do


@intrinsic
def call(typing: Any, address: Any, arguments: Any) -> Any:
    """call(address, (1, 2, ...)), in compiled code: run the `procedure` at that address."""
    count = len(arguments)
    signature = types.void(types.int64, types.UniTuple(types.int64, count))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * count)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), cgutils.unpack_tuple(builder, args[1]))
        return context.get_dummy_value()

    return signature, codegen


@contextmanager
def compilation(note: Note) -> Iterator[None]:
    """Inside, `note` is called with the name of everything that was compiled (not when it is read from the
    cache).
    """

    class Listener(event.Listener):
        def on_start(self, started: event.Event) -> None:
            pass

        def on_end(self, ended: event.Event) -> None:
            function = ended.data["dispatcher"].py_func
            if function.__module__.startswith(__package__):
                note(function.__name__.lstrip("_"))

    _notes.append(note)
    try:
        with event.install_listener("numba:compile", Listener()):
            yield
    finally:
        _notes.remove(note)


@contextmanager
def _in_cache_folder() -> Iterator[None]:
    """What numba makes inside is kept in `cache_folder()`; other programs' kernels stay where they are."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_folder())
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
