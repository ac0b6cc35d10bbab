"""What a file of a model holds: `Model.save`'s own format, and the model inside a checkpoint.

A file may come from anywhere. Its description is checked before anything is built from it, and a network may
not take more memory than its weights explain.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from minidl import nn, streams
from minidl.data import transforms
from minidl.errors import CheckpointError, DTypeError
from minidl.io import load_arrays
from minidl.io.guard import shown
from minidl.train import checkpoint

FORMAT = "minidl-model"
FITTED = "preprocess/"  # before the names of the arrays of a fitted preprocessing

_SPARE_BYTES = 1 << 24  # a network may have so much besides what stands in its file


def read(
    path: str | os.PathLike[str], weights: Literal["raw", "ema"] | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(description, arrays) of the model in a file of `save` or in a checkpoint.

    The description has "name", "arguments" and "preprocess", with what was fitted in it. CheckpointError,
    naming the file, if it is damaged, of another kind, or lacks these weights; ValueError for other words.
    """
    if weights not in (None, "raw", "ema"):
        raise ValueError(f"load: weights is {weights!r}, it must be 'raw' or 'ema'")
    arrays, description = load_arrays(path)
    if "parts" in description:
        which = weights or ("ema" if "ema" in description["parts"] else "raw")
        description, arrays = checkpoint.read_model(path, which)
    elif description.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds no model (its format is {shown(description.get('format'))!r})")
    elif weights is not None:
        raise CheckpointError(
            f"{path} holds the final weights alone, not the {weights} ones of a run; load one of its "
            "checkpoints"
        )
    with damaged(path):
        model = description["model"]
        name, arguments = model["name"], model["arguments"]
        if type(name) is not str or type(arguments) is not dict:
            raise ValueError("it does not say which model, built with which arguments")
        preprocess, arrays = with_fitted(description["preprocess"], arrays)
        transforms.check_config(preprocess)
    return {"name": name, "arguments": arguments, "preprocess": preprocess}, arrays


def built(
    path: str | os.PathLike[str],
    build: Callable[..., Any],
    arguments: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> Any:
    """The network that build(**arguments) makes, with these weights.  CheckpointError if they do not fit.

    Random streams stay as they are: what the network draws is replaced.
    """
    random = streams.get_state()
    budget = 2 * sum(array.nbytes for array in arrays.values()) + _SPARE_BYTES
    try:
        with damaged(path), nn.init.blank(budget):
            model = build(**arguments)
    finally:
        streams.set_state(random)
    with damaged(path):
        dtypes = {array.dtype for array in arrays.values()}
        if len(dtypes) == 1:
            model.to(dtype=dtypes.pop())
        model.load_state_dict(dict(arrays))
    return model


def with_fitted(
    preprocess: Any, arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """(preprocess with its fitted arrays, the other arrays) of a file that `save` wrote."""
    fitted = {name.removeprefix(FITTED): a for name, a in arrays.items() if name.startswith(FITTED)}
    others = {name: a for name, a in arrays.items() if not name.startswith(FITTED)}
    return transforms.join_arrays(preprocess, fitted), others


@contextmanager
def damaged(path: str | os.PathLike[str]) -> Iterator[None]:
    """What goes wrong inside, because of what the file says, is a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError as error:
        text = str(error)
        raise CheckpointError(text if str(path) in text else f"{path}: {text}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError, DTypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else shown(error, 300)
        raise CheckpointError(
            f"{path} does not describe a model that can be built ({reason}); restore it from a copy"
        ) from error
