"""Tests of minidl/cli/using.py: what a finished run is good for."""

import json
import re
import shutil
from pathlib import Path

import click.testing
import numpy as np
import pytest
from PIL import Image

import minidl
import minidl_models
from minidl import cli
from minidl.cli import confusions


def test_evaluate_repeats_the_result(run, finished):
    folder, text = finished
    assert run("evaluate", folder).splitlines() == text.splitlines()[-2:]
    assert "test on 359 images" in run("evaluate", folder, "--limit", 1000, "--batch-size", 100)


def test_evaluate_refuses_data_with_other_classes(run, copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "classes": ["a", "b"]}))
    text = run("evaluate", "run", fails=True)
    assert "run was trained on 2 classes (digits) but digits has 10" in text


ALL = ("--limit", "1000")  # more test images than digits has: the run itself was cut to 40


@pytest.fixture
def two(finished, here) -> list[Path]:
    """The finished run, and one of other weights."""
    other = Path(shutil.copytree(finished[0], here / "other"))
    minidl.manual_seed(7)
    model = minidl.Model.load(finished[0] / "model.safetensors")
    model.reset()
    model.save(other / "model.safetensors")
    return [finished[0], other]


def numbers(result: dict) -> str:
    return f"loss {result['loss']:.4f}, top 5 {result['top5']:.4f}, accuracy {result['accuracy']:.4f}"


def test_evaluate_of_several_ends_with_their_ensemble(run, two):
    models = [minidl.Model.load(folder / "model.safetensors") for folder in two]
    whole = minidl.Ensemble(models).evaluate(minidl.data.digits())
    lines = run("evaluate", *two, *ALL).splitlines()
    assert lines[0] == f"{two[0]}: {numbers(models[0].evaluate(minidl.data.digits()))}"
    assert lines[1] == f"{two[1]}: {numbers(models[1].evaluate(minidl.data.digits()))}"
    assert lines[2] == f"ensemble of 2: {numbers(whole)}"
    assert lines[4] == f"test accuracy {whole['accuracy']:.4f}"


def test_evaluate_takes_runs_model_files_and_checkpoints(run, finished):
    folder, _ = finished
    last = folder / "checkpoint" / "epoch-0002.safetensors"
    expected = run("evaluate", folder)
    assert run("evaluate", folder / "model.safetensors") == expected
    assert run("evaluate", last) == run("evaluate", folder, "--weights", "raw") == expected
    earlier = run("evaluate", folder / "checkpoint" / "epoch-0001.safetensors")
    assert earlier != expected


def test_evaluate_of_a_file_outside_a_run_needs_the_data(run, finished):
    shutil.copy(finished[0] / "model.safetensors", "alone.safetensors")
    text = run("evaluate", "alone.safetensors", fails=True)
    assert "alone.safetensors lies in no run folder, which would name the data set; give --data" in text
    text = run("evaluate", "alone.safetensors", "--data", "digits", *ALL)
    assert text == run("evaluate", finished[0], *ALL)


def test_a_config_of_another_program_beside_a_model_file_is_none_of_ours(run, finished, here):
    expected = run("evaluate", finished[0], *ALL)
    for number, content in enumerate(
        ('{"model_type": "bert"}', "[]", "'model': bert", '"minidl"', "[" * 99999)
    ):
        folder = here / f"{number}" / "files"
        folder.mkdir(parents=True)
        shutil.copy(finished[0] / "model.safetensors", folder)
        for place in (folder, folder.parent):
            (place / "config.json").write_text(content)
        file = folder / "model.safetensors"
        assert run("evaluate", file, "--data", "digits", *ALL) == expected
        assert f"{file} lies in no run folder" in run("evaluate", file, fails=True)


def test_a_folder_below_a_run_is_no_part_of_it_but_checkpoint_is(run, copied, monkeypatch):
    expected = run("evaluate", "run")
    (copied / "kept").mkdir()
    shutil.copy(copied / "model.safetensors", copied / "kept")
    assert "lies in no run folder" in run("evaluate", "run/kept/model.safetensors", fails=True)
    monkeypatch.chdir(copied / "checkpoint")
    assert run("evaluate", "epoch-0002.safetensors") == expected
    assert run("evaluate", "./../checkpoint/epoch-0002.safetensors") == expected


def test_a_damaged_config_of_ours_is_reported(run, copied):
    (copied / "config.json").write_text('{"minidl": "0.1", "model": "nin"}')
    assert "config.json is damaged: it lacks 'data'" in run("evaluate", "run/model.safetensors", fails=True)


def test_a_folder_of_checkpoints_stands_for_its_last(run, copied):
    expected = run("evaluate", "run", *ALL)
    assert run("evaluate", "run/checkpoint", *ALL) == expected  # of a run, which names the data
    shutil.copytree("run/checkpoint", "plain")
    text = run("evaluate", "plain", fails=True)
    assert "plain lies in no run folder, which would name the data set; give --data" in text
    assert run("evaluate", "plain", "--data", "digits", *ALL) == expected
    assert run("evaluate", "plain", "--data", "digits", "--weights", "raw", *ALL) == expected
    text = run("evaluate", "plain", "plain/epoch-0001.safetensors", fails=True)
    assert "plain, plain/epoch-0001.safetensors lie in no run folder" in text
    Path("bare").mkdir()
    assert "bare is not a run folder" in run("evaluate", "bare", fails=True)


def test_the_limit_of_a_run_is_for_its_own_data_alone(run, finished):
    folder, _ = finished
    assert "test on the first 40 images (--limit)" in run("evaluate", folder, "--data", "digits")
    made = run("evaluate", folder, "--data", "synthetic", "--fit-images")
    assert f"test on {len(minidl.data.synthetic().test)} images: " in made


def test_weights_that_are_not_there(run, copied):
    text = run("evaluate", "run", "--weights", "ema", fails=True)
    assert "epoch-0002.safetensors has no moving average of the weights" in text
    text = run("evaluate", "run/model.safetensors", "--weights", "raw", fails=True)
    assert "run/model.safetensors holds the final weights alone, not the raw ones of a run" in text
    shutil.rmtree("run/checkpoint")
    text = run("evaluate", "run", "--weights", "raw", fails=True)
    assert "run has no checkpoint with its raw weights; leave out --weights" in text


def test_an_unfinished_run_is_tested_by_its_last_checkpoint(run, copied):
    expected = run("evaluate", "run")
    (copied / "model.safetensors").unlink()
    text = run("evaluate", "run", fails=True)
    assert (
        "run has no final weights: the run is not finished; minidl train --resume finishes it, --wei" in text
    )
    assert run("evaluate", "run", "--weights", "raw") == expected


def test_the_average_is_taken_where_a_run_keeps_one(run, copied):
    dataset = minidl.data.digits()
    few = minidl.data.Split(dataset.train.images[:40], dataset.train.labels[:40])
    dataset = minidl.data.Dataset("digits", dataset.classes, few, dataset.test)
    model = minidl_models.nin("digits")
    recipe = minidl.train.Recipe(ema_decay=0.5)
    shutil.rmtree("run/checkpoint")
    model.fit(dataset, epochs=1, recipe=recipe, checkpoint="run/checkpoint", validation=None, verbose=False)
    file = "run/checkpoint/epoch-0001.safetensors"
    raw, average = (run("evaluate", file, "--weights", each, *ALL) for each in ("raw", "ema"))
    assert raw != average == run("evaluate", file, *ALL)
    assert f"test accuracy {model.evaluate(dataset)['accuracy']:.4f}" in average


def test_evaluate_refuses_members_of_other_classes(run, two):
    config = json.loads((two[1] / "config.json").read_text())
    classes = [*config["classes"][:9], "nine"]
    (two[1] / "config.json").write_text(json.dumps({**config, "classes": classes, "data": "words"}))
    text = run("evaluate", *two, fails=True)
    assert (
        f"{two[0]} and {two[1]} were trained on other classes: class 9 is '9' (digits) in the first" in text
    )
    assert text.endswith("but 'nine' (words) in the second")
    (two[1] / "config.json").write_text(json.dumps({**config, "classes": ["a"], "data": "words"}))
    text = run("evaluate", *two, fails=True)
    assert f"{two[0]} was trained on 10 classes (digits) but {two[1]} on 1 (words); only models of" in text
    assert text.endswith("only models of the same classes can be averaged")


def test_evaluate_refuses_members_of_other_channels(run, finished):
    minidl_models.nin("cifar10").save("colour.safetensors")
    text = run("evaluate", finished[0], "colour.safetensors", fails=True)
    assert f"{finished[0]} takes images of 1 channels but colour.safetensors of 3; test them one by" in text


def test_crops(run, finished):
    model = minidl.Model.load(finished[0] / "model.safetensors")
    few = minidl.data.digits().test
    expected = model.evaluate(few.images[:9], few.labels[:9], crops=10)
    lines = run("evaluate", finished[0], "--limit", 9, "--crops", 10).splitlines()
    assert lines[0].startswith(f"test on the first 9 images (--limit): loss {expected['loss']:.4f}, top 5 ")
    Image.fromarray(np.full((40, 50), 90, np.uint8)).save("grey.png")  # crops need no --fit-images
    chances = model.predict(np.full((1, 40, 50, 1), 90, np.uint8), crops=10)[0]
    top = run("predict", finished[0], "grey.png", "--crops", 10).splitlines()[0]
    assert top == f"{chances.max():.4f}  {chances.argmax()}"
    Image.new("RGB", (30, 40)).save("colour.png")
    assert "--fit-images" in run("predict", finished[0], "colour.png", "--crops", 10, fails=True)
    assert run("predict", finished[0], "colour.png", "--crops", 10, "--fit-images")


def test_scales(run, finished):
    text = run("evaluate", finished[0], "--scales", "28,32", fails=True)
    assert "scales is (28, 32), but nin takes images of 28x28 alone; use crops=10 or crops=144" in text
    minidl_models.resnet18(num_classes=10, in_channels=1).save("any.safetensors")
    Image.new("L", (40, 50)).save("grey.png")
    model = minidl.Model.load("any.safetensors")
    expected = model.predict(np.zeros((1, 50, 40, 1), np.uint8), scales=(32, 48))[0]
    top = run("predict", "any.safetensors", "grey.png", "--scales", "32,48").splitlines()[0]
    assert top == f"{expected.max():.4f}  {expected.argmax()}"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--crops", "5"), "'5' is not one of '1', '10', '144'"),
        (("--scales", "256,big"), "'256,big' is no list of shorter sides in pixels, such as 256,288"),
        (("--scales", "0"), "'0' is no list of shorter sides"),
        (("--crops", "10", "--scales", "28"), "--crops and --scales exclude each other"),
        (("--weights", "best"), "'best' is not one of 'raw', 'ema'"),
    ],
)
def test_bad_views(finished, options, text):
    result = click.testing.CliRunner().invoke(cli.main, ["evaluate", str(finished[0]), *options])
    assert result.exit_code == 2
    assert text in " ".join(result.stderr.replace("│", " ").split())


def test_confusions(run, finished):
    model = minidl.Model.load(finished[0] / "model.safetensors")
    result = model.evaluate(minidl.data.digits(), confusion=True)
    counts = result["confusion"]
    lines = run(
        "evaluate", finished[0], *ALL, "--confusion", "--confusion-csv", "c.csv", "--per-class"
    ).splitlines()
    assert lines[:2] == run("evaluate", finished[0], *ALL).splitlines()
    assert lines[2:12] == [f"{k}  {accuracy:.4f}" for k, accuracy in enumerate(result["per_class"])]
    assert [row.split() for row in lines[14:24]] == [[f"{k}", *map(str, row)] for k, row in enumerate(counts)]
    wrong = sorted((counts - np.diag(counts.diagonal())).ravel(), reverse=True)
    named = [re.fullmatch(r"  (.) taken for (.): (\d+), [0-9.]+% of its images", line) for line in lines[25:]]
    assert [int(match[3]) for match in named] == [count for count in wrong[:5] if count]
    assert all(counts[int(match[1]), int(match[2])] == int(match[3]) for match in named)
    rows = Path("c.csv").read_text().splitlines()
    assert rows == [
        "true class,0,1,2,3,4,5,6,7,8,9",
        *(",".join(map(str, (k, *row))) for k, row in enumerate(counts)),
    ]


def test_many_classes_get_no_table(capsys):
    counts = np.zeros((21, 21), int)
    counts[3, 20] = 2
    counts[3, 3] = 6
    confusions.echo(counts, [f"class {k}" for k in range(21)])
    assert capsys.readouterr().out.splitlines() == [
        "most frequent confusions:",
        "  class 3 taken for class 20: 2, 25.0% of its images",
    ]
    confusions.echo_per_class(np.array([np.nan, 0.5]), ["none", "a"])
    assert capsys.readouterr().out.splitlines() == ["none  no images", "a     0.5000"]


def test_no_confusions_are_told(capsys):
    confusions.echo(np.diag(np.arange(21)), [f"class {k}" for k in range(21)])
    assert capsys.readouterr().out == "no confusions\n"


def test_a_write_that_fails_leaves_the_old_confusions(monkeypatch):
    Path("c.csv").write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(
        OSError, match=r"c\.csv cannot be written \(No space left on device\), and the old file"
    ):
        confusions.write(Path("c.csv"), np.eye(2, dtype=int), ["a", "b"])
    assert [path.name for path in Path().iterdir()] == ["c.csv"]
    assert Path("c.csv").read_text() == "old"


def test_predict_prints_the_top_classes(run, finished):
    Image.fromarray(minidl.data.digits().test.images[0, :, :, 0]).save("digit.png")
    lines = run("predict", finished[0], "digit.png").splitlines()
    assert len(lines) == 5
    assert all(re.fullmatch(r"[01]\.[0-9]{4}  [0-9]", line) for line in lines)
    chances = [float(line.split()[0]) for line in lines]
    assert chances == sorted(chances, reverse=True)
    both = run("predict", finished[0], "digit.png", "digit.png").splitlines()
    assert both == ["digit.png", *lines, "digit.png", *lines]


def test_predict_names_fit_images_for_an_image_that_does_not_fit(run, finished):
    Image.new("RGB", (30, 40)).save("colour.png")
    text = run("predict", finished[0], "colour.png", fails=True)
    assert "colour.png: images are 40x30x3 but the model takes 28x28x1; --fit-images resizes them" in text
    assert len(run("predict", finished[0], "colour.png", "--fit-images").splitlines()) == 5


def test_predict_names_a_file_that_is_no_image(run, finished):
    Path("text.png").write_text("text")
    assert "text.png cannot be read as an image" in run("predict", finished[0], "text.png", fails=True)


def test_fit_images_lasts_beyond_training(run):
    run(
        "train",
        "nin",
        "--set",
        "dataset=cifar10",
        "--fit-images",
        "--limit",
        10,
        "--epochs",
        1,
        "--out",
        "wide",
    )
    Image.new("L", (50, 20)).save("grey.png")
    assert len(run("predict", "wide", "grey.png").splitlines()) == 5
    assert "test accuracy" in run("evaluate", "wide")
    assert minidl.Model.load("wide/model.safetensors").preprocess["resize"] == [32, 32]
    assert "resize" not in minidl_models.nin().preprocess  # the model's table is as it was
