"""Imports point down: every import in the tree is read with `ast` and compared with the floors of the house.

A module imports only lower floors, or its own floor within its own folder and never in a circle. Nothing here
executes the modules that are read, except that a fresh process shows what `import minidl` loads.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = {
    "minidl.errors": 0,
    "minidl.streams": 0,
    "minidl.window": 0,
    "minidl.backend": 1,
    "minidl.autograd": 2,
    "minidl.closures": 2,
    "minidl.recording": 2,
    "minidl.ops": 3,
    "minidl.nn": 4,
    "minidl.data": 5,
    "minidl.optim": 5,
    "minidl.io": 6,
    "minidl.inspection": 7,
    "minidl.train": 7,
    "minidl.ensemble": 8,
    "minidl.model": 8,
    "minidl.model_file": 8,
    "minidl": 9,
    "minidl.cli": 10,
    "minidl.__main__": 11,
}
HOMES = {  # libraries that one folder alone imports
    "cupy": "minidl.backend.cuda",
    "cupyx": "minidl.backend.cuda",
    "hypothesis": "minidl.testing",
    "llvmlite": "minidl.backend.cpu",
    "numba": "minidl.backend.cpu",
}


class Import(NamedTuple):
    """That `module` imports `target` in `line`; `early` if this happens when the module is loaded."""

    module: str
    target: str
    line: int
    early: bool

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}, imports {self.target}"


def tree(package: str) -> dict[str, Path]:
    """Every module below a package of the checkout, by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, module: str, *, package: bool, known: set[str]) -> Iterator[Import]:
    """The imports in a module's source; `from a import b` counts as a.b where that is a known module."""
    parsed = ast.parse(source)
    late = {id(inner) for outer in ast.walk(parsed) if _waits(outer) for inner in ast.walk(outer)}
    for node in ast.walk(parsed):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative: climb from the package that holds the module
                above = module.split(".")[: len(module.split(".")) - node.level + package]
                base = ".".join([*above, *([node.module] if node.module else [])])
            inside = [f"{base}.{alias.name}" for alias in node.names]
            targets = [name if name in known else base for name in inside]
        for target in dict.fromkeys(targets):
            yield Import(module, target, node.lineno, id(node) not in late)


def _waits(node: ast.AST) -> bool:
    """Whether what stands in a node does not run when the module is loaded."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.FunctionDef)


def read(packages: tuple[str, ...] = ("minidl", "minidl_models")) -> list[Import]:
    """Every import in the checkout's packages."""
    modules = {name: path for package in packages for name, path in tree(package).items()}
    return [
        found
        for name, path in modules.items()
        for found in imports(
            path.read_text(encoding="utf-8"), name, package=path.name == "__init__.py", known=set(modules)
        )
    ]


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def room(module: str) -> str:
    """The entry of FLOORS that a module belongs to: a folder below minidl, or a file in minidl itself."""
    return ".".join(module.split(".")[:2])


def folder(module: str) -> str:
    """The folder that a module lies in."""
    return room(module) if (ROOT / room(module).replace(".", "/")).is_dir() else "minidl"


def beside(each: Import) -> bool:
    """Whether an import stays on its floor and in its folder."""
    return folder(each.module) == folder(each.target) and FLOORS.get(room(each.module)) == FLOORS.get(
        room(each.target)
    )


def breaches(found: list[Import]) -> list[str]:
    """Where an import breaks a rule of the house, each as a line of text."""
    texts = []
    for each in found:
        library = each.target.partition(".")[0]
        if library in HOMES and not within(each.module, HOMES[library]):
            texts.append(f"{each}, which only {HOMES[library]} may")
        if within(each.module, "minidl_models"):
            hidden = any(part.startswith("_") for part in each.target.split("."))
            if within(each.target, "minidl.backend") or within(each.target, "minidl.autograd") or hidden:
                texts.append(f"{each}, but models use public names alone")
        elif within(each.target, "minidl_models"):
            texts.append(f"{each}, but the engine does not know its zoo")
        elif within(each.target, "minidl") and not within(each.module, "minidl.testing"):
            texts.extend(_upward(each))
    return texts


def _upward(each: Import) -> Iterator[str]:
    """The breach of an import from one engine module to another, if it is one."""
    if within(each.target, "minidl.testing"):
        if each.module != "minidl" or each.early:
            yield f"{each}, but the engine does without it"
    elif FLOORS[room(each.target)] >= FLOORS[room(each.module)] and not beside(each):
        yield f"{each}: floor {FLOORS[room(each.module)]} from floor {FLOORS[room(each.target)]}"


def cycles(found: list[Import]) -> list[str]:
    """Modules of one folder that import each other in a circle while they are being loaded."""
    graph: dict[str, set[str]] = {}
    for each in found:
        if each.early and beside(each) and each.module != each.target:
            graph.setdefault(each.module, set()).add(each.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_module_has_a_floor():
    rooms = {room(name) for name in tree("minidl")} - {"minidl.testing"}
    assert rooms <= set(FLOORS), "give the new ones a place in FLOORS"


def test_imports_point_down():
    assert breaches(read()) == []


def test_folders_have_no_import_cycles():
    assert cycles(read()) == []


@pytest.mark.parametrize(
    ("module", "source", "breach"),
    [
        ("minidl.window", "from minidl.autograd import Tensor", "floor 0 from floor 2"),
        ("minidl.optim.sgd", "from minidl.data import loader", "floor 5 from floor 5"),
        ("minidl.ops.conv", "def f():\n    import minidl.nn.conv", "floor 3 from floor 4"),
        ("minidl.ops.conv", "from ..nn import conv", "floor 3 from floor 4"),
        ("minidl.ops.conv", "from minidl import tensor", "floor 3 from floor 9"),
        ("minidl.ops.conv", "from minidl import nn", "floor 3 from floor 4"),
        ("minidl.ops.conv", "import numba", "which only minidl.backend.cpu may"),
        ("minidl.backend.cpu.conv", "from cupy import cuda", "which only minidl.backend.cuda may"),
        ("minidl_models.nin", "from hypothesis import given", "which only minidl.testing may"),
        ("minidl.nn.module", "from minidl.testing import gradcheck", "the engine does without it"),
        ("minidl", "from minidl import testing", "the engine does without it"),
        ("minidl.cli", "import minidl_models", "does not know its zoo"),
        ("minidl_models.nin", "from minidl.autograd import Tensor", "public names alone"),
        ("minidl_models.nin", "from minidl import backend", "public names alone"),
    ],
)
def test_breaches_are_seen(module, source, breach):
    known = set(tree("minidl")) | {"minidl.nn", "minidl.nn.conv", "minidl.testing"}
    found = breaches(list(imports(source, module, package=module == "minidl", known=known)))
    assert len(found) == 1
    assert breach in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("minidl.ops.conv", "import numpy as np\nfrom minidl.window import Window"),
        ("minidl.ops.conv", "from .pool import max_pool2d"),
        ("minidl.window", "from minidl.errors import ShapeError"),
        ("minidl", "def __getattr__(name):\n    from minidl import testing"),
        ("minidl.testing.agree", "import hypothesis\nimport minidl.model"),
        ("minidl_models.nin", "import minidl as md\nfrom minidl import nn\nfrom minidl_models.stem import f"),
        ("minidl.cli", "import minidl"),
    ],
)
def test_what_the_rules_allow(module, source):
    known = set(tree("minidl")) | {"minidl.testing"}
    assert breaches(list(imports(source, module, package=module == "minidl", known=known))) == []


def test_cycles_are_seen():
    def early(module: str, target: str) -> Import:
        return Import(module, target, line=1, early=True)

    circle = [early("minidl.nn.a", "minidl.nn.b"), early("minidl.nn.b", "minidl.nn.a")]
    assert set(cycles(circle)) == {"minidl.nn.a", "minidl.nn.b"}
    assert cycles([circle[0], circle[1]._replace(early=False)]) == []


def test_import_minidl_loads_numpy_alone():
    code = "import sys; before = set(sys.modules); import minidl; print(*set(sys.modules) - before)"
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(process.stdout.split())
    owners = packages_distributions()
    assert {owner for name in loaded for owner in owners.get(name, [])} <= {"minidl", "numpy"}
    assert "minidl.testing" not in loaded
