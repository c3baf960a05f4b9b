# SPDX-License-Identifier: Apache-2.0
"""Goals of resets: checked where they are made, scattered within their spread."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_moveit.reset_goals import (
    JointGoal,
    NamedGoal,
    PoseGoal,
    describe,
    goal_from,
    sample,
)

DOWN = (1.0, 0.0, 0.0, 0.0)
POSE = {"link": "tool0", "frame": "base", "position": (0.5, 0.0, 0.3), "orientation": DOWN}
PARAMETERS = {
    "goal_state": "ready",
    "goal_joints": ["a", "b"],
    "goal_positions": [0.1, 0.2],
    "goal_joint_tolerance": 0.001,
    "goal_joint_spread": [],
    "goal_link": "tool0",
    "goal_frame": "base",
    "goal_position": [0.5, 0.0, 0.3],
    "goal_orientation": list(DOWN),
    "goal_position_spread": [0.02, 0.02, 0.0],
    "goal_angle_spread": 0.1,
    "goal_position_tolerance": 0.002,
    "goal_angle_tolerance": 0.01,
}


def angle_between(p, q):
    return 2.0 * math.acos(min(1.0, abs(sum(a * b for a, b in zip(p, q, strict=True)))))


def test_goal_from_parameters_makes_each_kind():
    assert goal_from(PARAMETERS | {"goal": "named"}) == NamedGoal("ready")
    joints = goal_from(PARAMETERS | {"goal": "joints"})
    assert isinstance(joints, JointGoal) and joints.positions == (0.1, 0.2)
    pose = goal_from(PARAMETERS | {"goal": "pose"})
    assert isinstance(pose, PoseGoal) and pose.position_spread == (0.02, 0.02, 0.0)
    with pytest.raises(ValueError, match="named, joints, pose"):
        goal_from(PARAMETERS | {"goal": "home"})


@given(st.integers(0, 10_000), st.floats(0.0, 0.2), st.floats(0.0, 1.0))
def test_sample_of_a_pose_stays_within_its_spread(seed, spread, angle):
    goal = PoseGoal(**POSE, position_spread=(spread, 0.0, spread), angle_spread=angle)
    got = sample(goal, random.Random(seed))
    for value, centre in zip(got.position, goal.position, strict=True):
        assert abs(value - centre) <= spread + 1e-12
    assert got.position[1] == 0.0
    assert math.hypot(*got.orientation) == pytest.approx(1.0)
    assert angle_between(got.orientation, DOWN) <= angle + 1e-6
    assert sample(got, random.Random(seed)).position == got.position


@given(st.integers(0, 10_000))
def test_sample_of_joints_stays_within_their_spread(seed):
    goal = JointGoal(joints=("a", "b"), positions=(1.0, 2.0), spread=(0.1, 0.0))
    got = sample(goal, random.Random(seed))
    assert abs(got.positions[0] - 1.0) <= 0.1 and got.positions[1] == 2.0


def test_sample_with_one_seed_repeats_and_two_differ():
    goal = PoseGoal(**POSE, position_spread=(0.02, 0.02, 0.0), angle_spread=0.2)
    first, again = random.Random(1), random.Random(1)
    a, b = sample(goal, first), sample(goal, first)
    assert a != b and sample(goal, again) == a


def test_sample_of_a_named_state_is_itself():
    assert sample(NamedGoal("ready"), random.Random(0)) == NamedGoal("ready")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"goal": "named", "goal_state": ""}, "goal_state"),
        ({"goal": "joints", "goal_positions": [0.1]}, "goal_positions"),
        ({"goal": "joints", "goal_joints": ["a", "a"]}, "goal_joints"),
        ({"goal": "joints", "goal_positions": [0.1, math.nan]}, "goal_positions"),
        ({"goal": "joints", "goal_joint_spread": [0.1]}, "goal_joint_spread"),
        ({"goal": "pose", "goal_position": [0.1, 0.2]}, "goal_position"),
        ({"goal": "pose", "goal_orientation": [0.0, 0.0, 0.0, 0.0]}, "goal_orientation"),
        ({"goal": "pose", "goal_position_spread": [-0.1, 0.0, 0.0]}, "goal_position_spread"),
        ({"goal": "pose", "goal_link": ""}, "goal_link"),
        ({"goal": "pose", "goal_angle_tolerance": 0.0}, "goal_angle_tolerance"),
    ],
)
def test_goal_from_bad_parameters_is_refused_by_name(change, word):
    with pytest.raises(ValueError, match=word):
        goal_from(PARAMETERS | change)


def test_describe_of_a_goal_is_readable():
    assert describe(NamedGoal("ready")) == "state 'ready'"
    assert describe(PoseGoal(**POSE)) == "tool0 at (0.500, 0.000, 0.300) m in base"
