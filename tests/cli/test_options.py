"""The command line as a whole: its mistakes are one line each, its settings JSON or text."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import minidl
from minidl import cli
from minidl.cli import options


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
def test_mistakes_are_one_line(run, words, text):
    assert re.search(text, run(*words, fails=True))


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
    assert options.settings(None, None, (text,)) == {"a": value}


@pytest.mark.parametrize(("words", "text"), [
    (("train", "nin", "--lr", "inf"), "inf is not a finite number"),
    (("train", "nin", "--set", "pool"), "'pool' is not of the form name=value"),
    (("train", "nin", "--override", "=3"), "'=3' is not of the form name=value"),
])  # fmt: skip
def test_wrong_options_say_what_is_wrong(words, text):
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 2
    assert f"Invalid value for '{words[-2]}': {text}" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("words", [
    ("bench", "nought", "--json"),
    ("warmup", "nought", "--tune"),
    ("data", "show", "nought", "--out"),
    ("evaluate", "nought", "--confusion-csv"),
])  # fmt: skip
def test_a_result_needs_a_folder_before_anything_is_computed(words):
    result = CliRunner().invoke(cli.main, [*words, "nowhere/file"])
    assert result.exit_code == 2
    text = f"Invalid value for '{words[-1]}': there is no folder nowhere; make it first"
    assert text in " ".join(result.stderr.replace("│", " ").split())


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "minidl", "--version"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=Path(minidl.__file__).parents[1])
    assert process.stdout == f"minidl, version {minidl.__version__}\n"
