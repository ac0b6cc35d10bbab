"""One run at a time in a folder: a lock that the system itself lets go of when its process dies.

The lock is `flock` on the file .lock, which tells who holds it. A file that a killed process left behind is
locked by nobody, and so it is in nobody's way.
"""

import errno
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minidl.errors import CheckpointError

NAME = ".lock"
_UNKNOWN = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)  # no flock here


@contextmanager
def held(folder: str | os.PathLike[str] | None, say: Callable[[str], object]) -> Iterator[None]:
    """Keep every other run out of `folder` inside the block, those of this process too.

    The folder is made if need be, and removed if nothing was put into it. Where there is no flock (Windows,
    some network file systems) `say` is told, and nothing is locked. None locks nothing.
    CheckpointError, naming the folder, if another run is in it, then with its process, or if it cannot be
    written to.
    """
    if folder is None:
        yield
        return
    path = Path(folder) / NAME
    made = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):  # tells of a read-only folder with an old lock in it
            handle = _acquire(path, say)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written to ({error.strerror}); make it a folder you may write to, or give "
            "another"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may be gone
            path.unlink()  # before the lock is let go: nobody else holds it
        os.close(handle)
        if made:
            with suppress(OSError):  # something lies in it
                path.parent.rmdir()


def _acquire(path: Path, say: Callable[[str], object]) -> int:
    """The descriptor of the file, locked, with this process's number in it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _flock(handle)
            if not _is(handle, path):  # its run has ended and removed it since it was opened
                os.close(handle)
                continue
        except BlockingIOError:
            os.close(handle)
            raise CheckpointError(
                f"{path.parent} is in use by {_holder(path)}; wait for it to end, or give another folder"
            ) from None
        except OSError as error:
            if error.errno not in _UNKNOWN:
                os.close(handle)
                raise
            say(f"{path.parent} cannot be locked ({error.strerror}): let no other run use it")
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        return handle


def _flock(handle: int) -> None:
    """Lock, for as long as the descriptor is open.  BlockingIOError if another has the lock."""
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise OSError(errno.ENOSYS, "there is no flock on this system") from error
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """Who holds the lock, as the file tells."""
    try:
        owner = json.loads(path.read_bytes())
        if owner == {"pid": os.getpid(), "host": socket.gethostname()}:
            return "another fit of this process"
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is about to write, or to go
        return "another process"
