"""Every kernel compiles for the GPUs that minidl runs on, and is fit for them; the check sees what is not.

Needs nvcc or NVRTC, and no GPU. See compile_kernels.py, which this runs.
"""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from minidl.backend.cuda.launch import Kernel, declared


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "compile_kernels", Path(__file__).with_name("compile_kernels.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = _tool()
COMPILER = next(filter(tool.found, tool.COMPILERS), None)
needs_a_compiler = pytest.mark.skipif(
    COMPILER is None,
    reason="compiling the CUDA kernels takes nvcc on the PATH or NVRTC (pip install nvidia-cuda-nvrtc)",
)
each_compiler = pytest.mark.parametrize(
    "compiler",
    [
        pytest.param(c, marks=pytest.mark.skipif(not tool.found(c), reason=f"no {c} here"))
        for c in tool.COMPILERS
    ],
)


CURE = "run `python tests/gpu/compile_kernels.py`"


@needs_a_compiler
@pytest.mark.parametrize("source", dict.fromkeys(kernel.source for kernel in declared()))
def test_every_kernel_compiles_and_fits(source: str) -> None:
    uses, errors = tool.measure(declared(source), COMPILER)
    assert errors + [fault for use in uses for fault in tool.faults(use)] == []
    assert {use.kernel for use in uses} == set(declared(source))
    differences = tool.differences(tool.table(uses, COMPILER), tool.TABLE.read_text(encoding="utf-8"))
    assert [line for line in differences if line.startswith(f"{source}: ")] == [], CURE


def test_the_table_lists_every_kernel() -> None:
    listed = tool.rows_of(tool.TABLE.read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(f"{kernel.source}: {kernel.name}" for kernel in declared()), CURE


def test_every_source_is_declared_or_a_header() -> None:
    sources = {path.name for path in tool.kernel_folder().glob("*.cu")}
    assert sources == {kernel.source for kernel in declared()}


# ---- What the check has to see -----------------------------------------------------------------------------

FAULTY = """
#include <header.cuh>

// 128 numbers are needed at once, and a block of 1,024 threads leaves 64 registers for each.
__global__ void __launch_bounds__(1024) spills(const float *x, float *y) {
  float v[128];
#pragma unroll
  for (int i = 0; i < 128; i++) v[i] = x[1024 * i + threadIdx.x];
#pragma unroll
  for (int turn = 1; turn < 4; turn++)
#pragma unroll
    for (int i = 0; i < 128; i++) v[i] += v[(i + 37 * turn) % 128] * v[(i + 53) % 128];
#pragma unroll
  for (int i = 0; i < 128; i++) y[1024 * i + threadIdx.x] = v[i];
}

// Registers have no index that is known only while the kernel runs.
__global__ void __launch_bounds__(256) has_a_stack(const int *index, float *y) {
  float v[16];
  for (int i = 0; i < 16; i++) v[i] = y[i];
  for (int i = 0; i < 16; i++) v[index[i]] += 1;
  y[threadIdx.x] = v[index[threadIdx.x]];
}

template <int Bytes>
__global__ void __launch_bounds__(256) shares(const float *x, float *y) {
  __shared__ float tile[Bytes / 4];
  for (int i = threadIdx.x; i < Bytes / 4; i += 256) tile[i] = x[i];
  __syncthreads();
  y[threadIdx.x] = tile[(17 * threadIdx.x) % (Bytes / 4)];
}

__global__ void unbounded(const float *x, float *y) {
  float v[64];
#pragma unroll
  for (int i = 0; i < 64; i++) v[i] = x[1024 * i + threadIdx.x];
#pragma unroll
  for (int i = 0; i < 64; i++) v[i] += v[(i + 37) % 64] * v[(i + 53) % 64];
#pragma unroll
  for (int i = 0; i < 64; i++) y[1024 * i + threadIdx.x] = v[i];
}

template <class T, unsigned Size, bool Flag>
__global__ void __launch_bounds__(kThreads) fine(const T *x, T *y) { y[threadIdx.x] = Flag ? x[Size] : x[0]; }
"""


def _faults(folder: Path, compiler: str, kernel: Kernel, text: str = FAULTY) -> list[str]:
    """What is wrong with one kernel of a source."""
    (folder / "faulty.cu").write_text(text, encoding="utf-8")
    (folder / "header.cuh").write_text("constexpr int kThreads = 128;\n", encoding="utf-8")
    uses, errors = tool.measure([kernel], compiler, folder)
    return errors + [fault for use in uses for fault in tool.faults(use)]


ALL = tuple(tool.TARGETS)


@each_compiler
@pytest.mark.parametrize(
    ("name", "threads", "shared_bytes", "targets", "expected"),
    [
        ("spills", 1024, 0, ALL, r"spills \d+ bytes of registers"),
        ("has_a_stack", 256, 0, ALL, "keeps 64 bytes on a stack"),
        ("shares<32768>", 256, 32772, (75,), "takes 65540 bytes of shared memory, of 65536"),
        ("shares<1024>", 256, 163 << 10, (75, 80), "takes 167936 bytes of shared memory"),
        ("shares<1024>", 256, 227 << 10, ALL, "takes 233472 bytes of shared memory"),
        ("unbounded", 256, 0, ALL, "is declared with 256 threads, its launch bound is nothing"),
        ("unbounded", 1024, 0, ALL, r"takes \d+ registers in a block of 1024 threads, of 65536"),
        ("fine<float, 3, true>", 256, 0, ALL, "is declared with 256 threads, its launch bound is 128"),
    ],
)
def test_faults_are_seen(
    name: str,
    threads: int,
    shared_bytes: int,
    targets: tuple[int, ...],
    expected: str,
    compiler: str,
    tmp_path: Path,
) -> None:
    faults = _faults(tmp_path, compiler, Kernel("faulty.cu", name, threads, shared_bytes))
    for target in tool.TARGETS:
        here = [fault for fault in faults if f" sm_{target} " in fault]
        if target in targets:
            assert sum(re.search(expected, fault) is not None for fault in here) == 1, faults
        else:
            assert here == []


@each_compiler
@pytest.mark.parametrize(
    "name", ["fine<float, 3, true>", "fine<unsigned, 3u, false>", "fine<unsigned long long, 5, true>"]
)
def test_a_fine_kernel_has_no_faults(name: str, compiler: str, tmp_path: Path) -> None:
    assert _faults(tmp_path, compiler, Kernel("faulty.cu", name, threads=128)) == []


@each_compiler
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("shares<65536>", FAULTY, "uses too much shared data"),
        (
            "broken",
            "__global__ void __launch_bounds__(256) broken(float *y) { y[0] = nonsense; }",
            "nonsense",
        ),
        ("absent", "__global__ void __launch_bounds__(256) present(float *y) { y[0] = 1; }", "absent"),
    ],
)
def test_what_does_not_compile_is_told_in_the_compilers_words(
    name: str, text: str, words: str, compiler: str, tmp_path: Path
) -> None:
    faults = _faults(tmp_path, compiler, Kernel("faulty.cu", name), text)
    assert len(faults) == 3
    for target, fault in zip(tool.TARGETS, faults):
        assert fault.startswith(f"faulty.cu for sm_{target}: ")
        assert words in fault


@each_compiler
def test_tensor_cores_are_not_asked_of_a_gpu_without(compiler: str, tmp_path: Path) -> None:
    text = """
#include <port.cuh>
__global__ void __launch_bounds__(256) wait(float *) { cp_commit(); cp_wait<0>(); }
"""
    (tmp_path / "port.cuh").write_bytes((tool.kernel_folder() / "port.cuh").read_bytes())
    assert _faults(tmp_path, compiler, Kernel("faulty.cu", "wait", tensor_cores=True), text) == []
    (fault,) = _faults(tmp_path, compiler, Kernel("faulty.cu", "wait"), text)
    assert "for sm_75" in fault
    assert "cp.async" in fault


def _use(kernel: Kernel, target: int, **fields: int) -> "tool.Use":
    usual = {
        "registers": 16,
        "static_bytes": 0,
        "stack_bytes": 0,
        "spilled_bytes": 0,
        "bound": kernel.threads,
    }
    return tool.Use(kernel, target, tool.Report(**usual | fields))


def test_the_table_is_compared_but_for_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "_version", lambda compiler: compiler)
    add, mul = Kernel("a.cu", "binary<Add, float>"), Kernel("b.cu", "mul", threads=128, tensor_cores=True)

    def table(*uses: "tool.Use") -> str:
        return tool.table(list(uses), "a compiler")

    both = table(_use(add, 80), _use(mul, 80, static_bytes=512))
    assert tool.differences(table(_use(add, 80, registers=99), _use(mul, 80, static_bytes=512)), both) == []
    assert tool.differences(table(_use(add, 80)), both) == [
        "b.cu: mul: not declared; in kernels.md: 128 threads, 512 + 0 bytes, on sm_80"
    ]
    assert tool.differences(both, table(_use(add, 80))) == [
        "b.cu: mul: 128 threads, 512 + 0 bytes, on sm_80; in kernels.md: nothing"
    ]
    for other in (_use(mul, 80), _use(mul, 90, static_bytes=512), _use(replace(mul, threads=64), 80)):
        assert len(tool.differences(table(_use(add, 80), other), both)) == 1


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(tool, "found", lambda compiler: False)
    assert tool.main(["--check"], said.append) == 2
    assert "pip install nvidia-cuda-nvrtc" in said[0]
