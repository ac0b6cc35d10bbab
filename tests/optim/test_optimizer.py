"""What every optimiser has in common."""

from functools import partial

import numpy as np
import pytest

from minidl.autograd import Tensor
from minidl.backend.cpu import update
from minidl.errors import CheckpointError, DTypeError, ShapeError
from minidl.optim import SGD, Adam, AdamW, CosineLR, RMSprop

KINDS = {
    "sgd": partial(SGD, lr=0.1, weight_decay=0.01),
    "momentum": partial(SGD, lr=0.1, momentum=0.9),
    "nesterov": partial(SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": partial(Adam, lr=0.01, weight_decay=0.01),
    "adamw": partial(AdamW, lr=0.01),
    "rmsprop": partial(RMSprop, lr=0.01),
    "rmsprop momentum": partial(RMSprop, lr=0.01, momentum=0.9, eps=1.0),
}
OTHER_NUMBERS = {
    SGD: {"lr": 3.0},
    Adam: {"betas": (0.1, 0.2)},
    AdamW: {"weight_decay": 0.5},
    RMSprop: {"decay": 0.5},
}

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def values(params):
    return [p.data.copy() for p in params]


def assert_same_bits(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@every_kind
def test_a_parameter_without_gradient_is_skipped(kind, make_parameters, give_gradients):
    params = make_parameters()
    optimizer = kind(params)
    give_gradients(params, 0)
    params[1].grad = None
    before = values(params)
    optimizer.step()
    assert [np.array_equal(a, p.data) for a, p in zip(before, params, strict=True)] == [False, True, False]
    assert optimizer.state_dict()["steps"].tolist() == [1, 0, 1]
    assert [p._version.count for p in params] == [1, 0, 1]


@every_kind
def test_gradients_are_read_only_to_a_step(kind, make_parameters, give_gradients):
    params = make_parameters()
    give_gradients(params, 0)
    before = [p.grad.data.copy() for p in params]
    kind(params).step()
    assert_same_bits(before, [p.grad.data for p in params])


@every_kind
def test_step_writes_into_the_array_that_is_there(kind, make_parameters, give_gradients):
    params = make_parameters()
    arrays = [p.data for p in params]
    give_gradients(params, 0)
    kind(params).step()
    assert all(p.data is array for p, array in zip(params, arrays, strict=True))


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_state_keeps_the_dtype(kind, make_parameters, give_gradients, dtype):
    params = make_parameters(dtype)
    optimizer = kind(params)
    give_gradients(params, 0)
    optimizer.step()
    slots = {key: value for key, value in optimizer.state_dict().items() if "." in key}
    assert all(value.dtype == dtype for value in slots.values())


@every_kind
def test_strided_arrays_and_contiguous_ones_step_alike(kind, make_parameters, give_gradients):
    plain, strided = make_parameters(), make_parameters()
    for p in strided:
        p.data = np.asfortranarray(p.data) if p.ndim > 1 else np.repeat(p.data, 2)[::2]
    optimizers = kind(plain), kind(strided)
    for t in range(3):
        give_gradients(plain, t)
        for p, q in zip(plain, strided, strict=True):
            q.grad = Tensor(np.asfortranarray(p.grad.data))
        for optimizer in optimizers:
            optimizer.step()
    assert_same_bits(values(plain), values(strided))


@every_kind
@pytest.mark.parametrize("shape", [(), (0, 3), (1,)], ids=str)
def test_tiny_parameters_are_updated(kind, make_parameters, give_gradients, shape):
    params = make_parameters(shapes=[shape])
    before = values(params)
    optimizer = kind(params)
    give_gradients(params, 0)
    optimizer.step()
    assert params[0].shape == shape
    assert np.all(params[0].data != before[0])


@every_kind
def test_one_thread_and_many_give_the_same_bits(kind, make_parameters, give_gradients, monkeypatch):
    results = []
    for parallel_size in (1, 1 << 40):
        monkeypatch.setattr(update, "PARALLEL_SIZE", parallel_size)
        params = make_parameters()
        optimizer = kind(params)
        for t in range(3):
            give_gradients(params, t)
            optimizer.step()
        results.append(values(params))
    assert_same_bits(*results)


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_continued_from_its_state_has_the_same_bits(kind, make_parameters, give_gradients, dtype):
    params = make_parameters(dtype)
    optimizer = kind(params)
    for t in range(4):
        give_gradients(params, t)
        params[0].grad = None if t % 2 else params[0].grad
        optimizer.step()
    state = optimizer.state_dict()
    resumed_params = [Tensor(value, requires_grad=True) for value in values(params)]
    resumed = kind.func(resumed_params, **{"lr": 0.5, **OTHER_NUMBERS[kind.func]})
    resumed.load_state_dict(state)
    for t in range(4, 8):
        for some, one in ((params, optimizer), (resumed_params, resumed)):
            give_gradients(some, t)
            one.step()
    assert_same_bits(values(params), values(resumed_params))
    assert resumed.lr == optimizer.lr


@every_kind
def test_state_is_flat_plain_and_a_copy(kind, make_parameters, give_gradients):
    params = make_parameters()
    optimizer = kind(params)
    state = optimizer.state_dict()
    assert all(type(value) in (np.ndarray, int, float, bool, str) for value in state.values())
    before = {key: np.array(value) for key, value in state.items()}
    give_gradients(params, 0)
    optimizer.step()
    other = kind(make_parameters())
    other.load_state_dict(state)
    give_gradients(other.params, 1)
    other.step()
    for key, value in before.items():
        np.testing.assert_array_equal(state[key], value)


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s | {"optimizer": "SGD"}, r"'optimizer' is 'SGD' in this state, it must be 'Adam'"),
        (lambda s: {}, r"'optimizer' is None"),
        (lambda s: without(s, "lr"), r"the state lacks 'lr'"),
        (lambda s: without(s, "mean.1"), r"the state lacks 'mean.1'; was it made for other parameters"),
        (lambda s: without(s, *[key for key in s if "." in key]), r"'mean.0', 'mean.1', 'mean.2' and 3 more"),
        (lambda s: s | {"velocity": 1}, r"has the unknown 'velocity'"),
        (lambda s: s | {"eps": "small"}, r"'eps' is 'small', not a number"),
        (lambda s: s | {"lr": None}, r"'lr' is 'None', not a number"),
        (lambda s: s | {"lr": -1.0}, r"'lr' is -1.0, it must lie in 0 <= lr < "),
        (lambda s: s | {"lr": float("nan")}, r"'lr' is nan, it must lie in"),
        (lambda s: s | {"beta1": 1.0}, r"'beta1' is 1.0, it must lie in 0 <= beta1 < 1"),
        (lambda s: s | {"mean.1": [[1], 2]}, r"'mean.1' is no array"),
        (lambda s: s | {"steps": np.array([1, -1, 0])}, r"'steps' has a number below 0"),
        (lambda s: s | {"mean.1": np.zeros((2, 3), "f")}, r"'mean.1' has shape \(2, 3\), but \(2, 3, 4\)"),
        (lambda s: s | {"mean_square.0": np.zeros(5)}, r"'mean_square.0' is float64, but float32 is needed"),
        (lambda s: s | {"steps": np.zeros(2, np.int64)}, r"'steps' has shape \(2,\), but \(3,\) is needed"),
    ],
)
def test_an_unfit_state_is_refused_and_changes_nothing(make_parameters, give_gradients, spoil, message):
    params = make_parameters()
    optimizer = Adam(params, lr=0.25)
    give_gradients(params, 0)
    optimizer.step()
    before = optimizer.state_dict()
    with pytest.raises(CheckpointError, match=f"Adam.load_state_dict: .*{message}"):
        optimizer.load_state_dict(spoil(before | {"lr": 0.125}))
    after = optimizer.state_dict()
    assert list(after) == list(before)
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)


@every_kind
def test_steps_along_real_gradients_lower_a_loss(kind):
    p = Tensor(np.array([3.0, -2.0, 0.5], np.float32), requires_grad=True)
    optimizer = kind([p])
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_backward_after_a_step_finds_the_parameters_overwritten():
    p = Tensor(np.ones(3, np.float32), requires_grad=True)
    loss = (p * p).sum()
    p.grad = Tensor(np.ones(3, np.float32))
    SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="mul keeps for its gradient was written in place"):
        loss.backward()


def test_zero_grad_sets_none(make_parameters, give_gradients):
    params = make_parameters()
    give_gradients(params, 0)
    SGD(params, lr=0.1).zero_grad()
    assert all(p.grad is None for p in params)


def test_parameters_may_be_cast_until_the_first_step(make_parameters, give_gradients):
    params = make_parameters()
    optimizer = Adam(params)
    for p in params:
        p.data = p.data.astype(np.float64)
    give_gradients(params, 0)
    optimizer.step()
    for p in params:
        p.data = p.data.astype(np.float32)
    give_gradients(params, 1)
    with pytest.raises(DTypeError, match=r"Adam.step: parameter 0 is float32 but mean is float64; cast"):
        optimizer.step()


def test_a_gradient_of_another_shape_or_dtype_is_refused(make_parameters):
    params = make_parameters(shapes=[(2, 3), (4,)])
    optimizer = SGD(params, lr=0.1)
    params[1].grad = Tensor(np.zeros(3, np.float32))
    with pytest.raises(ShapeError, match=r"parameter 1 has shape \(4,\) but its gradient has \(3,\)"):
        optimizer.step()
    params[1].grad = Tensor(np.zeros(4))
    with pytest.raises(DTypeError, match=r"SGD.step: parameter 1 is float32 but its gradient is float64"):
        optimizer.step()


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_learning_rate_out_of_range_is_refused(make_parameters, value):
    optimizer = SGD(make_parameters(), lr=0.1)
    with pytest.raises(ValueError, match=f"SGD: lr is {value}, it must lie in 0 <= lr < inf"):
        optimizer.lr = value
    assert optimizer.lr == 0.1


def test_parameters_that_cannot_be_trained_are_refused(make_parameters):
    p, q = make_parameters(shapes=[(2,), (3,)])
    with pytest.raises(ValueError, match=r"SGD: params is empty \(a generator that was used up\?\)"):
        SGD(iter([]), lr=0.1)
    with pytest.raises(TypeError, match=r"SGD: params\[1\] is a ndarray, not a Tensor; give model"):
        SGD((x for x in (p, q.data)), lr=0.1)
    with pytest.raises(TypeError, match=r"SGD: params is a single Tensor; give a list of them"):
        SGD(p, lr=0.1)
    with pytest.raises(ValueError, match=r"SGD: params\[1\] of shape \(3,\) does not require a gradient"):
        SGD([p, Tensor(q.data)], lr=0.1)
    with pytest.raises(ValueError, match=r"SGD: params\[2\] and params\[0\] are the same Tensor"):
        SGD([p, q, p], lr=0.1)


GROUPED = {
    "sgd": lambda params, **o: SGD(params, **o, momentum=0.9, nesterov=True),
    "adam": lambda params, **o: Adam(params, **o),
    "adamw": lambda params, **o: AdamW(params, **o),
    "rmsprop": lambda params, **o: RMSprop(params, **o, momentum=0.9, eps=1.0),
}
every_grouped = pytest.mark.parametrize("make", GROUPED.values(), ids=GROUPED.keys())


def in_groups(params):
    return [{"params": params[:2]}, {"params": params[2:], "lr_factor": 2.0, "weight_decay": 0.0}]


@every_grouped
@pytest.mark.parametrize("schedule", [None, CosineLR], ids=["constant", "scheduled"])
def test_groups_are_trained_like_separate_optimisers(make, schedule, make_parameters, give_gradients):
    together, apart = make_parameters(), make_parameters()
    optimizer = make(in_groups(together), lr=0.01, weight_decay=0.1)
    assert [id(p) for p in optimizer.params] == [id(p) for p in together]
    others = make(apart[:2], lr=0.01, weight_decay=0.1), make(apart[2:], lr=0.02, weight_decay=0.0)
    schedules = [schedule(each, 10) for each in (optimizer, *others)] if schedule else []
    for t in range(4):
        give_gradients(together, t)
        give_gradients(apart, t)
        for each in (optimizer, *others, *schedules):
            each.step()
    assert optimizer.lr == others[0].lr == others[1].lr / 2
    assert_same_bits(values(together), values(apart))


@every_grouped
def test_a_group_without_a_weight_decay_follows_the_optimisers(make, make_parameters, give_gradients):
    grouped, plain = make_parameters(), make_parameters()
    optimizers = make([{"params": iter(grouped)}], lr=0.01), make(plain, lr=0.01)
    for optimizer in optimizers:
        optimizer.weight_decay = 0.3
        give_gradients(optimizer.params, 0)
        optimizer.step()
    assert list(optimizers[0].state_dict()) == list(optimizers[1].state_dict())
    assert_same_bits(values(grouped), values(plain))


@every_grouped
def test_groups_continue_from_their_state(make, make_parameters, give_gradients):
    params = make_parameters()
    optimizer = make(in_groups(params), lr=0.01, weight_decay=0.1)
    give_gradients(params, 0)
    optimizer.step()
    copies = [Tensor(value, requires_grad=True) for value in values(params)]
    resumed = make(in_groups(copies), lr=0.5, weight_decay=0.7)
    state = optimizer.state_dict()
    resumed.load_state_dict(state)
    for each in (optimizer, resumed):
        give_gradients(each.params, 1)
        each.step()
    assert_same_bits(values(params), values(copies))
    assert state["lr_factors"].tolist() == [1, 1, 2]
    np.testing.assert_array_equal(state["weight_decays"], [np.nan, np.nan, 0])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"lr_factor": 2.0}, r"lacks 'lr_factors'; was it made for other parameters or options"),
        ({"lr_factor": 2.0}, {}, r"has the unknown 'lr_factors'"),
        (
            {"lr_factor": 2.0},
            {"lr_factor": 3.0},
            r"'lr_factors' differ; was the state made with other",
        ),
        ({}, {"weight_decay": 0.0}, r"lacks 'weight_decays'"),
        ({"weight_decay": 0.0}, {}, r"has the unknown 'weight_decays'"),
        ({"weight_decay": 0.0}, {"weight_decay": 0.1}, r"'weight_decays' differ; was the state made with"),
    ],
)
def test_a_state_of_other_groups_is_refused_and_changes_nothing(make_parameters, first, second, message):
    def make(options, lr):
        p, *rest = make_parameters()
        return SGD([{"params": rest}, {"params": [p], **options}], lr)

    optimizer = make(second, 0.5)
    with pytest.raises(CheckpointError, match=f"SGD.load_state_dict: .*{message}"):
        optimizer.load_state_dict(make(first, 0.1).state_dict())
    assert optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (
            lambda p, q: [{"params": [p], "lr": 0.2}, {"params": [q]}],
            ValueError,
            r"SGD: group 0 has the unknown 'lr'; the keys of a group are params, lr_factor, weight_decay; "
            r"give lr_factor = its lr / the optimiser's lr",
        ),
        (
            lambda p, q: [{"params": [p], "momentum": 0.2}],
            ValueError,
            r"group 0 has the unknown 'momentum'; the keys of a group are params, lr_factor, weight_decay$",
        ),
        (lambda p, q: [{"params": [p]}, {"lr_factor": 2.0}], ValueError, r"SGD: group 1 lacks 'params'"),
        (lambda p, q: [{"params": [p]}, q], TypeError, r"SGD: group 1 is a Tensor; give dicts alone"),
        (lambda p, q: {"params": [p, q]}, TypeError, r"SGD: params is a single group; give a list of them"),
        (lambda p, q: [{"params": p}], TypeError, r"SGD: group 0: params is a single Tensor"),
        (lambda p, q: [{"params": [p, q.data]}], TypeError, r"SGD: group 0: params\[1\] is a ndarray"),
        (lambda p, q: [{"params": []}, {"params": ()}], ValueError, r"SGD: params is empty"),
        (lambda p, q: [{"params": [p, q]}, {"params": [p]}], ValueError, r"params\[2\] and params\[0\] are"),
        (
            lambda p, q: [{"params": [p], "lr_factor": -1.0}],
            ValueError,
            r"SGD: group 0: lr_factor is -1.0, it must lie in 0 <= lr_factor < inf",
        ),
        (
            lambda p, q: [{"params": [p], "weight_decay": np.nan}],
            ValueError,
            r"SGD: group 0: weight_decay is nan, it must lie in 0 <= weight_decay < inf",
        ),
    ],
)
def test_bad_groups_are_refused(make_parameters, groups, error, message):
    with pytest.raises(error, match=message):
        SGD(groups(*make_parameters(shapes=[(2,), (3,)])), lr=0.1)
