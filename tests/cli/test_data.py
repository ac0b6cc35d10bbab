"""Tests of minidl/cli/data.py."""

import dataclasses
import hashlib

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import minidl
from minidl import cli
from minidl.data import sources


def test_data_sets_are_listed(run, here):
    text = run("data", "list")
    assert [line.split()[0] for line in text.splitlines()] == [
        *minidl.data.names(),
        "FOLDER",
        "FILE.mat",
        "ROOT",
    ]
    assert text.endswith(f"ROOT is {here / 'no-data'}\n")
    assert run("data", "list", "--data-dir", "elsewhere").endswith("ROOT is elsewhere\n")


def test_embedded_data_needs_no_files(run):
    for command in ("download", "verify"):
        assert run("data", command, "digits") == "digits needs no files\n"


def test_verify_names_the_files_without_a_checksum(run, here, monkeypatch):
    files = (sources.File("train.bin", 3), sources.File("test.bin", 3, hashlib.md5(b"abc").hexdigest()))
    folder = here / "cifar-100-binary"
    folder.mkdir()
    for file in files:
        (folder / file.name).write_bytes(b"abc")
    monkeypatch.setitem(
        sources.SOURCES, "cifar100", dataclasses.replace(sources.SOURCES["cifar100"], files=files)
    )
    *paths, last = run("data", "verify", "cifar100", "--data-dir", here).splitlines()
    assert paths == [str(folder / "train.bin"), str(folder / "test.bin")]
    assert last == "cifar100 is as published (train.bin: size checked; no checksum is published)"


def test_data_show_writes_a_picture(run):
    text = run("data", "show", "digits", "--columns", 4)
    with Image.open("digits.png") as image:
        assert f"digits.png: {image.width} x {image.height} pixels" in text
        assert image.width * 10 == pytest.approx(image.height * 4, rel=0.05)
    assert "row 10: 9" in text
    run("data", "show", "synthetic", "--split", "test", "--out", "other.png")
    with Image.open("other.png") as image:
        assert image.mode == "RGB"


def test_data_show_writes_random_variants(run):
    text = run("data", "show", "digits", "--columns", 4, "--augment", "--out", "a.png")
    assert "row 10: 9" in text
    run("data", "show", "digits", "--columns", 4, "--augment", "crop+flip", "--seed", 0, "--out", "b.png")
    run("data", "show", "digits", "--columns", 4, "--augment", "--seed", 1, "--out", "c.png")
    run("data", "show", "digits", "--columns", 4, "--augment", "random_resized_crop(16)", "--out", "d.png")
    a, b, c, d = (np.asarray(Image.open(f"{name}.png")) for name in "abcd")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    run("data", "show", "digits", "--columns", 4, "--out", "plain.png")
    plain = np.asarray(Image.open("plain.png"))
    assert a.shape == c.shape == plain.shape
    assert np.array_equal(a[:, :34], plain[:, :34])  # the first column holds the images as they are
    assert d.shape == (10 * 33 + 1, 4 * 33 + 1)


def test_data_show_refuses_what_is_no_augmentation(run):
    result = CliRunner().invoke(cli.main, ["data", "show", "digits", "--augment", "mirror"])
    assert result.exit_code == 2
    assert (
        "Invalid value for '--augment': augmentation 'mirror': there is no 'mirror'; the names"
        in result.stderr
    )
    error = run("data", "show", "digits", "--augment", "lighting", fails=True)
    assert error.startswith("Error: lighting: images have 1 channels")
