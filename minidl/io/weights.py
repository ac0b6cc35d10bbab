"""Arrays on disk: safetensors files with a JSON description and a checksum, written whole or not at all.

Nothing is pickled. A file is first written beside its place, flushed to the disk, and then moved there in one
step, so a crash leaves the old file or the new one. The checksum covers description, names, shapes and
values: a flipped bit anywhere is noticed on reading.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from minidl.errors import CheckpointError
from minidl.io.guard import check_regular, parse_json, safetensors_header, shown


def save_arrays(
    path: str | os.PathLike[str], arrays: dict[str, np.ndarray], description: dict[str, Any]
) -> None:
    """Write arrays and a JSON-able description as one safetensors file, atomically.

    OSError if the place cannot be written.
    """
    from safetensors.numpy import save

    # safetensors writes the memory as it lies, so strided arrays must be made contiguous;
    # np.ascontiguousarray would turn () into (1,)
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps(description)
    # one entry: safetensors writes several in an order that changes from run to run
    entry = json.dumps({"sha256": _digest(whole, text), "description": text})
    write_atomic(path, save(whole, {"minidl": entry}))


def load_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, description) of a file from `save_arrays`.

    CheckpointError that names the file when it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    check_regular(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check the path") from error
    try:
        entry = parse_json(safetensors_header(content)["__metadata__"]["minidl"])
        text, expected = entry["description"], entry["sha256"]
        description = parse_json(text)
        if type(description) is not dict:
            raise ValueError("its description is no table")
        arrays = load(content)
        found = _digest(arrays, text)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(
            f"{path} is not a file minidl saved, or it is damaged ({shown(error, 200)}); restore it from a "
            "copy or an older checkpoint"
        ) from error
    if found != expected:
        raise CheckpointError(
            f"{path} is damaged: its contents do not match their checksum; restore it from a copy or an "
            "older checkpoint"
        )
    return arrays, description


def write_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all, and make sure it is on the disk.

    OSError that names the file when it cannot be written: what was there before still is, and nothing else.
    """
    target = Path(path)
    try:
        _replace(target, content)
    except OSError as error:
        kept = "the old file is as it was" if os.path.lexists(target) else "no file was left behind"
        raise OSError(
            error.errno,
            f"{target} cannot be written ({error.strerror}), and {kept}; make room there, or choose another "
            "place",
        ) from error
    if os.name == "posix":
        try:
            _flush_folder(target.parent)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{target} is written, but its folder cannot be flushed to the disk ({error.strerror}): if "
                "the power fails now, the old file may come back",
            ) from error


def _replace(target: Path, content: bytes) -> None:
    """Write a file beside `target`, flush it to the disk and move it there; remove it if that fails."""
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            os.unlink(temporary)
        raise


def _flush_folder(folder: Path) -> None:
    """Make sure that a file's new name is on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(arrays: dict[str, np.ndarray], text: str) -> str:
    sha = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(np.asarray(array, order="C").tobytes())
    return sha.hexdigest()


def _umask() -> int:
    """The process's file mode mask; the system only tells it by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
