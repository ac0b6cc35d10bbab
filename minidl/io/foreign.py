"""Weights from anywhere: safetensors, NumPy's .npz and PyTorch's files, told apart by their first bytes."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from minidl.errors import CheckpointError
from minidl.io.torch_file import ZIP_ERRORS, decode, find_state, naming, read_torch
from minidl.io.weights import load_arrays

# Weights hardly compress: an .npz that unpacks to 1 GiB and to 100 times its size is made to fill the memory.
_LARGE_BYTES, _LARGE_RATIO = 1 << 30, 100

Weights = dict[str, np.ndarray]


def read_weights(path: str | os.PathLike[str]) -> tuple[Weights, dict[str, Any]]:
    """(name -> array, description) of a file of weights; the description is {} unless minidl wrote the file.

    float16 and bfloat16 become float32. Nothing in the file is run. CheckpointError, naming the file, when it
    is missing, damaged, of another format, or asks for code.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check the path") from error
    if start[:2] == b"PK":
        return (_read_npz(path) if _is_npz(path) else read_torch(path)), {}
    if start[8:] == b"{":
        return _read_safetensors(path)
    if start[:1] == b"\x80":  # a pickle
        return read_torch(path), {}
    raise CheckpointError(
        f"{path} is no file of weights that minidl reads: those are .safetensors, .npz and torch's .pth. "
        "Convert others to a dict of arrays, and pass that, or keep it with numpy.savez"
    )


def as_arrays(state: Any) -> Weights:
    """A dict of anything NumPy takes for an array, as one of arrays; see `find_state` for what is unwrapped.

    CheckpointError if there is none, or one of its values cannot be read as an array.
    """
    try:
        found = find_state(state, lambda value: hasattr(value, "__array__"))
    except CheckpointError as error:
        raise CheckpointError(f"load_weights: the dict {error}") from error
    arrays = {}
    for name, value in found.items():
        try:
            arrays[name] = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"load_weights: {name} cannot be read as an array ({error})") from error
    return arrays


def _read_safetensors(path: str | os.PathLike[str]) -> tuple[Weights, dict[str, Any]]:
    from safetensors import SafetensorError, deserialize

    content = Path(path).read_bytes()
    try:
        tensors = dict(deserialize(content))
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error!s:.200}); get it anew") from error
    if "minidl" in header.pop("__metadata__", {}):
        return load_arrays(path)  # which reads the description, and looks at the checksum
    arrays = {}
    with naming(path):
        for name in header:  # the order of the file; the library's is another each time
            kind = tensors[name]["dtype"]
            try:
                arrays[name] = decode(tensors[name]["data"], kind).reshape(tensors[name]["shape"])
            except KeyError as error:
                raise CheckpointError(
                    f"has {name} in the type {kind}, which minidl does not read; save it as float32"
                ) from error
        return find_state(arrays, lambda value: True), {}


def _is_npz(path: str | os.PathLike[str]) -> bool:
    """Whether a zip archive holds arrays of NumPy, by the names of its records."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ZIP_ERRORS:
        return False  # the reader of torch's files will say what is wrong
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_npz(path: str | os.PathLike[str]) -> Weights:
    with naming(path):
        try:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(record.file_size for record in archive.infolist())
            if unpacked > max(_LARGE_BYTES, _LARGE_RATIO * os.path.getsize(path)):
                raise CheckpointError(
                    f"unpacks to {unpacked:,} bytes, {_LARGE_RATIO} times its size: no weights do"
                )
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except CheckpointError:
            raise
        except (*ZIP_ERRORS, MemoryError) as error:  # a header may promise any size
            raise CheckpointError(f"is damaged, or holds objects ({error!s:.200}); save it anew") from error
        for name, array in arrays.items():
            arrays[name] = array.astype(np.float32) if array.dtype == np.float16 else array
        return find_state(arrays, lambda value: True)
