"""PyTorch's weight files, .pth, .pt and .bin, read without PyTorch and without running what they hold.

Both formats are pickles that name their tensors' memory ("storages") by a key. Since torch 1.6 (2020) the
file is a zip archive: data.pkl is the pickle, data/KEY one storage each. Before, several pickles stood one
behind another (a magic number, a version, facts of the machine, the object, the list of keys), then the
storages, each behind its length. See torch/serialization.py.

The pickle becomes plain data first, with a `Tensor` where a tensor stood, and only the tensors of the state
dict are then read. They are views of their storage that cannot be written.
"""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minidl.errors import CheckpointError
from minidl.io.guard import check_archive, read_record, shown
from minidl.io.pickled import Name, entries, interpret

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_LARGEST = 1 << 48  # no tensor has so many numbers; sums and products of smaller ones are quick
_MOST_AXES = 32
_LONGEST_NAME = 500
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")

# What zipfile raises for a damaged archive: a seek before the begin of the file is an OSError, a record of a
# kind it does not know a NotImplementedError or a RuntimeError.
ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError),
    *(RuntimeError, ValueError, KeyError, IndexError, OverflowError),
)

# storage class -> what `decode` makes of its bytes
_STORAGES = {
    "torch.FloatStorage": "F32",
    "torch.DoubleStorage": "F64",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True, slots=True)
class Storage:
    """Memory that tensors share: `numel` numbers of type `kind`, stored under `key`."""

    key: str
    kind: str
    numel: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where in its storage a tensor lies, counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The state dict in a file of torch.save: name -> array, float16 and bfloat16 as float32.

    It may lie below "state_dict", "model" and the like; entries that are no tensors are left out.
    CheckpointError, naming the file, if it is damaged, holds no state dict, or asks for a global that weights
    do not need.
    """
    with naming(path), open(path, "rb") as file:
        return _read_zip(file) if file.read(2) == b"PK" else _read_legacy(Path(path).read_bytes())


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name before the text of a CheckpointError, or in place of an OSError."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check the path") from error


def find_state(tree: Any, is_array: Callable[[Any], bool]) -> dict[str, Any]:
    """The dict of arrays in what a training program saved.

    {"state_dict": ..., "epoch": 7} and the like are opened; what is no array is left out. CheckpointError if
    there is none.
    """
    for _ in range(3):  # {"model": {"state_dict": ...}} is the deepest that is seen
        inner = [
            tree[key] for key in _WRAPPERS if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping)
        ]
        tree = inner[0] if inner else tree
    if not isinstance(tree, Mapping):
        raise CheckpointError(
            f"holds no state dict but a {type(tree).__name__}; save model.state_dict() alone"
        )
    state = {name: value for name, value in tree.items() if is_array(value)}
    if (tree and not state) or not all(isinstance(name, str) for name in state):
        first = ", ".join(shown(key, 40) for key in list(tree)[:5])
        raise CheckpointError(
            f"holds no tensors by name (its first keys: {first}); save model.state_dict() alone"
        )
    for name in state:  # reports and errors show them
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            raise CheckpointError(
                f"has a tensor named {shown(name)}: a name is printable and has at most {_LONGEST_NAME} "
                "characters; rename it"
            )
    return state


def decode(raw: bytes | memoryview, kind: str, order: str = "<") -> np.ndarray:
    """Numbers of type `kind`, as safetensors calls it, in a byte order.  -> (numel,)

    float16 and bfloat16 become float32, which holds all their values. KeyError for an unknown kind.
    """
    if kind == "BF16":  # the upper half of a float32
        return (np.frombuffer(raw, f"{order}u2").astype(np.uint32) << 16).view(np.float32)
    if kind == "BOOL":
        return np.frombuffer(raw, np.uint8) != 0
    found = np.frombuffer(raw, f"{order}{kind[0].lower()}{_BYTES[kind]}")
    return found.astype(np.float32 if kind == "F16" else found.dtype.newbyteorder("="), copy=False)


def _read_zip(file: Any) -> dict[str, np.ndarray]:
    """The state dict in a file of torch >= 1.6."""
    try:
        with zipfile.ZipFile(file) as archive:
            check_archive(archive, os.fstat(file.fileno()).st_size, packed=False)
            folder = _find_folder(archive)

            def read(name: str) -> bytes:
                return read_record(archive, archive.getinfo(f"{folder}{name}"))

            order = "<"
            if f"{folder}byteorder" in archive.namelist():
                order = {b"little": "<", b"big": ">"}[read("byteorder")]
            tree = interpret(io.BytesIO(read("data.pkl")), _calls(), partial(_remember, {}))
            return _arrays(tree, lambda storage: read(f"data/{storage.key}"), order)
    except CheckpointError:
        raise
    except ZIP_ERRORS as error:
        raise CheckpointError(f"is damaged ({shown(error, 200)}); get it anew") from error


def _find_folder(archive: zipfile.ZipFile) -> str:
    """The folder that data.pkl lies in.  CheckpointError if there is none, or more than one."""
    pickles = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise CheckpointError(
            f"is a zip archive with {len(pickles)} data.pkl in it: not a file of torch.save; get it anew"
        )
    return pickles[0].removesuffix("data.pkl")


def _read_legacy(content: bytes) -> dict[str, np.ndarray]:
    """The state dict in a file of torch < 1.6, or of _use_new_zipfile_serialization=False."""
    stream = io.BytesIO(content)
    try:
        magic, version = (interpret(stream, {}, _no_storage) for _ in range(2))
    except CheckpointError as error:
        raise CheckpointError(f"is no file of torch.save, or {error}") from error
    if type(magic) is not int or magic != _MAGIC or type(version) is not int or version != _VERSION:
        raise CheckpointError(
            "is no file of torch.save: it does not begin with torch's magic number; get it anew"
        )
    interpret(stream, {}, _no_storage)  # facts of the machine that wrote it; numbers are always little-endian
    known: dict[str, Storage] = {}
    tree = interpret(stream, _calls(), partial(_remember, known))
    keys = interpret(stream, {}, _no_storage)
    found: dict[str, memoryview] = {}
    for key in keys if type(keys) is list else []:
        if type(key) is not str or key not in known or key in found:
            raise CheckpointError("lists storages that its pickle does not name: it is damaged; get it anew")
        numel = int.from_bytes(stream.read(8), "little")
        raw = memoryview(content)[stream.tell() :][: known[key].numel * _BYTES[known[key].kind]]
        if numel != known[key].numel:
            raise CheckpointError(
                f"has {numel} numbers in storage {key} where its pickle says {known[key].numel}; get it anew"
            )
        found[key] = raw
        stream.seek(len(raw), os.SEEK_CUR)
    return _arrays(tree, lambda storage: found.get(storage.key, b""), "<")


def _arrays(tree: Any, read: Callable[[Storage], bytes | memoryview], order: str) -> dict[str, np.ndarray]:
    """The state dict's tensors as views of their storages.  `read` gives a storage's bytes."""
    storages: dict[Storage, np.ndarray] = {}
    arrays = {}
    for name, tensor in find_state(tree, lambda value: isinstance(value, Tensor)).items():
        storage = tensor.storage
        if storage not in storages:
            raw = read(storage)
            if len(raw) != storage.numel * _BYTES[storage.kind]:
                raise CheckpointError(
                    f"is damaged: storage {storage.key} has {len(raw)} bytes, where {storage.numel} numbers "
                    f"of type {storage.kind} take {storage.numel * _BYTES[storage.kind]}; get it anew"
                )
            storages[storage] = decode(raw, storage.kind, order)
        memory = storages[storage]
        if 0 in tensor.shape:
            arrays[name] = np.zeros(tensor.shape, memory.dtype)
            continue
        steps = [stride * memory.itemsize for stride in tensor.strides]
        arrays[name] = np.lib.stride_tricks.as_strided(
            memory[tensor.offset :], tensor.shape, steps, writeable=False
        )
    return arrays


def _storage(identity: Any) -> Storage:
    """What a persistent id stands for: ("storage", class, key, device, numel), and None in the old format."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise CheckpointError("refers to something other than a storage: save the state_dict() alone")
    _, kind, key, _, numel = identity[:5]
    readable = type(key) is str and len(key) < 100 and key.isprintable()  # texts of errors show it
    if type(kind) is not Name or kind.text not in _STORAGES or not readable or not _is_size(numel):
        raise CheckpointError("has a storage without type, key or size: it is damaged; get it anew")
    if identity[5:] not in ((), (None,)):
        raise CheckpointError(f"has a storage that is a part of another ({key}); save it anew with torch")
    return Storage(key, _STORAGES[kind.text], numel)


def _remember(known: dict[str, Storage], identity: Any) -> Storage:
    """The storage of a persistent id, noted in `known`.  CheckpointError if it was another before."""
    storage = _storage(identity)
    if known.setdefault(storage.key, storage) != storage:
        raise CheckpointError(f"describes storage {storage.key} in two ways: it is damaged; get it anew")
    return storage


def _no_storage(identity: Any) -> Any:
    raise CheckpointError("refers to a storage where torch.save puts none: it is damaged; get it anew")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2; what follows is about gradients.

    CheckpointError for a tensor that leaves its storage, or has more numbers than it.
    """
    lists = type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides) <= _MOST_AXES
    if not lists or type(storage) is not Storage or not all(map(_is_size, (offset, *shape, *strides))):
        raise CheckpointError(
            "has a tensor without storage, or with a shape that is none: it is damaged; get it anew"
        )
    if math.prod(n for n in shape if n) >= _LARGEST:
        raise CheckpointError(f"has a tensor of shape {shape}: it is damaged; get it anew")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides))
    if 0 not in shape and (last >= storage.numel or math.prod(shape) > storage.numel):
        raise CheckpointError(
            f"has a tensor of shape {shape}, strides {strides} from number {offset} of a storage of "
            f"{storage.numel}: it reaches beyond, or repeats numbers; save it anew with torch, contiguous"
        )
    # the stride of an axis of 1 means nothing, and may be anything
    return Tensor(storage, offset, shape, tuple(n > 1 and step for n, step in zip(shape, strides)))


def _parameter(tensor: Any, *_: Any) -> Tensor:
    """torch._utils._rebuild_parameter: its tensor."""
    if type(tensor) is not Tensor:
        raise CheckpointError("has a parameter without a tensor: it is damaged; get it anew")
    return tensor


def _size(values: Any = ()) -> tuple[Any, ...]:
    """torch.Size: a tuple."""
    if type(values) not in (tuple, list):
        raise CheckpointError("has a size that is no list of numbers: it is damaged; get it anew")
    return tuple(values)


def _calls() -> dict[str, Callable[..., Any] | None]:
    """The globals that weights need, and what they mean here."""
    return {
        "collections.OrderedDict": lambda pairs=(): entries(pairs),
        "torch.Size": _size,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        **dict.fromkeys(_STORAGES),
    }


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST
