"""Tests of minidl/cli/training.py. Trainings are a few dozen digits long."""

import hashlib
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

import minidl
from minidl.train import lock, runfolder


def digest(path):
    """Stands for the bytes of a file, short enough to be shown when two differ."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_train_ends_with_the_test_accuracy(finished):
    _, text = finished
    assert re.fullmatch(r"test accuracy [01]\.[0-9]{4}", text.splitlines()[-1])
    assert "test on the first 40 images (--limit)" in text
    assert "epoch 2/2" in text
    assert "learning rate 4e-05 (one cycle: rising, step 0 of " in text
    assert text.count("349,674") == 1  # the layer table, once


def test_a_run_folder_holds_everything(finished):
    folder, text = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors",
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


def test_the_command_repeats_to_the_same_bytes_in_a_new_folder(run, short, finished):
    run(*short)
    run(*short)
    for name in ("nin-digits", "nin-digits-2"):
        assert digest(f"runs/{name}/model.safetensors") == digest(finished[0] / "model.safetensors")


def test_options_reach_the_training(run):
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
def test_training_on_the_emulated_gpu_and_evaluating_on_the_cpu(run, monkeypatch):
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


def test_a_model_without_a_version_for_the_data_gets_its_classes(run):
    run("train", "nin", "--data", "synthetic", "--limit", 10, "--epochs", 1)
    assert minidl.Model.load("runs/nin-synthetic/model.safetensors").config["arguments"]["num_classes"] == 10


def test_a_mistake_leaves_no_folder(run):
    run("train", "nin", "--set", "num_classes=7", fails=True)
    run("train", "nin", "--limit", 1, "--out", "mine", fails=True)
    assert not Path("runs/nin-digits").exists()
    assert not Path("mine").exists()


@pytest.mark.parametrize("error", [RuntimeError, ValueError, TypeError, KeyError])
def test_an_error_before_the_first_checkpoint_leaves_no_folder(run, short, monkeypatch, error):
    def fail(self, run):
        raise error("too wide")

    with monkeypatch.context() as patch:
        patch.setattr(runfolder.LogFile, "begin", fail)
        if error is ValueError:  # a setting that does not fit; anything else is a mistake of minidl
            assert run(*short, "--out", "mine", fails=True) == "Error: too wide"
        else:
            with pytest.raises(error, match="too wide"):
                run(*short, "--out", "mine")
    assert not Path("mine").exists()
    run(*short, "--out", "mine")


def test_an_error_after_a_checkpoint_keeps_the_folder(run, short, monkeypatch):
    def fail(self, run):
        if run.epoch == 2:
            raise RuntimeError("too wide")

    with monkeypatch.context() as patch:
        patch.setattr(runfolder.LogFile, "epoch_end", fail)
        with pytest.raises(RuntimeError, match="too wide"):
            run(*short, "--out", "mine")
    assert "resuming after epoch 2" in run("train", "nin", "--resume", "--out", "mine")


def test_other_threads_than_a_run_began_with_are_told(run, copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "threads": 999}))
    text = run("train", "nin", "--resume", "--epochs", 3, "--out", "run")
    now = minidl.get_num_threads()
    assert f"begun on 999 threads: with {now} the last bits will differ\n" in text


def test_resume_without_a_run_starts_and_says_so(run, short, finished):
    text = run(*short, "--resume", "--out", "mine")
    assert text.startswith("no run in mine to resume: starting from the beginning\n")
    assert digest("mine/model.safetensors") == digest(finished[0] / "model.safetensors")


def test_resume_without_a_checkpoint_starts_and_says_so(run, copied):
    shutil.rmtree(copied / "checkpoint")
    config = json.loads((copied / "config.json").read_text())
    del config["result"]
    (copied / "config.json").write_text(json.dumps(config))
    text = run("train", "nin", "--resume", "--out", "run")
    assert "no checkpoint in run/checkpoint: starting from the beginning\n" in text


def test_resume_of_a_finished_run_prints_the_result(run, finished):
    folder, text = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = run("train", "nin", "--resume", "--out", folder)
    assert again.splitlines() == [f"{folder} is finished: 2 epochs", text.splitlines()[-1]]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_interrupted_run_resumes_to_the_same_bytes(run, short, finished, monkeypatch):
    def interrupt(self, run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runfolder.LogFile, "epoch_end", interrupt)
        text = run(*short, fails=True)
    assert text == "Error: interrupted; go on with minidl train nin --out runs/nin-digits --resume"
    assert "has no final weights: the run is not finished" in run("evaluate", "runs/nin-digits", fails=True)
    text = run("train", "nin", "--resume")  # finds the folder and the settings by itself
    assert "resuming after epoch 1" in text
    assert text.splitlines()[-1] == finished[1].splitlines()[-1]
    assert Path("runs/nin-digits/metrics.csv").read_text().count("\n") == 3
    log = Path("runs/nin-digits/log.txt").read_text()
    assert [log.count(f"epoch {epoch}/2  loss") for epoch in (1, 2)] == [1, 1]
    assert digest("runs/nin-digits/model.safetensors") == digest(finished[0] / "model.safetensors")


def test_ctrl_c_in_the_midst_of_an_epoch_resumes_to_the_same_bytes(run, short, finished, monkeypatch):
    def interrupt(self, run, loss):
        if (run.epoch, run.batch) == (1, 1):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(runfolder.LogFile, "step_end", interrupt)
        text = run(*short, fails=True)
    assert text == "Error: interrupted; go on with minidl train nin --out runs/nin-digits --resume"
    assert Path("runs/nin-digits/checkpoint/epoch-0001-batch-00001.safetensors").exists()
    assert "resuming after epoch 1 and 1 of 2 batches of the next" in run("train", "nin", "--resume")
    for name in ("best.safetensors", "model.safetensors"):
        assert digest(f"runs/nin-digits/{name}") == digest(finished[0] / name)
    assert sorted(os.listdir("runs/nin-digits")) == sorted(os.listdir(finished[0]))


def test_a_folder_in_which_another_run_works_is_refused(run, short, copied):
    config = json.loads((copied / "config.json").read_text())
    del config["result"]
    (copied / "config.json").write_text(json.dumps(config))
    with lock.held(copied, print):
        text = run("train", "nin", "--resume", "--out", "run", fails=True)
    assert text == (
        "Error: run is in use by another fit of this process; wait for it to end, or give another folder"
    )
    with lock.held(Path("new"), print):  # which has begun, and written nothing yet
        assert "new is in use by" in run(*short, "--out", "new", fails=True)
        assert os.listdir("new") == [lock.NAME]
    run("train", "nin", "--resume", "--out", "run")


def test_a_finished_run_resumes_to_more_epochs(run, copied):
    text = run("train", "nin", "--resume", "--epochs", 3, "--out", "run")
    assert "resuming after epoch 2" in text
    assert json.loads((copied / "config.json").read_text())["result"]["epochs"] == 3


def test_a_used_folder_is_refused(run, short, copied):
    text = run(*short, "--out", "run", fails=True)
    assert "run is in use already; --resume continues the run in it" in text


def test_resume_with_other_settings_is_refused(run, copied):
    text = run("train", "nin", "--resume", "--lr", 0.5, "--out", "run", fails=True)
    assert "run began with lr = " in text


def test_a_run_by_the_papers_recipe_says_what_was_used_and_goes_on_by_it(run):
    short = ("train", "nin", "--limit", 40, "--batch-size", 20)
    overridden = ("--override", "dropout=0.25", "--override", "preprocess=none")
    run(*short, "--recipe", "paper", *overridden, "--epochs", 1, "--out", "r")
    config = json.loads(Path("r/config.json").read_text())
    used = config["trained_by"]
    assert (config["recipe"], config["override"]) == ("paper", {"dropout": 0.25, "preprocess": "none"})
    assert (used["optimizer"], used["lr"], used["lr_factors"]["bias"]) == ("sgd", 0.1, 2.0)
    assert (used["dropout"], used["batch_size"], used["epochs"]) == (0.25, 20, 1)
    run("train", "nin", "--epochs", 2, "--out", "r", "--resume")
    assert json.loads(Path("r/config.json").read_text())["trained_by"]["preprocess"] == "none"
    assert len(Path("r/metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(("options", "text"), [
    (("--recipe", "fast"), "recipe is 'fast'; give a minidl.train.Recipe or 'default' or 'paper'"),
    (("--override", "rate=1"), "there is no field 'rate'; the fields are optimizer"),
    (("--override", "optimizer=lion"), "optimizer is 'lion'; it may be adam"),
    (("--override", "augment=spin"), "there is no 'spin'; the names are"),
    (("--override", "preprocess=whiten"), "there is no 'whiten'; the names are gcn"),
    (("--override", "preprocess=zca+gcn"), "'gcn' comes too late"),
    (("--override", "dropout=2"), "dropout is 2, it must be in 0"),
    (("--override", 'lr_factors={"fc9.*": 2}'), "fits the path of no parameter"),
])  # fmt: skip
def test_recipes_that_do_not_exist_leave_no_folder(run, options, text):
    result = run("train", "nin", "--limit", 30, "--epochs", 1, "--out", "r", *options, fails=True)
    assert text in result
    assert not Path("r").exists()
