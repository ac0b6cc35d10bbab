"""Tests of minidl/cli.py: what a user types and reads. Trainings are a few dozen digits long."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import minidl
import minidl_models
from minidl import cli
from minidl.train import runfolder

SHORT = ("train", "nin", "--limit", "40", "--epochs", "2")


def run(*words, fails=False):
    """What `minidl WORDS` prints to stdout; of one that fails (exit code 1), the error on the last line."""
    result = CliRunner().invoke(cli.main, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == int(fails), result.output
    if not fails:
        return result.stdout
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    return error


def digest(path):
    """Stands for the bytes of a file, short enough to be shown when two differ."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "no-data"))
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run, trained once."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    text = run(*SHORT, "--out", folder)
    return folder, text


@pytest.fixture
def copied(finished, here):
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished[0], here / "run"))


# --- train ---


def test_train_ends_with_the_test_accuracy(finished):
    _, text = finished
    assert re.fullmatch(r"test accuracy [01]\.[0-9]{4}", text.splitlines()[-1])
    assert "test on the first 40 images (--limit)" in text
    assert "epoch 2/2" in text
    assert text.count("349,674") == 1  # the layer table, once


def test_a_run_folder_holds_everything(finished):
    folder, text = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint",
        "config.json",
        "log.txt",
        "metrics.csv",
        "model.safetensors",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert (config["model"], config["data"], config["epochs"], config["limit"]) == ("nin", "digits", 2, 40)
    assert config["classes"] == list("0123456789")
    assert None not in [config[key] for key in ("lr", "batch_size", "seed", "device")]
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert rows[0].startswith("epoch,loss,accuracy,val_loss,val_accuracy,seconds")
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2"]
    log = (folder / "log.txt").read_text()
    assert log.endswith(text.splitlines()[-1] + "\n")
    assert "349,674" in log
    assert "epoch 2/2  loss " in log


def test_the_command_repeats_to_the_same_bytes_in_a_new_folder(finished):
    run(*SHORT)
    run(*SHORT)
    for name in ("nin-digits", "nin-digits-2"):
        assert digest(f"runs/{name}/model.safetensors") == digest(finished[0] / "model.safetensors")


def test_options_reach_the_training():
    run(
        "train",
        "nin",
        "--limit",
        30,
        "--epochs",
        1,
        "--batch-size",
        8,
        "--lr",
        0.01,
        "--seed",
        7,
        "--device",
        "cpu",
        "--set",
        "batch_norm=true",
        "--set",
        "pool=ceil",
        "--out",
        "mine",
    )
    config = json.loads(Path("mine/config.json").read_text())
    settings = {"batch_norm": True, "pool": "ceil"}
    expected = {"batch_size": 8, "lr": 0.01, "seed": 7, "device": "cpu", "arguments": settings}
    assert {key: config[key] for key in expected} == expected
    arguments = minidl.Model.load("mine/model.safetensors").config["arguments"]
    assert arguments == {"dataset": "digits", **settings}


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator builds kernels with g++")
def test_training_on_the_emulated_gpu_and_evaluating_on_the_cpu(monkeypatch):
    monkeypatch.setattr(
        "minidl.backend._default_device", "cpu"
    )  # which --device changes: restored afterwards
    words = ("train", "nin", "--limit", 8, "--batch-size", 4, "--epochs", 1)
    epochs = []
    for device in ("cudasim", "cpu"):
        run(*words, "--device", device, "--out", device)
        epochs.append(Path(device, "metrics.csv").read_text().splitlines()[1].split(",")[:4])
    assert [float(x) for x in epochs[0]] == pytest.approx([float(x) for x in epochs[1]], rel=1e-3)
    assert "accuracy" in run("evaluate", "cudasim", "--device", "cpu")


def test_a_model_without_a_version_for_the_data_gets_its_classes():
    run("train", "nin", "--data", "synthetic", "--limit", 10, "--epochs", 1)
    assert minidl.Model.load("runs/nin-synthetic/model.safetensors").config["arguments"]["num_classes"] == 10


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("train", "nought"), "no model 'nought'; the models are .*nin"),
        (("train", "nin", "--set", "colour=1"), "takes no argument 'colour'; .*batch_norm"),
        (("train", "nin", "--set", "pool=no"), "pool is 'no'; it may be"),
        (
            ("train", "nin", "--set", "num_classes=7"),
            "the data has 10 classes, but the model's num_classes is 7",
        ),
        (("train", "nin", "--data", "nought"), "no data set 'nought'; the data sets are .*digits"),
        (("train", "nin", "--device", "nought"), "device 'nought' is not available"),
        (("train", "nin", "--device", "cuda:99"), "device 'cuda:99' is not available: CuPy"),
        (("train", "nin", "--limit", "1"), "1 training images"),
        (("train", "nin", "--set", "dataset=cifar10"), "are 8x8x1 but the model takes 32x32x3; --fit-images"),
        (("train", "nin", "--limit", "40", "--lr", "1e30"), "the loss is (nan|inf)"),
        (("summary", "nought"), "no model 'nought'"),
        (("evaluate", "nought"), "nought is not a run folder"),
        (("predict", "nought", "image.png"), "nought is not a run folder"),
        (("data", "verify", "nought"), "no data set 'nought'"),
        (("data", "verify", "mnist"), "mnist"),
    ],
)
def test_mistakes_are_one_line(words, text):
    assert re.search(text, run(*words, fails=True))


def test_a_mistake_leaves_no_folder():
    run("train", "nin", "--set", "num_classes=7", fails=True)
    run("train", "nin", "--limit", 1, "--out", "mine", fails=True)
    assert not Path("runs/nin-digits").exists()
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--lr", "nan"),
        ("--lr", "0"),
        ("--epochs", "0"),
        ("--batch-size", "0"),
        ("--limit", "0"),
        ("--seed", "-1"),
        ("--set", "x"),
    ],
)
def test_wrong_options_are_refused(option, value):
    result = CliRunner().invoke(cli.main, ["train", "nin", option, value])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=true", True),
        ("a=False", False),
        ("a=none", None),
        ("a=3", 3),
        ("a=1e-3", 1e-3),
        ("a=ceil", "ceil"),
        ("a=v1.5", "v1.5"),
        ("a=[1, 2]", [1, 2]),
        ("a=b=c", "b=c"),
        ("a=", ""),
    ],
)
def test_settings_are_read_as_json_or_text(text, value):
    assert cli._settings(None, None, (text,)) == {"a": value}


# --- resume ---


def test_resume_without_a_run_starts_and_says_so(finished):
    text = run(*SHORT, "--resume", "--out", "mine")
    assert text.startswith("no run in mine to resume: starting from the beginning\n")
    assert digest("mine/model.safetensors") == digest(finished[0] / "model.safetensors")


def test_resume_without_a_checkpoint_starts_and_says_so(copied):
    shutil.rmtree(copied / "checkpoint")
    config = json.loads((copied / "config.json").read_text())
    del config["result"]
    (copied / "config.json").write_text(json.dumps(config))
    text = run("train", "nin", "--resume", "--out", "run")
    assert "no checkpoint in run/checkpoint: starting from the beginning\n" in text


def test_resume_of_a_finished_run_prints_the_result(finished):
    folder, text = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = run("train", "nin", "--resume", "--out", folder)
    assert again.splitlines() == [f"{folder} is finished: 2 epochs", text.splitlines()[-1]]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_interrupted_run_resumes_to_the_same_bytes(finished, monkeypatch):
    def interrupt(self, run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runfolder.LogFile, "epoch_end", interrupt)
        text = run(*SHORT, fails=True)
    assert text == "Error: interrupted; go on with minidl train nin --out runs/nin-digits --resume"
    assert "has no final weights: the run is not finished" in run("evaluate", "runs/nin-digits", fails=True)
    text = run("train", "nin", "--resume")  # finds the folder and the settings by itself
    assert "resuming after epoch 1" in text
    assert text.splitlines()[-1] == finished[1].splitlines()[-1]
    assert Path("runs/nin-digits/metrics.csv").read_text().count("\n") == 3
    log = Path("runs/nin-digits/log.txt").read_text()
    assert [log.count(f"epoch {epoch}/2  loss") for epoch in (1, 2)] == [1, 1]
    assert digest("runs/nin-digits/model.safetensors") == digest(finished[0] / "model.safetensors")


def test_a_finished_run_resumes_to_more_epochs(copied):
    text = run("train", "nin", "--resume", "--epochs", 3, "--out", "run")
    assert "resuming after epoch 2" in text
    assert json.loads((copied / "config.json").read_text())["result"]["epochs"] == 3


def test_a_used_folder_is_refused(copied):
    text = run(*SHORT, "--out", "run", fails=True)
    assert "run is in use already; --resume continues the run in it" in text


def test_resume_with_other_settings_is_refused(copied):
    text = run("train", "nin", "--resume", "--lr", 0.5, "--out", "run", fails=True)
    assert "run began with lr = " in text


# --- evaluate and predict ---


def test_evaluate_repeats_the_result(finished):
    folder, text = finished
    assert run("evaluate", folder).splitlines() == text.splitlines()[-2:]
    assert "test on 359 images" in run("evaluate", folder, "--limit", 1000, "--batch-size", 100)


def test_evaluate_refuses_data_with_other_classes(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "classes": ["a", "b"]}))
    text = run("evaluate", "run", fails=True)
    assert "run was trained on 2 classes (digits) but digits has 10" in text


def test_predict_prints_the_top_classes(finished):
    Image.fromarray(minidl.data.digits().test.images[0, :, :, 0]).save("digit.png")
    lines = run("predict", finished[0], "digit.png").splitlines()
    assert len(lines) == 5
    assert all(re.fullmatch(r"[01]\.[0-9]{4}  [0-9]", line) for line in lines)
    chances = [float(line.split()[0]) for line in lines]
    assert chances == sorted(chances, reverse=True)
    both = run("predict", finished[0], "digit.png", "digit.png").splitlines()
    assert both == ["digit.png", *lines, "digit.png", *lines]


def test_predict_names_fit_images_for_an_image_that_does_not_fit(finished):
    Image.new("RGB", (30, 40)).save("colour.png")
    text = run("predict", finished[0], "colour.png", fails=True)
    assert "colour.png: images are 40x30x3 but the model takes 28x28x1; --fit-images resizes them" in text
    assert len(run("predict", finished[0], "colour.png", "--fit-images").splitlines()) == 5


def test_predict_names_a_file_that_is_no_image(finished):
    Path("text.png").write_text("text")
    assert "text.png cannot be read as an image" in run("predict", finished[0], "text.png", fails=True)


def test_fit_images_lasts_beyond_training():
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


# --- looking things up ---


def test_summary_shows_layers_and_totals():
    text = run("summary", "nin")
    for piece in ("5x5/1/2", "32x32x192", "966,986", "222,486,528"):
        assert piece in text
    assert "BatchNorm2d" in run("summary", "nin", "--set", "batch_norm=true")


def test_models_are_listed_with_variants_costs_years_and_papers():
    text = run("models")
    row = r"^nin +cifar10 +966,986 +222,486,528  2013  Lin et al\. 2013, arXiv:1312\.4400$"
    assert re.search(row, text, flags=re.MULTILINE)
    listed = [tuple(line.split()[:2]) for line in text.splitlines()[1:]]
    entries = {name: minidl_models.entry(name) for name in minidl_models.names()}
    assert listed == [(name, label) for name, entry in entries.items() for label in entry.variants]
    assert [line.split()[0] for line in run("models", "resnet18", "nin:svhn").splitlines()] == [
        "model",
        *["resnet18"] * 3,
        "nin",
    ]


def test_listing_models_builds_none(monkeypatch):
    monkeypatch.setattr(minidl.Model, "__new__", None)
    assert "inception_v4" in run("models")


def test_models_are_compared_with_the_first():
    lines = run("models", "--compare", "alexnet", "googlenet", "inception_v4:paper").splitlines()
    assert lines[0].split() == ["alexnet", "googlenet", "inception_v4"]
    assert lines[1].split() == ["variant", "paper", "paper", "paper"]
    assert lines[5].split() == ["parameters", "60,965,224", "6,998,552", "42,679,816"]
    assert lines[6].split()[-3:] == ["1.0", "1/8.7", "1/1.4"]
    assert lines[8].split()[-3:] == ["1.0", "2.2", "16.9"]
    assert "none of these counts gives 12" in lines[-1]
    assert "12" not in run("models", "--compare", "googlenet", "nin").splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("models", "lenet"), "there is no model 'lenet'; the models are .*nin"),
        (("models", "--compare", "nin:imagenet"), "nin has no variant 'imagenet'; its variants are cifar10"),
    ],
)
def test_models_that_are_not_there_are_refused(words, text):
    assert re.search(text, run(*words, fails=True))


def test_comparing_nothing_is_refused():
    result = CliRunner().invoke(cli.main, ["models", "--compare"])
    assert result.exit_code == 2
    assert "--compare needs models" in result.stderr


def test_summary_of_googlenet_has_the_columns_of_its_paper():
    lines = run("summary", "googlenet").splitlines()
    titles = next(line for line in lines if line.startswith("type"))
    assert re.split(r"  +", titles) == [
        *("type", "patch/stride", "output", "depth", "#1x1", "#3x3 reduce", "#3x3", "#5x5 reduce", "#5x5"),
        *("pool proj", "weights", "in K", "ops"),
    ]
    module = "28x28x256 2 64 96 128 16 32 32 163,328 159.5K 128.0M"
    assert ["inc3a", *module.split()] in [line.split() for line in lines]
    assert "#5x5" not in run("summary", "nin")


def test_data_sets_are_listed(here):
    text = run("data", "list")
    assert [line.split()[0] for line in text.splitlines()] == [*minidl.data.names(), "ROOT"]
    assert text.endswith(f"ROOT is {here / 'no-data'}\n")
    assert run("data", "list", "--data-dir", "elsewhere").endswith("ROOT is elsewhere\n")


def test_embedded_data_needs_no_files():
    for command in ("download", "verify"):
        assert run("data", command, "digits") == "digits needs no files\n"


def test_data_show_writes_a_picture():
    text = run("data", "show", "digits", "--columns", 4)
    with Image.open("digits.png") as image:
        assert f"digits.png: {image.width} x {image.height} pixels" in text
        assert image.width * 10 == pytest.approx(image.height * 4, rel=0.05)
    assert "row 10: 9" in text
    run("data", "show", "synthetic", "--split", "test", "--out", "other.png")
    with Image.open("other.png") as image:
        assert image.mode == "RGB"


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "minidl", "--version"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=Path(minidl.__file__).parents[1])
    assert process.stdout == f"minidl, version {minidl.__version__}\n"
