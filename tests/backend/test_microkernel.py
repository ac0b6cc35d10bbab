"""The micro-kernel: every tile of every register width, through in-place and packed panels; its callers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numba import njit

from minidl import ops
from minidl.backend.cpu import microkernel
from minidl.backend.cpu.microkernel import (
    TILES,
    choose_panels,
    force_lanes,
    lanes,
    multiply_tile,
    pack,
    pack_jobs,
    tile_code,
)
from minidl.backend.cpu.transpose import transpose_code, transposed
from minidl.backend.plans import force_plan
from minidl.testing import agree, strategies
from minidl.testing.strategies import Conv2dCase

WIDTHS = [count for count in TILES if count <= microkernel.host_lanes()]
RUNS, LENGTH = 3, 7


@njit
def run(tile, rows, vectors, a, a_row, a_term, offsets, panel, b_row, c, add, add_row, relu):  # type: ignore[no-untyped-def]
    multiply_tile(
        tile, rows, vectors, a.ctypes.data, a_row, a_term, offsets.ctypes.data, len(offsets), 7,
        panel.ctypes.data, b_row, c.ctypes.data, c.shape[1],
        add.ctypes.data if len(add) else 0, add_row, relu,
    )  # fmt: skip


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pack_all(
    source: np.ndarray,
    starts: np.ndarray,
    length: int,
    steps: tuple[int, int],
    columns: int,
    wide: int,
    panels: np.ndarray,
) -> None:
    for job in range(pack_jobs(len(starts), length, columns, steps[1], wide)):
        pack(
            *(job, transpose_code(lanes()), lanes(), source.ctypes.data, starts, length, steps[0], columns),
            *(steps[1], wide, panels),
        )


@pytest.mark.parametrize("count", WIDTHS)
def test_matrices_are_transposed_whatever_their_shape(count: int) -> None:
    for m, n in [(1, 1), (count, count), (3, 70), (70, 3), (2 * count + 5, 3 * count - 1), (150, 33)]:
        array = normal(2, 3, m, n)
        np.testing.assert_array_equal(transposed(array, count), array.transpose(0, 1, 3, 2))


@pytest.mark.parametrize("count", WIDTHS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_tile(count: int, packed: bool) -> None:
    with force_lanes(count):
        for vectors, most in TILES[count].items():
            columns = vectors * count - (count > 1 and packed)  # in panels the rest is zeros
            b = normal(RUNS, LENGTH, columns, seed=1)
            panel, row = b.reshape(-1), columns
            if packed:
                row = vectors * count
                panel = np.full(RUNS * LENGTH * row, np.nan, np.float32)
                starts = np.arange(RUNS) * LENGTH * columns
                pack_all(b, starts, LENGTH, (columns, 1), columns, row, panel)
            bias = np.zeros(vectors * count, np.float32)
            bias[:columns] = normal(columns, seed=2)
            for rows in range(1, most + 1):
                a = normal(rows, RUNS, LENGTH)
                c = np.full((rows, vectors * count), np.nan, np.float32)
                offsets = np.arange(RUNS) * LENGTH
                run(tile_code(), rows, vectors, a, RUNS * LENGTH, 1, offsets, panel, row, c, bias, 0, 1)
                expected = np.maximum(np.einsum("mrk,rkj->mj", a, b) + bias[:columns], 0)
                np.testing.assert_allclose(c[:, :columns], expected, rtol=1e-5, atol=1e-5)
                np.testing.assert_array_equal(c[:, columns:], 0)


def test_sums_are_added_to_what_is_there_and_terms_may_lie_anywhere() -> None:
    count = lanes()
    a, panel, c = normal(LENGTH, 5), normal(LENGTH * count, seed=1), normal(4, count, seed=2)
    before = c.copy()
    run(tile_code(), 4, 1, a, 1, 5, np.zeros(1, np.int64), panel, count, c, c.reshape(-1), count, 0)
    expected = before + a[:, :4].T @ panel.reshape(LENGTH, count)
    np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-5)


def test_relu_keeps_nan() -> None:
    count = lanes()
    a, c = np.full((1, LENGTH), np.nan, np.float32), np.zeros((1, count), np.float32)
    panel = np.ones(LENGTH * count, np.float32)
    run(
        tile_code(), 1, 1, a, LENGTH, 1, np.zeros(1, np.int64), panel, count, c, np.zeros(0, np.float32), 0, 1
    )
    assert np.isnan(c).all()


def test_exchanged_weights_are_packed_like_contiguous_ones() -> None:
    w = normal(5, 70)
    turned = np.ascontiguousarray(w.T)
    straight, exchanged = (np.full(5 * 80, np.nan, np.float32) for _ in range(2))
    with force_lanes(16):
        one = np.zeros(1, np.int64)
        pack_all(w, one, 5, (70, 1), 70, 32, straight)
        pack_all(turned, one, 5, (1, 5), 70, 32, exchanged)
    np.testing.assert_array_equal(straight, exchanged)


@pytest.mark.parametrize("count", TILES)
@pytest.mark.parametrize("columns", [1, 16, 96, 1000])
@pytest.mark.parametrize("width", [1, 7, 24, 1000])
def test_panels_fit_the_registers(count: int, columns: int, width: int) -> None:
    with force_lanes(count):
        panels = choose_panels(columns, width)
    assert TILES[count][panels.vectors] == panels.rows
    registers = {16: 32, 8: 16, 4: 32, 1: 32}[count]
    assert panels.rows * panels.vectors + panels.vectors + 1 <= registers


def test_an_unknown_width() -> None:
    with (
        pytest.raises(ValueError, match="force_lanes: count is 3; there are kernels for 16, 8, 4, 1"),
        force_lanes(3),
    ):
        pass


@given(strategies.conv2d_cases(activations=(None, "relu")))
def test_convolutions_agree_on_narrower_registers_too(case: Conv2dCase) -> None:
    with force_lanes(WIDTHS[min(1, len(WIDTHS) - 1)]):
        assert agree(ops.conv2d, case, dtypes=[np.float32], plans=["direct", "winograd"])


# Several strips, blocks, chunks, panels, segments and threads, with remainders; NIN's and ResNets' windows.
@pytest.mark.parametrize(
    ("x", "weight", "options"),
    [
        ((3, 33, 31, 3), (5, 5, 3, 40), {"padding": 2}),
        ((2, 30, 30, 4), (7, 7, 4, 20), {"stride": 2, "padding": 3}),
        ((2, 15, 17, 72), (3, 3, 72, 100), {"padding": 1, "activation": "relu"}),
        ((1, 16, 12, 48), (5, 5, 48, 64), {"padding": 2}),
        ((2, 19, 16, 24), (3, 3, 24, 40), {"stride": 2, "padding": 1}),
        ((2, 40, 30, 70), (1, 1, 70, 33), {}),
        ((1, 9, 9, 600), (1, 1, 600, 48), {}),
        ((2, 13, 11, 256), (1, 1, 256, 130), {"stride": 2}),
        ((1, 12, 12, 160), (1, 7, 160, 48), {"padding": (0, 3)}),
        ((1, 12, 12, 96), (3, 3, 48, 64), {"padding": 2, "dilation": 2, "groups": 2}),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else None,
)
def test_large_convolutions_agree_with_columns_in_float64(
    x: Any, weight: Any, options: dict[str, Any]
) -> None:
    tensors = [normal(*x), normal(*weight, seed=1), normal(weight[3], seed=2)]

    def results(dtype: Any, plan: str) -> list[np.ndarray]:
        from minidl.autograd import tensor

        leaves = [tensor(array.astype(dtype), requires_grad=True) for array in tensors]
        with force_plan(plan):
            y = ops.conv2d(*leaves, **options)
            y.backward(normal(*y.shape, seed=3).astype(dtype))
        return [y.numpy(), *(leaf.grad.numpy() for leaf in leaves if leaf.grad is not None)]

    expected = results(np.float64, "auto")
    for plan in ("direct", "winograd"):
        for found, value in zip(results(np.float32, plan), expected, strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, value, rtol=0, atol=3e-5 * np.abs(value).max())
