"""Compiling ahead of time, so that the first training of a network does not have to wait for it."""

from collections.abc import Callable

import numpy as np

from minidl import backend, streams
from minidl.nn import Module
from minidl.train.fit import fit


def warmup(model: Module, note: Callable[[str], None]) -> None:
    """Compile and keep what training and evaluating `model` runs, by doing so on two batches of noise.

    The weights change; the random streams do not. `note` is called with the name of each kernel that was
    compiled: never, if all of them were kept already. ValueError for a model that does not say what images
    it takes.
    """
    with backend.of(next(model.parameters()).data).compilation(note):
        train_on_noise(model, 4, 2, validate=True)


def train_on_noise(model: Module, images: int, batch_size: int, validate: bool = False) -> None:
    """An epoch of training on so many images of noise.  Random streams stay as they are."""
    shape, classes = getattr(model, "input_shape", None), getattr(model, "num_classes", None)
    if shape is None or classes is None:
        raise ValueError(
            f"warmup: {type(model).__name__} does not say what it takes; set its input_shape (H, W, C) and "
            "num_classes"
        )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, *shape), dtype=np.float32)
    y = rng.integers(0, classes, images)
    held_out = (x[:2], y[:2]) if validate else None
    random = streams.get_state()
    fit(model, x, y, epochs=1, batch_size=batch_size, validation=held_out, verbose=False)
    streams.set_state(random)
