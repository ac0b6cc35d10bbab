"""What a release rests on: kernels are found wherever they lie, and the files around the code agree.

That a wheel built from the sdist works in a clean environment takes minutes and is seen by .ci/run.
"""

import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given

import minidl
from minidl.backend.cuda import launch
from minidl.errors import DeviceError
from minidl.ops import activation
from minidl.testing import agree, bounds, gradcheck, reference, strategies

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
    op, naive, forward, gradients, cases = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)

    def run(block, module, *names):
        """The block, as if it stood in that module."""
        namespace = dict(vars(module))
        exec(block, namespace)
        return [namespace[name] for name in names]

    def entry(block, module):
        """The value that a line of a table gives to silu."""
        return eval(f"{{{block}}}", dict(vars(module)))["silu"]

    (silu,) = run(op, activation, "silu")
    for name, function in zip(
        ("silu", "silu_gradients"), run(naive, reference.elementwise, "silu", "silu_gradients"), strict=True
    ):
        monkeypatch.setattr(reference, name, function, raising=False)
    monkeypatch.setitem(bounds.FORWARD, "silu", entry(forward, bounds.elementwise))
    monkeypatch.setitem(bounds.GRADIENTS, "silu", entry(gradients, bounds.elementwise))
    drawn = []

    @given(entry(cases, strategies)())
    def prove(case):
        drawn.append(case)
        assert agree(silu, case)
        assert gradcheck(silu, *case.inputs, **case.options)

    prove()
    assert drawn
