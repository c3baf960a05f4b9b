# SPDX-License-Identifier: Apache-2.0
"""Configurations of the arbiter that make no sense are refused, by name."""

from __future__ import annotations

import pytest
from ros_graph import JOINT_LIMITS

from rlif_intervention.arbiter_parameters import PARAMETERS, arbiter_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"axes": ["x", "y", "z"]}, "Jacobian.*Servo"),
        ({"max_joint_velocity": []}, "max_velocity is .*one finite number for each"),
        ({"workspace_min": [0.0] * 3, "workspace_max": [1.0] * 3}, "the box bounds twists"),
        ({"lock_step": True}, "the simulated arm takes output twist"),
        ({"output": "joint_trajectory", "trajectory_horizon": 0.01}, "trajectory_horizon is 0.01"),
        ({"axes": ["gripper", "elbow"]}, "expected gripper once, as the last"),
        ({"axes": ["gripper"]}, "expected names of joints"),
        ({"command_frame": ""}, "command_frame is empty"),
        ({"stop_topics": []}, "stop_topics is .*expected one or more"),
        ({"stop_topics": ["stop", "stop"]}, "stop_topics is .*each once"),
        ({"devices": []}, "devices is empty and require_operator true"),
    ],
)
def test_arbiter_config_that_makes_no_sense_is_refused_by_name(values, message):
    defaults = {row.name: row.default for row in PARAMETERS}
    with pytest.raises(ValueError, match=message):
        arbiter_config(defaults | JOINT_LIMITS | {"output": "joint_velocity"} | values)


def test_arbiter_config_in_lock_step_does_not_check_that_the_arm_follows():
    """A box needs poses there too, but a step takes as long as it takes."""
    defaults = {row.name: row.default for row in PARAMETERS}
    box = {"workspace_min": [-1.0] * 3, "workspace_max": [1.0] * 3}
    assert arbiter_config(defaults | box).motion.timeout > 0.0
    assert arbiter_config(defaults | box | {"lock_step": True}).motion.timeout == 0.0
