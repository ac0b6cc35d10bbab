"""The moving average of parameters."""

import numpy as np
import pytest

from minidl.autograd import Tensor
from minidl.errors import CheckpointError
from minidl.optim import EMA


def move(params, seed):
    rng = np.random.default_rng(seed)
    for p in params:
        p.data[...] = rng.standard_normal(p.shape)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_average_is_the_weighted_sum_of_all_values(make_parameters, dtype, tolerance):
    params = make_parameters(dtype)
    history = [[p.data.astype(np.float64) for p in params]]
    ema = EMA(iter(params), decay=0.9)
    for t in range(7):
        move(params, t)
        history.append([p.data.astype(np.float64) for p in params])
        ema.update()
    weights = [0.9**7] + [0.1 * 0.9 ** (7 - t) for t in range(1, 8)]
    for i, average in enumerate(ema.averages):
        assert average.dtype == dtype
        expected = sum(weight * values[i] for weight, values in zip(weights, history, strict=True))
        np.testing.assert_allclose(average, expected, rtol=tolerance, atol=tolerance)


def test_average_starts_at_a_copy_of_the_value(make_parameters):
    params = make_parameters()
    ema = EMA(params)
    start = [p.data.copy() for p in params]
    move(params, 0)
    for average, value in zip(ema.averages, start, strict=True):
        np.testing.assert_array_equal(average, value)


@pytest.mark.parametrize("fails", [False, True])
def test_applied_swaps_in_and_back(make_parameters, fails):
    params = make_parameters()
    ema = EMA(params, decay=0.5)
    move(params, 0)
    ema.update()
    arrays, own = [p.data for p in params], [p.data.copy() for p in params]
    averages = [average.copy() for average in ema.averages]
    try:
        with ema.applied():
            for p, average in zip(params, averages, strict=True):
                np.testing.assert_array_equal(p.data, average)
                p.data += 1.0
            if fails:
                raise KeyError("inside")
    except KeyError:
        assert fails
    for i, p in enumerate(params):
        assert p.data is arrays[i]
        assert p._version.count == 2
        np.testing.assert_array_equal(p.data, own[i])
        np.testing.assert_array_equal(ema.averages[i], averages[i])
    ema.update()


def test_update_and_applied_are_refused_inside_applied(make_parameters):
    ema = EMA(make_parameters())
    with ema.applied():
        with pytest.raises(RuntimeError, match=r"EMA.update: inside applied\(\) the parameters hold"):
            ema.update()
        with pytest.raises(RuntimeError, match=r"EMA.applied: .* applied already"), ema.applied():
            pass


def test_a_run_continued_from_its_state_has_the_same_bits(make_parameters):
    params = make_parameters()
    ema = EMA(params, decay=0.7)
    move(params, 0)
    ema.update()
    resumed = EMA([Tensor(p.data.copy(), requires_grad=True) for p in params], decay=0.1)
    state = ema.state_dict()
    resumed.load_state_dict(state)
    for one in (ema, resumed):
        move(one.params, 1)
        one.update()
    for a, b in zip(ema.averages, resumed.averages, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(state["average.0"], ema.averages[0])  # the state is a copy


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"average.9": np.zeros(1)}, r"has the unknown 'average.9'"),
        ({"average.1": np.zeros((2, 3), "f")}, r"'average.1' has shape \(2, 3\), but \(2, 3, 4\) is needed"),
        ({"average.0": np.zeros(5)}, r"'average.0' is float64, but float32 is needed"),
        ({"decay": "much"}, r"'decay' is 'much', not a number"),
        ({"decay": 1.0}, r"'decay' is 1.0, it must lie in 0 <= decay < 1"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(make_parameters, entries, message):
    ema = EMA(make_parameters())
    before = ema.state_dict()
    with pytest.raises(CheckpointError, match=f"EMA.load_state_dict: .*{message}"):
        ema.load_state_dict({**before, "decay": 0.5, **entries})
    for key, value in ema.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_tensors_that_need_no_gradient_are_averaged_too():
    assert len(EMA([Tensor(np.zeros(3))]).averages) == 1


def test_bad_arguments_are_refused(make_parameters):
    with pytest.raises(ValueError, match=r"EMA: params is empty"):
        EMA([])
    with pytest.raises(ValueError, match=r"EMA: decay is 1.0, it must lie in 0 <= decay < 1"):
        EMA(make_parameters(), decay=1.0)
    with pytest.raises(TypeError, match=r"EMA: params\[0\] is a str"):
        EMA("ab")
