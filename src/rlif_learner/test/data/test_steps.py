# SPDX-License-Identifier: Apache-2.0
"""Steps: what joins two of them, what is missing between them, and which are refused."""

from dataclasses import replace

import learner_doubles as doubles
import numpy as np
import pytest

from rlif_learner.data.steps import Outcome, StepRecord, discards, follows, missing_before

STEPS = doubles.episode(1, 4, 10)


@pytest.mark.parametrize(
    ("change", "joined"),
    [
        ({}, True),
        ({"sequence": 13}, False),
        ({"step_index": 3}, False),
        ({"episode_id": 2}, False),
        ({"is_first": True}, False),
        ({"evaluation": True}, False),
    ],
)
def test_follows_is_true_only_for_the_very_next_step(change, joined):
    assert follows(replace(STEPS[2], **change), STEPS[1]) == joined


def test_follows_joins_nothing_to_the_end_of_an_episode_or_to_nothing():
    assert not follows(replace(STEPS[4], sequence=15, step_index=5), STEPS[4])
    assert not follows(STEPS[0], None)


@pytest.mark.parametrize(
    ("step", "before", "missing"),
    [
        (STEPS[2], (11, 1, 1), 0),
        (STEPS[3], (11, 1, 1), 1),  # in both counts
        (replace(STEPS[3], sequence=12), (11, 1, 1), 1),  # the recorder could not make one
        (replace(STEPS[3], sequence=12, evaluation=True), (11, 1, 1), 0),
        (STEPS[1], (9, 7, 3), 1),  # the first one of a new episode
        (STEPS[0], (90, 1, 1), 0),  # a new recorder
    ],
)
def test_missing_before_is_the_larger_of_both_gaps(step, before, missing):
    assert missing_before(step, *before) == missing


def test_discards_is_true_only_for_the_end_of_a_discarded_episode():
    *running, end = doubles.episode(1, 2, 0, outcome=Outcome.DISCARDED)
    assert discards(end) and not any(map(discards, [*running, STEPS[-1]]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action": np.zeros(0)}, "step 1 of episode 1: found no action"),
        ({"outcome": 9}, "9 is not a valid Outcome"),
        ({"source": 9}, "9 is not a valid Source"),
    ],
)
def test_step_record_with_impossible_values_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        StepRecord(**{**vars(STEPS[1]), **change})
