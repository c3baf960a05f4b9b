# SPDX-License-Identifier: Apache-2.0
"""Goals as JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_moveit.reset_goals import JointGoal, NamedGoal, PoseGoal
from rlif_moveit.wire import goal_from_wire, goal_to_wire

GOALS = [
    NamedGoal("ready"),
    JointGoal(joints=("a",), positions=(0.1,), spread=(0.2,)),
    PoseGoal(
        link="tool0", frame="base", position=(0.5, 0.0, 0.3), orientation=(1.0, 0.0, 0.0, 0.0)
    ),
]


@pytest.mark.parametrize("goal", GOALS)
def test_wire_of_any_goal_gives_it_back(goal):
    assert goal_from_wire(json.loads(json.dumps(goal_to_wire(goal)))) == goal


@given(st.dictionaries(st.text("kind", max_size=5), st.integers()))
def test_wire_of_what_is_no_goal_is_refused(wire):
    with pytest.raises(ValueError, match="kind"):
        goal_from_wire(wire)
