"""What a release rests on: kernels are found wherever they lie, and the files around the code agree.

That a wheel built from the sdist works in a clean environment takes minutes and is seen by .ci/run.
"""

import importlib
import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given

import minidl
from minidl import ops, testing
from minidl.backend.cuda import launch
from minidl.errors import DeviceError
from minidl.ops import activation
from minidl.testing import reference

agreement = importlib.import_module("minidl.testing.agree")  # its package shows the function of that name
ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_kernels_are_found():
    assert launch.kernel_path("port.cuh") == launch.kernel_folder() / "port.cuh"
    assert "#pragma once" in launch.kernel_path("port.cuh").read_text(encoding="utf-8")


def test_unknown_kernel_names_those_there():
    with pytest.raises(DeviceError, match=r"no kernel source 'nought.cu' in .*; there: .*port\.cuh"):
        launch.kernel_path("nought.cu")


def test_an_installed_package_uses_its_own_kernels(tmp_path, monkeypatch):
    (tmp_path / "kernels").mkdir()
    monkeypatch.setattr(launch, "files", lambda package: tmp_path)
    assert launch.kernel_folder() == tmp_path / "kernels"


def test_missing_kernels_say_where_they_were_sought(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "files", lambda package: tmp_path / "package")
    monkeypatch.setattr(launch, "__file__", str(tmp_path / "a" / "b" / "c" / "launch.py"))
    with pytest.raises(DeviceError, match=r"neither .*package.kernels nor .*kernels is a folder"):
        launch.kernel_folder()


def test_kernels_hold_no_python():
    assert list((ROOT / "kernels").rglob("*.py")) == []  # one would break the editable install


def test_the_version_is_one():
    assert minidl.__version__ == PROJECT["project"]["version"]


def test_linters_are_pinned():
    dev = PROJECT["project"]["optional-dependencies"]["dev"]
    pinned = [re.fullmatch(r"([a-z]+)==[0-9.]+", requirement) for requirement in dev]
    assert {match[1] for match in pinned if match} == {"ruff", "mypy", "build"}


@pytest.mark.parametrize(
    "command",
    [
        "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/minidl train nin",
        ".venv/bin/pip install -e '.[test]' && .venv/bin/pytest",
    ],
)
def test_readme_gives_the_commands(command):
    assert command in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


def test_ci_installs_and_tests_as_the_readme_does():
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    assert "/bin/pip\" install --quiet -e '.[test]'\n" in text
    assert text.index("/bin/pytest") < text.index("/bin/ruff") < text.index("-m build")


def test_the_worked_example_of_contributing_works(monkeypatch):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    for block, module in zip(blocks, (activation, reference), strict=False):
        names = dict(vars(module))
        exec(block, names)  # as if it stood in that file
        monkeypatch.setattr(ops if module is activation else module, "silu", names["silu"], raising=False)
    for name, bound in eval(f"{{{blocks[2]}}}", dict(vars(agreement))).items():
        monkeypatch.setitem(agreement.BOUNDS, name, bound)
    names = {"given": given, "ops": ops, **{name: getattr(testing, name) for name in testing.__all__}}
    exec(blocks[3], names)
    names["test_silu"]()
