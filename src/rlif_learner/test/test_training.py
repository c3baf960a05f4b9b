# SPDX-License-Identifier: Apache-2.0
"""How many updates are due, and where Steps go."""

import json
from dataclasses import replace

import learner_doubles as doubles
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_learner.counts import SCORED_EPISODES, StepCounts
from rlif_learner.data.buffer import ReplayBuffer
from rlif_learner.data.sampling import Buffers
from rlif_learner.data.steps import Outcome
from rlif_learner.training import Trainer, TrainingConfig

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


def test_counts_of_an_earlier_checkpoint_are_taken_and_missing_ones_named():
    trainer = make()
    trainer.restore({"steps": 7, "episodes": 2, "lost_steps": 1, "policy_version": 3})
    assert trainer.counts.of() == StepCounts(steps=7, episodes=2, lost=1)
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


def test_the_first_update_waits_for_demonstrations_of_the_robots_that_send_steps():
    def sent(robot, steps):
        for step in steps:
            trainer.receive(replace(step, robot=robot))
        return trainer.due

    trainer = make(prior_episodes=2, robots=("arm_1", "arm_2", "arm_3"))
    assert not sent("arm_1", episode(1, 9, 0))
    assert not sent("arm_2", episode(1, 9, 0)), "one of two, each"
    for number in range(2, 8):
        assert not sent("arm_1", episode(number, 9, 10 * number)), "its later ones are none"
    assert sent("arm_2", episode(2, 9, 10)), "arm_3, which has sent nothing, holds nobody up"


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


def test_a_score_is_of_the_weights_as_they_are():
    trainer = make()
    doubles.evaluated(trainer.evaluation, SCORED_EPISODES, 10)
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
