"""Tests of minidl/cli/looking.py; tests/inspection and tests/train see bench and warmup at work."""

import re

import pytest
from click.testing import CliRunner

import minidl
import minidl_models
from minidl import cli


def test_summary_shows_layers_and_totals(run):
    text = run("summary", "nin")
    for piece in ("5x5/1/2", "32x32x192", "966,986", "222,486,528"):
        assert piece in text
    assert "BatchNorm2d" in run("summary", "nin", "--set", "batch_norm=true")


def test_models_are_listed_with_variants_costs_years_and_papers(run):
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


def test_listing_models_builds_none(run, monkeypatch):
    monkeypatch.setattr(minidl.Model, "__new__", None)
    assert "inception_v4" in run("models")


def test_models_are_compared_with_the_first(run):
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
def test_models_that_are_not_there_are_refused(run, words, text):
    assert re.search(text, run(*words, fails=True))


def test_comparing_nothing_is_refused():
    result = CliRunner().invoke(cli.main, ["models", "--compare"])
    assert result.exit_code == 2
    assert "--compare needs models" in result.stderr


def test_summary_of_googlenet_has_the_columns_of_its_paper(run):
    lines = run("summary", "googlenet").splitlines()
    titles = next(line for line in lines if line.startswith("type"))
    assert re.split(r"  +", titles) == [
        *("type", "patch/stride", "output", "depth", "#1x1", "#3x3 reduce", "#3x3", "#5x5 reduce", "#5x5"),
        *("pool proj", "weights", "in K", "ops"),
    ]
    module = "28x28x256 2 64 96 128 16 32 32 163,328 159.5K 128.0M"
    assert ["inc3a", *module.split()] in [line.split() for line in lines]
    assert "#5x5" not in run("summary", "nin")
