"""Training steps (or inference) of minidl and PyTorch side by side, in one run: the ratio is the result.

    python tests/peers/compare.py                       # every case below
    python tests/peers/compare.py nin resnet18 --pairs 9
    python tests/peers/compare.py nin --infer --threads 1

Needs `pip install torch==2.13.0` (a CPU build) next to what minidl needs. Each engine runs in a process of
its own, both with the same number of threads; they take turns step by step, so that a machine whose speed
drifts slows both alike. PyTorch runs eager, once as NCHW and once as channels_last; the faster of the two is
the peer. Prints one row a case and the geometric mean:

    ratio   median over pairs of (torch time / minidl time); above 1 minidl is faster
    GF/s    2 * multiply-adds * (3 when training) / time
    gemm    fraction of what numpy's float32 matmul (2048^3) reaches on this machine in the same run
    rss     peak resident memory of each process, MB
    first   seconds from process start to the end of the first step of minidl

A step is forward, cross-entropy, backward, SGD with momentum 0.9 and weight decay 1e-4, float32, without
auxiliary heads.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


class Case(NamedTuple):
    """The same network in both engines; macs: multiply-adds of one image."""

    minidl: str
    torch: str
    batch: int
    size: int
    macs: float


CASES = {
    "nin": Case("nin()", "nin(pool='pad1')", 64, 32, 0.2225e9),
    "resnet20": Case("resnet20()", "cifar_resnet(depth=20, classes=10)", 128, 32, 0.0406e9),
    "resnet18": Case("resnet18()", "resnet(18)", 16, 224, 1.8141e9),
    "googlenet": Case(
        "googlenet(variant='torchvision', aux=False)",
        "googlenet('torchvision', aux=False)",
        16,
        224,
        1.4984e9,
    ),
    "resnet50": Case("resnet50()", "resnet(50)", 8, 224, 4.0892e9),
    "inception_v3": Case("inception_v3(aux=False)", "inception_v3('tf', aux=False)", 8, 299, 5.7132e9),
    "inception_v4": Case("inception_v4(aux=False)", "inception_v4('tf', aux=False)", 4, 299, 12.254e9),
    "inception_resnet_v2": Case(
        "inception_resnet_v2(aux=False)", "inception_resnet_v2('tf', aux=False)", 4, 299, 13.1558e9
    ),
}

Step = Callable[[], float]


def torch_step(case: Case, layout: str, threads: int, infer: bool) -> Step:
    """One step of PyTorch: () -> loss, or the sum of the logits."""
    import torch

    import torch_nets

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = eval(case.torch, vars(torch_nets))
    x = torch.randn(case.batch, 3, case.size, case.size)
    if layout == "channels_last":
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    y = torch.from_numpy(np.random.default_rng(0).integers(0, 10, case.batch))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    net.train(not infer)

    def predict() -> float:
        with torch.inference_mode():
            return float(net(x).sum())

    def learn() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return predict if infer else learn


def minidl_step(case: Case, layout: str, threads: int, infer: bool) -> Step:
    """One step of minidl: () -> loss, or the sum of the logits."""
    sys.path.insert(0, str(ROOT))
    import minidl as md
    import minidl_models

    md.set_num_threads(threads)
    md.manual_seed(0)
    net = eval(case.minidl, vars(minidl_models))
    rng = np.random.default_rng(0)
    x = md.tensor(rng.standard_normal((case.batch, case.size, case.size, 3), dtype=np.float32))
    y = rng.integers(0, 10, case.batch)
    optimizer = md.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    net.train(not infer)

    def predict() -> float:
        with md.no_grad():
            return float(net(x).numpy().sum())

    def learn() -> float:
        optimizer.zero_grad()
        loss = md.ops.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return predict if infer else learn


def serve(engine: str, name: str, layout: str, threads: int, infer: bool) -> None:
    """A worker process: one step for each line it reads; answers [seconds, value, peak MB]."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the engine prints goes to stderr
    step = (torch_step if engine == "torch" else minidl_step)(CASES[name], layout, threads, infer)
    for _ in sys.stdin:
        start = time.perf_counter()
        value = step()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        out.write(json.dumps([seconds, value, peak]) + "\n")


class Worker:
    """One engine in a process of its own."""

    def __init__(self, engine: str, name: str, layout: str, threads: int, infer: bool) -> None:
        pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        self.born = time.perf_counter()
        words = ["--worker", engine, name, layout, str(threads), str(int(infer))]
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ) | dict.fromkeys(pools, str(threads)),
        )

    def step(self) -> Any:
        """[seconds, value, peak MB] of one step.  SystemExit if the process has died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker stopped: {self.process.args[2:]}")  # type: ignore[index]
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def median(values: list[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered = sorted(values)
    return (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2


def gemm_rate(threads: int) -> float:
    """What numpy's float32 matmul reaches here, operations a second."""
    code = (
        "import numpy as np,time\na=np.random.rand(2048,2048).astype('f');o=np.empty_like(a)\nb=9e9\n"
        "for _ in range(8):\n t=time.perf_counter();np.matmul(a,a,out=o);b=min(b,time.perf_counter()-t)\n"
        "print(2*2048**3/b)"
    )
    environment = dict(os.environ, OPENBLAS_NUM_THREADS=str(threads))
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, text=True, capture_output=True, check=True, env=environment).stdout)


def faster_peer(name: str, options: argparse.Namespace) -> tuple[str, Worker]:
    """(the layout in which PyTorch is faster, its worker, warmed up)."""
    workers = {
        layout: Worker("torch", name, layout, options.threads, options.infer)
        for layout in ("nchw", "channels_last")
    }
    seconds = {}
    for layout, worker in workers.items():
        worker.step()
        seconds[layout] = min(worker.step()[0] for _ in range(2))
    best = min(seconds, key=lambda layout: seconds[layout])
    for layout, worker in workers.items():
        if layout != best:
            worker.close()
    return best, workers[best]


def measure(name: str, options: argparse.Namespace, peak: float) -> dict[str, Any]:
    """The row of one case; prints it."""
    flops = 2 * CASES[name].macs * CASES[name].batch * (1 if options.infer else 3)
    best, peer = faster_peer(name, options)
    row: dict[str, Any] = {"case": name, "peer": best}
    mine = None
    if not options.torch_only:
        mine = Worker("minidl", name, "nhwc", options.threads, options.infer)
        mine.step()
        row["first_s"] = time.perf_counter() - mine.born
        mine.step()
    peer_seconds, mine_seconds = [], []
    for _ in range(options.pairs):
        seconds, _, row["rss_torch"] = peer.step()
        peer_seconds.append(seconds)
        if mine is not None:
            seconds, value, row["rss_minidl"] = mine.step()
            if not math.isfinite(value):
                raise SystemExit(f"{name}: minidl's step returned {value}")
            mine_seconds.append(seconds)
    peer.close()
    row["torch_ms"] = median(peer_seconds) * 1e3
    text = (
        f"{name:20s} torch {row['torch_ms']:7.0f} ms {flops / row['torch_ms'] / 1e6:4.0f} GF/s ({best}) "
        f"rss {row['rss_torch']:5.0f}"
    )
    if mine is not None:
        mine.close()
        row["minidl_ms"] = median(mine_seconds) * 1e3
        row["ratio"] = median([p / m for p, m in zip(peer_seconds, mine_seconds)])
        row["gemm"] = flops / row["minidl_ms"] / 1e6 / (peak / 1e9)
        text += (
            f" | minidl {row['minidl_ms']:7.0f} ms {flops / row['minidl_ms'] / 1e6:4.0f} GF/s = "
            f"{row['gemm']:.2f} gemm rss {row['rss_minidl']:5.0f} first {row['first_s']:4.1f} s | "
            f"ratio {row['ratio']:.2f}"
        )
    print(text, flush=True)
    return row


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--infer", action="store_true", help="eval-mode forward instead of a training step")
    parser.add_argument("--torch-only", action="store_true", help="measure the peer alone")
    parser.add_argument("--json", help="write the rows there too")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"unknown case {unknown[0]!r}; the cases are {', '.join(CASES)}")
    return options


def main() -> None:
    """Measure the cases asked for, and print the geometric mean of their ratios."""
    options = arguments()
    peak = gemm_rate(options.threads)
    print(
        f"float32 matmul here: {peak / 1e9:.0f} GF/s on {options.threads} threads; "
        f"{'inference' if options.infer else 'training step'}, median of {options.pairs}",
        flush=True,
    )
    rows = [measure(name, options, peak) for name in options.cases or CASES]
    if "ratio" in rows[0]:
        mean = math.exp(sum(math.log(row["ratio"]) for row in rows) / len(rows))
        lowest = min(rows, key=lambda row: row["ratio"])
        print(f"geometric mean {mean:.2f}, lowest {lowest['ratio']:.2f} ({lowest['case']})")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        serve(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), sys.argv[6] == "1")
    else:
        main()
