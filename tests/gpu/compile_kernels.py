"""Compiles every declared kernel as GPUs of three generations would, on a machine without one, and says what
each instance takes: registers, shared memory.

    python tests/gpu/compile_kernels.py            print the table and write it to kernels.md beside this
    python tests/gpu/compile_kernels.py --check    compare with that table instead, fail where they differ

It fails where a kernel spills registers or keeps local arrays in memory, which makes it slow, and where a GPU
would refuse to launch it: too many registers or too much shared memory for a block, or a block larger than
the kernel was compiled for. Nobody would notice without a GPU otherwise.

Compilers: nvcc, if it is on the PATH; or NVRTC, the one that runs inside CuPy, from a toolkit or from the
wheel nvidia-cuda-nvrtc. What both say is ptxas's report (-v) and the PTX. A result is kept in minidl's cache
folder, by the content of what was compiled. Registers differ between versions of a compiler, so --check does
not compare those.
"""

import argparse
import ctypes
import ctypes.util
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import minidl.backend.cuda  # noqa: F401  declares the kernels
from minidl.backend.cache import cache_folder
from minidl.backend.cuda.launch import Kernel, declared, kernel_folder

TABLE = Path(__file__).with_name("kernels.md")
COMPILERS = ("nvcc", "nvrtc")
# Shared memory that a block may have, by compute capability (CUDA C++ Programming Guide). For 8.0 it is what
# 8.6 and 8.9 have, which run the same instances; an A100 has 163 KB.
TARGETS = {75: 64 << 10, 80: 99 << 10, 90: 227 << 10}
_TENSOR_CORES = 80  # the first target that has TF32 and asynchronous copies
_REGISTERS = 65536  # of a multiprocessor, shared out by eight for each thread
_OPTIONS = ("-std=c++17",)


class CompileError(Exception):
    """A source does not compile, in the compiler's words."""


class Report(NamedTuple):
    """What the compiler says of one instance."""

    registers: int
    static_bytes: int  # of shared memory
    stack_bytes: int
    spilled_bytes: int  # stores and loads
    bound: int  # the most threads of a block, as __launch_bounds__ says; 0 where it says nothing


class Use(NamedTuple):
    """What one instance takes on one target."""

    kernel: Kernel
    target: int
    report: Report


# ---- Compiling ---------------------------------------------------------------------------------------------


def found(compiler: str) -> bool:
    """Whether there is such a compiler here."""
    return bool(shutil.which("nvcc") if compiler == "nvcc" else _nvrtc_path())


def targets_of(kernel: Kernel) -> list[int]:
    """What the kernel has to run on."""
    return [target for target in TARGETS if target >= _TENSOR_CORES or not kernel.tensor_cores]


def measure(
    kernels: Iterable[Kernel], compiler: str, folder: Path | None = None
) -> tuple[list[Use], list[str]]:
    """Compile kernels, whose sources lie in `folder`, for all their targets, several at a time.

    -> what each takes, in the order of the kernels; what was wrong with sources that do not compile
    """
    folder, kernels = folder or kernel_folder(), list(kernels)
    jobs: dict[tuple[str, int], list[str]] = {}
    for kernel in kernels:
        for target in targets_of(kernel):
            jobs.setdefault((kernel.source, target), []).append(kernel.name)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {
            (source, target): pool.submit(_kept, compiler, folder, source, names, target)
            for (source, target), names in jobs.items()
        }
    uses, errors = [], []
    for kernel in kernels:
        for target in targets_of(kernel):
            if (failure := running[kernel.source, target].exception()) is None:
                report = running[kernel.source, target].result()[kernel.name]
                uses.append(Use(kernel, target, Report(*report)))
            elif isinstance(failure, CompileError):
                errors.append(f"{kernel.source} for sm_{target}: {failure}")
            else:
                raise failure
    return uses, list(dict.fromkeys(errors))


def _kept(compiler: str, folder: Path, source: str, names: list[str], target: int) -> dict[str, list[int]]:
    """The reports of a source's instances, by their names: compiled unless they are kept."""
    content = hashlib.sha256(repr((_version(compiler), _OPTIONS, names, target)).encode())
    for path in (folder / source, Path(__file__), *sorted(folder.glob("*.cuh"))):
        content.update(path.read_bytes())
    kept = cache_folder("compile-check") / f"{Path(source).stem}-{target}-{content.hexdigest()[:16]}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    run = _run_nvcc if compiler == "nvcc" else _run_nvrtc
    with tempfile.TemporaryDirectory() as place:
        ptx, log, lowered = run(folder, source, names, target, Path(place))
    reports = _reports(ptx, log, lowered)
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(reports), encoding="utf-8")
    part.replace(kept)
    return reports


def _reports(ptx: str, log: str, lowered: dict[str, str]) -> dict[str, list[int]]:
    """The fields of a Report for each instance; lowered: the names that the compiler gave them."""
    bounds = {
        name: int(threads or 0)
        for name, threads in re.findall(r"\.entry\s+(\w+)\s*\([^)]*\)\s*(?:\.maxntid\s+(\d+))?", ptx)
    }
    used = {}
    for part in re.split(r"Compiling entry function ", log)[1:]:
        name = re.match(r"'(\w+)'", part)[1]
        registers = re.search(r"Used (\d+) registers", part)[1]
        shared = re.search(r"(\d+) bytes smem", part)
        frames = re.findall(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
        )
        if not frames:
            raise CompileError(f"ptxas reports no stack frame of {name}:\n{part}")
        stack, stores, loads = (sum(map(int, numbers)) for numbers in zip(*frames))
        used[name] = [int(registers), int(shared[1]) if shared else 0, stack, stores + loads, bounds[name]]
    missing = [name for name, low in lowered.items() if low not in used]
    if missing:
        raise CompileError(f"ptxas reports nothing of {', '.join(missing)}; it names {', '.join(used)}")
    return {name: used[low] for name, low in lowered.items()}


# ---- nvcc --------------------------------------------------------------------------------------------------


def _run_nvcc(
    folder: Path, source: str, names: list[str], target: int, place: Path
) -> tuple[str, str, dict[str, str]]:
    """-> PTX, ptxas's report, the names in them of the instances"""
    addresses = "".join(f"    (void *)&{name},\n" for name in names)
    wrapper = place / "wrapper.cu"
    wrapper.write_text(f'#include "{source}"\nvoid *instances[] = {{\n{addresses}}};\n', encoding="utf-8")
    command = ["nvcc", *_OPTIONS, f"-I{folder}", f"-arch=sm_{target}", "-cubin", "-Xptxas", "-v"]
    outputs = ["--keep", "--keep-dir", str(place), "-o", str(place / "wrapper.cubin"), str(wrapper)]
    result = subprocess.run([*command, *outputs], capture_output=True, text=True, check=False, cwd=place)
    log = result.stdout + result.stderr
    if result.returncode:
        raise CompileError(f"nvcc: {log}")
    lowered = _lowered(names, re.findall(r"Compiling entry function '(\w+)'", log))
    return (place / "wrapper.ptx").read_text(encoding="utf-8"), log, lowered


def _lowered(names: list[str], mangled: list[str]) -> dict[str, str]:
    """Which of the mangled names is which instance's: by c++filt, which comes with the host's compiler."""
    result = subprocess.run(
        ["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    # "void copy<unsigned int>(unsigned int const*, ...)" stands for "copy<unsigned>"
    plain = {_canonical(_instance(line)): low for line, low in zip(result, mangled, strict=True)}
    unknown = [name for name in names if _canonical(name) not in plain]
    if unknown:
        raise CompileError(f"no instance in nvcc's report is called {unknown}; it has {sorted(plain)}")
    return {name: plain[_canonical(name)] for name in names}


def _instance(text: str) -> str:
    """A demangled function without its result and parameters."""
    depth = 0
    for i, character in enumerate(text):
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "(" and depth == 0:
            text = text[:i]
            break
    return text.removeprefix("void ")


def _canonical(name: str) -> str:
    """Equal for two ways of writing the same name."""
    name = re.sub(r"\bunsigned\b(?! *(?:int|char|short|long)\b)", "unsigned int", name)
    return re.sub(r"\s+", "", re.sub(r"\((?:int|unsigned int|bool)\)|(?<=\d)[uUlL]+\b", "", name))


# ---- NVRTC -------------------------------------------------------------------------------------------------


@functools.cache
def _nvrtc_path() -> str | None:
    """NVRTC's library: of NVIDIA's wheels for Python, or of a toolkit."""
    wheels = importlib.util.find_spec("nvidia")
    for folder in (wheels and wheels.submodule_search_locations) or ():
        for library in sorted(Path(folder).glob("**/libnvrtc.so.*")):
            return str(library)
    if library := ctypes.util.find_library("nvrtc"):
        return library
    nvcc = shutil.which("nvcc")
    toolkits = [Path("/usr/local/cuda"), *([Path(nvcc).resolve().parents[1]] if nvcc else [])]
    return next((str(p) for t in toolkits for p in sorted(t.glob("lib64/libnvrtc.so.*"))), None)


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    return ctypes.CDLL(_nvrtc_path())


def _run_nvrtc(
    folder: Path, source: str, names: list[str], target: int, place: Path
) -> tuple[str, str, dict[str, str]]:
    """-> PTX, ptxas's report, the names in them of the instances"""
    library, program = _nvrtc(), ctypes.c_void_p()

    def ask(what: str, *arguments: Any) -> None:
        if error := getattr(library, f"nvrtc{what}")(program, *arguments):
            raise CompileError(f"nvrtc{what} fails with {error}")

    def text(what: str) -> str:
        size = ctypes.c_size_t()
        ask(f"Get{what}Size", ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        ask(f"Get{what}", buffer)
        return buffer.value.decode()

    content = (folder / source).read_bytes()
    library.nvrtcCreateProgram(ctypes.byref(program), content, source.encode(), 0, None, None)
    try:
        for name in names:
            ask("AddNameExpression", name.encode())
        options = [*_OPTIONS, f"-I{folder}", f"-arch=sm_{target}", "--ptxas-options=-v"]
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = library.nvrtcCompileProgram(program, len(options), given)
        if failed:
            library.nvrtcCompileProgram(program, len(options) - 1, given)  # the report may hide the reason
            raise CompileError(f"NVRTC: {text('ProgramLog')}")
        lowered = {}
        for name in names:
            pointer = ctypes.c_char_p()
            ask("GetLoweredName", name.encode(), ctypes.byref(pointer))
            lowered[name] = (pointer.value or b"").decode()
        return text("PTX"), text("ProgramLog"), lowered
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def _version(compiler: str) -> str:
    if compiler == "nvcc":
        text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
        return "nvcc " + (re.findall(r"V([\d.]+)", text) or ["?"])[0]
    numbers = ctypes.c_int(), ctypes.c_int()
    _nvrtc().nvrtcVersion(*map(ctypes.byref, numbers))
    return f"NVRTC {numbers[0].value}.{numbers[1].value}"


# ---- What is wrong, and the table --------------------------------------------------------------------------


def faults(use: Use) -> list[str]:
    """Why the instance is slow on its target, or could not be launched."""
    kernel, report = use.kernel, use.report
    held = -(-report.registers // 8) * 8 * kernel.threads
    shared = report.static_bytes + kernel.shared_bytes
    bound = report.bound or "nothing"
    problems = {
        f"spills {report.spilled_bytes} bytes of registers": report.spilled_bytes > 0,
        f"keeps {report.stack_bytes} bytes on a stack": report.stack_bytes > 0,
        f"takes {held} registers in a block of {kernel.threads} threads, of {_REGISTERS}": held > _REGISTERS,
        f"takes {shared} bytes of shared memory, of {TARGETS[use.target]}": shared > TARGETS[use.target],
        f"is declared with {kernel.threads} threads, its launch bound is {bound}": bound != kernel.threads,
    }
    name = f"{kernel.source}: {kernel.name} for sm_{use.target}"
    return [f"{name} {what}" for what, holds in problems.items() if holds]


def table(uses: list[Use], compiler: str) -> str:
    """All instances, source by source."""
    rows: dict[Kernel, dict[int, Report]] = {}
    for use in uses:
        rows.setdefault(use.kernel, {})[use.target] = use.report
    lines = [
        "# What the kernels take",
        "",
        "Written by `python tests/gpu/compile_kernels.py`: threads of a block, bytes of shared memory (in",
        f"the source, of the launch), registers of a thread on each target as {_version(compiler)} has it.",
    ]
    source = None
    for kernel, reports in rows.items():
        if kernel.source != source:
            source = kernel.source
            heads = [f"sm_{target}" for target in TARGETS]
            lines += [
                "",
                f"## {source}",
                "",
                f"| kernel | threads | static | dynamic | {' | '.join(heads)} |",
            ]
            lines += ["|---|" + "--:|" * (3 + len(TARGETS))]
        static = max(report.static_bytes for report in reports.values())
        registers = (str(reports[target].registers) if target in reports else "-" for target in TARGETS)
        cells = (f"`{kernel.name}`", kernel.threads, static, kernel.shared_bytes, *registers)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def rows_of(text: str) -> dict[str, str]:
    """Of a table: each instance -> its limits and targets, without what differs between compilers."""
    rows, source = {}, ""
    for line in text.splitlines():
        if line.startswith("## "):
            source = line.removeprefix("## ")
        elif line.startswith("| `"):
            name, threads, static, dynamic, *registers = (
                cell.strip(" `") for cell in line.strip("|").split("|")
            )
            on = " ".join(f"sm_{t}" for t, count in zip(TARGETS, registers) if count != "-")
            rows[f"{source}: {name}"] = f"{threads} threads, {static} + {dynamic} bytes, on {on}"
    return rows


def differences(text: str, committed: str) -> list[str]:
    """Where a table differs from the committed one, but for registers."""
    now, before = rows_of(text), rows_of(committed)
    return [
        f"{name}: {now.get(name, 'not declared')}; in {TABLE.name}: {before.get(name, 'nothing')}"
        for name in dict.fromkeys([*now, *before])
        if now.get(name) != before.get(name)
    ]


def main(arguments: list[str], say: Callable[[str], Any] = print) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description="Compile all CUDA kernels and check what they take.")
    parser.add_argument("--check", action="store_true", help=f"compare with {TABLE.name}, do not write it")
    parser.add_argument("--compiler", choices=COMPILERS, help="the first one found, unless given")
    options = parser.parse_args(arguments)
    compiler = options.compiler or next(filter(found, COMPILERS), None)
    if compiler is None or not found(compiler):
        say("there is neither nvcc on the PATH nor NVRTC; for the latter: pip install nvidia-cuda-nvrtc")
        return 2
    uses, wrong = measure(declared(), compiler)
    text = table(uses, compiler)
    wrong += [fault for use in uses for fault in faults(use)]
    if options.check:
        wrong += differences(text, TABLE.read_text(encoding="utf-8") if TABLE.is_file() else "")
    else:
        say(text)
        TABLE.write_text(text, encoding="utf-8")
    for line in wrong:
        say(line)
    say(f"{len(uses)} instances for {len(TARGETS)} targets by {_version(compiler)}: {len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
