"""Matrix multiplication that numba kernels can call: SciPy's BLAS as a function inside compiled code.

A numba function that runs in parallel wants GEMMs of its own in each thread, on parts of arrays, added to
what is there. `gemm` is BLAS's sgemm or dgemm in row-major terms: C = alpha * op(A) @ op(B) + beta * C, with
a row pitch (leading dimension) per matrix. SciPy exports the addresses of its BLAS; they are given to the
compiler under names of our own, so compiled code can be cached.

Inside a parallel kernel BLAS must run one thread per call (`backend.blas_threads`), or every core would be
asked for twice.
"""

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

from minidl.backend import blas_threads

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


def set_num_threads(count: int) -> None:
    """Threads of every BLAS that is called outside parallel kernels."""
    ours, others = blas_threads.libraries()
    for library in (*ours, *others):
        library.set_num_threads(count)
