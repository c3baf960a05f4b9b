# SPDX-License-Identifier: Apache-2.0
"""Goals as move_group takes them."""

from __future__ import annotations

import pytest

from rlif_moveit.planning import (
    ERRORS,
    PlanConfig,
    error_words,
    move_group_goal,
)
from rlif_moveit.reset_goals import JointGoal, PoseGoal

CONFIG = PlanConfig(group="arm", velocity_scale=0.2, acceleration_scale=0.1, motion_timeout=1.0)
JOINTS = JointGoal(joints=("a", "b"), positions=(0.1, -0.2), tolerance=0.01)
POSE = PoseGoal(
    link="tool0", frame="base", position=(0.5, 0.1, 0.3), orientation=(1.0, 0.0, 0.0, 0.0)
)


def test_move_group_goal_of_joints_has_a_constraint_each(planning_types):
    request = move_group_goal(JOINTS, CONFIG, planning_types).request
    (constraints,) = request.goal_constraints
    found = [(c.joint_name, c.position, c.tolerance_above) for c in constraints.joint_constraints]
    assert found == [("a", 0.1, 0.01), ("b", -0.2, 0.01)]
    assert request.group_name == "arm" and request.max_velocity_scaling_factor == 0.2
    assert request.allowed_planning_time == 5.0 and request.start_state.is_diff


def test_move_group_goal_of_a_pose_has_a_ball_and_an_orientation(planning_types):
    goal = move_group_goal(POSE, CONFIG, planning_types)
    (constraints,) = goal.request.goal_constraints
    (where,), (turned,) = constraints.position_constraints, constraints.orientation_constraints
    assert (where.header.frame_id, where.link_name) == ("base", "tool0")
    centre = where.constraint_region.primitive_poses[0].position
    assert (centre.x, centre.y, centre.z) == (0.5, 0.1, 0.3)
    assert list(where.constraint_region.primitives[0].dimensions) == [0.002]
    assert turned.orientation.x == 1.0 and turned.absolute_z_axis_tolerance == 0.01
    assert goal.planning_options.plan_only is False


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"group": ""}, "planning_group"),
        ({"group": "arm", "velocity_scale": 0.0}, "velocity_scale"),
        ({"group": "arm", "acceleration_scale": 1.5}, "acceleration_scale"),
        ({"group": "arm", "planning_time": 0.0}, "planning_time"),
    ],
)
def test_plan_config_with_a_bad_value_is_refused_by_name(values, word):
    # A scale of 0 would be full speed: move_group takes it for "not set".
    with pytest.raises(ValueError, match=word):
        PlanConfig(**values)


def test_error_words_of_a_code_name_the_cause():
    assert error_words(1) == ""
    assert "joint_states" in error_words(-23)
    assert "-99" in error_words(-99)


def test_errors_are_those_of_moveit_msgs():
    codes = pytest.importorskip("moveit_msgs.msg").MoveItErrorCodes
    for code, words in ERRORS.items():
        assert getattr(codes, words.split(":")[0]) == code
