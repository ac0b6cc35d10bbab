"""Training and evaluating on images that stay in their files: the same bits, and memory for batches alone."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

import minidl as md
from minidl import nn
from minidl.data import Dataset, Split
from minidl.data.rows import Rows
from minidl.train.inputs import hold_out

SHAPE = (48, 48, 3)


class Brightness(md.Model):
    """Classes told by the mean colour: next to no memory beside the images'."""

    def __init__(self) -> None:
        self.input_shape, self.num_classes = SHAPE, 2
        self.gap, self.out = nn.GlobalAvgPool(), nn.Linear(3, 2)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return self.out(self.gap(x))


def run(data, **options) -> tuple:
    """What training on the data gives: the history's numbers and the weights."""
    md.manual_seed(0)
    model = Brightness()
    history = model.fit(data, epochs=2, batch_size=16, seed=3, verbose=False, **options).history
    weights = [parameter.numpy().tobytes() for parameter in model.parameters()]
    return {key: value for key, value in history.items() if key != "seconds"}, weights


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (600, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
def labels(images: np.ndarray) -> np.ndarray:
    return (images.mean(axis=(1, 2, 3)) > images.mean()).astype(np.int64)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, ">f4"])
def test_a_mapped_file_is_read_batch_by_batch(tmp_path, images, labels, dtype):
    np.save(tmp_path / "images.npy", images.astype(dtype))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    model = Brightness()
    model.fit(mapped[:32], labels[:32], epochs=1, verbose=False)  # compiles
    tracemalloc.start()
    model.fit(mapped, labels, epochs=1, batch_size=16, verbose=False)
    model.fit(Split(mapped[100:], labels[100:]), epochs=1, batch_size=16, verbose=False)
    model.evaluate(mapped, labels, batch_size=16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # what is held out is one batch, the largest: its values as they are read, as float32, and as a Tensor
    assert peak < images[:60].size * (mapped.itemsize + 4 + 4 + 1)
    assert peak < mapped.nbytes / 2 or dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_the_bits_are_those_of_images_in_memory(tmp_path, images, labels, dtype):
    held = images[:90].astype(dtype)
    np.save(tmp_path / "images.npy", held)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert run((mapped, labels[:90])) == run((held, labels[:90]))
    assert run(Split(Rows(held, np.arange(90)), labels[:90])) == run((held, labels[:90]))


def test_what_is_held_out_is_not_copied(images, labels):
    split = Split(images, labels)
    tracemalloc.start()
    train, held_out = hold_out(split, 0.25)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(train), len(held_out)) == (450, 150)
    assert peak < 20_000 + 8 * 8 * len(images) < images.nbytes / 10
    both = np.concatenate([train.images.indices, held_out.images.indices])
    assert sorted(both.tolist()) == list(range(600))
    for part in (train, held_out):
        rows = part.images.indices
        assert np.array_equal(rows, np.sort(rows))
        assert np.array_equal(np.asarray(part.images), images[rows])
        assert np.array_equal(part.labels, labels[rows])


def test_a_folder_of_pictures_trains_as_the_same_pixels_in_memory_do(tmp_path, images, labels):
    for number in range(40):
        name = f"{'train' if number < 30 else 'val'}/{'ab'[number % 2]}/{number:02}.png"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).save(tmp_path / name)
    files = md.data.image_folder(tmp_path)
    held = [Split(np.asarray(split.images), split.labels) for split in (files.train, files.test)]
    memory = Dataset("memory", files.classes, *held)
    assert run(files, augment="flip") == run(memory, augment="flip")
    assert run(files.train, validation=files.test) == run(memory.train, validation=memory.test)
    model = Brightness()
    assert model.evaluate(files) == model.evaluate(memory)
    model.fit(str(tmp_path), epochs=1, verbose=False)
