"""Batches for training, prepared by one thread ahead of the loop that uses them.

The one decision: what a batch holds is fixed before any thread starts. The order of an epoch and one seed for
its augmentation are drawn when iteration begins, and each batch has a random generator of its own, made of
that seed and its number. So the batches are the same, bit for bit, however many are prepared ahead. The
thread runs numpy and Pillow only, never numba, whose threads the training loop is using.
"""

import functools
import operator
import queue
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

import numpy as np

from minidl import streams
from minidl.data import transforms
from minidl.data.dataset import Split
from minidl.errors import DataError, ShapeError

Batch = tuple[np.ndarray, np.ndarray]
Batches = Generator[Batch, None, None]


class _Source(Protocol):
    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> Batch: ...


class Loader:
    """An epoch of batches each time it is iterated.  yields x (n, H, W, C), y (n,) int64

    images, labels: arrays, as `Split` takes them; or a Split, or any object with __len__ and __getitem__(i)
    -> (image, label), and no labels. batch_size: images per batch; the last may have fewer, unless
    `drop_last`. shuffle: a new order per epoch, from the stream "shuffle". augment: called with (images,
    generator), see `transforms`; seeded from the stream "augment". preprocess: a config for
    `transforms.preprocess` ({} divides by 255), or a function of the images; without one uint8 images stay
    uint8 and all others are float32. prefetch: how many batches are prepared ahead, by a thread; 0 for none.

    Both streams are drawn from when iteration begins, not when the first batch is asked for. An error in the
    thread is raised in the loop, at the batch where it happened. The thread ends with its epoch, or when the
    iterator is closed or forgotten. ValueError for a batch_size below 1 or a negative prefetch, DataError if
    there is no batch, and whatever `Split` raises.
    """

    def __init__(
        self,
        images: Any,
        labels: Any = None,
        batch_size: int = 128,
        *,
        shuffle: bool = False,
        augment: transforms.Augmentation | None = None,
        preprocess: Mapping[str, Any] | Callable[[np.ndarray], np.ndarray] | None = None,
        prefetch: int = 2,
        drop_last: bool = False,
    ) -> None:
        if operator.index(batch_size) < 1:
            raise ValueError(f"Loader: batch_size is {batch_size}, it must be at least 1")
        if operator.index(prefetch) < 0:
            raise ValueError(f"Loader: prefetch is {prefetch}, it must be at least 0")
        self._source = _as_source(images, labels)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augment = augment
        self.preprocess = preprocess
        self.prefetch = prefetch
        self.drop_last = drop_last
        if len(self) == 0:
            raise DataError(
                f"Loader: no batch in {len(self._source)} images, batch_size={batch_size}, "
                f"drop_last={drop_last}"
            )

    def __len__(self) -> int:
        """The number of batches."""
        n = len(self._source)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Batches:
        n = len(self._source)
        order = streams.generator("shuffle").permutation(n) if self.shuffle else np.arange(n)
        seed = 0 if self.augment is None else int(streams.generator("augment").integers(2**63))
        make = functools.partial(self._make, order, seed)
        if self.prefetch == 0:
            return (make(number) for number in range(len(self)))
        return _prefetch(make, len(self), self.prefetch)

    def _make(self, order: np.ndarray, seed: int, number: int) -> Batch:
        """Batch `number` of an epoch."""
        x, y = self._source.take(order[number * self.batch_size : (number + 1) * self.batch_size])
        if self.augment is not None:
            x = self.augment(x, np.random.default_rng([seed, number]))
        if callable(self.preprocess):
            x = self.preprocess(x)
        elif self.preprocess is not None:
            x = transforms.preprocess(x, self.preprocess)
        return np.ascontiguousarray(x), y


class _Items:
    """An object with __len__ and __getitem__(i) -> (image, label), read batch by batch."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def take(self, indices: np.ndarray) -> Batch:
        images: list[np.ndarray] = []
        labels: list[Any] = []
        for index in indices.tolist():
            item = self.items[index]
            if not isinstance(item, (tuple, list)) or len(item) != 2:
                raise DataError(f"Loader: item {index} is a {type(item).__name__}, expected (image, label)")
            image = np.asarray(item[0])
            if images and image.shape != images[0].shape:
                raise ShapeError(
                    f"Loader: image {index} has shape {image.shape} but image {indices[0]}, in "
                    f"the same batch, {images[0].shape}"
                )
            images.append(image)
            labels.append(item[1])
        batch = Split(np.stack(images), labels)
        return batch.images, batch.labels


def _as_source(images: Any, labels: Any) -> _Source:
    if labels is not None:
        return Split(images, labels)
    if isinstance(images, Split):
        return images
    if isinstance(images, np.ndarray) or not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        raise DataError(
            f"Loader: images is a {type(images).__name__} and labels is None; pass labels, or "
            "an object with __len__ and __getitem__(i) -> (image, label)"
        )
    return _Items(images)


def _prefetch(make: Callable[[int], Batch], count: int, depth: int) -> Batches:
    """make(0), make(1), ... make(count - 1), with a thread at most `depth` of them ahead of the reader.

    The thread takes a ticket for each batch; the reader gives one back for each batch it receives. Leaving
    the generator in any way (its end, an error, close(), garbage collection) runs its `finally`, which ends
    the thread after the batch it is at. Nobody waits for that: what the thread still does cannot be seen.
    """
    tickets: queue.SimpleQueue[None] = queue.SimpleQueue()
    ready: queue.SimpleQueue[Batch | _Failure] = queue.SimpleQueue()
    stop = threading.Event()
    arguments = (make, count, tickets, ready, stop)
    threading.Thread(target=_produce, args=arguments, name="minidl-loader", daemon=True).start()
    try:
        for _ in range(depth):
            tickets.put(None)
        for _ in range(count):
            item = ready.get()
            tickets.put(None)
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stop.set()
        tickets.put(None)  # wakes the thread if it waits for one


class _Failure:
    """What the thread hands over in place of the batch it could not make."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _produce(
    make: Callable[[int], Batch],
    count: int,
    tickets: queue.SimpleQueue,
    ready: queue.SimpleQueue,
    stop: threading.Event,
) -> None:
    """Body of the thread. It does not know the generator that started it, or that would live for ever."""
    for number in range(count):
        tickets.get()
        if stop.is_set():
            return
        try:
            ready.put(make(number))
        except BaseException as error:  # the reader decides what to do with it
            error.add_note(f"while the loader prepared batch {number}")
            ready.put(_Failure(error))
            return
