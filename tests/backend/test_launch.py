"""A launch takes just what the kernel's source says, and nothing runs otherwise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl.backend.cuda  # noqa: F401  declares the kernels
from minidl.backend.cuda import emulator, launch
from minidl.backend.cuda.launch import Kernel, Parameter, Strided, declared, signature
from minidl.errors import DeviceError, DTypeError, ShapeError

SOURCE = """
#include <places.cuh>

// __global__ void retired(float *y) {
template <class T, int Size>
struct Tile {
  T value[Size];
};

struct Shape { int n, c; };

template <class T, class Inner, int Size>
__global__ void __launch_bounds__(128)
mixed(const T *__restrict__ x, const unsigned char* mask,
      T *y, unsigned long long count,  // how many
      Shape shape, bool flag, T number, Inner *others) {
  if (count) y[0] = x[0];
}

__global__ void __launch_bounds__(32 * kWarps, 2) plain(int *y, unsigned n) { y[0] = n; }

template <bool Mixed> __device__ void mixed_up(float z) { }
"""


class Recorder:
    """A runtime that runs nothing."""

    name = "cudasim"

    def __init__(self) -> None:
        self.launches: list[tuple[Kernel, tuple[int, ...], tuple[int, ...], list[Any]]] = []

    def run(self, *launch: Any) -> None:
        self.launches.append(launch)


@pytest.fixture
def runtime() -> Recorder:
    return Recorder()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a source that holds SOURCE: of its own in each test, for signatures are kept."""
    name = f"{tmp_path.name}.cu"
    (tmp_path / name).write_text(SOURCE, encoding="utf-8")
    monkeypatch.setattr(launch, "kernel_folder", lambda: tmp_path)
    monkeypatch.setattr(launch, "_declared", {})
    return name


def _sim(host: Any, dtype: Any = np.float32) -> emulator.SimArray:
    return emulator.Emulator().upload(np.asarray(host, dtype))


# ---- Signatures --------------------------------------------------------------------------------------------


def test_the_signature_of_a_template(source: str) -> None:
    expected = (
        Parameter("x", np.dtype(np.float32), True),
        Parameter("mask", np.dtype(np.uint8), True),
        Parameter("y", np.dtype(np.float32), True),
        Parameter("count", np.dtype(np.uint64), False),
        Parameter("shape", None, False),
        Parameter("flag", np.dtype(np.bool_), False),
        Parameter("number", np.dtype(np.float32), False),
        Parameter("others", np.dtype(np.int16), True),
    )
    assert signature(Kernel(source, "mixed<float, short, 4>")) == expected


def test_arguments_of_a_template_may_be_templates(source: str) -> None:
    found = {p.name: p for p in signature(Kernel(source, "mixed<long long, Tile<Tile<int, 4>, 8>, 4>"))}
    assert found["x"] == ("x", np.dtype(np.int64), True)
    assert found["others"] == ("others", None, True)


def test_the_signature_of_a_plain_kernel(source: str) -> None:
    assert signature(Kernel(source, "plain")) == (
        ("y", np.dtype(np.int32), True),
        ("n", np.dtype(np.uint32), False),
    )


@pytest.mark.parametrize("name", ["retired", "mixed_up<true>", "nought", "lain", "mix<float>"])
def test_an_unknown_kernel(source: str, name: str) -> None:
    with pytest.raises(DeviceError, match=rf"{source} has no kernel '{name.partition('<')[0]}'"):
        signature(Kernel(source, name))


def test_an_unknown_source() -> None:
    with pytest.raises(DeviceError, match=r"no kernel source 'nought.cu' in .*; there: .*elementwise.cu"):
        signature(Kernel("nought.cu", "add"))


def test_every_declared_kernel_has_a_signature() -> None:
    for kernel in declared():
        parameters = signature(kernel)
        assert any(parameter.pointer for parameter in parameters), kernel.name
        assert all(parameter.name.isidentifier() for parameter in parameters), kernel.name


def test_kernels_are_declared_once_and_in_order(source: str) -> None:
    first = launch.kernel(source, "plain", threads=64)
    second = launch.kernel("other.cu", "plain")
    assert launch.kernel(source, "plain", threads=64) is first
    assert declared() == [first, second]
    assert declared(source) == [first]
    assert (first.threads, second.threads) == (64, launch.THREADS)


# ---- Arguments ---------------------------------------------------------------------------------------------

FILL = Kernel("move.cu", "fill<unsigned>")  # y, value, n
CLIP = Kernel("elementwise.cu", "clip<float>")  # x, low, high, y, places, n
CLIP_LONG = Kernel("elementwise.cu", "clip<long long>")
PLACES = np.zeros(1, [("axes", "i4")])


def test_arguments_become_what_the_kernel_takes(runtime: Recorder) -> None:
    x, y = _sim([[1, 2], [3, 4]]), _sim([0, 0, 0, 0])
    launch.launch(CLIP, runtime, 5, Strided(x.T), -1, 2.5, y, PLACES, np.int64(4))
    ((kernel, grid, block, arguments),) = runtime.launches
    assert (kernel, grid, block) == (CLIP, (5, 1, 1), (256, 1, 1))
    given, low, high, result, places, n = arguments
    assert given.strides == x.T.strides
    assert [type(value) for value in (low, high, n)] == [np.float32, np.float32, np.int32]
    assert (low, high, n) == (-1, 2.5, 4)
    assert result is y
    assert places is PLACES


@pytest.mark.parametrize(
    ("grid", "block", "expected"),
    [
        (3, None, ((3, 1, 1), (256, 1, 1))),
        ((3, 2), 32, ((3, 2, 1), (32, 1, 1))),
        ((3, 2, 4), (16, 16), ((3, 2, 4), (16, 16, 1))),
        ((1,), [4, 8, 8], ((1, 1, 1), (4, 8, 8))),
    ],
)
def test_grids_and_blocks_have_three_axes(runtime: Recorder, grid: Any, block: Any, expected: Any) -> None:
    launch.launch(FILL, runtime, grid, None, 0, 0, block=block)
    ((_, *sizes, arguments),) = runtime.launches
    assert tuple(sizes) == expected
    assert arguments[0] is None


def _refused(runtime: Recorder, kernel: Kernel, *arguments: Any, **options: Any) -> None:
    try:
        launch.launch(kernel, runtime, 1, *arguments, **options)
    finally:
        assert runtime.launches == []


def test_a_wrong_number_of_arguments(runtime: Recorder) -> None:
    y = _sim([0], np.uint32)
    for arguments in ((y, 0), (y, 0, 1, 2)):
        text = rf"fill<unsigned>: it takes 3 arguments \(y, value, n\), not {len(arguments)}"
        with pytest.raises(TypeError, match=text):
            _refused(runtime, FILL, *arguments)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8, np.bool_], ids=str)
def test_a_wrong_dtype(runtime: Recorder, dtype: Any) -> None:
    x, y = _sim([1], dtype), _sim([1])
    with pytest.raises(DTypeError, match=f"clip<float>: x is {np.dtype(dtype)}, the kernel takes float32"):
        _refused(runtime, CLIP, Strided(x), 0, 1, y, PLACES, 1)
    with pytest.raises(DTypeError, match=f"clip<float>: y is {np.dtype(dtype)}, the kernel takes float32"):
        _refused(runtime, CLIP, y, 0, 1, x, PLACES, 1)


@pytest.mark.parametrize("view", [lambda y: y.T, lambda y: y[::2], lambda y: y[:, 1:], lambda y: y[::-1]])
def test_an_array_with_gaps(runtime: Recorder, view: Any) -> None:
    y = view(_sim(np.zeros((4, 6)), np.uint32))
    with pytest.raises(
        ShapeError, match=r"fill<unsigned>: y of shape \(.*\) is not contiguous, strides \(.*\)"
    ):
        _refused(runtime, FILL, y, 0, 1)
    launch.launch(FILL, runtime, 1, Strided(y), 0, 1)


def test_an_array_of_the_host(runtime: Recorder) -> None:
    y = np.zeros(4, np.uint32)
    for argument in (y, Strided(y)):
        with pytest.raises(
            DeviceError, match="fill<unsigned>: y is an array of NumPy's, on 'cpu': upload it"
        ):
            _refused(runtime, FILL, argument, 0, 1)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((1 << 16, 1 << 15), (0, 0)), ((2, 1 << 30), (1 << 32, 4)), ((1 << 16, 1 << 15), (-(1 << 17), 4))],
)
def test_more_elements_than_32_bits_count(
    runtime: Recorder, shape: tuple[int, int], strides: tuple[int, int]
) -> None:
    """In an array, or in the memory over which it is spread."""
    large = np.lib.stride_tricks.as_strided(_sim([1]).view(np.ndarray), shape, strides)
    text = rf"clip<float>: x of shape \({shape[0]}, {shape[1]}\) reaches over 2147483648 elements: .* up to"
    with pytest.raises(ShapeError, match=text):
        _refused(runtime, CLIP, Strided(large.view(emulator.SimArray)), 0, 1, _sim([1]), PLACES, 1)


@pytest.mark.parametrize(
    ("kernel", "arguments", "text"),
    [
        (FILL, (None, 0, 1 << 31), "n is 2147483648, the kernel takes numbers up to 2147483647"),
        (FILL, (None, 0, np.int64(1) << 40), "n is 1099511627776, the kernel takes numbers up to 2147483647"),
        (FILL, (None, 0, -(1 << 31) - 1), "n is -2147483649"),
        (FILL, (None, 1 << 32, 0), "value is 4294967296, the kernel takes numbers up to 4294967295"),
        (FILL, (None, -1, 0), "value is -1"),
        (CLIP_LONG, (None, 1 << 63, 0, None, PLACES, 0), "low is 9223372036854775808"),
    ],
)
def test_numbers_that_do_not_fit(runtime: Recorder, kernel: Kernel, arguments: Any, text: str) -> None:
    with pytest.raises(ShapeError, match=f"{kernel.name}: {text}.*: use smaller batches"):
        _refused(runtime, kernel, *arguments)


def test_numbers_that_fit(runtime: Recorder) -> None:
    limits = np.iinfo(np.int64)
    launch.launch(CLIP_LONG, runtime, 1, None, limits.min, limits.max, None, PLACES, 2**31 - 1)
    launch.launch(FILL, runtime, 1, None, np.array(2**32 - 1, np.uint32), -(2**31))
    launch.launch(CLIP, runtime, 1, None, np.nan, np.inf, None, PLACES, 0)
    (_, low, high, *_), (_, value, n), (_, nan, infinity, *_) = (a for *_, a in runtime.launches)
    assert (low, high, value, n, infinity) == (limits.min, limits.max, 2**32 - 1, -(2**31), np.inf)
    assert np.isnan(nan)


@pytest.mark.parametrize("block", [257, (16, 17), (8, 8, 5)])
def test_a_block_beyond_the_launch_bound(runtime: Recorder, block: Any) -> None:
    with pytest.raises(ValueError, match=r"fill<unsigned>: a block of \(.*\) threads, but its bound is 256"):
        _refused(runtime, FILL, None, 0, 0, block=block)


@pytest.mark.parametrize(("elements", "blocks"), [(0, 1), (1, 1), (256, 1), (257, 2), (1 << 30, 1 << 22)])
def test_blocks_for(elements: int, blocks: int) -> None:
    assert launch.blocks_for(elements) == blocks
    assert launch.blocks_for(elements, 1) == max(elements, 1)
