"""The proof that no planted error may survive: what every op has to pass, on cases that are drawn once."""

from collections.abc import Callable, Iterator
from functools import cache, partial, wraps
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, seed, settings

from minidl import ops, streams
from minidl.autograd import Tensor
from minidl.backend.cpu import elementwise, memory
from minidl.testing import agree, bounds, gradcheck, reference, strategies
from minidl.testing.strategies import VALUES, ArrayCase, BatchNormCase, Case, Conv2dCase, PairCase

Oracles = dict[str, Any]  # reference=, bound= and gradients= of agree

EXAMPLES = 10  # per round
ROUNDS = 5  # of drawing, per op
FEWER_ROUNDS = dict.fromkeys(
    ("conv2d", "max_pool2d", "avg_pool2d", "batch_norm", "local_response_norm"),
    4,  # the slow references
)


def _normal(*shape: int) -> np.ndarray:
    return VALUES["normal"](np.random.default_rng(0), shape)


# Places that random cases of a few pixels do not reach, or once in a hundred.
EDGES: dict[str, list[Case]] = {
    "relu": [ArrayCase(x=_normal(elementwise.PARALLEL_SIZE))],  # a kernel of its own
    "matmul": [PairCase(a=_normal(2, 2), b=_normal(2, 2) + 1)],  # its gradients may take each other's place
    "pow": [PairCase(a=np.array([0.0, 0.0, 2.0]), b=np.array([0.0, 2.0, 0.0]))],
    "max": [ArrayCase(x=np.array([[0.0, 0, 1], [1, 0, 0]]), options={"axis": (1, 0)})],
    "conv2d": [
        Conv2dCase(x=_normal(1, 4, 8, 2), weight=_normal(1, 7, 2, 1), bias=None, options={"padding": (0, 3)}),
        Conv2dCase(x=_normal(1, 33, 32, 1), weight=_normal(1, 1, 1, 1), bias=_normal(1)),  # two runs of rows
        Conv2dCase(x=_normal(2, 8, 7, 3), weight=_normal(3, 3, 3, 5), bias=None, options={"padding": (0, 1)}),
    ],
    **{
        pool: [
            ArrayCase(x=_normal(1, 4, 4, 1), options={"kernel_size": 2}),  # the stride is the kernel's size
            ArrayCase(
                x=_normal(2, 5, 4, 2),
                options={"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
            ),
        ]
        for pool in ("max_pool2d", "avg_pool2d")
    },
    "batch_norm": [  # two chunks of rows
        BatchNormCase(
            x=_normal(1, 17, 17, 2),
            gamma=_normal(2),
            beta=_normal(2),
            running_mean=_normal(2),
            running_var=np.ones(2),
            options={"training": True, "momentum": 0.1},
        )
    ],
}


@cache
def cases(name: str) -> list[tuple[Case, Oracles]]:
    """What the op is proven on, as its public strategy draws it, and what agree compares with.

    Hypothesis varies few examples many times once it has seen ten; several short rounds look at more that
    have nothing in common. The naive reference is slow and never changes: what it says is remembered.
    """
    drawn: list[Case] = []

    @settings(max_examples=EXAMPLES, derandomize=False, deadline=None, database=None, phases=[Phase.generate])
    @given(strategies.CASES[name](dtype=np.float64))
    def collect(case: Case) -> None:
        drawn.append(case)

    for k in range(FEWER_ROUNDS.get(name, ROUNDS)):
        seed(k)(collect)()
    return [(case, _oracles(name)) for i, case in enumerate(drawn) if i == 0 or i % EXAMPLES]


@cache
def edges(name: str) -> list[tuple[Case, Oracles]]:
    """The op's cases that are written out."""
    return [(case, _oracles(name)) for case in EDGES.get(name, [])]


def _oracles(name: str, **options: Any) -> Oracles:
    value, gradients = getattr(reference, name), getattr(reference, f"{name}_gradients")
    return {
        "reference": _remembered(partial(value, **options)),
        "bound": _remembered(partial(bounds.FORWARD[name], **options)),
        "gradients": (
            _remembered(partial(gradients, **options)),
            _remembered(partial(bounds.GRADIENTS[name], **options)),
        ),
    }


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for one case: its result depends on the dtypes and on numbers alone."""
    results: dict[str, Any] = {}

    @wraps(function)
    def call(*inputs: Any, **options: Any) -> Any:
        key = repr((_kinds(inputs), options.get("algorithm")))
        if key not in results:
            results[key] = function(*inputs, **options)
        return results[key]

    return call


def _kinds(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return list(map(_kinds, value))
    return value.dtype if isinstance(value, np.ndarray) else value


@pytest.fixture(scope="session")
def prove() -> Callable[[str], None]:
    """AssertionError unless an op agrees with its reference, and its gradients with that and its slopes."""

    def prove(name: str) -> None:
        op = getattr(ops, name)
        for case, oracles in edges(name):
            agree(op, case, devices=["cpu"], **oracles)  # no slopes: some stand where there is none
        for case, oracles in cases(name):
            agree(op, case, devices=["cpu"], **oracles)  # where the errors are planted, in NumPy's words
            fn, inputs, options = op, case.inputs, case.options
            if isinstance(case, BatchNormCase):
                fn, inputs, options = _batch_norm(case)
                _check_running_statistics(case)
            if name == "dropout":
                agree(_second_dropout, case, **_oracles(name, call=1))
            streams.manual_seed(0)  # what the drawn dropouts are made for
            gradcheck(fn, *inputs, **options)

    return prove


def _batch_norm(case: BatchNormCase) -> tuple[Callable[..., Tensor], tuple[Any, ...], dict[str, Any]]:
    """The op with its differentiable arrays alone as inputs."""
    options = dict(case.options)
    residual = options.pop("residual", None)

    def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, residual: Tensor | None, **options: Any) -> Tensor:
        statistics = case.running_mean.copy(), case.running_var.copy()
        return ops.batch_norm(x, gamma, beta, *statistics, residual=residual, **options)

    return batch_norm, (case.x, case.gamma, case.beta, residual), options


def _check_running_statistics(case: BatchNormCase) -> None:
    """They are written, not returned: what agree and gradcheck do not look at."""
    mean, var = case.running_mean.copy(), case.running_var.copy()
    ops.batch_norm(case.x, case.gamma, case.beta, mean, var, **case.options)
    expected = [case.running_mean, case.running_var]
    if case.options["training"]:
        expected = reference.running_statistics(case.x, *expected, momentum=case.options["momentum"])
    np.testing.assert_allclose([mean, var], expected, rtol=1e-12, atol=1e-14)  # a few dozen roundings


def _second_dropout(x: Any, **options: Any) -> Tensor:
    """A mask belongs to its call, so another call than the first is proven too."""
    ops.dropout(np.ones(1), 0.5, training=True)
    return ops.dropout(x, **options)


@pytest.fixture(autouse=True, scope="module")
def _poisoned_memory() -> Iterator[None]:
    """What a kernel has not written reads as NaN, so that a mutant that forgets to write is always seen."""
    empty = memory.empty

    def poisoned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = empty(shape, dtype)
        array.fill(np.nan if array.dtype.kind == "f" else 99)
        return array

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "empty", poisoned)
        yield
