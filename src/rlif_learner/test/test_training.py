# SPDX-License-Identifier: Apache-2.0
"""How many updates are due, what counts, and where Steps go."""

import json
from dataclasses import replace

import learner_doubles as doubles
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_learner.data.buffer import Buffers, ReplayBuffer
from rlif_learner.data.steps import Outcome
from rlif_learner.making import make_algorithm
from rlif_learner.training import (
    SCORED_EPISODES,
    EvaluationCounts,
    StepCounts,
    Trainer,
    TrainingConfig,
)

episode = doubles.episode


def make(sources=("prior", "online"), **config):
    sizes = (doubles.STATE_DIM, doubles.ACTION_DIM)
    buffers = Buffers(ReplayBuffer(1000, *sizes), ReplayBuffer(1000, *sizes))
    return Trainer(doubles.CountingAlgorithm(), buffers, TrainingConfig(**config), sources)


def drain(trainer):
    while trainer.due:
        trainer.update()


@given(
    st.floats(0.05, 4.0), st.integers(0, 30), st.lists(st.integers(1, 12), min_size=1, max_size=6)
)
def test_the_ratio_of_updates_to_steps_holds_however_steps_arrive(ratio, warmup, lengths):
    trainer = make(updates_per_step=ratio, warmup_steps=warmup)
    sequence = 0
    for number, length in enumerate(lengths, start=1):
        for step in episode(number, length, sequence):
            trainer.receive(step)
            sequence += 1
            if sequence % 3 == 0:  # sometimes the learner keeps up, sometimes it lags
                drain(trainer)
        drain(trainer)
        allowed = ratio * max(0, sequence - warmup)
        assert trainer.caught_up
        assert trainer.algorithm.updates <= allowed < trainer.algorithm.updates + 1 + 1e-9
    assert trainer.status().steps == sequence


def test_without_a_ratio_it_trains_as_fast_as_possible_and_nobody_waits():
    trainer = make(updates_per_step=0.0)
    assert not trainer.due
    for step in episode(1, 5, 0):
        trainer.receive(step)
    for _ in range(100):
        assert trainer.due and trainer.caught_up
        trainer.update()


def test_with_nothing_to_learn_from_nobody_waits_for_the_learner():
    trainer = make(sources=("prior",), updates_per_step=1.0)  # as BC without demonstrations
    for step in episode(1, 5, 0):
        trainer.receive(step)
    assert trainer.caught_up and not trainer.due


def test_evaluation_is_neither_learned_from_nor_counted():
    trainer = make()
    for step in episode(1, 5, 0, evaluation=True):
        trainer.receive(step)
    status = trainer.status()
    assert (status.steps, status.transitions, status.lost_steps) == (0, 0, 0)
    for step in episode(2, 5, 6):
        trainer.receive(step)
    assert trainer.status().steps == 6
    assert trainer.status().lost_steps == 0


def test_the_first_episodes_are_prior_data_and_the_rest_is_not():
    trainer = make(prior_episodes=2)
    sequence = 0
    for number, length in enumerate((3, 4, 5), start=1):
        for step in episode(number, length, sequence):
            trainer.receive(step)
        sequence += length + 1
    assert trainer.status().prior_transitions == 7
    assert trainer.status().transitions == 5


def test_evaluation_episodes_do_not_use_up_the_demonstrations():
    trainer = make(prior_episodes=1)
    for step in [*episode(1, 3, 0, evaluation=True), *episode(2, 4, 4), *episode(3, 5, 9)]:
        trainer.receive(step)
    assert (trainer.status().prior_transitions, trainer.status().transitions) == (4, 5)


def test_a_discarded_demonstration_is_recorded_again_and_not_used_up():
    trainer = make(prior_episodes=1)
    bad = episode(1, 3, 0, takeover=1, outcome=Outcome.DISCARDED)
    for step in [*bad, *episode(2, 4, 4), *episode(3, 5, 9)]:
        trainer.receive(step)
    status = trainer.status()
    assert (status.prior_transitions, status.transitions) == (4, 5)
    assert (status.steps, status.lost_steps) == (15, 0), "the pacing counts all that was sent"
    assert status.intervention_rate == 0.0


def test_a_discarded_evaluation_is_no_trial():
    trainer = make()
    for step in episode(1, 5, 0, evaluation=True, outcome=Outcome.DISCARDED):
        trainer.receive(step)
    assert trainer.evaluation.episodes == 0


def test_prior_data_can_go_into_the_online_buffer_as_the_authors_have_it():
    trainer = make(prior_episodes=1, prior_into_online=True)
    for step in [*episode(1, 3, 0), *episode(2, 4, 4)]:
        trainer.receive(step)
    assert (trainer.status().prior_transitions, trainer.status().transitions) == (0, 7)


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


def test_counts_of_an_earlier_checkpoint_are_taken_and_missing_ones_named():
    trainer = make()
    trainer.restore({"steps": 7, "episodes": 2, "lost_steps": 1, "policy_version": 3})
    assert trainer.counts == StepCounts(steps=7, episodes=2, lost=1)
    with pytest.raises(KeyError, match="steps"):
        trainer.restore({})


def test_a_backlog_that_takes_too_long_is_dropped_and_stays_dropped():
    trainer = make(updates_per_step=2.0, warmup_steps=1)
    for step in episode(1, 10, 0):
        trainer.receive(step)
    trainer.update()
    assert (trainer.backlog, trainer.drop_backlog(0.0)) == (19, 0), "no update was timed yet"
    trainer.update()
    assert 0.0 < trainer.update_seconds < 10.0
    trainer.update_seconds = 0.5
    assert trainer.drop_backlog(9.0) == 0 and trainer.due
    assert trainer.drop_backlog(8.9) == 18 and not trainer.due and trainer.caught_up
    assert trainer.backlog == 0 and trainer.status().transitions == 10
    resumed = make(updates_per_step=2.0, warmup_steps=1)
    resumed.restore(json.loads(json.dumps(trainer.counters())))
    resumed.algorithm.updates = trainer.algorithm.updates
    for one in (trainer, resumed):
        for step in episode(2, 10, 11):
            one.receive(step)
        assert one.backlog == 22


def test_the_normaliser_is_fitted_once_to_the_demonstrations_which_the_first_update_waits_for():
    trainer = make(prior_episodes=2)
    normaliser = trainer.algorithm.actor.normaliser
    demonstrations = [*episode(1, 9, 0), *episode(2, 9, 10)]
    for step in demonstrations[:-1]:
        trainer.receive(step)
        assert not trainer.due and trainer.caught_up
    trainer.receive(demonstrations[-1])
    drain(trainer)
    assert trainer.algorithm.updates == 20
    states = np.stack([step.state for step in demonstrations])
    np.testing.assert_allclose(normaliser.offset, states.mean(0), atol=1e-6)
    np.testing.assert_allclose(normaliser.scale, states.std(0), rtol=1e-6)
    for step in episode(3, 9, 20):
        trainer.receive(replace(step, state=step.state + 100.0))
    drain(trainer)
    np.testing.assert_allclose(normaliser.offset, states.mean(0), atol=1e-6)


def test_updates_that_waited_for_demonstrations_are_not_dropped_and_later_ones_are():
    trainer = make(prior_episodes=2)
    for step in [*episode(1, 9, 0), *episode(2, 9, 10)]:
        trainer.receive(step)
    trainer.update()
    trainer.update()
    trainer.update_seconds = 1.0
    assert (trainer.backlog, trainer.drop_backlog(0.0)) == (18, 0)
    resumed = make(prior_episodes=2)
    resumed.restore(json.loads(json.dumps(trainer.counters())))
    resumed.buffers, resumed.algorithm.updates = trainer.buffers, trainer.algorithm.updates
    resumed.update_seconds = 1.0
    for one in (trainer, resumed):
        for step in episode(3, 9, 20):
            one.receive(step)
        assert (one.backlog, one.drop_backlog(0.0), one.backlog) == (28, 10, 18)


def test_without_demonstrations_the_normaliser_stays_at_0_and_1(caplog):
    """Regression: it was fitted to the first Steps, which may be of an arm at rest."""
    caplog.set_level("INFO")
    trainer = make()
    for step in episode(1, 9, 0):
        trainer.receive(replace(step, state=step.state + 100.0))
    drain(trainer)
    normaliser = trainer.algorithm.actor.normaliser
    assert trainer.algorithm.updates
    assert not normaliser.offset.any() and (normaliser.scale == 1).all()
    assert caplog.text.count("no demonstrations") == 1


def test_demonstrations_out_of_bags_are_enough_to_normalise_by():
    trainer = make(prior_episodes=2)
    for step in episode(7, 9, 0):
        trainer.add_prior(step)
    trainer.receive(episode(1, 9, 0)[0])
    assert trainer.due


@pytest.mark.parametrize("case", ["given", "restored", "of an earlier checkpoint"])
def test_the_normaliser_stays_as_it_was_given_or_restored(case):
    trainer = make()
    if case == "given":
        trainer.algorithm.spec = replace(doubles.SPEC, state_scale=(2.0,) * doubles.STATE_DIM)
        trainer = Trainer(trainer.algorithm, trainer.buffers, trainer.config)
    else:
        counters = {**trainer.counters(), "normalised": True}
        if case != "restored":
            del counters["normalised"]
        trainer.restore(counters)
    for step in episode(1, 9, 0):
        trainer.receive(step)
    drain(trainer)
    assert trainer.algorithm.updates and not trainer.algorithm.actor.normaliser.offset.any()


def test_without_a_ratio_there_is_no_backlog():
    trainer = make(updates_per_step=0.0)
    for step in episode(1, 10, 0):
        trainer.receive(step)
    trainer.update_seconds = 100.0
    assert (trainer.backlog, trainer.drop_backlog(1.0)) == (0, 0) and trainer.due


def evaluated(counts, episodes, successes, **more):
    for number in range(episodes):
        outcome = Outcome.SUCCESS if number < successes else Outcome.TRUNCATED
        for step in episode(number, 4, 5 * number, evaluation=True, outcome=outcome, **more):
            counts.add(step)


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


def test_a_score_is_of_the_weights_as_they_are():
    trainer = make()
    evaluated(trainer.evaluation, SCORED_EPISODES, 10)
    for step in episode(1, 4, 0):
        trainer.receive(step)
    assert trainer.evaluation.score == 1.0
    trainer.update()
    assert trainer.evaluation.score is None
    for step in episode(2, 4, 5, evaluation=True)[:3]:
        trainer.receive(step)
    trainer.update()
    for step in episode(2, 4, 5, evaluation=True)[3:]:
        trainer.receive(step)
    assert trainer.evaluation.episodes == 0, "of two sets of weights"


def test_nothing_is_due_any_more_once_it_is_stopped():
    trainer = make()
    for step in episode(1, 5, 0):
        trainer.receive(step)
    assert trainer.due and not trainer.caught_up
    trainer.stopped = True
    assert trainer.caught_up and not trainer.due


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


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"updates_per_step": -1.0}, "updates_per_step: found -1.0"),
        ({"updates_per_step": float("nan")}, "updates_per_step: found nan"),
        ({"warmup_steps": -1}, "warmup_steps: found -1"),
        ({"prior_episodes": -1}, "prior_episodes: found -1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(values, words):
    with pytest.raises(ValueError, match=words):
        TrainingConfig(**values)


def test_algorithms_are_made_by_name():
    for name in ("rlpd", "bc", "hg_dagger"):
        assert make_algorithm(name, {"utd": 2}, "rlpd", doubles.SPEC, 0).config.utd == 2
    with pytest.raises(ValueError, match="expert in every state"):
        make_algorithm("dagger", {}, "rlpd", doubles.SPEC, 0)
    with pytest.raises(ValueError, match="found 'ppo', expected one of rlpd"):
        make_algorithm("ppo", {}, "rlpd", doubles.SPEC, 0)
    with pytest.raises(ValueError, match="unknown settings"):
        make_algorithm("rlpd", {"utdd": 2}, "rlpd", doubles.SPEC, 0)
