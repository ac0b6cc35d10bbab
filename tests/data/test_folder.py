"""Image folders: what they hold, what may be wrong with them, and that pictures wait for their batch."""

import json
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidl import data
from minidl.data import ImageFiles, Loader, folder, image_folder
from minidl.errors import DataError, ShapeError

Make = Callable[..., Path]


def colour(name: str) -> int:
    """The one shade of the picture of that name."""
    return sum(name.encode()) % 256


def write(path: Path, shape: tuple[int, int] = (8, 10)) -> None:
    """A picture of one shade, told by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", shape[::-1], (colour(path.name),) * 3).save(path)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that writes pictures and returns the folder, by default one of two classes."""

    def make(*files: str, shape: tuple[int, int] = (8, 10)) -> Path:
        usual = ("train/cat/b.png", "train/cat/a.png", "train/ant/c.bmp", "val/ant/d.png", "val/cat/e.jpg")
        for file in files or usual:
            write(tmp_path / "pets" / file, shape)
        return tmp_path / "pets"

    return make


def shades(split: data.Split) -> list[int]:
    return [int(image[4, 4, 0]) for image, _ in split]


def test_classes_are_folders_and_everything_is_sorted(make):
    dataset = image_folder(make())
    assert (dataset.name, dataset.classes, dataset.image_shape) == ("pets", ("ant", "cat"), (8, 10, 3))
    assert shades(dataset.train) == [colour(name) for name in ("c.bmp", "a.png", "b.png")]
    assert dataset.train.labels.tolist() == [0, 1, 1]
    assert dataset.test.labels.tolist() == [0, 1]
    assert isinstance(dataset.train.images, ImageFiles)
    assert dataset.train.images.files == ["ant/c.bmp", "cat/a.png", "cat/b.png"]
    assert dataset.train.images.skipped == []
    assert repr(dataset.train) == "Split(3 images of 8x10x3 uint8)"


def test_files_are_told_by_their_suffix_in_any_case_and_at_any_depth(make):
    root = make()
    for name in ("A.JPEG", "B.Png", "in/side/C.bmp", ".hidden.png", ".cache/d.png"):
        write(root / "train/cat" / name)
    (root / "train/cat/notes.txt").write_text("no picture")
    (root / "train/.DS_Store").write_text("no class")
    (root / "train/.cache").mkdir()
    files = image_folder(root).train.images.files
    expected = ["A.JPEG", "B.Png", "a.png", "b.png", "in/side/C.bmp"]
    assert files == ["ant/c.bmp", *(f"cat/{name}" for name in expected)]


def test_links_to_files_and_classes_are_followed_but_no_loops(make, tmp_path):
    root = make()
    write(tmp_path / "elsewhere/f.png")
    (root / "train/cat/link.png").symlink_to(tmp_path / "elsewhere/f.png")
    (root / "train/fox").symlink_to(tmp_path / "elsewhere")
    (root / "train/up").symlink_to(root)
    (root / "train/self").symlink_to(root / "train/self")
    (root / "train/cat/loop").symlink_to(root / "train/cat")
    dataset = image_folder(root)
    assert dataset.classes == ("ant", "cat", "fox")
    assert dataset.train.images.files == ["ant/c.bmp", "cat/a.png", "cat/b.png", "cat/link.png", "fox/f.png"]


def test_classes_json_gives_readable_names(make):
    root = make()
    table = {"cat": "house cat", "ant": "army ant", "bee": "not here"}
    (root / "classes.json").write_text(json.dumps(table))
    assert image_folder(root).classes == ("army ant", "house cat")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"classes\.json cannot be read as JSON: ."),
        ("\xff", r"classes\.json cannot be read as JSON: ."),
        ("[" * 100_000, r"classes\.json cannot be read as JSON: ."),
        ('["ant", "cat"]', r"classes\.json must map the folders of classes to their names"),
        ('{"ant": 1, "cat": 2}', r"classes\.json must map the folders of classes"),
        ('{"ant": "ant"}', r"has no name for the class folder 'cat'; add it or remove the file"),
        ('{"ant": "pet", "cat": "pet"}', r"calls 'ant' and 'cat' both 'pet'; names must differ"),
    ],
)
def test_a_classes_json_that_does_not_fit_is_refused(make, text, message):
    root = make()
    (root / "classes.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        image_folder(root)


@pytest.mark.parametrize("name", ["val", "valid", "test"])
def test_the_test_split_has_several_usual_names(make, name):
    root = make("train/cat/a.png", f"{name}/cat/b.png")
    assert shades(image_folder(root).test) == [colour("b.png")]


def test_val_goes_before_valid_and_valid_before_test(make):
    root = make("train/cat/a.png", "test/cat/t.png", "valid/cat/v.png")
    assert shades(image_folder(root).test) == [colour("v.png")]
    write(root / "val/cat/w.png")
    assert shades(image_folder(root).test) == [colour("w.png")]
    assert shades(image_folder(root, train="valid", val="test").train) == [colour("v.png")]
    assert shades(image_folder(root, train="valid", val="test").test) == [colour("t.png")]


def test_a_class_may_be_missing_from_val(make):
    dataset = image_folder(make("train/ant/a.png", "train/cat/b.png", "val/cat/c.png"))
    assert dataset.test.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("files", "options", "text"),
    [
        (
            ["a/b.png"],
            {},
            r"pets has no folder train \(its folders: a\); images are expected in train/CLASS/ ",
        ),
        (["a.png"], {}, r"pets has no folder train \(its folders: none\)"),
        (
            ["train/cat/a.png"],
            {},
            r"has no folder val or valid or test \(its folders: train\).*val=\.\.\. tells",
        ),
        (
            ["train/cat/a.png", "test/cat/a.png"],
            {"val": "dev"},
            r"pets has no folder dev \(its folders: test, t",
        ),
        (["train/a.png", "val/cat/a.png"], {}, "train holds no folders; it needs one for each class"),
        (
            ["train/cat/a.gif", "val/cat/a.png"],
            {},
            r"train.cat holds no images \(\.jpg, \.jpeg, \.png, \.bmp\); r",
        ),
        (["train/cat/a.png", "val/cat/a.gif"], {}, "val.cat holds no images"),
        (["train/cat/a.png", "val/dog/a.png"], {}, r"val.dog: .*train has no class 'dog'; remove the folder"),
        (["train/cat/a.png"], {"val": "train"}, r"one folder; test images must not be trained on"),
    ],
)
def test_folders_that_make_no_data_set_are_refused(make, files, options, text):
    with pytest.raises(DataError, match=text):
        image_folder(make(*files), **options)


def test_a_path_that_is_no_folder_is_refused(make):
    root = make()
    with pytest.raises(DataError, match=r"none: there is no such folder"):
        image_folder(root / "none")
    with pytest.raises(DataError, match=r"c\.bmp is not a folder"):
        image_folder(root / "train/ant/c.bmp")


def test_a_folder_that_may_not_be_listed_is_named(make, monkeypatch):
    root, scandir = make(), os.scandir

    def refuse(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cat cannot be listed: Permission denied"):
        image_folder(root)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, r"size is 0; give a positive integer, \(H, W\), or None"),
        ({"size": 2.5}, r"size is 2\.5; give"),
        ({"size": "64"}, "size is '64'; give"),
        ({"size": (8, 8, 3)}, r"size is \(8, 8, 3\); give"),
        ({"size": (8, -1)}, r"size is \(8, -1\); give"),
        ({"errors": "ignore"}, "errors is 'ignore'; give 'raise' or 'skip'"),
        ({"channels": 4}, "channels is 4; give 3, or 1 for grey"),
    ],
)
def test_wrong_options_are_refused(make, options, text):
    with pytest.raises(ValueError, match=f"image_folder: {text}"):
        image_folder(make(), **options)


@pytest.mark.parametrize(
    ("size", "shape"), [(6, (6, 6, 3)), (np.int64(6), (6, 6, 3)), ((4, 9), (4, 9, 3)), ([12, 5], (12, 5, 3))]
)
def test_pictures_of_all_sizes_become_one(make, size, shape):
    root = make()
    write(root / "train/cat/large.png", (31, 17))
    write(root / "val/cat/small.png", (2, 3))
    dataset = image_folder(root, size=size)
    assert dataset.image_shape == shape
    for split in (dataset.train, dataset.test):
        images = np.asarray(split.images)
        assert images.shape == (len(split), *shape)
        assert np.ptp(images, axis=(1, 2, 3)).max() == 0
    assert colour("large.png") in shades(image_folder(root, size=6).train)


def test_pictures_of_the_size_asked_for_stay_as_they_are(make):
    root = make()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    Image.fromarray(pixels).save(root / "train/ant/c.bmp")
    for size in (None, (8, 10)):
        assert np.array_equal(image_folder(root, size=size).train.images[0], pixels)


def test_without_a_size_another_one_is_refused_where_it_is_read(make):
    root = make()
    write(root / "train/cat/odd.png", (9, 10))
    dataset = image_folder(root)
    batches = iter(Loader(dataset.train, batch_size=3))
    assert len(next(batches)[1]) == 3
    with pytest.raises(
        ShapeError, match=r"odd\.png has 9x10 pixels, but the first image of the data set 8x10; "
    ):
        next(batches)
    with pytest.raises(
        ShapeError, match=r"odd\.png has 9x10.*image_folder\(\.\.\., size=8\) or size=\(H, W\)"
    ):
        image_folder(root, errors="skip")


def test_grey(make):
    root = make()
    Image.new("L", (10, 8), 7).save(root / "train/ant/c.bmp")
    assert image_folder(root).image_shape == (8, 10, 3)
    dataset = image_folder(root, channels=1)
    assert dataset.image_shape == (8, 10, 1)
    assert shades(dataset.train) == [7, colour("a.png"), colour("b.png")]
    assert image_folder(root, channels=1, size=5).image_shape == (5, 5, 1)


def test_a_broken_picture_is_named_at_its_batch(make):
    root = make()
    (root / "train/cat/b.png").write_bytes(b"no picture")
    dataset = image_folder(root)
    for workers in (1, 2):
        batches = iter(Loader(dataset.train, batch_size=1, workers=workers))
        assert [next(batches)[1].item() for _ in range(2)] == [0, 1]
        with pytest.raises(
            DataError, match=r"cat.b\.png cannot be read as an image: it is no JPEG"
        ) as caught:
            next(batches)
        assert caught.value.__notes__ == ["while the loader prepared batch 2"]
    (root / "train/ant/c.bmp").unlink()
    with pytest.raises(DataError, match=r"ant.c\.bmp: there is no such file"):
        dataset.train.images[:1].take([0])


def test_broken_pictures_are_left_out_and_reported(make):
    root = make()
    for name in "fghi":
        write(root / f"train/cat/{name}.png")
        (root / f"train/cat/{name}.png").write_bytes(b"no picture")
    (root / "train/ant/c.bmp").write_bytes(b"BM")
    (root / "val/ant/d.png").write_bytes(b"")
    with pytest.warns(
        UserWarning, match=r"6 of 9 images in .*pets are left out: .*c\.bmp cannot be read as "
    ) as seen:
        dataset = image_folder(root, errors="skip")
    assert seen[0].filename == __file__
    assert str(seen[0].message).endswith(
        "; and 3 more (all are listed in train.images.skipped and test.images.skipped)"
    )
    assert dataset.train.images.files == ["cat/a.png", "cat/b.png"]
    assert dataset.train.labels.tolist() == [1, 1]
    assert shades(dataset.train) == [colour("a.png"), colour("b.png")]
    path, reason = dataset.train.images.skipped[1]
    assert path == str(root / "train/cat/f.png")
    assert reason == "cannot be read as an image: it is no JPEG, PNG or BMP; convert it to one"
    assert len(dataset.train.images.skipped) == 5
    assert dataset.test.labels.tolist() == [1]
    with pytest.raises(DataError, match=r"ant.c\.bmp cannot be read"):
        image_folder(root)


def test_a_split_of_which_no_picture_can_be_read_is_refused(make):
    root = make()
    for file in root.glob("val/*/*"):
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"val: no image can be read; .*d\.png cannot be read as an image"):
        image_folder(root, errors="skip", size=5)
    for file in root.glob("train/*/*"):
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="train: none of the 3 files in it can be read as an image"):
        image_folder(root, errors="skip")


def test_a_clean_folder_is_checked_without_a_word(make):
    assert image_folder(make(), errors="skip").train.images.skipped == []


def test_pictures_are_read_when_they_are_asked_for_and_by_the_loaders_threads(make, monkeypatch):
    root, read = make(), []
    decode = folder.decode

    def watched(path, **options):
        read.append((path.name, threading.current_thread().name))
        return decode(path, **options)

    monkeypatch.setattr(folder, "decode", watched)
    dataset = image_folder(root, size=8)
    assert read == []
    assert len(dataset.train.images[1:]) == 2
    assert read == []
    list(Loader(dataset.train, batch_size=2))
    assert read == [(name, "minidl-loader") for name in ("c.bmp", "a.png", "b.png")]


def test_memory_does_not_grow_with_the_number_of_pictures(make):
    root = make(*(f"train/cat/{number}.png" for number in range(60)), "val/cat/a.png", shape=(64, 64))
    dataset = image_folder(root)
    next(iter(Loader(dataset.train, batch_size=4)))  # imports
    tracemalloc.start()
    for _ in Loader(dataset.train, batch_size=4, shuffle=True, workers=2):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    batch = 4 * 64 * 64 * 3
    assert peak < 8 * batch < 60 * 64 * 64 * 3


def test_a_path_is_a_data_sets_name(make, monkeypatch):
    root = make()
    assert data.load(str(root)).classes == ("ant", "cat")
    monkeypatch.chdir(root.parent)
    assert data.load("pets").name == data.load("./pets").name == "pets"
    monkeypatch.chdir(root)
    assert image_folder(".").name == "pets"
    (root / "digits").mkdir()
    assert data.load("digits").num_classes == 10  # the names of data sets go first
    with pytest.raises(DataError, match="pets/none: there is no such folder"):
        data.load(str(root / "none"))
    with pytest.raises(DataError, match=r"no data set 'pats'.*or give the path of a folder of images"):
        data.load("pats")
