# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlif_sim.strategies import (
    Actor,
    ActorConfig,
    Approach,
    Operator,
    RandomStrategy,
    ReferenceJudge,
    ValueStrategy,
)

JUDGE = ReferenceJudge()
ABOVE = np.array([0.03, -0.02, 0.05])
positions = arrays(float, 3, elements=st.floats(-0.1, 0.1)).filter(lambda p: p[2] > 0.0)
actions = arrays(float, 3, elements=st.floats(-1.0, 1.0))


@given(positions)
def test_approach_action_brings_the_judge_closer(position):
    approach = Approach()
    action = approach.action(position)
    assert np.abs(action).max() <= 1.0
    before = approach.steps_to_go(position)
    assert approach.steps_to_go(approach.after(position, action)) <= before + 1e-9


@given(positions, actions)
def test_approach_after_stays_above_the_board_beside_the_hole(position, action):
    after = Approach().after(position, action)
    if np.hypot(*after[:2]) > Approach().aligned:
        assert after[2] >= 0.0


def test_value_strategy_takes_over_where_the_policy_is_worse():
    strategy = ValueStrategy(beta=0.95, delta=0.6)
    best = JUDGE.best_action(ABOVE)
    assert strategy.chance(JUDGE, ABOVE, best) == pytest.approx(0.05)
    assert strategy.chance(JUDGE, ABOVE, -best) == 0.95
    assert strategy.chance(JUDGE, ABOVE, np.zeros(3)) == 0.95, "standing still wastes a step"


@pytest.mark.parametrize(
    ("reference", "found", "worse"),
    [(10.0, 8.9, True), (10.0, 9.1, False), (-9.0, -10.5, True), (-9.0, -9.5, False)],
)
def test_value_strategy_relative_form_holds_for_negative_values(reference, found, worse):
    assert ValueStrategy(alpha=0.9).is_worse(reference, found) is worse


@given(st.floats(0.5, 1.0), st.floats(-100, 100), st.floats(0, 50))
def test_value_strategy_of_equal_values_is_never_worse(alpha, reference, better_by):
    assert not ValueStrategy(alpha=alpha).is_worse(reference, reference)
    assert not ValueStrategy(alpha=alpha).is_worse(reference, reference + better_by)


def test_operator_take_over_lasts_its_length():
    operator = Operator(
        RandomStrategy(1.0), JUDGE, Actor(ActorConfig(), Approach(), 0), length=3, seed=0
    )
    operator.start_episode()
    assert all(operator.decide(ABOVE, np.zeros(3)) is not None for _ in range(7))
    never = Operator(
        RandomStrategy(0.0), JUDGE, Actor(ActorConfig(), Approach(), 0), length=3, seed=0
    )
    assert all(never.decide(ABOVE, np.zeros(3)) is None for _ in range(20))


def test_operator_rest_leaves_the_policy_its_steps_between_take_overs():
    actor = Actor(ActorConfig(), Approach(), 0)
    operator = Operator(RandomStrategy(1.0), JUDGE, actor, length=2, seed=0, rest=1)
    driven = [operator.decide(ABOVE, np.zeros(3)) is not None for _ in range(7)]
    assert driven == [True, True, False, True, True, False, True]
    operator.start_episode()
    assert operator.decide(ABOVE, np.zeros(3)) is not None, "an episode begins without a rest"


def test_operator_takes_over_at_its_probability():
    operator = Operator(
        RandomStrategy(0.3), JUDGE, Actor(ActorConfig(), Approach(), 0), length=1, seed=3
    )
    count = sum(operator.decide(ABOVE, np.zeros(3)) is not None for _ in range(4000))
    assert abs(count / 4000 - 0.3) < 0.03


def test_actor_errs_as_configured_and_differently_per_episode():
    perfect = Actor(ActorConfig(bias=0.0, noise=0.0), Approach(), 0)
    np.testing.assert_array_equal(perfect.action(ABOVE), Approach().action(ABOVE))
    biased = Actor(ActorConfig(bias=0.01, noise=0.0), Approach(), 0)
    near = np.array([0.0, 0.0, 0.02])
    first = biased.action(near)
    np.testing.assert_array_equal(first, biased.action(near))
    biased.start_episode()
    assert not np.allclose(first, biased.action(near))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: RandomStrategy(1.5), "probability"),
        (lambda: ValueStrategy(beta=0.2), "beta"),
        (lambda: ValueStrategy(delta=-1.0), "delta"),
        (lambda: ValueStrategy(alpha=2.0), "alpha"),
        (lambda: ActorConfig(bias=-1.0), "bias"),
        (lambda: Approach(speed=0.0), "speed"),
        (lambda: Operator(RandomStrategy(), JUDGE, None, 0, 0), "length"),
        (lambda: Operator(RandomStrategy(), JUDGE, None, 1, 0, rest=-1), "rest"),
    ],
)
def test_strategies_with_a_wrong_value_name_it(make, name):
    with pytest.raises(ValueError, match=name):
        make()
