"""Ctrl-C and SIGTERM during training: a handler notes them, and the loop obeys between two steps.

So no update is ever torn in two, and what a checkpoint holds is always the state after a whole step.
"""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType


class Stopped(Exception):
    """A signal has asked the run to end; raised by `Watch.check`, and caught by the loop alone."""


class Watch:
    """What has been asked of a run: `asked` is the signal that it has to obey, None as long as none came."""

    def __init__(self, loud: bool) -> None:
        self.asked: int | None = None
        self._loud = loud

    def check(self) -> None:
        """Stopped if a signal has come."""
        if self.asked is not None:
            raise Stopped

    def raise_again(self) -> None:
        """Hand a SIGTERM on to the handler that was there before, which by default ends the process."""
        if self.asked == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler.  KeyboardInterrupt at the second Ctrl-C."""
        if number == signal.SIGINT:
            if self.asked is not None:
                raise KeyboardInterrupt
            if self._loud:
                with suppress(RuntimeError, OSError):  # in the midst of another print, or nobody listens
                    print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr)
        self.asked = number


@contextmanager
def watching(numbers: Sequence[int], *, loud: bool) -> Iterator[Watch]:
    """Note these signals inside the block; after it, come what may, the handlers are those of before.

    Only Python's main thread can have handlers: in any other the watch sees nothing. A signal that the
    process ignores (as SIGINT in a shell's background), or that C code handles, is left alone.
    """
    watch = Watch(loud)
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                if signal.getsignal(number) not in (None, signal.SIG_IGN):
                    before[number] = signal.signal(number, watch.note)
        yield watch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
