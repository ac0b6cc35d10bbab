"""Tests of minidl/train/runfolder.py; tests/cli/test_training.py sees what training writes into one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minidl.errors import CheckpointError
from minidl.train import lock, runfolder
from minidl.train.runfolder import RunFolder

# What config.json of a run that has begun holds, at least.
CONFIG = {
    "model": "nin",
    "data": "digits",
    "arguments": {"batch_norm": True, "pool": "ceil"},
    "seed": 7,
    "device": "cpu",
    "data_dir": None,
    "limit": None,
    "fit_images": False,
    "classes": ["0", "1"],
    "epochs": 2,
    "threads": 2,
    "lr": 0.1,
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_runs_are_numbered():
    assert runfolder.latest("nin-digits").path == Path("runs/nin-digits")
    made = [runfolder.claim(None, "nin-digits").path.name for _ in range(3)]
    assert made == ["nin-digits", "nin-digits-2", "nin-digits-3"]
    assert runfolder.latest("nin-digits").path.name == "nin-digits-3"
    assert runfolder.claim(None, "nin").path.name == "nin"  # other names do not count


def test_a_removed_number_is_not_given_again():
    for _ in range(2):
        last = runfolder.claim(None, "nin-digits")
    Path("runs/nin-digits").rmdir()
    assert runfolder.claim(None, "nin-digits").path.name == "nin-digits-3"
    assert runfolder.latest("nin-digits") != last


def test_runs_that_start_together_get_different_folders():
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: runfolder.claim(None, "nin-digits").path, range(32)))
    assert len(set(paths)) == 32


def test_a_folder_of_ones_own_is_made_or_taken_empty():
    assert runfolder.claim(Path("a/b"), "nin-digits").path.is_dir()
    assert runfolder.claim(Path("a/b"), "nin-digits").path == Path("a/b")
    Path("a/b/note").touch()
    for taken in ("a/b", "a/b/note"):
        with pytest.raises(FileExistsError, match=f"{taken} is in use already; --resume continues"):
            runfolder.claim(Path(taken), "nin-digits")


def test_config_is_written_and_read():
    run = runfolder.claim(None, "nin-digits")
    run.write_config(CONFIG)
    assert run.read_config() == CONFIG
    assert [path.name for path in run.path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "none is not a run folder: it has no config.json"),
        ('{"model": ', r"config\.json is damaged: Expecting value"),
        ("[]", r"config\.json is damaged: it does not hold a table"),
        ('{"model": "nin"}', r"config\.json is damaged: it lacks 'data'"),
        ("[" * 100_000, r"config\.json is damaged: .*recursion"),
    ],
)
def test_a_missing_or_damaged_config_is_named(content, text):
    run = RunFolder(Path("none"))
    if content is not None:
        run = runfolder.claim(Path("none"), "nin-digits")
        run.config.write_text(content)
    with pytest.raises(CheckpointError, match=text):
        run.read_config()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": None}, "'model' is None, it must be text"),
        ({"data": 7}, "'data' is 7, it must be text"),
        ({"arguments": []}, r"'arguments' is \[\], it must be a table"),
        ({"seed": 1.5}, "'seed' is 1.5, it must be a whole number"),
        ({"device": {}}, "'device' is {}, it must be text"),
        ({"data_dir": 3}, "'data_dir' is 3, it must be text or null"),
        ({"limit": "9"}, "'limit' is 9, it must be a whole number or null"),
        ({"fit_images": 1}, "'fit_images' is 1, it must be true or false or null"),
        ({"classes": 5}, "'classes' is 5, it must be a list"),
        ({"classes": ["a", 5]}, "a name in 'classes' is 5, it must be text"),
        ({"epochs": "3"}, "'epochs' is 3, it must be a whole number"),
        ({"threads": True}, "'threads' is True, it must be a whole number"),
        ({"batch_size": "8"}, "'batch_size' is 8, it must be a whole number or null"),
        ({"lr": [1]}, r"'lr' is \[1\], it must be a whole number or a number or null"),
        ({"image_size": "9"}, "'image_size' is 9, it must be a whole number or null"),
        ({"skip_broken": 1}, "'skip_broken' is 1, it must be true or false or null"),
        ({"recipe": 1}, "'recipe' is 1, it must be text or null"),
        ({"override": 1}, "'override' is 1, it must be a table or null"),
        ({"trained_by": None}, "'trained_by' is None, it must be a table"),
        ({"plans": []}, r"'plans' is \[\], it must be a table or null"),
        ({"result": 3}, "'result' is 3, it must be a table or null"),
        ({"result": {}}, "it lacks the result's 'epochs'"),
        (
            {"result": {"epochs": 2, "accuracy": "?"}},
            "the result's 'accuracy' is ?, it must be a whole number",
        ),
    ],
    ids=str,
)
def test_a_config_with_a_value_of_another_type_is_named(change, text):
    run = runfolder.claim(None, "nin-digits")
    run.write_config(CONFIG | change)
    with pytest.raises(CheckpointError, match=rf"config\.json is damaged: {text.replace('?', '[?]')}"):
        run.read_config()


def test_a_run_continues_as_it_began():
    run = runfolder.claim(None, "nin-digits")
    run.write_config(CONFIG)
    asked = {"model": "nin", "arguments": {"pool": "ceil"}, "epochs": 5, "lr": None, "seed": 7}
    assert runfolder.continued(run, asked) == {**CONFIG, "epochs": 5}


@pytest.mark.parametrize(
    "asked",
    [
        {"lr": 0.2},
        {"model": "other"},
        {"arguments": {"pool": "pad1"}},
        {"seed": 0},
    ],
)
def test_a_run_does_not_continue_otherwise(asked):
    run = runfolder.claim(None, "nin-digits")
    run.write_config(CONFIG)
    with pytest.raises(CheckpointError, match=f"began with {next(iter(asked))} = .* and cannot go on with"):
        runfolder.continued(run, asked)


def test_a_run_that_could_not_start_leaves_nothing():
    run = runfolder.claim(None, "nin-digits")
    run.write_config({})
    run.give_up()
    assert not run.path.exists()


def test_a_folder_that_was_there_before_stays():
    Path("mine").mkdir()
    run = runfolder.claim(Path("mine"), "nin-digits")
    run.give_up()
    assert Path("mine").is_dir()


def test_not_a_number_is_not_written():
    run = runfolder.claim(None, "nin-digits")
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_config({**CONFIG, "lr": float("nan")})
    assert not run.config.exists()


def test_a_run_with_a_checkpoint_is_kept():
    run = runfolder.claim(None, "nin-digits")
    run.write_config({})
    run.checkpoint.mkdir()
    run.give_up()
    assert run.config.exists()


def test_a_lock_alone_does_not_make_a_folder_used():
    with lock.held(Path("mine"), print):
        run = RunFolder(Path("mine"))
        assert not run.used()
        run.log.touch()
        assert run.used()


def test_a_run_that_could_not_start_leaves_no_lock_either():
    run = runfolder.claim(None, "nin-digits")
    with lock.held(run.path, print):
        run.write_config({})
        run.give_up()
        assert not run.path.exists()


def test_lines_that_a_killed_run_has_added_are_not_added_again():
    run = runfolder.claim(None, "nin-digits")
    for text in ("epoch 1", "epoch 2", "epoch 2", "a\nb", "a\nb", "epoch 2"):
        run.write_log(text)
    assert run.log.read_text() == "epoch 1\nepoch 2\na\nb\nepoch 2\n"


def test_a_kill_leaves_no_half_line(monkeypatch):
    run = runfolder.claim(None, "nin-digits")
    run.write_log("epoch 1")

    def killed(*_):
        raise SystemExit

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(SystemExit):
        run.write_log("epoch 2")
    assert run.log.read_text() == "epoch 1\n"
