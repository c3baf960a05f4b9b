# SPDX-License-Identifier: Apache-2.0
"""Labels: by hand for each rule and pitfall, and against a slow reading of the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_learner.data.labels import Labeller, label_rewards
from rlif_learner.data.steps import Outcome, Source, StepRecord

NUMBER = {"P": Source.POLICY, "O": Source.OPERATOR, "N": Source.NONE, "^": Source.OPERATOR}


def episode(drivers, outcome=Outcome.TRUNCATED, sequence=0, episode_id=1, finished=True):
    """Steps from letters: P policy, O operator, ^ operator with onset, N nobody, _ a lost step."""
    steps = []
    for t, letter in enumerate(drivers):
        if letter != "_":
            steps.append(
                StepRecord(
                    sequence + t, episode_id, t, t == 0, False, 0, NUMBER[letter], letter == "^",
                    0, False, np.zeros(1), np.zeros(1),
                )
            )  # fmt: skip
    if finished:
        t = len(drivers)
        steps.append(
            StepRecord(
                sequence + t, episode_id, t, False, True, outcome, 0, False, 0, False, np.zeros(1)
            )
        )
    return steps


def rewards(drivers, scheme="onset", **settings):
    found = label_rewards(episode(drivers, **settings), scheme)[0]
    return [int(value) for value in found]


def test_onset_labels_the_last_policy_step_only():
    assert rewards("PPP^OOPP^P") == [0, 0, -1, 0, 0, 0, 0, -1, 0, 0, 0]


@pytest.mark.parametrize("scheme", ["onset", "every_step"])
def test_a_discarded_episode_labels_nothing_and_its_neighbours_as_ever(scheme):
    before, after = episode("PP^O"), episode("P^", sequence=20, episode_id=3)
    middle = episode("PP_^OP^", Outcome.DISCARDED, 10, 2)
    found, terminals = label_rewards(before + middle + after, scheme)
    assert found[: len(before)].tolist() == label_rewards(before, scheme)[0].tolist()
    assert not found[len(before) : -len(after)].any() and not terminals.any()
    assert found[-len(after) :].tolist() == label_rewards(after, scheme)[0].tolist()


def test_every_step_labels_all_with_an_operator_after_them():
    assert rewards("PPP^OOPP", "every_step") == [0, 0, -1, -1, -1, 0, 0, 0, 0]


def test_take_over_on_the_first_step_has_nothing_to_label():
    assert rewards("^OPP") == [0] * 5


def test_flicker_of_the_device_is_no_new_label():
    assert rewards("PP^NOPO") == [0, -1, 0, 0, 0, 0, 0, 0]


def test_hold_between_policy_and_operator_labels_the_policy():
    assert rewards("PPNN^") == [0, -1, 0, 0, 0, 0]


def test_failure_counts_as_an_intervention_and_is_not_terminal():
    steps = episode("PPP", outcome=Outcome.FAILURE)
    found, terminals = label_rewards(steps)
    assert found.tolist() == [0, 0, -1, 0]
    assert not terminals.any()
    assert rewards("PPP", "every_step", outcome=Outcome.FAILURE) == [0, 0, -1, 0]


def test_with_a_failure_reward_the_last_step_of_a_failure_is_terminal_and_has_it():
    found, terminals = label_rewards(episode("PPP", Outcome.FAILURE), failure_reward=-20.0)
    assert (found.tolist(), terminals.tolist()) == ([0, 0, -20, 0], [False, False, True, False])


def test_with_a_failure_reward_a_failure_while_the_operator_drives_labels_the_policy_as_well():
    found, terminals = label_rewards(episode("PP^O", Outcome.FAILURE), failure_reward=-20.0)
    assert found.tolist() == [0, -1, 0, -20, 0]
    assert terminals.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("reward", [-0.5, 1.0, float("nan")])
def test_a_failure_reward_that_makes_a_failure_look_good_is_refused(reward):
    with pytest.raises(ValueError, match=r"failure_reward: found .*, expected 0 or at most -1"):
        Labeller(failure_reward=reward)


def test_labels_of_another_failure_reward_are_refused():
    with pytest.raises(ValueError, match=r"failure_reward: found 0.0, expected -20"):
        Labeller(failure_reward=-20.0).load(Labeller().state())


def test_failure_while_the_operator_drives_labels_the_last_policy_step():
    assert rewards("PP^O", outcome=Outcome.FAILURE) == [0, -1, 0, 0, 0]
    assert rewards("PNN", outcome=Outcome.FAILURE) == [-1, 0, 0, 0]


def test_success_is_terminal_with_reward_zero():
    found, terminals = label_rewards(episode("PPP", outcome=Outcome.SUCCESS))
    assert not found.any()
    assert terminals.tolist() == [False, False, True, False]


def test_time_limit_is_not_terminal():
    assert not label_rewards(episode("PPP", outcome=Outcome.TRUNCATED))[1].any()


def test_success_after_the_final_step_was_cut_off_labels_nothing():
    assert not label_rewards(episode("PP_", outcome=Outcome.SUCCESS))[1].any()


def test_a_gap_hides_the_take_over():
    assert rewards("PP_^O") == [0, 0, 0, 0, 0]
    assert rewards("PN_^O") == [0, 0, 0, 0, 0]


def test_an_onset_labels_no_step_of_another_episode():
    steps = episode("PP", finished=False) + episode("^O", sequence=2, episode_id=2)
    assert not label_rewards(steps)[0].any()


def test_unknown_scheme_is_named():
    with pytest.raises(ValueError, match=r"onsets.*every_step"):
        label_rewards([], "onsets")


@st.composite
def histories(draw):
    """Episodes of any drivers, lengths, outcomes and losses."""
    steps, sequence = [], 0
    for episode_id in range(1, draw(st.integers(1, 4)) + 1):
        drivers = draw(st.text("PO^N_", min_size=1, max_size=12))
        outcome = draw(st.sampled_from([1, 2, 3]))
        finished = draw(st.booleans())
        steps += episode(drivers, outcome, sequence, episode_id, finished)
        sequence += len(drivers) + finished
    return steps


def slow_labels(steps, scheme, failure_reward):
    """The definition, read literally, for each pair of steps."""
    unbroken = [
        i + 1 < len(steps)
        and steps[i + 1].sequence == steps[i].sequence + 1
        and steps[i + 1].episode_id == steps[i].episode_id
        for i in range(len(steps))
    ]
    found, terminal = [0.0] * len(steps), [False] * len(steps)
    for j, step in enumerate(steps):
        if j == 0 or not unbroken[j - 1]:
            continue
        if step.is_last and step.outcome == Outcome.SUCCESS:
            terminal[j - 1] = True
        if scheme == "every_step" and not step.is_last and step.source == Source.OPERATOR:
            found[j - 1] = -1.0
        failed = step.is_last and step.outcome == Outcome.FAILURE
        if failed or (scheme == "onset" and step.onset):
            i = j - 1
            while i >= 0 and unbroken[i]:
                if steps[i].source == Source.POLICY:
                    found[i] = -1.0
                    break
                i -= 1
        if failed and failure_reward:
            found[j - 1], terminal[j - 1] = failure_reward, True
    return found, terminal


@given(histories(), st.sampled_from(["onset", "every_step"]), st.sampled_from([0.0, -20.0]))
def test_labels_equal_the_definition(steps, scheme, failure_reward):
    found, terminals = label_rewards(steps, scheme, failure_reward)
    assert (found.tolist(), terminals.tolist()) == slow_labels(steps, scheme, failure_reward)


@given(histories())
def test_a_label_is_known_one_driven_step_later(steps):
    """Data is learned from during the episode, not only at its end."""
    labeller, known = Labeller(), set()
    for i, step in enumerate(steps):
        known |= {label.index for label in labeller.push(step)}
        driven = step.is_last or step.source != Source.NONE
        if i and driven and step.episode_id == steps[i - 1].episode_id:
            consecutive = step.sequence == steps[i - 1].sequence + 1
            assert (i - 1 in known) == consecutive
