"""How fast a network runs here, and how much of what this machine can do that is.

A rate says little without the machine's own, so both are measured in one run: that of NumPy's float32 matmul
stands for the most the cores can give.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from minidl import backend, nn
from minidl.errors import ShapeError
from minidl.inspection import race
from minidl.inspection.profile import WARMUP, StepTimes, layer_times, make_step
from minidl.inspection.watch import Watch
from minidl.io import write_atomic

_SMALL = 64  # pixels a side: up to here the default batch is 64 images, beyond it 8
_GEMM = 2048  # rows and columns of the matrices whose product is the yardstick


@dataclass(frozen=True)
class Measurement:
    """One network's speed.

    step_seconds  of every timed step; the median counts
    macs          multiply-adds of one image in the forward pass, with the auxiliary classifiers that run
    gemm_gflops   what NumPy's matmul reached just before
    peak_bytes    the most that arrays took at once in the timed steps (those of less than 32 KB not counted)
    layers        where the time goes, if that was asked
    """

    name: str
    input_shape: tuple[int, ...]
    training: bool
    threads: int
    step_seconds: tuple[float, ...]
    macs: int
    gemm_gflops: float
    peak_bytes: int
    layers: StepTimes | None = None

    @property
    def seconds(self) -> float:
        """Of the median step."""
        return median(self.step_seconds)

    @property
    def images_per_second(self) -> float:
        """Images in the batch by seconds of the median step."""
        return self.input_shape[0] / self.seconds

    @property
    def gflops(self) -> float:
        """2 * multiply-adds of all images, times 3 in training (forward and two gradients), by seconds."""
        return 2 * self.macs * (3 if self.training else 1) * self.images_per_second / 1e9

    @property
    def gemm_fraction(self) -> float:
        """Of the matmul's rate."""
        return self.gflops / self.gemm_gflops

    def as_dict(self) -> dict[str, Any]:
        """Everything above as plain data."""
        derived = ("seconds", "images_per_second", "gflops", "gemm_fraction")
        return asdict(self) | {name: getattr(self, name) for name in derived}

    def __str__(self) -> str:
        n, h, w, _ = self.input_shape
        return (
            f"{self.name:20} {n:4} x {h}x{w}  {self.seconds * 1e3:8.1f} ms  {self.images_per_second:8.1f} "
            f"images/s  {self.gflops:6.1f} GF/s = {self.gemm_fraction:.2f} of matmul's {self.gemm_gflops:.0f}"
            f"  peak {self.peak_bytes / 1e6:.0f} MB"
        )


def run(
    builds: Mapping[str, Callable[[], Any]],
    *,
    batch: int | None = None,
    size: int | None = None,
    steps: int = 5,
    infer: bool = False,
    layers: bool = False,
    json_file: Path | None = None,
    against: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Measure models of the zoo, by name, and `say` a line for each: the command `minidl bench`.

    With `layers`, the table of the layers too. All of it goes to `json_file` as well; `against` "torch" ends
    with the race (see race.py). ShapeError for a size that a model does not take, NoRace when there can be
    none, both before anything is measured.
    """
    with nn.init.blank():
        shapes = {name: batch_shape(build(), name, batch, size) for name, build in builds.items()}
    if against is not None:
        race.check(list(builds))
    report: dict[str, Any] = {"results": []}
    for name, build in builds.items():
        found = measure(build, name, shapes[name], training=not infer, steps=steps, layers=layers)
        report["results"].append(found.as_dict())
        say(str(found))
        if found.layers is not None:
            say(f"{found.layers}\n")
    if against is not None:
        threads = report["results"][0]["threads"]
        report["race"] = race.run(list(builds), training=not infer, steps=steps, threads=threads, say=say)
    if json_file is not None:
        write_atomic(json_file, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())


def batch_shape(model: Any, name: str, batch: int | None, size: int | None) -> tuple[int, int, int, int]:
    """The (N, H, W, C) to measure a model of the zoo on; None stands for 64 images of up to 64x64 pixels or 8
    of larger, and for the model's own size.

    ShapeError for a size that the model does not take.
    """
    h, w, c = model.input_shape
    if size is not None and (size, size) != (h, w):
        if model.smallest is None:
            raise ShapeError(f"bench: size is {size}, but {name} takes images of {h}x{w} alone; leave it out")
        if size < model.smallest:
            raise ShapeError(
                f"bench: size is {size}, but {name} takes images of {model.smallest}x{model.smallest} or "
                "more; give a larger one"
            )
        h = w = size
    return batch or (64 if max(h, w) <= _SMALL else 8), h, w, c


def measure(
    build: Callable[[], nn.Module],
    name: str,
    input_shape: tuple[int, int, int, int],
    *,
    training: bool,
    steps: int,
    layers: bool = False,
) -> Measurement:
    """Build a model and time `steps` steps of it (see `profile.make_step`) after two to warm up."""
    gemm_gflops = gemm_rate() / 1e9
    model = build()
    xp = backend.of(next(model.parameters()).data)
    xp.free_unused()  # of the model before
    step = make_step(model, input_shape, training=training)
    with Watch(model) as watch:
        step()
    for _ in range(WARMUP - 1):
        step()
    xp.peak_bytes(reset=True)
    step_seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        step_seconds.append(time.perf_counter() - start)
    return Measurement(
        name,
        input_shape,
        training,
        xp.get_num_threads(),
        tuple(step_seconds),
        sum(call.macs for call in watch.calls),
        gemm_gflops,
        xp.peak_bytes(),
        layer_times(model, step, input_shape, steps=steps) if layers else None,
    )


def gemm_rate() -> float:
    """Operations a second of NumPy's float32 matmul, 2048 x 2048 x 2048, the best of eight."""
    a = np.random.default_rng(0).random((_GEMM, _GEMM), np.float32)
    product = np.empty_like(a)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        np.matmul(a, a, out=product)
        seconds.append(time.perf_counter() - start)
    return 2 * _GEMM**3 / min(seconds)
