# SPDX-License-Identifier: Apache-2.0
"""What is counted of Steps: gaps, losses, take-overs, evaluations; and that counts go on as they were."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from learner_doubles import episode, evaluated

from rlif_learner.counts import SCORED_EPISODES, EvaluationCounts, RobotCounts, StepCounts
from rlif_learner.data.steps import Outcome


def test_gaps_in_the_sequence_are_counted_and_a_new_recorder_is_no_gap():
    counts = StepCounts()
    steps = episode(1, 9, 100)
    for step in [*steps[:3], *steps[5:8], steps[9]]:
        counts.add(step)
    assert (counts.lost, counts.steps) == (3, 7)
    for step in episode(2, 2, 1):
        counts.add(step)
    assert counts.lost == 3


def test_a_step_that_the_recorder_could_not_make_is_counted_as_lost():
    """Regression: with `pace` the next episode waited for it for ever."""
    counts = StepCounts()
    received = [*episode(1, 2, 0), *episode(2, 6, 3), *episode(3, 3, 10), *episode(4, 2, 14)]
    # Episode 2 without its steps 1 and 2, and 3 without its first; the sequence tells nothing.
    made = [s for s in received if (s.episode_id, s.step_index) not in {(2, 1), (2, 2), (3, 0)}]
    made = [replace(s, sequence=i) for i, s in enumerate(made)]
    for step in made:
        counts.add(step)
    assert (counts.lost, counts.steps) == (3, len(received) - 3)


def test_a_step_lost_on_the_way_is_not_counted_twice():
    counts = StepCounts()
    for step in [*episode(1, 2, 0), *episode(2, 6, 3)[2:], *episode(3, 2, 13)]:
        counts.add(step)
    assert counts.lost == 5, "2 of episode 2, and 3 of a sequence in between"


def counted(steps, foreign=(), drop=False):
    """Counts after the steps, each of `foreign`, a Step by the place that it comes before, among them."""
    counts = StepCounts()
    for i, step in enumerate(steps):
        if i in foreign:
            (counts.drop if drop else counts.add)(foreign[i])
        counts.add(step)
    return counts


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize(("sequence", "number", "index"), [(700, 9, 600), (2, 9, 600), (2, 1, 600)])
@pytest.mark.parametrize("place", [1, 3, 10])
def test_a_step_of_another_recorder_makes_no_others_lost(drop, sequence, number, index, place):
    """Regression: one of them added 600 to the lost steps: the gap to it, or the gap back."""
    steps = [*episode(1, 9, 100), *episode(2, 9, 110)]
    other = replace(episode(number, 700, 0)[index], sequence=sequence)
    found = counted(steps, {place: other}, drop)
    assert (found.lost, found.steps) == (int(drop), len(steps) + (not drop))
    gap = [*steps[:5], *steps[8:]]
    assert counted(gap, {place: other}, drop).lost == 3 + drop, "what is missing still counts"


def test_a_gap_counts_at_once_and_a_new_recorder_is_followed():
    counts = counted([*episode(1, 9, 100), *episode(2, 9, 130)[:1]])
    assert counts.lost == 20
    for step in [*episode(2, 9, 130)[1:], *episode(1, 9, 0), *episode(2, 9, 12)]:
        counts.add(step)
    assert counts.lost == 22


def test_a_dropped_step_counts_as_a_lost_one_and_ends_what_it_ends():
    for dropped in range(1, 8):
        lost, without = StepCounts(), StepCounts()
        steps = [*episode(1, 4, 10), *episode(2, 3, 15)]
        for i, step in enumerate(steps):
            (lost.drop if i == dropped else lost.add)(step)
            if i != dropped:
                without.add(step)
        assert (lost.lost, lost.steps) == (without.lost, without.steps) == (1, len(steps) - 1)
        assert lost.episodes == 2


def test_a_dropped_step_that_ends_an_episode_is_counted_at_once():
    counts = StepCounts()
    for step in episode(1, 4, 0)[:-1]:
        counts.add(step)
    assert not counts.at_episode_end
    counts.drop(episode(1, 4, 0)[-1])
    assert counts.at_episode_end and (counts.steps, counts.lost, counts.episodes) == (4, 1, 1)


@given(st.integers(0, 40))
def test_all_counts_go_on_from_where_they_were_saved(cut):
    """Regression: without the last sequence, the step before and the episodes, counts differed."""
    steps = [
        *episode(1, 9, 0, takeover=3), *episode(2, 9, 12)[2:], *episode(3, 9, 25, takeover=5)[:-2],
        *episode(4, 5, 40, evaluation=True), *episode(5, 9, 47, takeover=1),
    ]  # fmt: skip
    whole, first, second = StepCounts(), StepCounts(), StepCounts()
    for step in steps:
        whole.add(step)
    for step in steps[:cut]:
        first.add(step)
    second.load(json.loads(json.dumps(first.state())))
    assert second == first
    for step in steps[cut:]:
        second.add(step)
    assert second == whole


def test_the_score_is_the_success_rate_of_the_policy_alone():
    counts = EvaluationCounts()
    evaluated(counts, SCORED_EPISODES - 1, 5)
    assert counts.score is None, "too few"
    evaluated(counts, 1, 1)
    assert counts.score == pytest.approx(6 / SCORED_EPISODES)
    evaluated(counts, 20, 0, takeover=2)
    assert counts.score == pytest.approx(6 / SCORED_EPISODES), "an operator helped"
    for step in [
        *episode(1, 4, 0, outcome=Outcome.SUCCESS),
        *episode(2, 4, 5, evaluation=True)[2:],
    ]:
        counts.add(step)
    assert counts.score == pytest.approx(6 / SCORED_EPISODES), "training; half an episode"


def test_the_intervention_rate_is_of_the_last_episodes():
    counts = StepCounts()
    sequence = 0
    for number in range(1, 41):
        for step in episode(number, 10, sequence, takeover=4 if number > 20 else None):
            counts.add(step)
        sequence += 11
        if number == 20:
            assert counts.intervention_rate == 0.0
    assert counts.intervention_rate == pytest.approx(0.1)


@given(st.lists(st.booleans(), max_size=60))
def test_counts_of_interleaved_robots_are_those_of_each_alone(order):
    streams = {
        "arm_1": [*episode(1, 5, 0, takeover=2), *episode(2, 5, 9, outcome=Outcome.SUCCESS)],
        "arm_2": [*episode(1, 7, 100)[2:], *episode(2, 3, 120, evaluation=True), *episode(3, 4, 1)],
    }
    alone = {name: StepCounts() for name in streams}
    counts, queues = RobotCounts(tuple(streams)), {n: list(s) for n, s in streams.items()}
    for second in order:
        name = "arm_2" if second else "arm_1"
        if queues[name]:
            step = queues[name].pop(0)
            counts.of(name).add(step)
            alone[name].add(step)
    assert {name: counts.of(name) for name in streams} == alone
    for field in ("steps", "episodes", "lost"):
        assert getattr(counts, field) == sum(getattr(one, field) for one in alone.values())
    again = RobotCounts(tuple(streams))
    again.load(json.loads(json.dumps(counts.state())))
    assert again.state() == counts.state() and again.intervention_rate == counts.intervention_rate


def test_counts_of_one_robot_go_on_with_several_and_keep_the_sums():
    one = RobotCounts()
    for step in episode(1, 9, 0):
        one.of().add(step)
    several = RobotCounts(("arm_1",))
    several.load(json.loads(json.dumps(one.state())))
    assert (several.steps, several.of("arm_1").steps, several.names) == (10, 0, ("arm_1",))


def test_success_rate_is_of_the_last_episodes():
    counts = StepCounts()
    assert math.isnan(counts.success_rate)
    for number in range(30):
        outcome = Outcome.SUCCESS if number % 4 == 0 else Outcome.FAILURE
        for step in episode(number, 2, 3 * number, outcome=outcome):
            counts.add(step)
    assert counts.success_rate == 0.25


def test_an_evaluation_of_one_robot_goes_on_while_another_one_is_taken_over():
    counts = EvaluationCounts()
    judged = [
        replace(s, robot="arm_1")
        for s in episode(1, 4, 0, evaluation=True, outcome=Outcome.SUCCESS)
    ]
    helped = [replace(s, robot="arm_2") for s in episode(1, 4, 0, evaluation=True, takeover=1)]
    for pair in zip(judged, helped, strict=True):
        for step in pair:
            counts.add(step)
    assert (counts.episodes, counts.successes) == (1, 1)
