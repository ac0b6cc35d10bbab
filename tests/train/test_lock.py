"""Two runs never write into one folder; one that cannot be written to is refused before the first step."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from minidl.data import Dataset
from minidl.errors import CheckpointError
from minidl.train import checkpoint, lock
from minidl.train.callbacks import Callback

QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 20, "verbose": False}
HOLD = """
import sys
from minidl.train import lock
with lock.held(sys.argv[1], print):
    print("held", flush=True)
    sys.stdin.read()
"""


def never(text: str) -> None:
    raise AssertionError(text)


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of tmp_path."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def test_the_folder_of_another_process_is_refused_at_once(holder, tiny, data: Dataset, tmp_path: Path):
    before = tiny.state_dict()
    text = f"{tmp_path} is in use by process {holder.pid} on .*; wait for it to end, or give another folder"
    for resume in (False, True):
        with pytest.raises(CheckpointError, match=text):
            tiny.fit(data, **QUICK, checkpoint=tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]
    assert all((tiny.state_dict()[name] == value).all() for name, value in before.items())


def test_what_a_dead_process_left_is_in_nobodys_way(holder, tiny, data: Dataset, tmp_path: Path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / lock.NAME).exists()
    tiny.fit(data, **QUICK, checkpoint=tmp_path)
    assert checkpoint.latest(tmp_path) is not None
    assert not (tmp_path / lock.NAME).exists()


def test_a_second_fit_of_the_same_process_is_refused(tiny, data: Dataset, tmp_path: Path):
    other = type(tiny)()

    class Second(Callback):
        def epoch_end(self, run: Any) -> None:
            other.fit(data, **QUICK, checkpoint=tmp_path, resume=True)

    with pytest.raises(CheckpointError, match=f"{tmp_path} is in use by another fit of this process; wait"):
        tiny.fit(data, **QUICK, checkpoint=tmp_path, callbacks=[Second()])
    other.fit(data, **QUICK, checkpoint=tmp_path, resume=True)  # the error let go of the lock


def test_of_many_that_come_together_one_holds_it(tmp_path: Path):
    """The file comes and goes all the time here; never may two hold a lock on different files."""
    inside, most, rounds = 0, 0, 0
    count = threading.Lock()

    def work() -> None:
        nonlocal inside, most, rounds
        for _ in range(200):
            try:
                with lock.held(tmp_path, never):
                    with count:
                        inside += 1
                        most = max(most, inside)
                    with count:
                        inside -= 1
                        rounds += 1
            except CheckpointError:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert rounds >= 1


def test_the_lock_of_a_file_that_has_gone_is_none(tmp_path: Path, monkeypatch):
    """The run that held it ends, and removes it, between our opening and our locking."""
    system = lock._flock

    def late(handle: int) -> None:
        monkeypatch.undo()
        (tmp_path / lock.NAME).unlink()
        system(handle)

    monkeypatch.setattr(lock, "_flock", late)
    with (
        lock.held(tmp_path, never),
        pytest.raises(CheckpointError, match="in use by another fit of this process"),
        lock.held(tmp_path, never),
    ):
        pass


def test_no_file_stays_open(tmp_path: Path):
    def free() -> list[int]:
        handles = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
        for handle in handles:
            os.close(handle)
        return handles

    before = free()
    with lock.held(tmp_path, never), pytest.raises(CheckpointError), lock.held(tmp_path, never):
        pass
    assert free() == before


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path):
    with lock.held(tmp_path / "a" / "b", never):
        assert (tmp_path / "a" / "b" / lock.NAME).exists()
    assert not (tmp_path / "a" / "b").exists()
    with lock.held(tmp_path, never):
        pass
    assert tmp_path.exists()  # it was there before


def test_a_folder_that_vanishes_does_not_matter(tmp_path: Path):
    with lock.held(tmp_path / "a", never):
        (tmp_path / "a" / lock.NAME).unlink()
        (tmp_path / "a").rmdir()


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"pid": 1}'])
def test_a_holder_that_does_not_say_who_it_is(tmp_path: Path, text: str):
    with lock.held(tmp_path, never):
        (tmp_path / lock.NAME).write_text(text)
        with pytest.raises(CheckpointError, match="in use by another process;"), lock.held(tmp_path, never):
            pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_told_and_the_run_goes_on(
    tiny, data: Dataset, tmp_path: Path, monkeypatch, capsys, code: int
):
    def flock(handle: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    tiny.fit(data, **QUICK | {"verbose": True}, checkpoint=tmp_path)
    text = f"{tmp_path} cannot be locked ({os.strerror(code)}): let no other run use it\n"
    assert text in capsys.readouterr().out
    assert checkpoint.latest(tmp_path).name == "epoch-0001.safetensors"


def test_windows_has_no_flock(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # importing it fails
    said: list[str] = []
    with lock.held(tmp_path, said.append):
        assert said == [
            f"{tmp_path} cannot be locked (there is no flock on this system): let no other run use it"
        ]


def refused(tiny: Any, data: Dataset, folder: Path, reason: str, **options: Any) -> None:
    steps = []

    class Count(Callback):
        def step_end(self, run: Any, loss: float) -> None:
            steps.append(loss)

    with pytest.raises(
        CheckpointError, match=rf"{folder} cannot be written to \({reason}\); make it a folder"
    ):
        tiny.fit(data, **QUICK | {"epochs": 2}, checkpoint=folder, callbacks=[Count()], **options)
    assert steps == []


def test_a_file_in_the_folders_place_is_refused(tiny, data: Dataset, tmp_path: Path):
    (tmp_path / "c").write_text("mine")
    refused(tiny, data, tmp_path / "c", "File exists")
    refused(tiny, data, tmp_path / "c" / "d", "Not a directory")
    assert (tmp_path / "c").read_text() == "mine"


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder_is_refused(tiny, data: Dataset, tmp_path: Path, resume: bool):
    if resume:
        tiny.fit(data, **QUICK, checkpoint=tmp_path)
    (tmp_path / lock.NAME).touch()  # as a killed run leaves it: it can be opened and locked
    tmp_path.chmod(0o555)
    try:
        refused(tiny, data, tmp_path, "Permission denied", resume=resume)
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("old", ["nothing", "a run", "a lock"])
def test_a_read_only_disk_is_refused(tiny, data: Dataset, tmp_path: Path, monkeypatch, old: str):
    if old == "a run":
        tiny.fit(data, **QUICK, checkpoint=tmp_path)
    if old == "a lock":  # of a run that was killed; root may open it in a folder that is read-only to others
        (tmp_path / lock.NAME).touch()
    system = os.open

    def read_only(path: Any, flags: int, *args: Any, **options: Any) -> int:
        mine = str(path).startswith(str(tmp_path)) and not (old == "a lock" and Path(path).name == lock.NAME)
        if flags & (os.O_WRONLY | os.O_RDWR) and mine:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return system(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", read_only)
    refused(tiny, data, tmp_path, "Read-only file system", resume=old == "a run")
