"""Learning-rate schedules against their closed forms and known points."""

import json
import math

import numpy as np
import pytest

from minidl.autograd import Tensor
from minidl.errors import CheckpointError
from minidl.optim import SGD, CosineLR, ExponentialLR, MultiStepLR, OneCycleLR, Schedule, StepLR, Warmup


@pytest.fixture
def optimizer():
    return SGD([Tensor(np.zeros(2, np.float32), requires_grad=True)], lr=0.4)


def course(schedule, steps):
    """The learning rates of the first steps + 1 epochs or steps, read from the optimiser."""
    rates = [schedule.optimizer.lr]
    for _ in range(steps):
        schedule.step()
        assert schedule.lr == schedule.optimizer.lr
        rates.append(schedule.optimizer.lr)
    return rates


def test_step_drops_by_gamma(optimizer):
    assert course(StepLR(optimizer, 2, gamma=0.5), 6) == [0.4, 0.4, 0.2, 0.2, 0.1, 0.1, 0.05]


def test_multi_step_drops_at_each_milestone(optimizer):
    rates = course(MultiStepLR(optimizer, (1, 4), gamma=0.5), 5)
    assert rates == [0.4, 0.2, 0.2, 0.2, 0.1, 0.1]


def test_exponential_is_a_staircase_of_094_every_two_epochs(optimizer):
    rates = course(ExponentialLR(optimizer), 5)
    assert rates == pytest.approx([0.4, 0.4, 0.4 * 0.94, 0.4 * 0.94, 0.4 * 0.94**2, 0.4 * 0.94**2], rel=1e-15)


def test_exponential_without_staircase_falls_every_epoch(optimizer):
    rates = course(ExponentialLR(optimizer, gamma=0.25, step_size=2, staircase=False), 4)
    assert rates == pytest.approx([0.4, 0.2, 0.1, 0.05, 0.025], rel=1e-15)


def test_cosine_falls_to_the_minimum_and_stays(optimizer):
    rates = course(CosineLR(optimizer, 4, min_lr=0.1), 6)
    slope = 0.15 * math.sqrt(0.5)
    assert rates == pytest.approx([0.4, 0.25 + slope, 0.25, 0.25 - slope, 0.1, 0.1, 0.1], rel=1e-14)


def test_one_cycle_rises_and_falls_by_cosines(optimizer):
    schedule = OneCycleLR(optimizer, 1.0, 10, warmup_fraction=0.4, start_factor=0.2, end_factor=0.01)
    rates = course(schedule, 12)
    known = {0: 0.2, 2: 0.6, 4: 1.0, 7: 0.505, 10: 0.01, 11: 0.01, 12: 0.01}
    assert {i: rates[i] for i in known} == pytest.approx(known, rel=1e-14)
    assert rates[:5] == sorted(rates[:5])
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_one_cycle_defaults(optimizer):
    schedule = OneCycleLR(optimizer, 0.5, 100)
    assert [schedule.lr_at(i) for i in (0, 30, 100)] == pytest.approx([0.02, 0.5, 5e-5], rel=1e-14)


def test_one_cycle_without_warm_up_starts_at_the_top(optimizer):
    assert OneCycleLR(optimizer, 0.5, 4, warmup_fraction=0.0).lr == 0.5


def test_warm_up_is_a_straight_line_to_the_full_rate(optimizer):
    assert course(Warmup(optimizer, 4), 6) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rel=1e-15)


def test_warm_up_from_a_factor(optimizer):
    assert course(Warmup(optimizer, 2, start_factor=0.5), 3) == pytest.approx([0.2, 0.3, 0.4, 0.4], rel=1e-15)


def test_a_constant_warm_up_jumps_to_the_full_rate(optimizer):
    rates = course(Warmup(optimizer, 3, start_factor=0.25, shape="constant"), 5)
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.4, 0.4, 0.4], rel=1e-15)


def test_a_constant_warm_up_takes_its_part_of_what_comes_after(optimizer):
    after = OneCycleLR(optimizer, 1.0, 4, warmup_fraction=0.5, start_factor=0.2, end_factor=0.1)
    rates = course(Warmup(optimizer, 2, after, 0.5, shape="constant"), 6)
    assert rates == pytest.approx([0.1, 0.1, 0.2, 0.6, 1.0, 0.55, 0.1], rel=1e-15)


def test_warm_up_hands_over_to_a_schedule_that_starts_there(optimizer):
    after = StepLR(optimizer, 2, gamma=0.5, per="step")
    rates = course(Warmup(optimizer, 2, after), 6)
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.4, 0.2, 0.2, 0.1], rel=1e-15)
    assert after.count == 4


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


MAKERS = {
    "step": lambda o: StepLR(o, 2),
    "multi-step": lambda o: MultiStepLR(o, [3, 5]),
    "exponential": lambda o: ExponentialLR(o),
    "cosine": lambda o: CosineLR(o, 9, min_lr=0.01),
    "one cycle": lambda o: OneCycleLR(o, 1.0, 9),
    "warm-up": lambda o: Warmup(o, 3),
    "constant warm-up": lambda o: Warmup(o, 5, start_factor=0.1, shape="constant"),
    "warm-up and cosine": lambda o: Warmup(o, 3, CosineLR(o, 6)),
}
every_schedule = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@every_schedule
def test_a_resumed_schedule_continues_exactly_whatever_the_rate_was(make, optimizer):
    whole = make(optimizer)
    course(whole, 4)
    state = json.loads(json.dumps(whole.state_dict()))
    resumed = make(SGD(optimizer.params, lr=0.123))  # as after loading an optimiser whose rate had fallen
    resumed.load_state_dict(state)
    assert resumed.optimizer.lr == whole.lr
    assert course(resumed, 8) == course(whole, 8)


@every_schedule
def test_per_is_epoch_for_stairs_and_step_for_curves(make, optimizer):
    schedule = make(optimizer)
    assert schedule.per == ("epoch" if isinstance(schedule, (StepLR, MultiStepLR, ExponentialLR)) else "step")


def test_per_can_be_chosen(optimizer):
    assert CosineLR(optimizer, 5, per="epoch").per == "epoch"
    with pytest.raises(ValueError, match=r"StepLR: per is 'batch', it must be \"epoch\" or \"step\""):
        StepLR(optimizer, 5, per="batch")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {**s, "schedule": "StepLR"}, r"'schedule' is 'StepLR' in this state, it must be 'Warmup'"),
        (lambda s: without(s, "count"), r"the state lacks 'count'"),
        (
            lambda s: without(s, "after.count", "after.base_lr"),
            r"the state lacks 'after.count', 'after.base_lr'",
        ),
        (lambda s: {**s, "after.schedule": "StepLR"}, r"'schedule' is 'StepLR' in this state, .* 'CosineLR'"),
        (lambda s: {**s, "gamma": 1}, r"has the unknown 'gamma'"),
        (lambda s: {**s, "count": "many"}, r"'count' is 'many', not a number"),
        (lambda s: {**s, "count": -3}, r"'count' is -3, it must lie in 0 <= count < "),
        (lambda s: {**s, "count": 2.5}, r"'count' is 2.5, not a whole number"),
        (lambda s: {**s, "after.base_lr": -1.0}, r"'base_lr' is -1.0, it must lie in 0 <= base_lr < "),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(optimizer, spoil, message):
    schedule = Warmup(optimizer, 3, CosineLR(optimizer, 6))
    schedule.step()
    before, rate = schedule.state_dict(), optimizer.lr
    with pytest.raises(CheckpointError, match=f"load_state_dict: .*{message}"):
        schedule.load_state_dict(spoil(before | {"base_lr": 7.0, "after.base_lr": 7.0}))
    assert schedule.state_dict() == before
    assert optimizer.lr == schedule.lr == rate


def test_a_state_that_no_rate_follows_from_is_refused_and_changes_nothing(optimizer):
    schedule = Warmup(optimizer, 3, ExponentialLR(optimizer, gamma=2.0, per="step"))
    before, rate = schedule.state_dict(), optimizer.lr
    with pytest.raises(CheckpointError, match=r"Warmup.load_state_dict: no learning rate follows from this"):
        schedule.load_state_dict(before | {"count": 10**6, "after.base_lr": 7.0})
    assert schedule.state_dict() == before
    assert optimizer.lr == schedule.lr == rate


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: StepLR(o, 0), "StepLR: step_size is 0, it must be a whole number of at least 1"),
        (lambda o: StepLR(o, 2.5), "StepLR: step_size is 2.5"),
        (lambda o: StepLR(o, 2, gamma=-1.0), "StepLR: gamma is -1.0"),
        (
            lambda o: MultiStepLR(o, [5, 2.5]),
            r"MultiStepLR: milestones\[1\] is 2.5, it must be a whole number",
        ),
        (
            lambda o: MultiStepLR(o, [0]),
            r"MultiStepLR: milestones\[0\] is 0, it must be a whole number of at",
        ),
        (
            lambda o: MultiStepLR(o, []),
            r"milestones is \[\], it must have at least one number, each above the",
        ),
        (lambda o: MultiStepLR(o, (5, 5)), r"MultiStepLR: milestones is \[5, 5\], it must have"),
        (lambda o: MultiStepLR(o, [7, 5]), r"MultiStepLR: milestones is \[7, 5\], it must have"),
        (lambda o: MultiStepLR(o, [5], gamma=-1.0), "MultiStepLR: gamma is -1.0"),
        (lambda o: ExponentialLR(o, step_size=0), "ExponentialLR: step_size is 0"),
        (lambda o: CosineLR(o, -3), "CosineLR: total_steps is -3"),
        (lambda o: CosineLR(o, 3, min_lr=-0.1), "CosineLR: min_lr is -0.1"),
        (lambda o: OneCycleLR(o, -1.0, 10), "OneCycleLR: max_lr is -1.0"),
        (lambda o: OneCycleLR(o, 1.0, 10, warmup_fraction=1.0), "OneCycleLR: warmup_fraction is 1.0, it"),
        (lambda o: Warmup(o, 0), "Warmup: steps is 0"),
        (
            lambda o: Warmup(o, 3, shape="steep"),
            'Warmup: shape is \'steep\', it must be "line" or "constant"',
        ),
        (
            lambda o: Warmup(o, 3, shape="constant"),
            'start_factor is 0, .* shape="constant"; give one above 0',
        ),
        (lambda o: Warmup(o, 3, StepLR(o, 2)), 'Warmup: it counts per="step" but after=StepLR per="epoch"'),
        (
            lambda o: Warmup(o, 3, CosineLR(SGD(o.params, lr=1), 2)),
            "Warmup: after=CosineLR was made for another",
        ),
    ],
)
def test_bad_arguments_are_refused(optimizer, make, message):
    with pytest.raises(ValueError, match=message):
        make(optimizer)


@pytest.mark.parametrize(
    ("make", "count", "reason"),
    [
        (lambda o: StepLR(o, 2), 6, "0.1 ** 3: after 6 epochs"),
        (lambda o: MultiStepLR(o, [2, 4, 6], per="step"), 4, "2 of 3 milestones passed, next at step 6"),
        (lambda o: MultiStepLR(o, [2, 4]), 4, "2 of 2 milestones passed, none to come"),
        (lambda o: ExponentialLR(o), 6, "0.94 ** 3: after 6 epochs"),
        (lambda o: ExponentialLR(o, staircase=False), 1, "0.94 ** 0.5: after 1 epoch"),
        (lambda o: CosineLR(o, 8, 0.1), 3, "cosine: step 3 of 8, from 0.4 down to 0.1"),
        (lambda o: CosineLR(o, 8, per="epoch"), 9, "cosine: done after 8 epochs"),
        (lambda o: OneCycleLR(o, 1e-3, 10), 2, "one cycle: rising, step 2 of 10, highest 0.001 at step 3"),
        (lambda o: OneCycleLR(o, 1e-3, 10), 3, "one cycle: falling, step 3 of 10, highest 0.001 at step 3"),
        (lambda o: OneCycleLR(o, 1e-3, 10), 10, "one cycle: done after 10 steps"),
        (lambda o: Warmup(o, 4), 3, "warm-up: step 3 of 4"),
        (lambda o: Warmup(o, 4), 4, "constant after 4 steps"),
        (lambda o: Warmup(o, 4, CosineLR(o, 9)), 5, "cosine: step 1 of 9, from 0.4 down to 0"),
        (lambda o: Own(o, "epoch"), 2, "Own, after 2 epochs"),
    ],
)
def test_every_schedule_says_why_the_rate_is_what_it_is(optimizer, make, count, reason):
    schedule = make(optimizer)
    course(schedule, count)
    assert schedule.reason() == reason


class Own(Schedule):
    def lr_at(self, count):
        return self.base_lr / (1 + count)
