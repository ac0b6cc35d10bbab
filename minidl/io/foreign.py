"""Weights from anywhere: safetensors, NumPy's .npz and PyTorch's files, told apart by their first bytes."""

import io
import math
import os
import tokenize
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from minidl.errors import CheckpointError
from minidl.io.guard import check_archive, check_regular, read_record, safetensors_header, shown
from minidl.io.torch_file import ZIP_ERRORS, decode, find_state, naming, read_torch
from minidl.io.weights import load_arrays

_LONGEST_HEADER = 1000  # of a record in an .npz: numpy writes 118 characters for an array of four axes

# what numpy raises for a damaged header: it reads a literal of Python, and repairs what Python 2 wrote
_HEADER_ERRORS = (
    *(ValueError, TypeError, LookupError, AttributeError, OverflowError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)

Weights = dict[str, np.ndarray]


def read_weights(path: str | os.PathLike[str]) -> tuple[Weights, dict[str, Any]]:
    """(name -> array, description) of a file of weights; the description is {} unless minidl wrote the file.

    float16 and bfloat16 become float32. Nothing in the file is run. CheckpointError, naming the file, when it
    is missing, damaged, of another format, or asks for code.
    """
    check_regular(path)
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

    with naming(path):
        content = Path(path).read_bytes()
        try:
            header = safetensors_header(content)
            metadata = header.pop("__metadata__", None)
            if type(metadata) is not dict or "minidl" not in metadata:
                tensors = dict(deserialize(content))
                # the order of the file; the library's is another each time
                arrays = {name: _tensor(name, tensors[name]) for name in header}
                return find_state(arrays, lambda value: True), {}
        except CheckpointError:
            raise
        except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise CheckpointError(f"is damaged ({shown(error, 200)}); get it anew") from error
    del content
    return load_arrays(path)  # which reads the description, and looks at the checksum


def _tensor(name: str, entry: dict[str, Any]) -> np.ndarray:
    """A tensor of a safetensors file: its "data", of type "dtype", in its "shape"."""
    try:
        numbers = decode(entry["data"], entry["dtype"])
    except KeyError as error:
        raise CheckpointError(
            f"has {shown(name)} in the type {entry['dtype']}, which minidl does not read; save it as float32"
        ) from error
    return numbers.reshape(entry["shape"])


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
                check_archive(archive, os.path.getsize(path), packed=True)
                arrays = {
                    record.filename.removesuffix(".npy"): _record(
                        record.filename, read_record(archive, record)
                    )
                    for record in archive.infolist()
                }
        except CheckpointError:
            raise
        except ZIP_ERRORS as error:
            raise CheckpointError(f"is damaged ({shown(error, 200)}); save it anew") from error
        return find_state(arrays, lambda value: True)


def _record(name: str, content: bytes) -> np.ndarray:
    """The array in a record of an .npz, as a view that cannot be written; float16 as float32.

    numpy.load would reserve whatever memory the header promises, and let other types of numbers through.
    """
    stream = io.BytesIO(content)
    try:
        shape, fortran, dtype = _npy_header(stream)
    except _HEADER_ERRORS as error:
        raise CheckpointError(
            f"has a record {shown(name)} that is no array of numpy ({shown(error, 200)}); save it anew"
        ) from error
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise CheckpointError(
            f"has {shown(name)} in the type {shown(dtype)}: objects and texts are no weights; save "
            "the numbers alone, as float32"
        )
    numbers = memoryview(content)[stream.tell() :]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(numbers):
        raise CheckpointError(
            f"is damaged: {shown(name)} has {len(numbers):,} bytes for the shape {shown(shape)} of {dtype}; "
            "save it anew"
        )
    found = np.frombuffer(numbers, np.uint8 if dtype.kind == "b" else dtype)
    if dtype.kind == "b":
        found = found != 0  # whatever the byte is
    elif dtype.itemsize == 2 and dtype.kind == "f":
        found = found.astype(np.float32)
    return found.astype(found.dtype.newbyteorder("="), copy=False).reshape(
        shape, order="F" if fortran else "C"
    )


def _npy_header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether the first axis moves fastest, type) of an array in numpy's format."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    with warnings.catch_warnings():  # a header that Python 2 wrote is no matter
        warnings.simplefilter("ignore")
        return read(stream, max_header_size=_LONGEST_HEADER)
