"""What compiled loops say to the processor that numba has no words for: copying and fetching memory."""

from typing import Any

from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from minidl.backend.cpu.compile import compiled


@intrinsic
def copy_numbers(typing: Any, target: Any, source: Any, count: Any) -> Any:
    """copy_numbers(target, source, count), in compiled code: so many float32 numbers from address to address.

    A loop over two arrays would go number by number: they might overlap, for all the compiler knows.
    """
    signature = types.void(types.int64, types.int64, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        to, start = (builder.inttoptr(address, cgutils.voidptr_t) for address in args[:2])
        cgutils.raw_memcpy(builder, to, start, args[2], 4)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def clear_numbers(typing: Any, target: Any, count: Any) -> Any:
    """clear_numbers(target, count), in compiled code: so many float32 zeros from an address on."""
    signature = types.void(types.int64, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        to, size = builder.inttoptr(args[0], cgutils.voidptr_t), builder.mul(args[1], args[1].type(4))
        cgutils.memset(builder, to, size, 0)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


@compiled
def numbers_at(address, shape, like):  # type: ignore[no-untyped-def]
    """In compiled code: the numbers from an address on as an array of that shape and of the dtype of `like`.

    `reshape` gives the same, but takes numba most of a second to compile.
    """
    return carray(_pointer(address), shape, like.dtype)


def emit_prefetch(builder: Any, address: Any) -> None:
    """Writes code that fetches the line of the caches at `address`; one that does not exist does no harm."""
    pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(fetch, [builder.inttoptr(address, pointer), flag(1), flag(3), flag(1)])  # to be written too


@intrinsic
def _prefetch(typing: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        emit_prefetch(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@compiled
def prefetch(array, place, count):  # type: ignore[no-untyped-def]
    """In compiled code: fetches `count` numbers from number `place` on, for use a little later.

    A processor guesses what comes next and fetches it, but not across the end of a page.
    """
    start = array.ctypes.data + array.itemsize * place
    for at in range(0, array.itemsize * count, 64):
        _prefetch(start + at)
