# SPDX-License-Identifier: Apache-2.0
"""Arrays of observations and actions as Steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from step_bags import demonstrations

from rlif_bags.formats.arrays import ImportConfig, steps_from_arrays
from rlif_learner.data.labels import label_rewards
from rlif_learner.data.steps import Outcome, Source


def test_steps_from_arrays_rewards_are_not_used() -> None:
    """PITFALLS: prior data sampled with its true task rewards although the method has none."""
    steps = list(steps_from_arrays(demonstrations(), ImportConfig()))
    assert len(steps) == 7 and not label_rewards(steps)[0].any()
    assert [s.outcome for s in steps if s.is_last] == [Outcome.SUCCESS, Outcome.TRUNCATED]
    assert [s.source for s in steps if not s.is_last] == [Source.OPERATOR] * 5
    assert [s.onset for s in steps] == [True, False, False, False, True, False, False]


def test_steps_from_arrays_no_next_observations_drops_the_last_action() -> None:
    arrays = {k: v for k, v in demonstrations().items() if k != "next_observations"}
    steps = list(steps_from_arrays(arrays, ImportConfig()))
    assert [s.is_last for s in steps] == [False, False, True, False, True]
    assert steps[2].state.tolist() == [4.0, 5.0]


def test_steps_from_arrays_actions_are_divided_by_the_scale() -> None:
    arrays = {**demonstrations(), "actions": np.full((5, 1), 0.05)}
    steps = list(steps_from_arrays(arrays, ImportConfig(action_scale=0.1)))
    assert steps[0].action.tolist() == [0.5]


def test_steps_from_arrays_what_the_policy_asked_for_is_of_steps_of_the_operator() -> None:
    asked = np.array([[0.1], [0.2], [np.nan], [0.4], [0.5]])
    arrays = {**demonstrations(), "policy_actions": asked, "sources": np.array([1, 2, 2, 2, 1])}
    steps = list(steps_from_arrays(arrays, ImportConfig(action_scale=2.0)))
    found = [s.refused_action.tolist() for s in steps if not s.is_last]
    assert found == [[], [pytest.approx(0.1)], [], [pytest.approx(0.2)], []]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.full((5, 1), 2.0)}, r"actions: row 0 .* \[-1, 1\]"),
        ({"actions": np.zeros((4, 1))}, "actions: found 4 rows"),
        ({"observations": np.full((5, 2), np.nan)}, "observations: row 0 is not finite"),
        ({"observations": np.zeros(5)}, "observations: found shape"),
        ({"policy_actions": np.zeros((5, 2))}, "policy_actions: found 2 entries, expected 1"),
    ],
)
def test_steps_from_arrays_wrong_array_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(steps_from_arrays({**demonstrations(), **change}, ImportConfig()))
