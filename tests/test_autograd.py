"""The tape: recording, walking back, freeing, and every way of using it wrongly."""

import gc
import weakref

import numpy as np
import pytest

import minidl as md
from minidl import ops
from minidl.backend import Array
from minidl.errors import DeviceError, DTypeError, ShapeError
from minidl.recording import shared


def leaf(*values: float, dtype: str = "float64") -> md.Tensor:
    return md.tensor(np.array(values, dtype), requires_grad=True)


def test_gradients_add_up_where_a_tensor_is_used_twice():
    x = leaf(2.0, 3.0)
    y = x * x + x
    ops.sum(y * x).backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * x.data**2 + 2 * x.data)


def test_gradients_accumulate_over_calls_until_reset():
    x = leaf(1.0)
    for _ in range(2):
        ops.sum(x * 3.0).backward()
    assert x.grad.item() == 6
    x.grad = None
    ops.sum(x * 3.0).backward()
    assert x.grad.item() == 3


def test_a_chain_of_100_000_ops_backpropagates():
    x = y = leaf(1.0)
    for _ in range(100_000):
        y = y + 1.0
    y.backward()
    assert x.grad.item() == 1


def test_gradients_never_share_memory():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    arriving = np.array([1.0, 1.0])
    (a + b).backward(arriving)
    assert not np.shares_memory(a.grad.data, b.grad.data)
    assert not np.shares_memory(a.grad.data, arriving)


def test_one_tensor_in_both_places_of_an_addition():
    x = leaf(1.0, 2.0)
    y = x * 1.0
    ((y + y) + y).backward(np.ones(2))
    np.testing.assert_array_equal(x.grad.numpy(), [3, 3])


def test_a_second_backward_raises_and_names_the_cure():
    x = leaf(1.0)
    y = ops.sum(x * x)
    y.backward()
    with pytest.raises(RuntimeError, match=r"ran through this graph before.*retain_graph=True"):
        y.backward()


def test_retain_graph_allows_a_second_backward():
    x = leaf(3.0)
    y = ops.sum(x * x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 12


def test_backward_from_many_numbers_needs_a_gradient():
    y = leaf(1.0, 2.0) * 2.0
    with pytest.raises(ShapeError, match=r"shape \(2,\) needs grad= of the same shape"):
        y.backward()
    with pytest.raises(ShapeError, match=r"grad has shape \(3,\), the tensor \(2,\)"):
        y.backward(np.ones(3))


def test_backward_without_a_graph_says_so():
    with pytest.raises(RuntimeError, match="does not depend on anything that requires a gradient"):
        md.tensor(1.0).backward()


def test_second_derivatives_are_refused_by_name():
    x = leaf(2.0)
    ops.sum(x * x).backward()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        x.grad.backward()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        ops.sum(x * x).backward(grad=md.tensor(np.array(1.0), requires_grad=True))


def test_no_grad_as_context_and_as_decorator():
    x = leaf(1.0)

    @md.no_grad()
    def double(t: md.Tensor) -> md.Tensor:
        return t * 2.0

    with md.no_grad():
        assert not (x * 2.0).requires_grad
    assert not double(x).requires_grad
    assert (x * 2.0).requires_grad


def test_no_grad_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), md.no_grad():
        raise ZeroDivisionError
    assert (leaf(1.0) * 2.0).requires_grad


def test_an_unwanted_vjp_never_runs():
    ran = []

    @md.op
    def both(a: Array, b: Array):
        return a + b, (lambda g: g, lambda g: ran.append("b"))

    a = leaf(1.0)
    ops.sum(both(a, np.ones(1))).backward()
    assert a.grad.item() == 1
    assert ran == []


def test_shared_work_is_done_once_per_gradient():
    calls = []
    once = shared(lambda g: calls.append(1) or len(calls))
    g, h = np.ones(1), np.ones(1)
    assert (once(g), once(g), once(h)) == (1, 1, 2)


def test_vjps_that_return_one_array_do_not_corrupt_each_other():
    @md.op
    def two(a: Array, b: Array):
        same = np.ones(1)
        return a + b, (lambda g: same, lambda g: same)

    x, t = leaf(0.0), leaf(0.0)
    y = two(x, t)
    ops.sum(y + x * 5.0).backward()
    assert (x.grad.item(), t.grad.item()) == (6, 1)


def test_no_array_of_the_graph_is_alive_after_a_step():
    x = md.tensor(np.ones((2, 8, 8, 3), np.float32))
    weight = md.tensor(np.ones((3, 3, 3, 4), np.float32), requires_grad=True)
    alive: list[weakref.ref] = []

    def watch(t: md.Tensor) -> md.Tensor:
        alive.append(weakref.ref(t))
        alive.append(weakref.ref(t.data))
        return t

    def step() -> None:
        y = watch(ops.conv2d(x, weight, padding=1, activation="relu"))
        y = watch(ops.max_pool2d(y, 3, stride=2, padding=1))
        loss = ops.cross_entropy(watch(ops.global_avg_pool(y)), np.array([0, 1]))
        del y
        loss.backward()

    step()  # while numba compiles, exceptions of its own hold on to whoever called
    alive.clear()
    gc.disable()
    try:
        step()
        assert all(ref() is None for ref in alive)
    finally:
        gc.enable()


def test_activations_die_during_the_forward_pass_when_no_vjp_needs_them():
    x = leaf(*range(8))
    y = x * 2.0
    ghost = weakref.ref(y.data)
    z = y + 1.0  # an addition keeps nothing
    del y
    assert ghost() is None
    ops.sum(z).backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.full(8, 2.0))


def test_writing_in_place_what_an_op_keeps_is_refused():
    x = leaf(1.0, 2.0)
    y = x * 3.0
    z = ops.sum(y * y)
    with md.no_grad():
        y[0] = 7.0
    with pytest.raises(
        RuntimeError, match=r"an array that mul keeps .* was written in place afterwards \(1 times\)"
    ):
        z.backward()


def test_writing_through_a_view_is_seen_too():
    x = leaf(1.0, 2.0)
    y = x * 3.0
    z = ops.sum(ops.exp(y) * y)
    with md.no_grad():
        y.reshape(2, 1)[0] = 7.0
    with pytest.raises(RuntimeError, match="written in place"):
        z.backward()


def test_writing_what_no_op_keeps_is_allowed():
    x = leaf(1.0, 2.0)
    y = x * 3.0
    z = ops.sum(y + 1.0)
    with md.no_grad():
        y[0] = 7.0
    z.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3, 3])


def test_assigning_into_a_recorded_tensor_is_refused():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match=r"an assignment has no gradient.*ops\.where"):
        x[0] = 2.0


def test_adding_in_place_makes_a_new_tensor():
    x = leaf(1.0)
    y = x * 2.0
    before = y
    y += 1.0
    assert y is not before
    assert before.item() == 2


def test_tensor_copies_and_keeps_dtypes():
    source = np.arange(3, dtype=np.float64)
    t = md.tensor(source)
    source[0] = 9
    assert t.dtype == np.float64
    assert t.numpy()[0] == 0
    assert md.tensor([1.0, 2.0]).dtype == np.float32
    assert md.tensor(1.5).dtype == np.float32
    assert md.tensor([1, 2]).dtype == np.int64
    assert md.tensor(np.float64(2)).dtype == np.float64


def test_integers_cannot_require_a_gradient():
    with pytest.raises(DTypeError, match="a gradient needs float32 or float64 values, these are int64"):
        md.tensor([1, 2], requires_grad=True)


def test_text_is_no_tensor():
    with pytest.raises(DTypeError, match="give numbers"):
        md.tensor(["a"])


def test_float_dtypes_do_not_mix():
    with pytest.raises(DTypeError, match=r"mul: b is float64 but a is float32.*\.to\(dtype='float32'\)"):
        md.tensor([1.0]) * md.tensor(np.ones(1))


@pytest.mark.parametrize(
    "number", [2, 2.0, np.float64(2), np.float32(2), np.int64(2), True, np.array([1, 2])]
)
def test_numbers_and_integer_arrays_take_the_tensors_dtype(number: object):
    t = md.tensor([1.0, 2.0])
    for y in (t * number, number * t, t + number, number - t, t / number):
        assert isinstance(y, md.Tensor)
        assert y.dtype == np.float32


def test_an_array_of_the_wrong_dtype_is_told_apart_from_the_tensor():
    weight = md.tensor(np.ones((2, 3), np.float32))
    with pytest.raises(
        DTypeError, match=r"linear: x is float64 but weight is float32.*\.astype\('float32'\)"
    ):
        ops.linear(np.ones((1, 2)), weight)


@pytest.mark.parametrize("number", [0.5, np.float32(2), [0.5]])
def test_floats_are_not_cut_off_to_an_integer_tensors_dtype(number: object):
    t = md.tensor([1, 2])
    with pytest.raises(DTypeError, match=r"is int64; use \.to\(dtype='float|int64 but"):
        t * number


def test_integer_tensors_with_integers():
    assert (md.tensor([1, 2]) + 3).numpy().tolist() == [4, 5]
    with pytest.raises(DTypeError, match="b is int32 but a is int64"):
        md.tensor([1]) + np.ones(1, np.int32)


def test_comparisons_are_refused_rather_than_answered_by_identity():
    t = md.tensor([1.0])
    for compare in (lambda: t == 1, lambda: np.ones(1) == t, lambda: t < 2, lambda: 2 in t):
        with pytest.raises(TypeError, match=r"compare their arrays: t\.numpy\(\) == "):
            compare()
    assert t in {t: 1}


def test_formatting():
    assert f"{md.tensor(1.25):.1f}" == "1.2"
    assert f"{md.tensor([1.0])}" == repr(md.tensor([1.0]))


def test_the_constructor_refuses_what_is_no_array():
    with pytest.raises(TypeError, match=r"data is a list, not an array; use minidl\.tensor"):
        md.Tensor([1.0])


def test_assigning_a_recorded_value_is_refused():
    z = md.tensor(np.zeros(2))
    with pytest.raises(RuntimeError, match="one of the two takes part in a recorded graph"):
        z[0:1] = leaf(1.0) * 3.0


def test_an_index_array_changed_afterwards_does_not_change_the_gradient():
    x, i = leaf(1.0, 2.0, 3.0), np.array([1])
    y = ops.sum(x[i])
    i[0] = 2
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1, 0])


def test_arrays_inside_tuples_and_unset_variables_of_a_closure():
    @md.op
    def square(x: Array, masked: bool = False):
        saved = (x,)
        if masked:
            mask = np.zeros_like(x)
        return x * x, (lambda g: g * mask if masked else 2 * g * saved[0],)

    x = leaf(3.0)
    y = square(x)
    y.backward(np.ones(1))
    assert x.grad.item() == 6
    z = square(x)
    x.data[0] = 5
    x.mark_written()
    with pytest.raises(RuntimeError, match="an array that square keeps"):
        z.backward(np.ones(1))


def test_a_vjp_of_the_wrong_shape_is_named():
    @md.op
    def twice(x: Array):
        return 2 * x, (lambda g: np.ones(1),)

    with pytest.raises(ShapeError, match=r"twice: a gradient is float64 \(1,\), but .* float64 \(2,\)"):
        twice(leaf(1.0, 2.0)).backward(np.ones(2))


def test_an_op_that_returns_a_numpy_number():
    @md.op
    def total(x: Array):
        return x.sum(), (lambda g: np.broadcast_to(g, x.shape),)

    x = leaf(1.0, 2.0)
    (total(x) * 2.0).backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 2])


def test_wrong_calls_name_the_op_and_its_signature():
    x = md.tensor(np.ones((1, 4, 4, 1), np.float32))
    with pytest.raises(TypeError, match=r"conv2d: too many positional arguments; it is conv2d\(x"):
        ops.conv2d(x, x, None, 2)
    with pytest.raises(TypeError, match="max_pool2d: got an unexpected keyword argument 'strides'"):
        ops.max_pool2d(x, 2, strides=2)
    with pytest.raises(TypeError, match="relu: x is None"):
        ops.relu(None)


def test_functions_that_are_no_ops():
    with pytest.raises(TypeError, match="no_inputs must annotate its array inputs"):

        @md.op
        def no_inputs(x):
            return x, ()

    @md.op
    def one_short(a: Array, b: Array):
        return a, (lambda g: g,)

    with pytest.raises(TypeError, match=r"one_short: an op returns \(y, vjps\), vjps a tuple"):
        one_short(leaf(1.0), leaf(1.0))


@pytest.mark.parametrize(
    "fn",
    [
        ops.relu,
        ops.softmax,
        ops.mean,
        ops.sigmoid,
        ops.log,
        lambda t: ops.dropout(t, 0.5, training=True),
        lambda t: ops.global_avg_pool(t.reshape(1, 2, 1, 1)),
        lambda t: ops.matmul(t.reshape(1, 2), t.reshape(2, 1)),
    ],
)
@pytest.mark.parametrize("dtype", ["int64", "float16"])
def test_ops_on_floats_refuse_other_types(fn: object, dtype: str):
    with pytest.raises(DTypeError, match=f"computes in float32 or float64, not {dtype}"):
        fn(md.tensor(np.ones(2, dtype)))


def test_sums_over_leading_axes_lose_nothing_to_rounding():
    x = md.tensor(np.full((1_000_000, 2), 0.1, np.float32))
    bias = md.tensor(np.zeros(2, np.float32), requires_grad=True)
    np.testing.assert_allclose(ops.mean(x, axis=0).numpy(), 0.1, rtol=1e-5)
    (x + bias).backward(x.data)
    np.testing.assert_allclose(bias.grad.numpy(), 100_000, rtol=1e-5)


def test_numpy_on_the_left_gives_a_tensor():
    t = leaf(1.0, 2.0)
    y = np.array([1.0, 2.0]) * t
    assert isinstance(y, md.Tensor)
    ops.sum(y).backward()
    np.testing.assert_array_equal(t.grad.numpy(), [1, 2])


def test_conversion_to_numpy_needs_a_detached_tensor():
    t = leaf(1.0)
    with pytest.raises(RuntimeError, match=r"use t\.detach\(\)"):
        np.asarray(t)
    np.testing.assert_array_equal(np.asarray(t.detach()), [1])
    np.testing.assert_array_equal(np.from_dlpack(t.detach()), [1])
    with pytest.raises(RuntimeError, match=r"use t\.detach\(\)"):
        np.from_dlpack(t)


def test_gradients_pass_through_a_cast_in_their_own_dtype():
    x = md.tensor([1.0, 2.0], requires_grad=True)
    ops.sum(x.to(dtype="float64") * np.array([1.0, 2.0])).backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), [1, 2])


def test_item_of_several_numbers():
    with pytest.raises(ShapeError, match=r"shape \(2,\) holds 2 numbers"):
        md.tensor([1.0, 2.0]).item()


def test_an_unknown_device():
    with pytest.raises(DeviceError, match="device 'tpu' is not available"):
        md.tensor([1.0], device="tpu")
    with pytest.raises(DeviceError, match="there are 'cpu', 'cuda'"):
        md.set_default_device("tpu")


def test_what_is_no_array_is_refused_by_name():
    with pytest.raises(DTypeError, match="add: b is a str"):
        md.tensor([1.0]) + "x"


def test_repr_shows_values_shape_and_origin():
    x = leaf(1.0)
    assert repr(x) == "tensor([1.], shape=(1,), dtype=float64, requires_grad=True)"
    assert repr(x * 2.0).endswith("op=mul)")


def test_a_write_is_noticed_though_the_tensor_was_given_another_array_since():
    x, w = leaf(1.0, 2.0), md.tensor(np.array([3.0, 4.0]))
    y = ops.sum(x * w)
    w[0] = 5.0
    w.data = np.ones(2)
    w[0] = 6.0
    with pytest.raises(RuntimeError, match="mul keeps for its gradient was written in place"):
        y.backward()
