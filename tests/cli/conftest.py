"""What the tests of the command line share: how a command is run, and a run that is finished."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from minidl import cli

SHORT = ("train", "nin", "--limit", "40", "--epochs", "2")


def _run(*words, fails=False):
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


@pytest.fixture(scope="session")
def run():
    """A function: the words of a command, fails=False -> what it prints, or the error on its last line."""
    return _run


@pytest.fixture(scope="session")
def short():
    """The words of the training that `finished` did."""
    return SHORT


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "no-data"))
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run, trained once."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    text = _run(*SHORT, "--out", folder)
    return folder, text


@pytest.fixture
def copied(finished, here):
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished[0], here / "run"))
