"""Every op refuses what it cannot compute, in words: which op, which argument, which axis, both shapes, the
cure.

The table is checked against `ops.__all__`, so no op is without bad inputs.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from minidl import ops
from minidl.errors import DataError, DTypeError, ShapeError

zeros, ones = np.zeros, np.ones
PLANE, IMAGES = zeros((2, 3)), zeros((2, 5, 6, 4))
WEIGHT = zeros((3, 3, 4, 2))  # takes the 4 channels of IMAGES
TEXT, INTEGERS, SINGLE = np.array(["a"]), ones((2, 3), int), zeros((2, 3), np.float32)


@dataclass(frozen=True)
class Bad:
    """A call and what it must raise; in the text, " ... " stands for anything."""

    error: type[Exception]
    text: str
    args: tuple[Any, ...]
    options: dict[str, Any]


def bad(error: type[Exception], text: str, *args: Any, **options: Any) -> Bad:
    """Called with these arguments, an op raises `error`, with its own name and this text."""
    return Bad(error, text, args, options)


def not_numbers(*args: Any, **options: Any) -> list[Bad]:
    """For an op of one array x: it is missing, or text; and an option that does not exist."""
    return [
        bad(TypeError, "x is None; give a tensor, an array or a number", None, *args, **options),
        bad(DTypeError, "x is a ndarray; give a tensor, an array or a number", TEXT, *args, **options),
        bad(
            TypeError, "unexpected keyword argument 'speed'; it is ... (x:", PLANE, *args, speed=1, **options
        ),
    ]


def integers(*shape: int, **options: Any) -> Bad:
    """Numbers whose result would have to be rounded."""
    text = "it computes in float32 or float64, not int64; use .to(dtype='float32')"
    return bad(DTypeError, text, ones(shape, int), **options)


ANALYTIC = [*not_numbers(), integers(2, 3)]

BROADCASTING = [
    bad(
        ShapeError,
        "a of shape (2, 3) and b of shape (2, 4) do not broadcast: axes ... from the last one, and 3 meets 4",
        PLANE,
        zeros((2, 4)),
    ),
    bad(DTypeError, "b is float64 but a is float32; ... use .astype('float32')", SINGLE, PLANE),
    bad(TypeError, "b is None; give a tensor, an array or a number", PLANE, None),
    bad(DTypeError, "a is a str; give a tensor, an array or a number", "a", PLANE),
]

REDUCING = [
    *not_numbers(),
    bad(ShapeError, "axis 2 is outside an array with 2 axes", PLANE, axis=2),
    bad(ShapeError, "axis -3 is outside an array with 2 axes", PLANE, axis=(0, -3)),
    bad(ShapeError, "axis (0, -2) names an axis twice", PLANE, axis=(0, -2)),
]

OVER_NOTHING = bad(ShapeError, "x of shape (2, 0) has no elements along axis 1", zeros((2, 0)), axis=1)

ALONG_ONE_AXIS = [
    *ANALYTIC,
    OVER_NOTHING,
    bad(ShapeError, "axis 2 is outside an array with 2 axes", PLANE, axis=2),
    bad(ShapeError, "axis is None; give one axis", PLANE, axis=None),
    bad(ShapeError, "axis is (0, 1); give one axis", PLANE, axis=(0, 1)),
]


def images(**options: Any) -> list[Bad]:
    """For an op of a batch of images x."""
    cure = "a single image needs a batch axis: x.reshape(1, H, W, C)"
    return [
        bad(TypeError, "x is None; give a tensor", None, **options),
        integers(1, 2, 2, 1, **options),
        bad(ShapeError, "x has shape (2, 3), it must be (N, H, W, C)", PLANE, **options),
        bad(ShapeError, f"x has shape (5, 6, 4), it must ... {cure}", zeros((5, 6, 4)), **options),
        bad(ShapeError, "(0, 5, 6, 4): a batch of size 0; drop empty", zeros((0, 5, 6, 4)), **options),
        bad(ShapeError, "(2, 0, 6, 4): an image without pixels", zeros((2, 0, 6, 4)), **options),
        bad(ShapeError, "(2, 5, 6, 0): an image without pixels or channels", zeros((2, 5, 6, 0)), **options),
    ]


POOLING = [
    *images(kernel_size=2),
    bad(TypeError, "missing a required argument: 'kernel_size'; it is ... (x:", IMAGES),
    bad(ValueError, "kernel_size is 0, it must be at least 1", IMAGES, 0),
    bad(ValueError, "kernel_size is (2, 2, 2); give an integer or a pair of integers", IMAGES, (2, 2, 2)),
    bad(ValueError, "stride is 0, it must be at least 1", IMAGES, 2, stride=0),
    bad(ValueError, "padding is -1, it must be at least 0", IMAGES, 2, padding=-1),
    bad(ValueError, "padding is 'full'; the names are 'same' and 'valid'", IMAGES, 2, padding="full"),
    bad(ShapeError, "((2, 2), (2, 2)) must be smaller than kernel_size (2, 2)", IMAGES, 2, padding=2),
    bad(
        ShapeError,
        "a window of 7 ... does not fit into H = 5 with padding (0, 0); ... is (5, 6). Use larger images",
        IMAGES,
        7,
    ),
]

CONV2D = [
    bad(TypeError, "weight is None", IMAGES, None),
    bad(DTypeError, "it computes in float32 or float64, not int64", IMAGES.astype(int), WEIGHT.astype(int)),
    bad(DTypeError, "weight is float64 but x is float32", IMAGES.astype(np.float32), WEIGHT),
    bad(ShapeError, "weight has shape (3, 4, 2), it must be (KH, KW, C/groups, F)", IMAGES, zeros((3, 4, 2))),
    bad(
        ShapeError,
        "x has 6 channels (last axis of (2, 4, 5, 6)) but weight takes 4 (axis 2 of (3, 3, 4, 2)) ... like "
        "(N, C, H, W): ... use x.transpose(0, 2, 3, 1)",
        zeros((2, 4, 5, 6)),
        WEIGHT,
    ),
    bad(
        ShapeError, "x has 3 channels (last axis ... but weight takes 4 (axis 2", zeros((2, 5, 6, 3)), WEIGHT
    ),
    bad(ShapeError, "x has shape (5, 6, 4), it ... x.reshape(1, H, W, C)", zeros((5, 6, 4)), WEIGHT),
    bad(ShapeError, "a batch of size 0; drop empty batches", zeros((0, 5, 6, 4)), WEIGHT),
    bad(ShapeError, "bias has shape (3,), it must be (2,) for weight (3, 3, 4, 2)", IMAGES, WEIGHT, zeros(3)),
    bad(ShapeError, "groups is 0, it must divide the 2 filters", IMAGES, WEIGHT, groups=0),
    bad(ShapeError, "groups is 3, it must divide the 2 filters (last axis", IMAGES, WEIGHT, groups=3),
    bad(ShapeError, "x has 4 channels ... takes 4 in each of 2 groups", IMAGES, WEIGHT, groups=2),
    bad(
        ShapeError,
        "a window of 3 ... into W = 2 with padding (0, 0); ... (5, 2)",
        zeros((2, 5, 2, 4)),
        WEIGHT,
    ),
    bad(ShapeError, "weight has shape (3, 3, 4, 0): no channels or no filters", IMAGES, WEIGHT[..., :0]),
    bad(ValueError, "groups is 1.0, it must be an integer", IMAGES, WEIGHT, groups=1.0),
    bad(ValueError, "stride is 0, it must be at least 1", IMAGES, WEIGHT, stride=0),
    bad(ValueError, "stride is 1.5; give an integer or a pair", IMAGES, WEIGHT, stride=1.5),
    bad(ValueError, "dilation is (1, 0), it must be at least 1", IMAGES, WEIGHT, dilation=(1, 0)),
    bad(ValueError, "padding is -1, it must be at least 0", IMAGES, WEIGHT, padding=-1),
    bad(ValueError, "padding is (1, 1, 1, 1); give", IMAGES, WEIGHT, padding=(1, 1, 1, 1)),
    bad(ValueError, "padding is 'full'; the names are 'same' and 'valid'", IMAGES, WEIGHT, padding="full"),
    bad(ValueError, "activation is 'gelu'; it may be None or 'relu'", IMAGES, WEIGHT, activation="gelu"),
]


def unnormalised(error: type[Exception], text: str, x: Any = IMAGES, *vectors: Any, **options: Any) -> Bad:
    """A bad call of batch_norm; vectors that are not given fit 4 channels."""
    vectors += (ones(4),) * (4 - len(vectors))
    return bad(error, text, x, *vectors, training=True, **options)


FITS = ones(4)
BATCH_NORM = [
    unnormalised(
        DTypeError, "it computes in float32 or float64", ones((2, 2, 2, 4), int), *[ones(4, int)] * 2
    ),
    unnormalised(ShapeError, "x has shape (5, 4), it must be (N, H, W, C)", zeros((5, 4))),
    unnormalised(
        ShapeError, "x has 6 ... gamma has 4 (shape (4,)) ... x.transpose(0, 2", zeros((2, 4, 5, 6))
    ),
    unnormalised(ShapeError, "x has 4 channels (last axis ... gamma has 3 (shape (3,))", IMAGES, ones(3)),
    unnormalised(ShapeError, "gamma has shape (2, 2), it must be (4,) for x of", IMAGES, ones((2, 2))),
    unnormalised(ShapeError, "beta has shape (3,), it must be (4,) for x of", IMAGES, FITS, ones(3)),
    unnormalised(ShapeError, "running_mean has shape (3,), it", IMAGES, FITS, FITS, ones(3)),
    unnormalised(ShapeError, "running_var has shape (3,), it", IMAGES, FITS, FITS, FITS, ones(3)),
    unnormalised(
        ShapeError,
        "residual has shape (2, 5, 6, 1), it must equal x's (2, 5, 6, 4)",
        residual=IMAGES[..., :1],
    ),
    unnormalised(ShapeError, "has one value per channel, ... or call eval() first", zeros((1, 1, 1, 4))),
    unnormalised(DTypeError, "running_mean is a list; give an array", IMAGES, FITS, FITS, [0.0] * 4),
    unnormalised(DTypeError, "running_var is a NoneType; give", IMAGES, FITS, FITS, FITS, None),
    unnormalised(ValueError, "eps is -1, it must be at least 0", eps=-1),
    unnormalised(ValueError, "activation is 'gelu'; it may be None or 'relu'", activation="gelu"),
    bad(TypeError, "missing a required argument: 'training'", IMAGES, FITS, FITS, FITS, FITS),
]

CROSS_ENTROPY = [
    bad(ShapeError, "logits have shape (3,), they must be (N, K)", zeros(3), [1]),
    bad(DTypeError, "it computes in float32 or float64, not int64", INTEGERS, [0, 1]),
    bad(
        DTypeError, "labels are float64, they must be integers ... labels.astype('int64')", PLANE, [0.0, 1.0]
    ),
    bad(ShapeError, "labels have shape (1,), they must be (2,) for logits (2, 3)", PLANE, [0]),
    bad(ShapeError, "labels have shape (2, 3), they must be (2,) for logits (2, 3)", PLANE, INTEGERS),
    bad(DataError, "labels[1] is 3, it must lie in 0 .. 2 for 3 classes (logits (2, 3))", PLANE, [0, 3]),
    bad(DataError, "labels[0] is -1, it must lie in 0 .. 2", PLANE, [-1, 0], ignore_index=-100),
    bad(ShapeError, "a batch of size 0 has no loss; drop empty batches", zeros((0, 3)), zeros(0, int)),
    bad(ValueError, "reduction is 'avg'; it may be 'mean', 'sum', 'none'", PLANE, [0, 1], reduction="avg"),
    bad(ValueError, "label_smoothing is 2, it must lie in 0 .. 1", PLANE, [0, 1], label_smoothing=2),
    bad(ShapeError, "class_weight has shape (2,), it must be (3,)", PLANE, [0, 1], class_weight=[1.0, 2.0]),
]

REARRANGING = {
    "reshape": [
        *not_numbers(shape=(3, 2)),
        bad(ShapeError, "x of shape (2, 3) has 6 elements, they do not fit shape (4, 2)", PLANE, (4, 2)),
        bad(ShapeError, "do not fit shape (-1, 4)", PLANE, (-1, 4)),
        bad(ShapeError, "do not fit shape (-1, -1)", PLANE, (-1, -1)),
        bad(ShapeError, "do not fit shape (-1, 0)", PLANE, (-1, 0)),
    ],
    "flatten": [*not_numbers(), bad(ShapeError, "x has shape (), it needs a batch axis", 1.0)],
    "transpose": [
        *not_numbers(),
        bad(ShapeError, "axes (0,) must name all 2 axes of x, shape (2, 3)", PLANE, (0,)),
        bad(ShapeError, "axis (0, -2) names an axis twice", PLANE, (0, -2)),
        bad(ShapeError, "axis 2 is outside an array with 2 axes", PLANE, (0, 2)),
    ],
    "concat": [
        bad(ShapeError, "no tensors given", []),
        bad(
            ShapeError,
            "tensor 1 has shape (3, 3), tensor 0 has (2, 3); they must agree on every axis but axis 1",
            [PLANE, zeros((3, 3))],
        ),
        bad(ShapeError, "tensor 1 has shape (3,), tensor 0 has (2, 3)", [PLANE, zeros(3)]),
        bad(ShapeError, "axis 2 is outside an array with 2 axes", [PLANE], axis=2),
        bad(ShapeError, "axis is None; give one axis", [PLANE], axis=None),
        bad(DTypeError, "arrays[1] is float32 but arrays[0] is float64; ... use .astype", [PLANE, SINGLE]),
        bad(DTypeError, "arrays[0] is a NoneType; give a tensor, an array or a number", [None]),
    ],
    "pad": [
        *not_numbers(widths=[(1, 1)] * 2),
        bad(
            ShapeError,
            "must hold a pair (before, after) >= 0 for each axis of x, shape (2, 3)",
            PLANE,
            [(1, 1)],
        ),
        bad(ShapeError, "widths [(1, 1), (-1, 0)] must hold a pair", PLANE, [(1, 1), (-1, 0)]),
        bad(ShapeError, "widths [(1, 1), (1, 1, 1)] must hold a pair", PLANE, [(1, 1), (1, 1, 1)]),
    ],
    "getitem": [
        *not_numbers(index=0),
        bad(IndexError, "x has shape (2, 3): index 2 is out of bounds for axis 0 with size 2", PLANE, 2),
        bad(IndexError, "x has shape (2, 3): too many indices", PLANE, (0, 0, 0)),
        bad(IndexError, "x has shape (2, 3): index 5 is out of bounds for axis 0 with size 2", PLANE, [0, 5]),
        bad(IndexError, "x has shape (2, 3): arrays used as indices must be of integer", PLANE, 0.5),
        bad(IndexError, "x has shape (2, 3): boolean index did not match", PLANE, ones(3, bool)),
    ],
}

PRODUCTS = {
    "matmul": [
        bad(ShapeError, "a has shape (3,), b has (3, 2); ... reshape vectors", zeros(3), zeros((3, 2))),
        bad(
            ShapeError,
            "a has 3 columns (last axis of (2, 3)) but b has 4 rows (axis -2 of (4, 2))",
            PLANE,
            zeros((4, 2)),
        ),
        bad(ShapeError, "do not broadcast: axes are compared from", zeros((2, 1, 1)), zeros((3, 1, 1))),
        bad(DTypeError, "it computes in float32 or float64", INTEGERS, INTEGERS.T),
    ],
    "linear": [
        bad(
            ShapeError,
            "x has shape (2, 5, 6, 4) and weight (4, 2); ... Flatten images",
            IMAGES,
            zeros((4, 2)),
        ),
        bad(
            ShapeError,
            "x has 3 features (last axis of (2, 3)) but weight takes 4 (axis 0 of (4, 2))",
            PLANE,
            zeros((4, 2)),
        ),
        bad(ShapeError, "bias has shape (3,), it must be (2,) for weight", PLANE, zeros((3, 2)), zeros(3)),
        bad(DTypeError, "bias is float32 but x is float64", PLANE, zeros((3, 2)), zeros(2, np.float32)),
        bad(DTypeError, "it computes in float32 or float64", INTEGERS, INTEGERS.T),
    ],
}

BAD: dict[str, list[Bad]] = {
    **dict.fromkeys(("abs", "neg"), not_numbers()),
    **dict.fromkeys(("exp", "log", "relu", "sigmoid", "sqrt", "tanh"), ANALYTIC),
    **dict.fromkeys(("add", "sub", "mul", "pow", "maximum", "minimum"), BROADCASTING),
    "div": [*BROADCASTING, bad(DTypeError, "it computes in float32 or float64", INTEGERS, INTEGERS)],
    "where": [
        bad(
            ShapeError,
            "condition of shape (3,) and a of shape (2,) do not",
            zeros(3, bool),
            zeros(2),
            zeros(2),
        ),
        bad(ShapeError, "a of shape (2,) and b of shape (3,) do not broadcast", True, zeros(2), zeros(3)),
        bad(DTypeError, "b is float32 but a is float64", True, PLANE, SINGLE),
        bad(TypeError, "a is None; give a tensor", True, None, PLANE),
    ],
    "clip": [*not_numbers(low=0), bad(ValueError, "give low, high or both", PLANE)],
    "cast": not_numbers(dtype=np.float32),
    "dropout": [
        *not_numbers(p=0.5, training=True),
        integers(2, 3, p=0.5, training=True),
        bad(ValueError, "p is 1.5, it must be a probability: 0 <= p <= 1", PLANE, 1.5, training=True),
        bad(ValueError, "p is -0.1, it must be a probability", PLANE, -0.1, training=False),
        bad(TypeError, "missing a required argument: 'training'", PLANE, 0.5),
    ],
    "sum": REDUCING,
    "mean": [*REDUCING, integers(2, 3), OVER_NOTHING],
    "max": [*REDUCING, OVER_NOTHING],
    "softmax": ALONG_ONE_AXIS,
    "log_softmax": ALONG_ONE_AXIS,
    **PRODUCTS,
    **REARRANGING,
    "conv2d": CONV2D,
    "max_pool2d": POOLING,
    "avg_pool2d": POOLING,
    "adaptive_avg_pool2d": [
        *images(output_size=2),
        bad(ValueError, "output_size is 0, it must be at least 1", IMAGES, 0),
        bad(ValueError, "output_size is (None, 2); give an integer or a pair", IMAGES, (None, 2)),
    ],
    "global_avg_pool": images(),
    "batch_norm": BATCH_NORM,
    "local_response_norm": [
        *images(size=3),
        bad(ValueError, "size is 4, it must be odd: ... Give 5", IMAGES, 4),
        bad(ValueError, "size is 0, it must be an odd number of channels, at least 1", IMAGES, 0),
        bad(ValueError, "size is 2.5, it must be an odd number", IMAGES, 2.5),
        bad(ValueError, "alpha is -1 ... at least 0", IMAGES, 3, alpha=-1),
        bad(ValueError, "k is -1; ... at least 0", IMAGES, 3, k=-1),
    ],
    "cross_entropy": CROSS_ENTROPY,
}


def test_every_op_is_given_something_bad() -> None:
    assert sorted(BAD) == sorted(ops.__all__)
    assert all(BAD.values())


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, id=f"{name}-{number}")
        for name, cases in BAD.items()
        for number, case in enumerate(cases)
    ],
)
def test_bad_inputs_are_refused_in_words(name: str, case: Bad) -> None:
    text = ".*".join(map(re.escape, case.text.split(" ... ")))
    with pytest.raises(case.error, match=f"^{name}: .*{text}"):
        getattr(ops, name)(*case.args, **case.options)
