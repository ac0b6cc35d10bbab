"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour images of 32x32 each, from the official binary files.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". A record is the label byte (in
CIFAR-100 two: the coarse label, then the fine one) and 3,072 pixel bytes, the red plane before the green and
the blue; the images are turned channels-last while they are copied out.
"""

import os

import numpy as np

from minidl.data import fetch, sources
from minidl.data.dataset import Dataset, Split
from minidl.errors import DataError

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FINE = tuple(  # fine_label_names.txt
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
    can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
    dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
    lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
    pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
    seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
    telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
    worm""".split()
)
_COARSE = tuple(  # coarse_label_names.txt
    """aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
    large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
    vehicles_1 vehicles_2""".split()
)
_C, _H, _W = 3, 32, 32


def cifar10(root: str | os.PathLike[str] | None = None, download: bool = True) -> Dataset:
    """CIFAR-10 from ROOT/cifar-10-batches-bin.  train (50000, 32, 32, 3), test (10000, 32, 32, 3), uint8

    root: the folder of the data sets; default $MINIDL_DATA, else the user's cache. Missing files are
    downloaded unless `download` is false. DataError for a missing or damaged file.
    """
    source = sources.SOURCES["cifar10"]
    folder = fetch.locate(source, root, download)
    batches = [_records(data, path.name, (_CLASSES,)) for path, data in fetch.read_all(source, folder)]
    images, labels = zip(*batches, strict=True)
    train = Split(np.concatenate(images[:-1]), np.concatenate(labels[:-1])[:, 0])
    return Dataset("cifar10", _CLASSES, train, test=Split(images[-1], labels[-1][:, 0]))


def cifar100(
    root: str | os.PathLike[str] | None = None, download: bool = True, *, labels: str = "fine"
) -> Dataset:
    """CIFAR-100 from ROOT/cifar-100-binary.  train (50000, 32, 32, 3), test (10000, 32, 32, 3), uint8

    root: the folder of the data sets; default $MINIDL_DATA, else the user's cache. Missing files are
    downloaded unless `download` is false.
    labels: "fine" for the 100 classes, "coarse" for the 20 superclasses they are grouped in.
    The author publishes a checksum of the archive, which is checked when it is downloaded, and none of the
    files in it: of those the size alone is checked, and every label. DataError for a missing or damaged file.
    """
    columns = {"coarse": 0, "fine": 1}
    if labels not in columns:
        raise ValueError(f'cifar100: labels is {labels!r}, expected "fine" (100 classes) or "coarse" (20)')
    classes, column = (_COARSE, _FINE), columns[labels]
    source = sources.SOURCES["cifar100"]
    folder = fetch.locate(source, root, download)
    files = [_records(data, path.name, classes) for path, data in fetch.read_all(source, folder)]
    train, test = (Split(images, numbers[:, column]) for images, numbers in files)
    return Dataset("cifar100", classes[column], train, test)


def _records(data: bytes, name: str, classes: tuple[tuple[str, ...], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) and labels (N, label bytes) of one file.  classes: of each label byte"""
    size = len(classes) + _C * _H * _W
    if not data or len(data) % size:
        raise DataError(f"{name}: {len(data):,} bytes are no whole number of records of {size} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    labels, planes = records[:, : len(classes)], records[:, len(classes) :].reshape(-1, _C, _H, _W)
    wrong = labels >= [len(names) for names in classes]
    if wrong.any():
        index, column = np.argwhere(wrong)[0]
        label, largest = labels[index, column], len(classes[column]) - 1
        raise DataError(f"{name}: record {index} has label {label}, expected 0..{largest}")
    return planes.transpose(0, 2, 3, 1).copy(), labels
