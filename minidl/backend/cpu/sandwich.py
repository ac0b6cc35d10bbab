"""Small matrices around grids of vectors: Y = L X R^T, generated for constant L and R.

Winograd's transforms (winograd.py) are such products, with a grid of 1x4 to 8x8 pixels for X and the
channels of a pixel for each element. A compiler cannot prove that the rows of channels do not overlap, and
then computes number by number; so the code is generated, as the micro-kernel is: a register of channels at a
time, all of X loaded, both products made on registers, all of Y stored. Factors 0 and 1 cost nothing.

Bound by: the innermost cache; for 6x6 pixels 72 loads and stores for some 120 additions.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minidl.backend.cpu.compile import procedure
from minidl.backend.cpu.microkernel import multiply_add

_Matrix = Sequence[Sequence[float]]


def sandwich(left: np.ndarray, right: np.ndarray) -> Callable[[int], int]:
    """Lanes of a register -> the address of what computes Y = L X R^T.  L (a, b), R (c, d), X (b, d), Y (a,
    c)

    Compiled code runs it as call(address, (inputs, outputs, count, add, relu)): inputs and outputs are
    addresses of tables (int64) of the addresses of X's and Y's elements, row by row, `count` float32 numbers
    each; add is the address of `count` numbers that are added to every element of Y, or 0; relu, 0 or 1,
    clips Y below at 0 (NaN stays).
    """
    matrices = [matrix.astype(float).tolist() for matrix in (left, right)]
    entries = json.dumps(matrices)  # text can be a constant

    @functools.cache
    def code(lanes: int) -> int:
        def sandwich(inputs, outputs, count, add, relu):  # type: ignore[no-untyped-def]
            _product(entries, lanes, inputs, outputs, count, add, relu)

        return procedure(sandwich, 5)

    return code


@intrinsic(prefer_literal=True)
def _product(
    typing: Any, entries: Any, lanes: Any, inputs: Any, outputs: Any, count: Any, add: Any, relu: Any
) -> Any:
    """Generates a sandwich for the constants `entries` and `lanes`."""
    (left, right), most = json.loads(entries.literal_value), lanes.literal_value
    signature = types.void(entries, lanes, *[types.int64] * 5)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, _, inputs, outputs, count, add, relu = args
        whole = builder.sub(count, builder.srem(count, count.type(most)))
        for width, start, stop in ((most, count.type(0), whole), (1, whole, count)):
            emitter = _Emitter(builder, left, right, width)
            with cgutils.for_range_slice(builder, start, stop, count.type(width), count.type) as (at, _):
                emitter.emit(inputs, outputs, builder.mul(at, count.type(4)), add, relu)
        return context.get_dummy_value()

    return signature, codegen


class _Emitter:
    """Writes the code for `width` numbers of every element."""

    def __init__(self, builder: Any, left: _Matrix, right: _Matrix, width: int) -> None:
        self.builder, self.left, self.right = builder, left, right
        self.vector = ir.VectorType(ir.FloatType(), width)
        self.zero = self.constant(0.0)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.vector, [value] * self.vector.count)

    def emit(self, inputs: Any, outputs: Any, offset: Any, add: Any, relu: Any) -> None:
        """All of X, L X, (L X) R^T, all of Y; `offset`: of the numbers in every element, in bytes."""
        b = self.builder
        rows, columns = len(self.left[0]), len(self.right[0])
        x = [
            [self.load(self.entry(inputs, i * columns + j), offset) for j in range(columns)]
            for i in range(rows)
        ]
        half = [[self.dot(row, [x[i][j] for i in range(rows)]) for j in range(columns)] for row in self.left]
        y = [self.dot(row, line) for line in half for row in self.right]
        zero = add.type(0)
        with b.if_else(b.icmp_signed("!=", add, zero)) as (given, missing):
            with given:
                extra = self.load(add, offset)
                from_given = b.block
            with missing:
                from_missing = b.block
        phi = b.phi(self.vector)
        phi.add_incoming(extra, from_given)
        phi.add_incoming(self.zero, from_missing)
        floor = b.select(b.icmp_signed("!=", relu, zero), self.zero, self.constant(-np.inf))
        for k, value in enumerate(y):
            value = b.fadd(value, phi)
            value = b.select(b.fcmp_ordered("<", value, floor), floor, value)
            b.store(value, self.place(self.entry(outputs, k), offset)).align = 4

    def dot(self, factors: Sequence[float], values: Sequence[Any]) -> Any:
        """The sum of factors * values."""
        b, total = self.builder, None
        for factor, value in zip(factors, values):
            if factor == 0:
                continue
            if total is None:
                total = value if factor == 1 else b.fmul(self.constant(factor), value)
            elif abs(factor) == 1:
                total = b.fadd(total, value) if factor == 1 else b.fsub(total, value)
            else:
                total = multiply_add(b, self.constant(factor), value, total)
        return total

    def entry(self, table: Any, k: int) -> Any:
        """The address in a table."""
        place = self.builder.add(table, table.type(8 * k))
        return self.builder.load(self.builder.inttoptr(place, table.type.as_pointer()))

    def place(self, address: Any, offset: Any) -> Any:
        return self.builder.inttoptr(self.builder.add(address, offset), self.vector.as_pointer())

    def load(self, address: Any, offset: Any) -> Any:
        value = self.builder.load(self.place(address, offset))
        value.align = 4
        return value
