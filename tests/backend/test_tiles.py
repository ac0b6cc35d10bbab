"""The tiles of matrix products and convolutions on the emulated GPU: every instance, in float32 and TF32, in
every order of the threads."""

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import backend
from minidl.backend import cuda
from minidl.backend.cuda import conv, emulator, launch, products
from minidl.testing import reference, strategies
from minidl.testing.strategies import Conv2dCase
from minidl.window import window

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator builds kernels with g++")

# Relative errors of sums: a few thousand roundings in float32; factors of 10 bits of mantissa in TF32.
TOLERANCE = {"Simt": 2e-6, "Tf32": 1e-3}
PRECISION = {"Simt": "float32", "Tf32": "tf32"}


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    backend.set_float32_precision("float32")
    emulator.use_schedule("forward")


def there(x: np.ndarray) -> np.ndarray:
    return backend.asarray(x, "cudasim")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    error = np.linalg.norm(backend.to_host(found) - expected) / np.linalg.norm(expected)
    assert error < tolerance, f"relative error {error:.1e}"


@pytest.mark.parametrize("math", TOLERANCE)
@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
def test_every_tile(math: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sizes of tile; chunks of 4 and of 1; all passes and layouts: no instance is left out."""
    backend.set_float32_precision(PRECISION[math])
    emulator.use_schedule(schedule)
    launched, run = set(), emulator.Emulator.run

    def noted(self: emulator.Emulator, kernel: launch.Kernel, *rest: object) -> None:
        launched.add(kernel)
        run(self, kernel, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(emulator.Emulator, "run", noted)
    for tile in products.TILES:
        for module in (conv, products):
            monkeypatch.setattr(
                module,
                "choose_tile",
                lambda m, n, count, vec, *, splits, t=tile: t if vec == 4 else products.SMALL,
            )
        for c, f in ((20, 132), (3, 8), (5, 7)):
            check_convolution(c, f, TOLERANCE[math])
        for m, k, n in ((140, 72, 132), (9, 10, 7)):
            check_products(m, k, n, TOLERANCE[math])
    wanted = {k for name in ("product.cu", "correlate.cu") for k in launch.declared(name) if math in k.name}
    assert wanted
    assert wanted <= launched


def check_convolution(c: int, f: int, tolerance: float) -> None:
    """The three passes of a 3x3 window with stride 2 against the CPU in float64."""
    size, images = (9, 11), 2
    geometry = window("conv2d", size, 3, stride=2, padding=1)
    x, weight = normal(images, *size, c), normal(3, 3, c, f, seed=1)
    g = normal(images, *geometry.output, f, seed=2)
    wide = [array.astype(np.float64) for array in (x, weight, g)]
    xp, cpu = cuda, backend.of(x)
    y = xp.conv2d(there(x), there(weight), None, geometry, 1, None)
    check(y, cpu.conv2d(*wide[:2], None, geometry, 1, None), tolerance)
    grad_x = xp.conv2d_grad_x(there(g), there(weight), geometry, 1)
    check(grad_x, cpu.conv2d_grad_x(wide[2], wide[1], geometry, 1), tolerance)
    grad_weight = xp.conv2d_grad_weight(there(g), there(x), geometry, 1)
    check(grad_weight, cpu.conv2d_grad_weight(wide[2], wide[0], geometry, 1), tolerance)


def check_products(m: int, k: int, n: int, tolerance: float) -> None:
    """Both factors as they are, and transposed."""
    a, b = normal(m, k), normal(k, n, seed=1)
    expected = a.astype(np.float64) @ b
    for left in (there(a), there(a.T.copy()).transpose(1, 0)):
        for right in (there(b), there(b.T.copy()).transpose(1, 0)):
            check(cuda.matmul(left, right), expected, tolerance)


@given(strategies.conv2d_cases(), st.sampled_from(["forward", "shuffled"]))
def test_tf32_errs_by_no_more_than_its_factors_do(case: Conv2dCase, schedule: str) -> None:
    """|error| <= 2^-10 sum |x w|: each factor is rounded to 11 bits, one of them hidden."""
    case = case.astype(np.float32)
    x, weight, _ = case.inputs
    options = {key: value for key, value in case.options.items() if key != "activation"}
    emulator.use_schedule(schedule)
    geometry = window(
        "conv2d", x.shape[1:3], weight.shape[:2], **{k: v for k, v in options.items() if k != "groups"}
    )
    backend.set_float32_precision("tf32")
    y = cuda.conv2d(there(x), there(weight), None, geometry, options.get("groups", 1), None)
    backend.set_float32_precision("float32")
    expected = reference.conv2d(x, weight, None, **options)
    limit = reference.conv2d(np.abs(x), np.abs(weight), None, **options) * 1.01 * 2.0**-10
    assert (np.abs(backend.to_host(y) - expected) <= limit + np.finfo(np.float32).tiny).all()


def test_a_view_of_weights_and_images_is_read_where_it_lies() -> None:
    """Channel slices of wider arrays, as concatenation's gradients are, also at addresses not aligned."""
    geometry = window("conv2d", (6, 5), 3, padding=1)
    wide, weight = normal(2, 6, 5, 20), normal(3, 3, 8, 12, seed=1)
    for start in (0, 4, 1):
        x = wide[..., start : start + 8]
        y = cuda.conv2d(there(wide)[..., start : start + 8], there(weight), None, geometry, 1, None)
        check(
            y,
            backend.of(x).conv2d(x.astype(np.float64), weight.astype(np.float64), None, geometry, 1, None),
            2e-6,
        )


def test_more_columns_than_a_grid_has_blocks_along_y(monkeypatch: pytest.MonkeyPatch) -> None:
    """65535 tiles of 64 columns are 4 194 240."""
    grids = []
    monkeypatch.setattr(emulator.Emulator, "run", lambda self, kernel, grid, *rest: grids.append(grid))
    cuda.matmul(there(np.ones((1, 1), np.float32)), there(np.ones((1, 1 << 22), np.float32)))
    assert grids == [(1 << 16, 1, 1)]


@pytest.mark.parametrize(("down", "across"), [(1, 1), (5, 1), (1, 40), (7, 16), (3, 17), (4, 35)])
def test_each_tile_is_computed_once(down: int, across: int) -> None:
    """Bands of 16 columns of tiles, the last one narrower: with numbers that float32 holds exactly."""
    rows, columns = products.SMALL
    a = np.arange(down * rows, dtype=np.float32)[:, None]
    b = np.arange(across * columns, dtype=np.float32)[None]
    np.testing.assert_array_equal(backend.to_host(cuda.matmul(there(a), there(b))), a @ b)
