"""The emulator finds what it is there to find: each mistake is planted in a kernel that is right without it.

The kernels are in planted.cu, one source that is compiled once.
"""

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidl.backend.cuda import emulator, launch
from minidl.backend.cuda.launch import Kernel
from minidl.errors import DeviceError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator builds kernels with g++")

SIM = emulator.Emulator()
KERNELS = launch.kernel_folder()
PLANTED = Path(__file__).with_name("planted.cu")
INSTANCES: dict[str, dict[str, int]] = {
    **{f"tiled<{missing}>": {} for missing in range(3)},
    **{f"pipelined<{missing}>": {"shared_bytes": 4096} for missing in range(5)},
    **{f"neighbour<{step}>": {} for step in (-1, 1)},
    "turns": {},
    **{f"store<{beside}>": {} for beside in (0, 1, -1, 100, 1 << 30, -(1 << 30))},
    **{f"apart<{mistake}>": {"threads": 64} for mistake in range(13)},
    "unwritten": {"threads": 1, "shared_bytes": 4},
    "given": {},
    "shuffled": {"threads": 64},
    "warp_product": {"threads": 32},
}
PAIR = np.dtype([("first", "i4"), ("second", "f4")])
Run = Callable[..., None]


@pytest.fixture(autouse=True)
def _forward() -> Iterator[None]:
    yield
    emulator.use_schedule("forward")


@pytest.fixture(params=emulator.SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> str:
    """Each order of threads in turn."""
    emulator.use_schedule(request.param)
    return request.param


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources that a test may write, no kernels being declared but its own."""
    folder = tmp_path / "kernels"
    shutil.copytree(KERNELS / "emulator", folder / "emulator")
    shutil.copy(KERNELS / "port.cuh", folder)
    for module in (launch, emulator):
        monkeypatch.setattr(module, "kernel_folder", lambda: folder)
    monkeypatch.setattr(launch, "signature", functools.cache(launch.signature.__wrapped__))
    monkeypatch.setattr(emulator, "_library", functools.cache(emulator._library.__wrapped__))
    monkeypatch.setattr(launch, "_declared", {})
    return folder


@pytest.fixture
def run(sources: Path) -> Run:
    """run(name, grid, *arguments, block=...) launches a kernel of planted.cu."""
    shutil.copy(PLANTED, sources)
    kernels = {name: launch.kernel("planted.cu", name, **details) for name, details in INSTANCES.items()}
    return lambda name, *arguments, **options: launch.launch(kernels[name], SIM, *arguments, **options)


def _line(text: str, nth: int = 0) -> int:
    """The line of planted.cu that holds this text."""
    return [i for i, line in enumerate(PLANTED.read_text(encoding="utf-8").splitlines(), 1) if text in line][
        nth
    ]


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


# ---- Right kernels are right, in every order of threads ----------------------------------------------------


def _tiled(run: Run, missing: int) -> bool:
    """Whether the product is right."""
    a, b, y = _random(48, 48), _random(48, 48).T.copy(), SIM.empty((48, 48), np.float32)
    run(f"tiled<{missing}>", (3, 3), SIM.upload(a), SIM.upload(b), y, 48, block=(16, 16))
    return np.allclose(SIM.download(y), a @ b, rtol=1e-4, atol=1e-4)  # 48 products of float32


def _pipelined(run: Run, missing: int) -> bool:
    a, b, y = _random(16, 80), _random(80, 16), SIM.empty((16, 16), np.float32)
    run(f"pipelined<{missing}>", 1, SIM.upload(a), SIM.upload(b), y, 80, block=(16, 16))
    return np.allclose(SIM.download(y), a @ b, rtol=1e-4, atol=1e-4)  # 80 products of float32


@pytest.mark.usefixtures("schedule")
def test_products_in_shared_memory(run: Run) -> None:
    assert _tiled(run, 0)
    assert _pipelined(run, 0)


@pytest.mark.usefixtures("schedule")
def test_threads_know_their_places_and_arguments(run: Run) -> None:
    y = SIM.empty((2 * 3 * 2, 4 * 3 * 5), np.int32)
    pair = np.array([(2, 3.5)], PAIR)
    run("given", (2, 3, 2), y, pair, None, True, 7 << 40, block=(4, 3, 5))
    assert (SIM.download(y) == 2 + 3 + 0 + 10 + 7).all()


@pytest.mark.usefixtures("schedule")
def test_shuffles(run: Run) -> None:
    x, y = _random(2, 32), SIM.empty((3, 2, 32), np.float32)
    run("shuffled", 1, SIM.upload(x), y)
    lane = np.arange(32)
    expected = [x[:, source] for source in (lane * 0 + 5, lane ^ 3, np.where(lane < 28, lane + 4, lane))]
    np.testing.assert_array_equal(SIM.download(y), expected)


@pytest.mark.usefixtures("schedule")
def test_tensor_cores(run: Run) -> None:
    a, b = _random(16, 8), np.random.default_rng(1).integers(-8, 8, (8, 8)).astype(np.float32)
    y, rounded = SIM.empty((16, 8), np.float32), SIM.empty((16, 8), np.uint32)
    a[0] = [1, 1 + 2**-11, -1 - 2**-11, 1 + 2**-12, 0, -0.0, 2**-120, 3]  # ties go away from zero
    run("warp_product", 1, SIM.upload(a), SIM.upload(b), y, rounded)
    near = SIM.download(rounded).view(np.float32)
    np.testing.assert_array_equal(near[0], [1, 1 + 2**-10, -1 - 2**-10, 1, 0, -0.0, 2**-120, 3])
    np.testing.assert_allclose(near, a, rtol=2**-11)  # ten bits of mantissa behind the leading one
    np.testing.assert_allclose(SIM.download(y), near @ b, rtol=1e-5, atol=1e-5)  # eight sums in float32


# ---- Planted mistakes --------------------------------------------------------------------------------------


def _seen(compute: Callable[[], bool]) -> list[str]:
    """The schedules in which a mistake makes another result."""
    seen = []
    for name in emulator.SCHEDULES:
        emulator.use_schedule(name)
        seen += [] if compute() else [name]
    return seen


@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_barrier_is_seen(run: Run, missing: int) -> None:
    assert _seen(lambda: _tiled(run, missing))


@pytest.mark.parametrize(("step", "order"), [(1, "forward"), (-1, "backward")])
def test_a_missing_barrier_may_be_seen_in_one_order_alone(run: Run, step: int, order: str) -> None:
    emulator.use_schedule(order)
    y = SIM.empty((256,), np.float32)
    run(f"neighbour<{step}>", 1, y)
    seen, right = SIM.download(y), (np.arange(256) + step) % 256
    last = {1: 255, -1: 0}[step]  # the one that comes after its neighbour
    assert seen[last] == right[last]
    assert np.isnan(np.delete(seen, last)).all()


def test_the_orders_of_threads(run: Run) -> None:
    def turns(order: str) -> np.ndarray:
        emulator.use_schedule(order)
        y, count = SIM.empty((64,), np.int32), SIM.upload(np.zeros(1, np.int32))
        run("turns", 2, y, count, block=32)
        return SIM.download(y)

    forward, shuffled = np.arange(64), turns("shuffled")
    np.testing.assert_array_equal(turns("forward"), forward)
    np.testing.assert_array_equal(turns("backward"), forward[::-1])
    np.testing.assert_array_equal(turns("shuffled"), shuffled)  # the same in every run
    for block in (shuffled[:32], shuffled[32:] - 32):
        assert sorted(block) == forward[:32].tolist()
        assert (np.diff(block) < 0).any()
        assert (np.diff(block) > 0).any()
    assert (shuffled[:32] != shuffled[32:] - 32).any()


@pytest.mark.parametrize(
    ("missing", "schedules"), [(1, {"forward", "shuffled"}), (2, set(emulator.SCHEDULES)), (3, {"backward"})]
)
def test_a_missing_wait_or_a_hasty_copy_is_seen(run: Run, missing: int, schedules: set[str]) -> None:
    """Copies land late, but in backward order early."""
    assert set(_seen(lambda: _pipelined(run, missing))) >= schedules


@pytest.mark.parametrize("beside", [1, -1, 100])
def test_a_store_beside_an_array_is_seen(run: Run, beside: int) -> None:
    y = SIM.empty((4, 64), np.float32)
    with pytest.raises(
        DeviceError, match=r"store<.*> in planted.cu: it wrote beside argument 0, .* \(4, 64\)"
    ):
        run(f"store<{beside}>", 1, y, 1.0)


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("beside", [1 << 30, -(1 << 30)])
def test_a_store_far_from_any_array_is_seen(run: Run, beside: int) -> None:
    y = SIM.empty((256,), np.float32)
    text = r"reads or writes far from any array: thread \(\d+, 0, 0\) of block \(0, 0, 0\)"
    with pytest.raises(DeviceError, match=text):
        run(f"store<{beside}>", 1, y, 1.0)
    run("store<0>", 1, y, 1.0)
    assert (SIM.download(y) == 1).all()


def test_a_store_beside_a_view_goes_into_its_neighbours(run: Run) -> None:
    y = SIM.empty((2, 256), np.float32)
    run("store<1>", 1, y[0], 2.0)
    np.testing.assert_array_equal(SIM.download(y).ravel()[[1, 256]], 2.0)
    with pytest.raises(DeviceError, match=r"wrote beside argument 0, an array of shape \(256,\)"):
        run("store<1>", 1, y[1], 2.0)


MISTAKES = {
    1: f"divergent barrier: __syncthreads.. in line {_line('Mistake == 1 ')} is not reached by all threads",
    2: f"divergent barrier: __syncthreads.. in line {_line('Mistake == 2)')} is not reached by all threads",
    3: r"divergent barrier: some threads .* in line ({0}|{1}), others in line ({0}|{1})$".format(
        _line("Mistake == 3"), _line("Mistake == 3", 1)
    ),
    4: "a shuffle reads from a lane that takes no part in it",
    5: "a lane takes part in an operation of its warp but is not in the mask",
    6: "deadlock: threads of a block wait in a barrier or in an operation of their warp",
    7: "lanes of a warp wait for each other in different operations",
    8: "deadlock: threads of a block wait in a barrier or in an operation of their warp",
    9: "a thread ended while copies it had started were under way",
    10: "a thread ended while copies it had started were under way",
    11: "an asynchronous copy of 16 bytes is not aligned to as many",
    12: "an asynchronous copy of 16 bytes is not aligned to as many",
}


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_the_launch(run: Run, mistake: int) -> None:
    with pytest.raises(DeviceError, match=f"^apart<{mistake}> in planted.cu: {MISTAKES[mistake]}"):
        run(f"apart<{mistake}>", 3, SIM.empty((64,), np.float32))
    y = SIM.empty((64,), np.float32)  # the next launch is as if nothing had happened
    run("apart<0>", 3, y)
    np.testing.assert_array_equal(SIM.download(y), np.arange(64))


def test_copies_under_way_at_the_end_of_a_pipeline(run: Run) -> None:
    with pytest.raises(DeviceError, match=r"pipelined<4> .*: a thread ended while copies"):
        _pipelined(run, 4)


@pytest.mark.usefixtures("schedule")
def test_what_nobody_has_written_is_nan(run: Run) -> None:
    y = SIM.empty((3, 2), np.float32)
    assert np.isnan(SIM.download(y)).all()
    run("unwritten", 3, y)
    assert np.isnan(SIM.download(y)).all()


def test_a_struct_of_another_size_is_seen(run: Run) -> None:
    longer = np.zeros(1, [("first", "i4"), ("second", "f4"), ("third", "f4")])
    with pytest.raises(
        DeviceError, match=r"given in planted.cu: argument 1 has 12 bytes, the kernel takes 8"
    ):
        run("given", 1, SIM.empty((256,), np.int32), longer, None, True, 0)


@pytest.mark.parametrize(
    ("grid", "block", "text"),
    [
        (0, None, r"a grid of \(0, 1, 1\); its axes are from 1 to \(2147483647, 65535, 65535\)"),
        ((1, 65536), None, r"a grid of \(1, 65536, 1\)"),
        ((1, 1, 65536), None, r"a grid of \(1, 1, 65536\)"),
        (1, (1, 1, 65), r"a block of \(1, 1, 65\); its axes are from 1 to \(1024, 1024, 64\)"),
        (1, 0, r"a block of \(0, 1, 1\)"),
    ],
)
def test_a_launch_that_a_gpu_would_refuse(run: Run, grid: Any, block: Any, text: str) -> None:
    with pytest.raises(DeviceError, match=rf"store<0>: {text}"):
        run("store<0>", grid, SIM.empty((256,), np.float32), 1.0, block=block)


def test_more_shared_memory_than_there_is() -> None:
    kernel = Kernel("elementwise.cu", "unary<Relu, float>", shared_bytes=(227 << 10) + 1)
    with pytest.raises(DeviceError, match="232449 bytes of shared memory, a block has 227 KB"):
        SIM.run(kernel, (1, 1, 1), (1, 1, 1), [])


# ---- Building ----------------------------------------------------------------------------------------------


def test_a_source_that_does_not_compile_gives_the_compilers_words(sources: Path) -> None:
    text = "__global__ void __launch_bounds__(256) broken(float *y) {\n  y[0] = nonsense;\n}\n"
    (sources / "broken.cu").write_text(text, encoding="utf-8")
    broken = launch.kernel("broken.cu", "broken")
    with pytest.raises(
        DeviceError, match=r"(?s)g\+\+ does not compile broken.cu for 'cudasim':.*:2:.*nonsense"
    ):
        launch.launch(broken, SIM, 1, SIM.empty((1,), np.float32))


def test_without_a_compiler_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator.shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match=r"builds the CUDA kernels with g\+\+, which is not installed"):
        run("store<0>", 1, SIM.empty((256,), np.float32), 1.0)


def test_a_library_is_kept_until_its_source_or_a_header_changes(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIDL_CACHE", str(sources.parent / "cache"))
    header = sources / "constant.cuh"

    def compute() -> float:
        kernel, y = launch.kernel("constant.cu", "constant"), SIM.empty((1,), np.float32)
        emulator._library.cache_clear()  # as in another process
        launch.launch(kernel, SIM, 1, y, block=1)
        return float(SIM.download(y)[0])

    (sources / "constant.cu").write_text(
        "#include <constant.cuh>\n__global__ void __launch_bounds__(256) constant(float *y) { y[0] = kOne; }",
        encoding="utf-8",
    )
    header.write_text("constexpr float kOne = 1;\n", encoding="utf-8")
    assert compute() == 1
    with monkeypatch.context() as patch:
        patch.setattr(emulator.subprocess, "run", None)
        assert compute() == 1
    header.write_text("constexpr float kOne = 2;\n", encoding="utf-8")
    assert compute() == 2
    assert [path.suffix for path in (sources.parent / "cache" / "emulator").iterdir()] == [".so"] * 2


def test_equally_named_kernels_of_two_sources_do_not_share_memory(sources: Path) -> None:
    text = """
template <int Size>
__global__ void __launch_bounds__(1) same(float *y, float value) {{
  __shared__ float tile[{}];
  if (value > 0) tile[0] = value;
  y[0] = tile[0];
}}
"""
    results = []
    for name, size, value in ("first", 1, 1.0), ("second", 2, 0.0):
        (sources / f"{name}.cu").write_text(text.format(size), encoding="utf-8")
        y = SIM.empty((1,), np.float32)
        launch.launch(launch.kernel(f"{name}.cu", "same<1>", threads=1), SIM, 1, y, value)
        results.append(SIM.download(y)[0])
    np.testing.assert_array_equal(results, [1, np.nan])
