"""Mutated files for the readers: each is read or refused, within bounds of memory and time.

A mutant is drawn from its seed and its index alone, so that the one a failure names can be made again with
`mutation(data, index, seed)`. A reader that hands the bytes to native code is checked in a child process: a
crash, a hang or an allocation beyond the bound ends the child and not the suite, and still names the mutant.
MINIDL_FUZZ=10000 reads that many mutants per reader instead of 300.
"""

import functools
import hashlib
import json
import mmap
import os
import resource
import signal
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minidl.errors import DataError

COUNT = int(os.environ.get("MINIDL_FUZZ", "300"))  # mutants per reader
PEAK_BYTES = 64 << 20
SECONDS = 10.0  # wall time on a busy machine; a mutant takes milliseconds
_ENDS = 256  # half of the edits are in the first or last so many bytes, where formats keep their headers
_EDITS = 4  # at most, per mutant
_INTEGERS = [0, 1, *(2**bits + by for bits in (7, 8, 15, 16, 24, 31, 32, 63, 64) for by in (-1, 0, 1))]


def mutations(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` damaged copies of `data`, each different from it."""
    return (mutation(data, index, seed) for index in range(count))


def mutation(data: bytes, index: int, seed: int = 0) -> bytes:
    """The damaged copy of that index: one to four edits, drawn from (seed, index) and nothing else."""
    rng = np.random.default_rng((seed, index))
    while True:
        mutant = bytearray(data)
        for _ in range(rng.integers(1, _EDITS + 1)):
            _OPERATIONS[rng.integers(len(_OPERATIONS))](mutant, rng)
        if mutant != data:
            return bytes(mutant)


def check_reader(
    read: Callable[[Any], object],
    data: bytes,
    allowed: tuple[type[Exception], ...] = (DataError,),
    *,
    count: int = COUNT,
    seed: int = 0,
    path: Path | None = None,
    peak_bytes: int = PEAK_BYTES,
    seconds: float = SECONDS,
    isolated: bool = False,
) -> int:
    """Let `read` meet `data`, which it must accept, then `count` mutants of it.  -> how many were refused

    read: is given the bytes or, if `path` is given, that path with the bytes written there. It returns or
        raises one of `allowed`, within `seconds` and `peak_bytes` of memory that Python and NumPy count.
    isolated: read all of them in one child process whose address space may grow by `peak_bytes` beyond
        what it starts with (so leave room for stacks and libraries), for a reader that is native code.

    AssertionError naming the mutant otherwise.
    """
    campaign = functools.partial(_campaign, read, data, allowed, count, seed, path, peak_bytes, seconds)
    if not isolated:
        return campaign(lambda index: None, _raise_slow)
    return _in_a_child(campaign, data, seed, peak_bytes, seconds)


class _OutOfBounds(BaseException):
    """Too slow or too large.  No Exception: a reader must not catch it, nor `allowed` allow it."""


def _raise_slow(*_: object) -> None:
    raise _OutOfBounds("not done when its time was up")


def _campaign(read, data, allowed, count, seed, path, peak_bytes, seconds, progress, on_alarm) -> int:
    """Read `data` and its mutants in this process.  `progress` is told the index of each, -1 for `data`."""
    refused = 0
    tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        for index in range(-1, count):
            content = data if index < 0 else mutation(data, index, seed)
            if path is not None:
                path.write_bytes(content)
            progress(index)
            error = _read_one(read, content if path is None else path, peak_bytes, seconds)
            if error is not None and (index < 0 or not isinstance(error, allowed)):
                what = f"{type(error).__name__}: {error}"
                raise AssertionError(_failure(data, index, seed, what)) from error
            refused += error is not None
    finally:
        signal.signal(signal.SIGALRM, before)
        if not tracing:
            tracemalloc.stop()
    return refused


def _read_one(read, given, peak_bytes, seconds) -> BaseException | None:
    """What reading raised, or how it went out of bounds."""
    tracemalloc.reset_peak()
    start_bytes, _ = tracemalloc.get_traced_memory()
    error: BaseException | None = None
    start = time.perf_counter()
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            read(given)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (Exception, _OutOfBounds) as raised:
        error = raised
    if time.perf_counter() - start > seconds:  # the alarm reaches native code only when it is over
        return _OutOfBounds(f"not done after {seconds} seconds")
    peak = tracemalloc.get_traced_memory()[1] - start_bytes
    if peak > peak_bytes:
        return _OutOfBounds(f"allocated {peak:,} bytes, {peak_bytes:,} allowed")
    return error


def _in_a_child(campaign, data, seed, peak_bytes, seconds) -> int:
    """Run the campaign in a forked process under RLIMIT_AS, and report what became of it."""
    index = np.frombuffer(mmap.mmap(-1, 8), np.int64)  # shared: what the child was reading when it died
    receive, send = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking while numba's threads exist
        pid = os.fork()
    if pid == 0:
        os.close(receive)
        _child(campaign, index, send, peak_bytes)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not os.WIFEXITED(status) or not answer:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        name = signal.Signals(number).name if number else f"exit status {status}"
        what = f"not done after {seconds} seconds" if number == signal.SIGALRM else f"died of {name}"
        raise AssertionError(_failure(data, int(index[0]), seed, what))
    refused, failure = json.loads(answer)
    if failure:
        raise AssertionError(failure)
    return refused


def _child(campaign, index, send, peak_bytes) -> None:
    """Run the campaign in this process and write [refused, failure] to `send`.  Does not return."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + peak_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            answer = [campaign(functools.partial(index.__setitem__, 0), signal.SIG_DFL), ""]
        except BaseException as error:
            answer = [0, str(error) or type(error).__name__]
        os.write(send, json.dumps(answer).encode())
    finally:
        os._exit(0)  # leaves pytest's exit handlers to the parent


def _failure(data: bytes, index: int, seed: int, what: str) -> str:
    """What happened, and which bytes it happened with."""
    content = data if index < 0 else mutation(data, index, seed)
    name = "the file as it is" if index < 0 else f"mutation(data, {index}, seed={seed})"
    digest = hashlib.sha256(content).hexdigest()
    return f"{name}: {what}\n{len(content):,} bytes, SHA-256 {digest}, first bytes {content[:64].hex()}"


def _place(mutant: bytearray, rng: np.random.Generator) -> int:
    """An offset into the mutant, half of the time near its beginning or its end."""
    size = max(1, len(mutant))
    kind = rng.integers(4)
    if kind == 0:
        return int(rng.integers(min(size, _ENDS)))
    if kind == 1:
        return size - 1 - int(rng.integers(min(size, _ENDS)))
    return int(rng.integers(size))


def _range(mutant: bytearray, rng: np.random.Generator) -> slice:
    """A range of the mutant; its length is drawn evenly among the orders of magnitude."""
    start = _place(mutant, rng)
    longest = max(2, len(mutant) - start + 1)
    return slice(start, start + int(np.exp(rng.uniform(0, np.log(longest)))))


def _flip_bits(mutant: bytearray, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 9)):
        if mutant:
            mutant[_place(mutant, rng)] ^= 1 << int(rng.integers(8))


def _overwrite(mutant: bytearray, rng: np.random.Generator) -> None:
    place, new = _place(mutant, rng), rng.bytes(int(rng.integers(1, 17)))
    mutant[place : place + len(new)] = new


def _write_integer(mutant: bytearray, rng: np.random.Generator) -> None:
    size = int(rng.choice([1, 2, 4, 8]))
    value = _INTEGERS[rng.integers(len(_INTEGERS))] % 2 ** (8 * size)
    place = _place(mutant, rng)
    mutant[place : place + size] = value.to_bytes(size, "little" if rng.integers(2) else "big")


def _truncate(mutant: bytearray, rng: np.random.Generator) -> None:
    del mutant[_place(mutant, rng) :]


def _cut_out(mutant: bytearray, rng: np.random.Generator) -> None:
    del mutant[_range(mutant, rng)]


def _fill(mutant: bytearray, rng: np.random.Generator) -> None:
    where = _range(mutant, rng)
    mutant[where] = bytes([[0, 0xFF][rng.integers(2)]]) * len(mutant[where])


def _repeat(mutant: bytearray, rng: np.random.Generator) -> None:
    where = _range(mutant, rng)
    mutant[where] = mutant[where] * int(rng.integers(2, 5))


def _splice(mutant: bytearray, rng: np.random.Generator) -> None:
    piece, place = mutant[_range(mutant, rng)], _place(mutant, rng)
    mutant[place : place + len(piece) * int(rng.integers(2))] = piece  # over what is there, or before it


def _append(mutant: bytearray, rng: np.random.Generator) -> None:
    mutant += rng.bytes(int(rng.integers(1, 65)))


_OPERATIONS = (
    _flip_bits,
    _overwrite,
    _write_integer,
    _write_integer,  # twice: sizes and counts are where readers go wrong
    _truncate,
    _cut_out,
    _fill,
    _repeat,
    _splice,
    _append,
)
