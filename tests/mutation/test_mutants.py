"""Errors planted in the engine's own source: every one must break the proof of the op it stands in.

Each mutant is one replacement in one function, kept in the .toml files beside this one: `op` is what must
fail, `says` what is wrong, `at` the module and function, `old` the text there (exactly once, or the mutant
asks to be updated) and `new` what replaces it. Plain functions get the mutated code in place. A numba kernel
is run as plain Python together with the other kernels of its module, so planting costs no compilation; that
this alone changes nothing is tested too.
"""

import ast
import inspect
import textwrap
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher
from numpy.lib.stride_tricks import as_strided

import minidl as md
from minidl import ops
from minidl.backend.cpu import blas, im2col, norm, pool

Prove = Callable[[str], None]


@dataclass(frozen=True)
class Mutant:
    """One error in one function; `raises` names the engine's own error where that stops it first."""

    op: str
    says: str
    at: str
    old: str
    new: str
    raises: str = "AssertionError"

    def __str__(self) -> str:
        return f"{self.op}: {self.says}"


def load() -> list[Mutant]:
    """All mutants, in the order of the files; an entry with several ops stands for one mutant of each."""
    return [
        Mutant(**entry | {"op": op})
        for path in sorted(Path(__file__).parent.glob("*.toml"))
        for entry in tomllib.loads(path.read_text("utf-8"))["mutant"]
        for op in ([entry["op"]] if isinstance(entry["op"], str) else entry["op"])
    ]


MUTANTS = load()


@contextmanager
def all_threads() -> Iterator[None]:
    """Inside, all threads compute; the suite leaves each of its processes few of them."""
    before = md.get_num_threads()
    md.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    try:
        yield
    finally:
        md.set_num_threads(before)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Inside, the function at `mutant.at` computes what the mutant says."""
    path, _, name = mutant.at.rpartition(".")
    module = import_module(path)
    found = getattr(module, name)
    if isinstance(found, Dispatcher):
        with interpreted(module) as kernels:
            kernels[name].__code__ = mutated_code(found.py_func, mutant)
            yield
    else:
        function = inspect.unwrap(found)
        before, function.__code__ = function.__code__, mutated_code(function, mutant)
        forget(module)
        try:
            yield
        finally:
            function.__code__ = before
            forget(module)


def forget(module: ModuleType) -> None:
    """Empties the caches of a module's functions: they hold what was computed with another source."""
    for function in vars(module).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


def mutated_code(function: Any, mutant: Mutant) -> Any:
    """The code of `function` with the one replacement made in its source."""
    source = textwrap.dedent(inspect.getsource(function))
    count = source.count(mutant.old)
    if count != 1:
        pytest.fail(
            f"{mutant}: {mutant.at} holds the text of `old` {count} times, not once; the source has changed, "
            f"update this mutant\n  {mutant.old}"
        )
    tree = ast.parse(source.replace(mutant.old, mutant.new))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    namespace = dict(function.__globals__)
    exec(compile(tree, f"<{mutant}>", "exec"), namespace)
    return namespace[function.__name__].__code__


@contextmanager
def interpreted(module: ModuleType) -> Iterator[dict[str, FunctionType]]:
    """Inside, the numba kernels of a module are plain Python; yields them by name."""
    kernels = {
        key: value.py_func
        for key, value in vars(module).items()
        if isinstance(value, Dispatcher) and value.py_func.__module__ == module.__name__
    }
    namespace = vars(module) | {
        "prange": range,
        "use_threads": lambda count: None,
        "blas": SimpleNamespace(**vars(blas) | {"gemm": _gemm}),
    }
    plain = {key: FunctionType(kernel.__code__, namespace, key) for key, kernel in kernels.items()}
    namespace.update(plain)
    with pytest.MonkeyPatch.context() as patch:
        for key, function in plain.items():
            patch.setattr(module, key, function)
        yield plain


def _gemm(
    transpose_a: int,
    transpose_b: int,
    m: int,
    n: int,
    k: int,
    a: np.ndarray,
    lda: int,
    b: np.ndarray,
    ldb: int,
    beta: float,
    c: np.ndarray,
    ldc: int,
) -> None:
    """blas.gemm, which exists in compiled code alone: C = op(A) @ op(B) + beta * C with row pitches ld*."""

    def matrix(array: np.ndarray, rows: int, columns: int, pitch: int) -> np.ndarray:
        return as_strided(array, (rows, columns), (pitch * array.itemsize, array.itemsize))

    left = matrix(a, k, m, lda).T if transpose_a else matrix(a, m, k, lda)
    right = matrix(b, n, k, ldb).T if transpose_b else matrix(b, k, n, ldb)
    out = matrix(c, m, n, ldc)
    out[...] = left @ right + (beta * out if beta else 0)


@pytest.mark.parametrize("name", ops.__all__)
def test_the_engine_as_it_is_passes_the_proof(name: str, prove: Prove) -> None:
    prove(name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (im2col, "conv2d"),
        (pool, "max_pool2d"),
        (pool, "avg_pool2d"),
        (norm, "batch_norm"),
        (norm, "local_response_norm"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kernels_run_as_plain_python_pass_it_too(module: ModuleType, name: str, prove: Prove) -> None:
    with interpreted(module):
        prove(name)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_mutant_is_caught(mutant: Mutant, prove: Prove) -> None:
    together = all_threads() if "thread" in mutant.says else nullcontext()
    with together, planted(mutant), pytest.raises(Exception) as caught:  # noqa: PT011 - looked at below
        prove(mutant.op)
    assert type(caught.value).__name__ == mutant.raises, f"{mutant}: {caught.value!r}"


def test_every_op_has_mutants() -> None:
    assert sorted({mutant.op for mutant in MUTANTS}) == sorted(ops.__all__)


def test_no_two_mutants_share_a_name() -> None:
    names = Counter(map(str, MUTANTS))
    assert [name for name, count in names.items() if count > 1] == []


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) >= 100
