"""The loader: every image once, the same bits at any depth, errors in their place, no thread left."""

import gc
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minidl import streams
from minidl.data import Loader, Split, transforms
from minidl.errors import DataError, ShapeError

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 8, 6, 3), dtype=np.uint8)
LABELS = np.arange(23) % 7
AUGMENT = transforms.compose(transforms.pad_crop(2), transforms.flip())
CONFIG = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}


@pytest.fixture(autouse=True)
def seed():
    streams.manual_seed(7)


class Items:
    """A map-style data set that counts how many images were read; that of index `fail_at` raises."""

    def __init__(self, n=23, fail_at=None):
        self.n, self.fail_at, self.read = n, fail_at, 0

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.read += 1
        if index == self.fail_at:
            raise OSError(f"image {index} is broken")
        return IMAGES[index], int(LABELS[index])


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "minidl-loader"]


def ended():
    """Whether all loader threads end within a few seconds."""
    for thread in threads():
        thread.join(timeout=5)
    return not threads()


def test_batches_hold_every_image_in_order():
    loader = Loader(IMAGES, LABELS, 5)
    batches = list(loader)
    assert len(loader) == len(batches) == 5
    assert [len(y) for _, y in batches] == [5, 5, 5, 5, 3]
    assert np.array_equal(np.concatenate([x for x, _ in batches]), IMAGES)
    assert np.array_equal(np.concatenate([y for _, y in batches]), LABELS)
    assert batches[0][0].dtype == np.uint8
    assert batches[0][1].dtype == np.int64
    assert not np.shares_memory(batches[0][0], IMAGES)


def test_drop_last():
    assert [len(y) for _, y in Loader(IMAGES, LABELS, 5, drop_last=True)] == [5, 5, 5, 5]
    assert len(Loader(IMAGES, LABELS, 23, drop_last=True)) == 1


def test_shuffle_is_a_new_permutation_each_epoch_that_follows_from_the_seed():
    numbers = np.arange(23)
    loader = Loader(IMAGES, numbers, 5, shuffle=True)
    first, second = (np.concatenate([y for _, y in loader]) for _ in range(2))
    assert sorted(first) == sorted(second) == numbers.tolist()
    assert not np.array_equal(first, numbers)
    assert not np.array_equal(first, second)
    streams.manual_seed(7)
    assert np.array_equal(np.concatenate([y for _, y in loader]), first)
    for x, y in loader:
        assert np.array_equal(x, IMAGES[y])


@pytest.mark.parametrize("prefetch", [1, 2, 50])
@pytest.mark.parametrize("workers", [1, 2, 5, 60])
@pytest.mark.parametrize("source", ["arrays", "items"])
def test_neither_prefetch_nor_workers_change_a_bit(prefetch, workers, source):
    def epochs(**options):
        streams.manual_seed(3)
        data = (IMAGES, LABELS) if source == "arrays" else (Items(), None)
        loader = Loader(*data, 4, shuffle=True, augment=AUGMENT, preprocess=CONFIG, **options)
        return [batch for _ in range(2) for batch in loader], streams.get_state()

    plain, plain_state = epochs(prefetch=0)
    ahead, ahead_state = epochs(prefetch=prefetch, workers=workers)
    assert len(plain) == len(ahead) == 12
    for (x, y), (x_ahead, y_ahead) in zip(plain, ahead, strict=True):
        assert x.tobytes() == x_ahead.tobytes()
        assert np.array_equal(y, y_ahead)
    assert plain_state == ahead_state


def test_batches_come_in_order_whichever_is_ready_first():
    class Slow(Items):
        def __getitem__(self, index):
            time.sleep(0.005 * (4 - index % 4))  # the later the sooner
            return super().__getitem__(index)

    batches = list(Loader(Slow(), batch_size=1, workers=4))
    assert np.array_equal(np.concatenate([x for x, _ in batches]), IMAGES)


def test_workers_prepare_batches_at_the_same_time():
    meeting = threading.Barrier(3, timeout=10)

    class Together(Items):
        def __getitem__(self, index):
            meeting.wait()  # breaks unless three threads are here at once
            return super().__getitem__(index)

    assert len(list(Loader(Together(21), batch_size=1, workers=3))) == 21


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("start", [0, 1, 5, 6])
def test_an_epoch_goes_on_from_any_batch(prefetch, workers, start):
    items = Items()
    loader = Loader(items, batch_size=4, shuffle=True, augment=AUGMENT, prefetch=prefetch, workers=workers)
    state = streams.get_state()
    whole = list(loader)
    after, items.read = streams.get_state(), 0
    streams.set_state(state)
    rest = list(loader.batches(start))
    assert streams.get_state() == after
    assert items.read == sum(len(y) for _, y in whole[start:])  # those before are not made
    assert len(rest) == 6 - start
    for (x, y), (x_whole, y_whole) in zip(rest, whole[start:], strict=True):
        assert x.tobytes() == x_whole.tobytes()
        assert np.array_equal(y, y_whole)


@pytest.mark.parametrize("start", [-1, 6])
def test_an_epoch_cannot_begin_outside_itself(start):
    with pytest.raises(ValueError, match=rf"start is {start}, an epoch has the batches 0 \.\. 4"):
        Loader(IMAGES, LABELS, 5).batches(start)


def test_augmentation_may_come_last():
    def brighter(images, rng):
        return images + 1

    ((first, _),) = Loader(IMAGES, LABELS, 23, augment=brighter, preprocess={})
    ((last, _),) = Loader(IMAGES, LABELS, 23, augment=brighter, preprocess={}, augment_last=True)
    assert np.array_equal(first, transforms.preprocess(IMAGES + 1))
    assert np.array_equal(last, transforms.preprocess(IMAGES) + 1)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_streams_are_drawn_from_when_iteration_begins(prefetch):
    loader = Loader(IMAGES, LABELS, 5, shuffle=True, augment=AUGMENT, prefetch=prefetch)
    first = iter(loader)
    state = streams.get_state()
    list(first)
    assert streams.get_state() == state
    iter(loader)
    assert streams.get_state() != state


def test_streams_nobody_needs_are_left_alone():
    state = streams.get_state()
    list(Loader(IMAGES, LABELS, 5))
    assert streams.get_state() == state


def test_augmentation_differs_between_batches_and_epochs():
    same = np.broadcast_to(IMAGES[:1], IMAGES.shape)
    loader = Loader(same, LABELS, 11, augment=transforms.pad_crop(4))
    batches = [x for _ in range(2) for x, _ in loader if len(x) == 11]
    assert len(batches) == len({x.tobytes() for x in batches}) == 4


def test_preprocess_takes_a_config_or_a_function():
    ((x, _),) = Loader(IMAGES, LABELS, 23, preprocess=CONFIG)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    assert np.array_equal(x, transforms.preprocess(IMAGES, CONFIG))
    ((x, _),) = Loader(IMAGES, LABELS, 23, preprocess={})
    assert np.array_equal(x, transforms.preprocess(IMAGES))
    ((x, _),) = Loader(IMAGES, LABELS, 23, preprocess=lambda images: images[:, ::-1])
    assert np.array_equal(x, IMAGES[:, ::-1])
    assert x.flags.c_contiguous


def test_float_images_come_as_float32():
    ((x, _),) = Loader(IMAGES / 255, LABELS, 23)
    assert x.dtype == np.float32


def test_split_and_items_are_sources_too():
    for source in (Split(IMAGES, LABELS), Items(), list(zip(IMAGES, LABELS, strict=True))):
        batches = list(Loader(source, batch_size=10))
        assert np.array_equal(np.concatenate([x for x, _ in batches]), IMAGES)
        assert np.array_equal(np.concatenate([y for _, y in batches]), LABELS)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_an_error_comes_at_the_batch_where_it_happened(prefetch, workers):
    batches = iter(Loader(Items(fail_at=12), batch_size=5, prefetch=prefetch, workers=workers))
    assert len(next(batches)[1]) == len(next(batches)[1]) == 5
    with pytest.raises(OSError, match="image 12 is broken") as caught:
        next(batches)
    assert prefetch == 0 or caught.value.__notes__ == ["while the loader prepared batch 2"]
    assert next(batches, None) is None
    assert ended()


def test_an_error_in_an_augmentation_is_raised_in_the_loop():
    def broken(images, rng):
        raise ZeroDivisionError("in augment")

    with pytest.raises(ZeroDivisionError, match="in augment"):
        list(Loader(IMAGES, LABELS, 5, augment=broken))


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_end_with_the_epoch(workers):
    list(Loader(IMAGES, LABELS, 5, workers=workers))
    assert ended()


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_end_when_the_iterator_is_closed(workers):
    batches = iter(Loader(IMAGES, LABELS, 1, workers=workers))
    next(batches)
    assert len(threads()) == workers
    batches.close()
    assert ended()


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_end_when_the_loop_is_left_and_the_iterator_forgotten(workers):
    for _ in Loader(Items(), batch_size=1, workers=workers):
        break
    gc.collect()
    assert ended()


def test_iterator_that_was_never_used_starts_no_thread():
    batches = iter(Loader(IMAGES, LABELS, 5))
    assert not threads()
    del batches


@pytest.mark.parametrize(("workers", "read"), [(1, 4), (3, 6)])
def test_threads_run_at_most_the_depth_ahead(workers, read):
    items = Items()
    batches = iter(Loader(items, batch_size=1, prefetch=3, workers=workers))
    next(batches)
    deadline = time.monotonic() + 5
    while items.read < read and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)  # time enough to run further, if they could
    assert items.read == read  # one taken, three ready, one more for each thread but the first
    batches.close()
    assert ended()


def test_two_epochs_at_a_time_do_not_mix():
    loader = Loader(IMAGES, LABELS, 5)
    for (x, _), (other, _) in zip(loader, loader, strict=True):
        assert np.array_equal(x, other)


def test_program_ends_with_an_iterator_open():
    program = """
import numpy as np
from minidl.data import Loader
batches = iter(Loader(np.zeros((99, 4, 4, 1), np.uint8), np.zeros(99, int), 1))
next(batches)
print('end')
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("end\n", "")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((IMAGES, LABELS, 0), {}, ValueError, "batch_size is 0, it must be at least 1"),
        ((IMAGES, LABELS, 5), {"prefetch": -1}, ValueError, "prefetch is -1, it must be at least 0"),
        ((IMAGES, LABELS, 5), {"workers": 0}, ValueError, "workers is 0, it must be at least 1"),
        ((IMAGES, LABELS, 2.5), {}, TypeError, "float"),
        ((IMAGES[:0], LABELS[:0], 5), {}, DataError, "holds no images"),
        ((Items(0), None, 5), {}, DataError, "no batch in 0 images, batch_size=5, drop_last=False"),
        ((IMAGES, LABELS, 24), {"drop_last": True}, DataError, "no batch in 23 images, batch_size=24, drop"),
        ((IMAGES, LABELS.astype(np.float32), 5), {}, DataError, "labels: dtype is float32, expected integer"),
        ((IMAGES, LABELS - 1, 5), {}, DataError, r"labels\[0\] is -1, out of range"),
        ((IMAGES, LABELS[:-1], 5), {}, ShapeError, r"labels: shape is \(22,\), expected \(23,\)"),
        ((IMAGES, None, 5), {}, DataError, "images is a ndarray and labels is None; pass labels"),
        ((iter([]), None, 5), {}, DataError, "images is a list_iterator and labels is None"),
    ],
)
def test_wrong_arguments_are_refused(arguments, options, error, text):
    with pytest.raises(error, match=text):
        Loader(*arguments, **options)


@pytest.mark.parametrize(
    ("items", "error", "text"),
    [
        (list(IMAGES), DataError, r"item 0 is a ndarray, expected \(image, label\)"),
        (
            [(IMAGES[0], 1), (IMAGES[1, 1:], 1)],
            ShapeError,
            r"image 1 has shape \(7, 6, 3\) but image 0, in the same batch, \(8, 6, 3\)",
        ),
        ([(IMAGES[0], 0.5)], DataError, "labels: dtype is float64"),
    ],
)
def test_wrong_items_are_refused_when_they_are_read(items, error, text):
    with pytest.raises(error, match=text):
        list(Loader(items, batch_size=5))
