"""Compiling loops to machine code: numba, always with the same options, and where the result is kept.

Compiling all kernels takes most of a minute, so machine code is kept between processes, in `cache_folder()`.
numba notices by itself when the file that a kernel stands in has changed, but not when a function that emits
code for it has (microkernel.py, sandwich.py): therefore every state of this package's source has a folder of
its own.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import platformdirs
from numba.core import event


@functools.cache
def cache_folder() -> Path:
    """The folder of the machine code: in $MINIDL_CACHE or else the user's cache folder, one for each state of
    the source.
    """
    top = os.environ.get("MINIDL_CACHE") or platformdirs.user_cache_dir("minidl", appauthor=False)
    source = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source.update(path.read_bytes())
    return Path(top) / "kernels" / source.hexdigest()[:16]


def is_cold() -> bool:
    """Whether no kernel has been kept yet: the first step will compile."""
    return next(cache_folder().rglob("*.nbi"), None) is None


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorator: machine code for a function of arrays and numbers, kept in `cache_folder()`. It releases the
    GIL.

    options: numba's (parallel=True shares out the `prange` loops among the threads).
    """
    if function is None:
        return functools.partial(compiled, **options)
    before = numba.config.CACHE_DIR  # numba asks for it now; other programs' kernels stay where they are
    numba.config.CACHE_DIR = str(cache_folder())
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = before


@contextmanager
def compilation(note: Callable[[str], None]) -> Iterator[None]:
    """Inside, `note` is called with the name of every kernel once it has been compiled (not when it is read
    from the cache).
    """

    class Listener(event.Listener):
        def on_start(self, started: event.Event) -> None:
            pass

        def on_end(self, ended: event.Event) -> None:
            function = ended.data["dispatcher"].py_func
            if function.__module__.startswith(__package__):
                note(function.__name__.lstrip("_"))

    with event.install_listener("numba:compile", Listener()):
        yield
