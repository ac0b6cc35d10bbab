"""Arrays on disk: safetensors files with a JSON description and a checksum, written whole or not at all.

Nothing is pickled. A file is first written beside its place, flushed to the disk, and then moved there in one
step, so a crash leaves the old file or the new one. The checksum covers description, names, shapes and
values: a flipped bit anywhere is noticed on reading.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from minidl.errors import CheckpointError


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

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check the path") from error
    try:
        arrays = load(content)
        length = int.from_bytes(content[:8], "little")
        entry = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["minidl"])
        text, digest = entry["description"], entry["sha256"]
        description = json.loads(text)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a file minidl saved, or it is damaged ({error}); restore it from a copy or an "
            "older checkpoint"
        ) from error
    if _digest(arrays, text) != digest:
        raise CheckpointError(
            f"{path} is damaged: its contents do not match their checksum; restore it from a copy or an "
            "older checkpoint"
        )
    return arrays, description


def write_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all, and make sure it is on the disk."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


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
