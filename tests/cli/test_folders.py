"""The command line on folders of images, and on a file of SVHN."""

import json
from pathlib import Path

import numpy as np
import pytest

from minidl.cli.building import load_data
from minidl.data.pictures import write_image


@pytest.fixture
def pictures(here):
    """Two classes of three and two pictures of 40x36 pixels."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            folder = here / "pets" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                write_image(folder / f"{i}.png", rng.integers(0, 256, (40, 36, 3)).astype(np.uint8))
    return here / "pets"


def test_a_folder_is_trained_on_shown_and_tested(run, pictures):
    options = ("--data", "pets", "--image-size", 32, "--epochs", 1, "--batch-size", 3)
    text = run("train", "nin", *options)
    assert "run folder runs/nin-pets" in text
    assert "test on 4 images" in text
    config = json.loads(Path("runs/nin-pets/config.json").read_text())
    assert (config["data"], config["image_size"], config["classes"]) == (str(pictures), 32, ["cat", "dog"])
    assert run("evaluate", "runs/nin-pets") == "\n".join(text.splitlines()[-2:]) + "\n"
    assert run("evaluate", "runs/nin-pets", "--data", "pets") == run("evaluate", "runs/nin-pets")
    assert "row 2: dog" in run("data", "show", "pets", "--image-size", 20)
    assert Path("pets.png").exists()


def test_a_broken_picture_is_refused_by_name_or_skipped(run, pictures):
    broken = pictures / "train" / "cat" / "9.png"
    broken.write_bytes(b"no picture")
    options = ("--data", "pets", "--image-size", 32, "--epochs", 1, "--batch-size", 3)
    assert str(broken) in run("train", "nin", *options, "--out", "r", fails=True)
    with pytest.warns(UserWarning, match="9.png"):
        assert "test on 4 images" in run("train", "nin", *options, "--skip-broken", "--out", "s")


def test_some_images_of_a_folder_are_of_all_its_classes(pictures):
    limited = load_data(str(pictures), None, 2)
    assert limited.train.labels.tolist() == limited.test.labels.tolist() == [0, 1]
    assert load_data(str(pictures), None, 50).train.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_folder_does_not_become_grey(run, pictures):
    options = ("--data", "pets", "--image-size", 28, "--fit-images", "--set", "dataset=mnist")
    assert "read in 3 channels, which --fit-images does not change" in run(
        "train", "nin", *options, "--epochs", 1, fails=True
    )


@pytest.mark.parametrize(("options", "text"), [
    (("--data", "digits", "--image-size", 8), "digits: there is no option 'size' for this data set"),
    (("--data", "no/such"), "no/such"),
    (("--data", "lost.mat"), "lost.mat"),
])  # fmt: skip
def test_data_that_is_not_there(run, here, options, text):
    assert text in run("train", "nin", *options, fails=True)
