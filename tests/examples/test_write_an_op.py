"""examples/write_an_op.py runs, says what README shows, and its proof can fail."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl as md
from minidl.testing import gradcheck

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "write_an_op.py"


def test_it_runs() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, EXAMPLE], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[0] == "prelu: both gradients agree with finite differences"
    assert done.stdout.splitlines()[1] == "prelu(-1), slope 0.25: -0.25"


def test_readme_shows_it() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), flags=re.DOTALL)
    (shown,) = (block for block in blocks if "@md.op" in block)
    assert shown in EXAMPLE.read_text("utf-8")
    assert shown[: shown.index("@given")].strip().count("\n") < 30


def test_a_broken_gradient_is_caught() -> None:
    source = EXAMPLE.read_text("utf-8").replace("np.minimum(x, 0)", "np.maximum(x, 0)")
    names: dict = {"__name__": "broken"}
    exec(compile(source, str(EXAMPLE), "exec"), names)
    with pytest.raises(AssertionError, match="prelu: the gradient of slope is wrong"):
        gradcheck(names["prelu"], np.array([[[[-1.0, 2.0]]]]), np.array([0.5, 0.5]))


def test_the_op_is_one_like_any_other() -> None:
    prelu = runpy.run_path(str(EXAMPLE))["prelu"]
    x = md.tensor(np.array([[[[-1.0, 2.0]]]]), dtype="float32", requires_grad=True)
    y = prelu(x, np.full(2, 0.5, np.float32))
    assert y.dtype == np.float32
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), [[[[0.5, 1.0]]]])
