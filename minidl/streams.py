"""Named random streams: every random number in minidl comes from one of four, and their state is plain data.

The streams are "init" (initial weights), "shuffle" (order of the training images), "dropout" (masks) and
"augment". Separate streams keep one use from disturbing another: adding a dropout layer does not change the
order of the images. All four follow from one seed. Dropout draws no numbers here: its masks are computed
where they are needed from (seed, stream, call), see ops/dropout.py, so all that is kept is the number of
calls. `get_state` is JSON-able, so a checkpoint can hold it.
"""

import operator
from typing import Any

import numpy as np

NAMES = ("init", "shuffle", "dropout", "augment")
_DROPOUT = NAMES.index("dropout")

_seed = 0
_dropout_calls = 0
_generators: dict[str, np.random.Generator] = {}


def manual_seed(seed: int) -> None:
    """Restart every stream from `seed` (0 <= seed < 2**32).  ValueError otherwise."""
    global _seed, _dropout_calls
    if not 0 <= operator.index(seed) < 2**32:
        raise ValueError(f"manual_seed: seed is {seed}, it must lie in 0 <= seed < 2**32")
    _seed, _dropout_calls = int(seed), 0
    for index, name in enumerate(NAMES):
        _generators[name] = np.random.Generator(np.random.Philox(key=[_seed, index]))


def generator(name: str) -> np.random.Generator:
    """The generator of one stream; drawing from it moves that stream alone."""
    if name not in NAMES:
        raise ValueError(f"generator: there is no stream {name!r}; the streams are {', '.join(NAMES)}")
    return _generators[name]


def next_dropout_key() -> tuple[int, int, int]:
    """(seed, stream, call) of the next dropout mask; every call of a dropout layer gets a mask of its own."""
    global _dropout_calls
    _dropout_calls += 1
    return _seed, _DROPOUT, _dropout_calls - 1


def get_state() -> dict[str, Any]:
    """Everything needed to continue all streams exactly, as JSON-able data."""
    return {
        "seed": _seed,
        "dropout_calls": _dropout_calls,
        "generators": {name: _plain(_generators[name].bit_generator.state) for name in NAMES},
    }


def set_state(state: dict[str, Any]) -> None:
    """Continue all streams from what `get_state` returned.

    KeyError or ValueError when it is not such a state; then nothing has changed.
    """
    restored = {}
    for name in NAMES:
        bits = np.random.Philox()
        bits.state = _arrays(state["generators"][name])
        restored[name] = np.random.Generator(bits)
    global _seed, _dropout_calls
    _seed, _dropout_calls = int(state["seed"]), int(state["dropout_calls"])
    _generators.update(restored)


def _plain(value: Any) -> Any:
    """A Philox state with its arrays as lists and its numpy integers as Python's."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _arrays(value: Any) -> Any:
    """The inverse of `_plain`."""
    if isinstance(value, dict):
        return {key: _arrays(item) for key, item in value.items()}
    return np.asarray(value, np.uint64) if isinstance(value, list) else value


manual_seed(0)
