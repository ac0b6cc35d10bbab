"""Matrix multiplication that numba kernels can call: SciPy's BLAS as a function inside compiled code.

A numba function that runs in parallel wants GEMMs of its own in each thread, on parts of arrays, added to
what is there. `gemm` is BLAS's sgemm or dgemm in row-major terms: C = alpha * op(A) @ op(B) + beta * C, with
a row pitch (leading dimension) per matrix. SciPy exports the addresses of its BLAS; they are given to the
compiler under names of our own, so compiled code can be cached.

Inside a parallel kernel BLAS must run one thread per call (`single_threaded`), or every core would be asked
for twice.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic
from threadpoolctl import LibController, ThreadpoolController

_SYMBOLS = {types.float32: "minidl_sgemm", types.float64: "minidl_dgemm"}
for _symbol in _SYMBOLS.values():
    llvm.add_symbol(
        _symbol, get_cython_function_address("scipy.linalg.cython_blas", _symbol.removeprefix("minidl_"))
    )


@intrinsic
def gemm(
    typing: Any,
    transpose_a: Any,
    transpose_b: Any,
    m: Any,
    n: Any,
    k: Any,
    a: Any,
    lda: Any,
    b: Any,
    ldb: Any,
    beta: Any,
    c: Any,
    ldc: Any,
) -> Any:
    """C (m, n) = op(A) (m, k) @ op(B) (k, n) + beta * C, all row-major; a, b, c are arrays whose first
    element is used.

    `transpose_*` is 0 or 1; ld* is the distance between rows in elements. Row-major matrices are column-major
    transposes, so BLAS (column-major) is asked for C^T = op(B)^T @ op(A)^T.
    """
    dtype = c.dtype
    signature = types.void(
        types.intp,
        types.intp,
        types.intp,
        types.intp,
        types.intp,
        a,
        types.intp,
        b,
        types.intp,
        types.float64,
        c,
        types.intp,
    )

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ta, tb, m_, n_, k_, a_, lda_, b_, ldb_, beta_, c_, ldc_ = args
        i32, i8 = ir.IntType(32), ir.IntType(8)
        real = context.get_value_type(dtype)

        def by_reference(value: Any) -> Any:
            return cgutils.alloca_once_value(builder, value)

        def integer(value: Any) -> Any:
            return by_reference(builder.trunc(value, i32))

        def letter(flag: Any) -> Any:
            yes = builder.icmp_signed("!=", flag, ir.Constant(flag.type, 0))
            return by_reference(builder.select(yes, ir.Constant(i8, ord("T")), ir.Constant(i8, ord("N"))))

        def first(kind: Any, value: Any) -> Any:
            return context.make_array(kind)(context, builder, value=value).data

        scale = beta_ if dtype == types.float64 else builder.fptrunc(beta_, real)
        arguments = [
            letter(tb),
            letter(ta),
            integer(n_),
            integer(m_),
            integer(k_),
            by_reference(ir.Constant(real, 1.0)),
            first(sig.args[7], b_),
            integer(ldb_),
            first(sig.args[5], a_),
            integer(lda_),
            by_reference(scale),
            first(sig.args[10], c_),
            integer(ldc_),
        ]
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(builder.module, kind, _SYMBOLS[dtype])
        builder.call(function, arguments)
        return context.get_dummy_value()

    return signature, codegen


@cache
def _libraries() -> tuple[list[LibController], list[LibController]]:
    """(SciPy's BLAS, which `gemm` calls; every other BLAS, NumPy's first of all)."""
    import scipy.linalg  # noqa: F401  (loads its BLAS)

    every = [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]
    ours = [
        lib
        for lib in every
        if "scipy" in str(lib.filepath).replace("\\", "/").split("/site-packages/")[-1].split("/")[0]
    ]
    return ours or every, [lib for lib in every if lib not in ours]


@contextmanager
def single_threaded() -> Iterator[None]:
    """SciPy's BLAS runs one thread per call inside: the numba threads around it are the parallelism.

    Blocks of several Python threads may overlap: the first to enter limits, the last to leave restores.
    """
    with _limit.lock:
        if not _limit.inside:
            _limit.before = [library.get_num_threads() for library in _libraries()[0]]
            for library in _libraries()[0]:
                library.set_num_threads(1)
        _limit.inside += 1
    try:
        yield
    finally:
        with _limit.lock:
            _limit.inside -= 1
            if not _limit.inside:
                for library, count in zip(_libraries()[0], _limit.before):
                    library.set_num_threads(count)


class _Limit:
    """How many `single_threaded` blocks are running, and what to restore after the last."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.before: list[int] = []


_limit = _Limit()


def set_num_threads(count: int) -> None:
    """Threads of every BLAS that is called outside parallel kernels."""
    ours, others = _libraries()
    for library in (*ours, *others):
        library.set_num_threads(count)
