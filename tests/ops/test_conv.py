"""Convolution: element by element, large images, fusion, padding, groups, errors (test_proofs.py draws the
rest)."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from minidl import ops
from minidl.autograd import Tensor, tensor
from minidl.backend import plans
from minidl.errors import DTypeError, ShapeError
from minidl.testing import GradcheckSettings, agree, gradcheck, strategies
from minidl.testing.strategies import Conv2dCase


def normal(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def case_of(x: tuple[int, ...], weight: tuple[int, ...], **options: Any) -> Conv2dCase:
    return Conv2dCase(
        x=normal(*x), weight=normal(*weight, seed=1), bias=normal(weight[3], seed=2), options=options
    )


@pytest.mark.parametrize(
    "case",
    [
        case_of((2, 5, 5, 3), (3, 3, 3, 4), padding=1),
        case_of((1, 4, 6, 2), (1, 1, 2, 3)),
        case_of((2, 5, 4, 4), (3, 2, 1, 8), groups=4, stride=2, padding=((0, 1), (1, 0))),
        case_of((1, 7, 6, 2), (3, 3, 2, 2), dilation=2, padding="same"),
    ],
    ids=["3x3", "1x1", "depthwise", "dilated"],
)
def test_conv2d_gradients_element_by_element(case: Conv2dCase) -> None:
    assert gradcheck(ops.conv2d, *case.inputs, settings=GradcheckSettings(full=True), **case.options)


@given(strategies.conv2d_cases(activations=("relu",)))
def test_fused_relu_is_relu_after_the_convolution(case: Conv2dCase) -> None:
    plain = {key: value for key, value in case.options.items() if key != "activation"}

    def gradients(fused: bool) -> list[np.ndarray]:
        tensors = [None if array is None else tensor(array, requires_grad=True) for array in case.inputs]
        y = ops.conv2d(*tensors, **case.options) if fused else ops.relu(ops.conv2d(*tensors, **plain))
        y.backward(normal(*y.shape))
        return [y.data, *(t.grad.data for t in tensors if t is not None and t.grad is not None)]

    for fused, unfused in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(fused, unfused, rtol=1e-12, atol=1e-12)  # equal to rounding


# Large enough for several tiles and threads, with remainders at every edge; NIN's and ResNet's windows.
@pytest.mark.parametrize(
    "case",
    [
        case_of((3, 33, 31, 3), (5, 5, 3, 8), padding=2),
        case_of((2, 15, 17, 16), (3, 3, 16, 16), padding=1, activation="relu"),
        case_of((2, 19, 16, 8), (3, 3, 8, 8), stride=2, padding=1),
        case_of((2, 40, 30, 5), (1, 1, 5, 7)),
        case_of((1, 30, 30, 4), (7, 7, 4, 4), stride=2, padding=3),
        case_of((2, 12, 12, 6), (1, 7, 6, 4), padding=(0, 3)),
        case_of((2, 14, 14, 12), (3, 3, 1, 12), groups=12, padding=1),
    ],
    ids=lambda case: f"{case.weight.shape}",
)
def test_conv2d_on_larger_images(case: Conv2dCase) -> None:
    assert agree(ops.conv2d, case)
    assert gradcheck(ops.conv2d, *case.inputs, **case.options)


def test_columns_in_several_tiles_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tiles of one line every image row starts a new GEMM; only the order of the sums may change."""
    from minidl.backend.cpu import im2col

    case = case_of((3, 9, 7, 2), (3, 3, 2, 4), padding=1, stride=2)

    def results() -> list[np.ndarray]:
        tensors = [tensor(array, requires_grad=True) for array in case.inputs]
        y = ops.conv2d(*tensors, **case.options)
        y.backward(normal(*y.shape))
        return [y.data, *(t.grad.data for t in tensors if t.grad is not None)]

    whole = results()
    monkeypatch.setattr(im2col, "TILE_BYTES", 1)
    for in_tiles, at_once in zip(results(), whole, strict=True):
        np.testing.assert_allclose(in_tiles, at_once, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("plan", plans.NAMES)
def test_images_in_any_order_of_memory(plan: str) -> None:
    """Reversed, transposed and repeated views have the results of their copies."""
    x, weight = normal(2, 9, 9, 6, dtype=np.float32), normal(3, 3, 6, 4, seed=1, dtype=np.float32)
    for view in (x[::-1, ::-1], x[:, :, ::-1, ::-1], x.transpose(0, 2, 1, 3), x[..., 1:5], x[:, ::2, 1:]):
        for stride in (1, 2):
            c = view.shape[3]
            with plans.force_plan(plan):
                found = ops.conv2d(view, weight[:, :, :c], stride=stride, padding=1).data
                expected = ops.conv2d(view.copy(), weight[:, :, :c], stride=stride, padding=1).data
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_same_input_gives_the_same_bits() -> None:
    case = case_of((4, 16, 16, 8), (3, 3, 8, 8), padding=1).astype(np.float32)

    def run() -> tuple[bytes, ...]:
        tensors = [tensor(array, requires_grad=True) for array in case.inputs]
        y = ops.conv2d(*tensors, **case.options)
        y.backward(normal(*y.shape, dtype=np.float32))
        return y.data.tobytes(), *(t.grad.data.tobytes() for t in tensors if t.grad is not None)

    assert run() == run()


def test_the_image_gets_no_gradient_when_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from minidl.backend import cpu

    def refuse(*_: Any) -> None:
        raise AssertionError("the input gradient was computed")

    monkeypatch.setattr(cpu, "conv2d_grad_x", refuse)
    weight = tensor(normal(3, 3, 2, 4), requires_grad=True)
    ops.conv2d(Tensor(normal(1, 5, 5, 2)), weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("forms", "size"),
    [
        ((0, "valid", (0, 0), ((0, 0), (0, 0))), (5, 6)),
        ((1, (1, 1), ((1, 1), (1, 1)), "same"), (5, 6)),
        ((((0, 1), (0, 1)), "same"), (6, 6)),
    ],
)
def test_forms_of_padding_that_mean_the_same(forms: tuple[Any, ...], size: tuple[int, int]) -> None:
    x, weight = normal(1, *size, 2), normal(3, 3, 2, 3, seed=1)
    stride = 2 if size == (6, 6) else 1
    first, *others = (ops.conv2d(x, weight, stride=stride, padding=form).data for form in forms)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_same_padding_at_every_stride() -> None:
    """TensorFlow's rule as its documentation puts it, by the remainder of the image's size and the stride."""
    for size in (1, 4, 5, 6):
        for kernel, dilation in ((1, 1), (2, 1), (3, 1), (5, 1), (3, 2)):
            for stride in (1, 2, 3, 4, 5):
                span = (kernel - 1) * dilation + 1
                total = max(span - (size % stride or stride), 0)
                sides = (total // 2, total - total // 2)
                x, weight = normal(1, size, 3, 2), normal(kernel, 1, 2, 2, seed=1)
                options = {"stride": (stride, 1), "dilation": (dilation, 1)}
                y = ops.conv2d(x, weight, padding="same", **options)
                assert y.shape == (1, -(-size // stride), 3, 2)
                explicit = ops.conv2d(x, weight, padding=(sides, (0, 0)), **options)
                np.testing.assert_array_equal(y.data, explicit.data)


@pytest.mark.parametrize(("groups", "c", "f"), [(2, 2, 3), (3, 1, 2), (4, 1, 1)])
def test_filters_of_a_group_stand_together_and_read_its_channels_alone(groups: int, c: int, f: int) -> None:
    """Group j owns filters j * F/groups onward; depthwise, filter c * M + m reads channel c."""
    x, weight = normal(1, 5, 4, groups * c), normal(3, 3, c, groups * f, seed=1)
    together = ops.conv2d(x, weight, padding=1, groups=groups).data
    for j in range(groups):
        channels, filters = slice(j * c, (j + 1) * c), slice(j * f, (j + 1) * f)
        alone = ops.conv2d(x[..., channels], weight[..., filters], padding=1).data
        np.testing.assert_allclose(together[..., filters], alone, rtol=1e-12, atol=1e-14)  # equal to rounding


def test_images_in_nchw_are_recognised() -> None:
    with pytest.raises(
        ShapeError,
        match=r"x has 32 channels \(last axis of \(2, 3, 32, 32\)\) but weight takes 3 "
        r"\(axis 2 of \(5, 5, 3, 8\)\).*channels-last, use x.transpose\(0, 2, 3, 1\)",
    ):
        ops.conv2d(np.zeros((2, 3, 32, 32)), np.zeros((5, 5, 3, 8)))


@pytest.mark.parametrize(
    ("x", "weight", "bias", "options", "text"),
    [
        (
            (2, 8, 8, 4),
            (3, 3, 3, 8),
            None,
            {},
            r"x has 4 channels \(last axis of \(2, 8, 8, 4\)\) but weight takes 3",
        ),
        ((2, 8, 8, 4), (3, 3, 3, 8), None, {"groups": 2}, "weight takes 3 in each of 2 groups"),
        ((2, 8, 8, 4), (3, 3, 2, 9), None, {"groups": 2}, r"groups is 2, it must divide the 9 filters"),
        ((2, 8, 8, 4), (3, 3, 4, 8), None, {"groups": 0}, "groups is 0"),
        (
            (8, 8, 4),
            (3, 3, 4, 8),
            None,
            {},
            r"x has shape \(8, 8, 4\), it must be \(N, H, W, C\).*x.reshape\(1, H, W, C\)",
        ),
        ((0, 8, 8, 4), (3, 3, 4, 8), None, {}, "a batch of size 0"),
        ((2, 8, 8, 4), (3, 3, 4, 0), None, {}, r"weight has shape \(3, 3, 4, 0\): no channels or no filters"),
        (
            (2, 8, 8, 4),
            (3, 4, 8),
            None,
            {},
            r"weight has shape \(3, 4, 8\), it must be \(KH, KW, C/groups, F\)",
        ),
        (
            (2, 8, 8, 4),
            (3, 3, 4, 8),
            (4,),
            {},
            r"bias has shape \(4,\), it must be \(8,\) for weight \(3, 3, 4, 8\)",
        ),
        (
            (2, 8, 2, 4),
            (3, 3, 4, 8),
            None,
            {},
            r"a window of 3 .* does not fit into W = 2 with padding \(0, 0\).*more padding",
        ),
        (
            (2, 8, 8, 4),
            (3, 3, 4, 8),
            None,
            {"dilation": 4},
            r"a window of 9 .*dilation \(4, 4\)\) does not fit into H = 8",
        ),
    ],
)
def test_shapes_that_do_not_fit(x: Any, weight: Any, bias: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ShapeError, match=f"conv2d: .*{text}"):
        ops.conv2d(np.zeros(x), np.zeros(weight), None if bias is None else np.zeros(bias), **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"groups": 2.0}, "groups is 2.0, it must be an integer of at least 1"),
        ({"stride": 0}, "stride is 0, it must be at least 1"),
        ({"stride": (1, 2, 3)}, r"stride is \(1, 2, 3\); give an integer or a pair"),
        ({"stride": 1.5}, "stride is 1.5; give an integer or a pair"),
        ({"dilation": 0}, "dilation is 0, it must be at least 1"),
        ({"padding": -1}, "padding is -1, it must be at least 0"),
        ({"padding": "full"}, "padding is 'full'; the names are 'same' and 'valid'"),
        ({"padding": ((1, 2), (3,))}, r"padding is \(3,\); give"),
        ({"activation": "swish"}, "activation is 'swish'; it may be None or 'relu'"),
    ],
)
def test_bad_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"conv2d: {text}"):
        ops.conv2d(np.zeros((1, 8, 8, 2)), np.zeros((3, 3, 2, 4)), **options)


def test_an_unknown_plan() -> None:
    with (
        pytest.raises(ValueError, match="force_plan: there is no plan 'fft'; the plans are auto"),
        plans.force_plan("fft"),
    ):
        pass


def test_dtypes_that_differ() -> None:
    with pytest.raises(DTypeError, match="conv2d: weight is float64 but x is float32"):
        ops.conv2d(np.zeros((1, 4, 4, 2), np.float32), np.zeros((3, 3, 2, 4)))
