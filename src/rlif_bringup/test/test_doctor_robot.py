"""The checks of what moves the robot: commands, frames, limits, watchdog, Servo, resets."""

from __future__ import annotations

import pytest
from healthy_graph import HEALTHY, changed, diagnostics, without, worst

from rlif_bringup.doctor_checks import check
from rlif_bringup.doctor_findings import Verdict
from rlif_bringup.doctor_snapshot import Traffic

FAILS = [
    ("command", {"command": Traffic("/command", 100, 4.9, 1, 1)}, "overloaded"),
    ("command_rate", {"ARBITER_command_rate": 20.0}, "30 Hz"),
    ("robot", {"command": Traffic("/command", 250, 4.98, 1, 0)}, "nobody listens"),
    ("zeros", {"command_moves": True}, "somebody else"),
    ("frames", {"ARBITER_command_frame": "tool0"}, "base frame"),
    ("frames", {"ee_pose": ((0.5, 0.0, 0.2), "world")}, "'world'"),
    ("frames", {"command_frames": frozenset({"base", "tool"})}, "tool"),
    ("workspace", {"ee_pose": ((0.5, 0.0, 0.9), "base")}, "outside"),
    ("workspace", {"ee_pose": None}, "remap"),
    ("watchdog", {"diagnostics": diagnostics("watchdog: arbiter", 2, "silent")}, "silent"),
    ("servo", {"hold": "Servo is not there: start servo_node"}, "start servo_node"),
    ("servo", {"hold": None}, "moveit.launch.yaml"),
    ("servo", {"holds": Traffic("/hold", 1, 0.0, 0, 1)}, "has died"),
    ("servo", {"diagnostics": without("servo_adapter: servo")}, "no diagnostics"),
    (
        "servo",
        {"diagnostics": diagnostics("servo_adapter: servo", 1, "", state="unknown")},
        "not confirmed its pause",
    ),
    (
        "servo",
        {
            "diagnostics": diagnostics(
                "servo_adapter: servo", 1, "", state="paused", command_type_selected="false"
            )
        },
        "command type",
    ),
    (
        "servo",
        {"hold": "", "diagnostics": diagnostics("servo_adapter: servo", 0, "", state="running")},
        "command type",
    ),
    ("publishers", {"holds": Traffic("/hold", 50, 4.9, 2, 1)}, "/hold"),
    ("publishers", {"pose": Traffic("/tip", 500, 4.99, 2, 2)}, "/tip"),
    ("publishers", {"command_publishers": frozenset({"arbiter", "teleop"})}, "teleop can command"),
    ("reset", {"diagnostics": without("reset_by_planning: reset")}, "reset_service"),
    (
        "reset",
        {"diagnostics": diagnostics("reset_by_planning: reset", 2, "a human has to act")},
        "has to act",
    ),
    ("arbiter_alive", {"alive": Traffic("/arbiter_alive")}, "nothing on"),
    ("ee_pose", {"pose": Traffic("/tip", 20, 4.9, 1, 2)}, "3.9 Hz"),
    ("ee_pose age", {"pose_age": (0.01, 0.5)}, "0.500 s old"),
    ("ee_pose age", {"pose_age": (-0.5, -0.4)}, "future"),
]  # fmt: skip
WARNS = [
    ("speed", {"ARBITER_linear_scale": 0.8, "ARBITER_max_linear_speed": 0.5}),
    ("acceleration", {"ARBITER_max_linear_deceleration": 0.0}),
    ("workspace", {"ARBITER_workspace_min": []}),
    ("speed", {"ARBITER_max_linear_speed": 0.0}),
    ("turning", {"ARBITER_angular_scale": 3.0, "ARBITER_max_angular_speed": 3.0}),
    ("turning", {"ARBITER_max_angular_speed": 0.0}),
    ("turning acceleration", {"ARBITER_max_angular_acceleration": 0.0}),
    ("ee_pose age", {"ARBITER_pose_latency": 0.01}),
    ("hold_timeout", {"ARBITER_hold_timeout": 0.0}),
    ("watchdog", {"diagnostics": without("watchdog: arbiter")}),
    ("servo", {"hold": None, "moveit": False}),
    ("servo status", {"diagnostics": diagnostics("servo_adapter: servo status", 1, "close")}),
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


def test_check_without_moveit_asks_nothing_of_it():
    """The arm of a robot that is driven by a controller of its own."""
    kept = tuple(d for d in HEALTHY.diagnostics if "servo" not in d.name and "reset" not in d.name)
    alone = changed(moveit=False, hold=None, holds=Traffic("/hold"), diagnostics=kept)
    assert Verdict.FAIL not in {f.verdict for f in check(alone)}


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
