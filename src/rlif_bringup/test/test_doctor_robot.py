# SPDX-License-Identifier: Apache-2.0
"""The checks of what moves the robot: commands, frames, limits, watchdog."""

from __future__ import annotations

import pytest
from healthy_graph import changed, diagnostics, without, worst

from rlif_bringup.doctor_checks import check
from rlif_bringup.doctor_findings import Verdict
from rlif_bringup.doctor_snapshot import Traffic

FAILS = [
    ("command", {"command": Traffic("/command", 100, 4.9, 1, 1)}, "overloaded"),
    ("command_rate", {"ARBITER_command_rate": 20.0}, "30 Hz"),
    ("robot", {"command": Traffic("/command", 250, 4.98, 1, 0)}, "no node subscribes"),
    ("zeros", {"command_moves": True}, "another node"),
    ("frames", {"ARBITER_command_frame": "tool0"}, "base frame"),
    ("frames", {"ee_pose": ((0.5, 0.0, 0.2), "world")}, "'world'"),
    ("frames", {"command_frames": frozenset({"base", "tool"})}, "tool"),
    ("workspace", {"ee_pose": ((0.5, 0.0, 0.9), "base")}, "outside"),
    ("workspace", {"ee_pose": None}, "remap"),
    (
        "ee_pose",
        {"ee_pose": None, "ARBITER_workspace_min": [], "ARBITER_action_frame": "tool"},
        "action_frame tool needs it",
    ),
    ("watchdog", {"diagnostics": diagnostics("watchdog: arbiter", 2, "silent")}, "silent"),
    ("watchdog", {"diagnostics": diagnostics("watchdog: pause", 1, "it was paused")}, "was paused"),
    ("publishers", {"pose": Traffic("/tip", 500, 4.99, 2, 2)}, "/tip"),
    ("publishers", {"command_publishers": frozenset({"arbiter", "teleop"})}, "teleop can command"),
    ("ee_pose", {"pose": Traffic("/tip", 20, 4.9, 1, 2)}, "3.9 Hz"),
    ("ee_pose age", {"pose_age": (0.01, 0.5)}, "overloaded"),
    ("ee_pose age", {"pose_age": (0.45, 0.5)}, "set the clocks"),
    ("acceleration", {"ARBITER_max_linear_deceleration": 0.0}, "max_linear_deceleration off"),
    ("speed", {"ARBITER_max_linear_speed": 0.0}, "max_linear_speed is off"),
    ("turning", {"ARBITER_max_angular_speed": 0.0}, "max_angular_speed is off"),
    ("turning acceleration", {"ARBITER_max_angular_acceleration": 0.0}, "off"),
    ("stall_timeout", {"ARBITER_stall_timeout": 0.3, "WATCHDOG_timeout": 0.3}, "acts first"),
    ("ee_pose age", {"pose_age": (-0.5, -0.4)}, "future"),
]  # fmt: skip
WARNS = [
    ("speed", {"ARBITER_linear_scale": 0.8, "ARBITER_max_linear_speed": 0.5}),
    ("workspace", {"ARBITER_workspace_min": []}),
    ("turning", {"ARBITER_angular_scale": 3.0, "ARBITER_max_angular_speed": 3.0}),
    ("speed", {"ARBITER_max_linear_speed": 0.0, "ARBITER_use_sim_time": True}),
    ("acceleration", {"ARBITER_max_linear_deceleration": 0.0, "ARBITER_use_sim_time": True}),
    ("ee_pose age", {"ARBITER_pose_latency": 0.01}),
    ("watchdog", {"diagnostics": without("watchdog: arbiter")}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "words"), FAILS)
def test_check_of_a_faulty_graph_fails_and_names_the_remedy(name, change, words):
    verdict, text = worst(changed(**change), name)
    assert verdict is Verdict.FAIL and words in text


@pytest.mark.parametrize(("name", "change"), WARNS)
def test_check_of_a_doubtful_graph_warns(name, change):
    assert worst(changed(**change), name)[0] is Verdict.WARN


def test_check_limits_without_a_turning_axis_asks_for_no_turning_limits():
    off = {"ARBITER_axes": ["x", "y", "z"], "ARBITER_max_angular_speed": 0.0}
    assert all(not f.name.startswith("turning") for f in check(changed(**off)))


def test_check_command_silent_passes_for_a_trajectory_and_fails_for_a_velocity_output():
    silent = Traffic("/joint_trajectory", 0, 0.0, 1, 1)
    found = check(changed(ARBITER_output="joint_trajectory", command=silent))
    assert {f.name: f.verdict for f in found}["robot"] is Verdict.PASS
    assert all(f.name not in ("command", "speed") for f in found)
    silent = Traffic("/joint_command", 0, 0.0, 1, 1)
    verdict, words = worst(changed(ARBITER_output="joint_velocity", command=silent), "command")
    assert verdict is Verdict.FAIL and "/joint_command" in words


def test_check_in_lock_step_judges_no_rates_and_limits():
    slow = Traffic("/observation", 3, 4.9, 1, 1)
    snapshot = changed(ARBITER_lock_step=True, observation=slow, observation_age=(-9.0, 9.0))
    assert {f.verdict for f in check(snapshot)} == {Verdict.PASS}
