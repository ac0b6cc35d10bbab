"""Batches for training, prepared by threads ahead of the loop that uses them.

The one decision: what a batch holds is fixed before any thread starts. The order of an epoch and one seed for
its augmentation are drawn when iteration begins, and each batch has a random generator of its own, made of
that seed and its number. So the batches are the same, bit for bit, however many are prepared ahead and by
however many threads. These run numpy and Pillow only, never numba, whose threads the training loop is using.
"""

import collections
import functools
import itertools
import operator
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
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
    uint8 and all others are float32. augment_last: preprocess first, as in papers that whiten images and then
    crop and flip them. prefetch: how many batches are prepared ahead, by threads; with 0 the loop itself
    prepares each. workers: how many threads; two or more pay where pictures are decoded. They read the images
    at the same time, and hold a batch each beside the `prefetch` that are ready.

    Both streams are drawn from when iteration begins, not when the first batch is asked for. An error in a
    thread is raised in the loop, at the batch where it happened. The threads end with their epoch, or when
    the iterator is closed or forgotten. ValueError for a batch_size or workers below 1 or a negative
    prefetch, DataError if there is no batch, and whatever `Split` raises.
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
        augment_last: bool = False,
        prefetch: int = 2,
        workers: int = 1,
        drop_last: bool = False,
    ) -> None:
        if operator.index(batch_size) < 1:
            raise ValueError(f"Loader: batch_size is {batch_size}, it must be at least 1")
        if operator.index(prefetch) < 0:
            raise ValueError(f"Loader: prefetch is {prefetch}, it must be at least 0")
        if operator.index(workers) < 1:
            raise ValueError(f"Loader: workers is {workers}, it must be at least 1")
        self._source = _as_source(images, labels)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.augment = augment
        self.preprocess = preprocess
        self.augment_last = augment_last
        self.prefetch = prefetch
        self.workers = workers
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
        return self.batches()

    def batches(self, start: int = 0) -> Batches:
        """An epoch from batch number `start` on; those before it are not made, and the rest are as ever.

        With the streams as they were when an epoch began, it goes on where that one was left. ValueError for
        a start outside 0 .. len(self).
        """
        if not 0 <= operator.index(start) <= len(self):
            raise ValueError(f"Loader: start is {start}, an epoch has the batches 0 .. {len(self) - 1}")
        n = len(self._source)
        order = streams.generator("shuffle").permutation(n) if self.shuffle else np.arange(n)
        seed = 0 if self.augment is None else int(streams.generator("augment").integers(2**63))
        make = functools.partial(self._make, order, seed)
        numbers = range(start, len(self))
        if self.prefetch == 0:
            return (make(number) for number in numbers)
        return _prefetch(make, numbers, self.prefetch, self.workers)

    def _make(self, order: np.ndarray, seed: int, number: int) -> Batch:
        """Batch `number` of an epoch."""
        x, y = self._source.take(order[number * self.batch_size : (number + 1) * self.batch_size])
        if self.augment_last:
            x = self._preprocess(x)
        if self.augment is not None:
            x = self.augment(x, np.random.default_rng([seed, number]))
        if not self.augment_last:
            x = self._preprocess(x)
        return np.ascontiguousarray(x), y

    def _preprocess(self, x: np.ndarray) -> np.ndarray:
        if callable(self.preprocess):
            return self.preprocess(x)
        return x if self.preprocess is None else transforms.preprocess(x, self.preprocess)


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


def _prefetch(make: Callable[[int], Batch], numbers: range, depth: int, workers: int) -> Batches:
    """make(number) for each of `numbers`, in order, with threads a few of them ahead of the reader.

    Each batch has a ticket with a box of its own, in which one thread leaves it and the reader finds it. At
    first `depth` batches are ordered, and one more for each thread beyond the first; then one for each that
    the reader receives. Leaving the generator in any way (its end, an error, close(), garbage collection)
    runs its `finally`, which ends each thread after the batch it is at. Nobody waits for that: what a thread
    still does cannot be seen.
    """
    tickets: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
    stop = threading.Event()
    for _ in range(min(workers, len(numbers))):
        arguments = (make, tickets, stop)
        threading.Thread(target=_produce, args=arguments, name="minidl-loader", daemon=True).start()
    try:
        later = iter(numbers)
        boxes = collections.deque(_order(tickets, later, depth + workers - 1))
        while boxes:
            item = boxes.popleft().get()
            boxes.extend(_order(tickets, later, 1))
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stop.set()
        for _ in range(workers):
            tickets.put(None)  # wakes a thread that waits for a ticket


class _Failure:
    """What a thread hands over in place of the batch it could not make."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


_Box = queue.SimpleQueue[Batch | _Failure]
_Ticket = tuple[int, _Box]


def _order(tickets: queue.SimpleQueue, numbers: Iterator[int], count: int) -> list[_Box]:
    """Write tickets for the next `count` batches, or as many as there are; -> the boxes they will be in."""
    boxes = []
    for number in itertools.islice(numbers, count):
        boxes.append(_Box())
        tickets.put((number, boxes[-1]))
    return boxes


def _produce(make: Callable[[int], Batch], tickets: queue.SimpleQueue, stop: threading.Event) -> None:
    """Body of a thread. It does not know the generator that started it, or that would live for ever."""
    while (ticket := tickets.get()) is not None and not stop.is_set():
        number, box = ticket
        try:
            box.put(make(number))
        except BaseException as error:  # the reader decides what to do with it
            error.add_note(f"while the loader prepared batch {number}")
            box.put(_Failure(error))
            return
