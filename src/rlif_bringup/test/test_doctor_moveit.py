# SPDX-License-Identifier: Apache-2.0
"""The checks of Servo, its settings, its adapter, and resets."""

from __future__ import annotations

import pytest
from healthy_graph import ARBITER, HEALTHY, changed, diagnostics, without, worst

from rlif_bringup.doctor_checks import check
from rlif_bringup.doctor_findings import Verdict
from rlif_bringup.doctor_snapshot import CONTROLLER, SERVO, Traffic


def settings(
    allow=True, velocities=True, pose_latency=0.2, max_expected_latency=0.1,
    scene="/monitored_planning_scene", update_period=0.01,
):  # fmt: skip
    """A change of the healthy graph: what Servo and its controller answer."""
    servo = {
        "update_period": update_period,
        "planning_group_name": "arm",
        "moveit_servo.publish_joint_velocities": velocities,
        "moveit_servo.command_out_topic": "/arm_controller/joint_trajectory",
        "moveit_servo.max_expected_latency": max_expected_latency,
        "moveit_servo.monitored_planning_scene_topic": scene,
        "moveit_servo.is_primary_planning_scene_monitor": False,
    }
    controller = {"allow_nonzero_velocity_at_trajectory_end": allow}
    arbiter = ARBITER | {"pose_latency": pose_latency}
    nodes = {"arbiter": arbiter, SERVO: servo, CONTROLLER: controller}
    return {"parameters": {**HEALTHY.parameters, **nodes}}


FAILS = [
    ("servo", {"hold": "Servo is not there: start servo_node"}, "start servo_node"),
    ("servo", {"hold": None}, "moveit.launch.yaml"),
    ("servo", {"holds": Traffic("/policy_hold", 1, 0.0, 0, 1)}, "has died"),
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
    ("reset", {"diagnostics": without("reset_by_planning: reset")}, "reset_service"),
    (
        "reset",
        {"diagnostics": diagnostics("reset_by_planning: reset", 2, "a human has to act")},
        "has to act",
    ),
    ("arbiter_heartbeat", {"alive": Traffic("/arbiter_heartbeat")}, "nothing on"),
    ("controller", settings(allow=False), "allow_nonzero_velocity_at_trajectory_end"),
    ("pose_latency", settings(pose_latency=0.05), "outside of the box"),
    ("pose_latency", settings(max_expected_latency=0.3), "0.4 s or more"),
    ("planning scene", settings(scene="/planning_scene"), "/monitored_planning_scene"),
    (
        "MoveIt version",
        {"diagnostics": diagnostics("servo_adapter: MoveIt version", 2, "expected 2.12.2 or newer")},
        "2.12.2",
    ),
]  # fmt: skip
WARNS = [
    ("hold_timeout", {"ARBITER_hold_timeout": 0.0}),
    ("servo", {"hold": None, "moveit": False}),
    ("servo status", {"diagnostics": diagnostics("servo_adapter: servo status", 1, "close")}),
    ("servo.yaml", settings(update_period=None)),

]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "words"), FAILS)
def test_check_of_a_faulty_graph_fails_and_names_the_remedy(name, change, words):
    verdict, text = worst(changed(**change), name)
    assert verdict is Verdict.FAIL and words in text


@pytest.mark.parametrize(("name", "change"), WARNS)
def test_check_of_a_doubtful_graph_warns(name, change):
    assert worst(changed(**change), name)[0] is Verdict.WARN


@pytest.mark.parametrize("change", [settings(), settings(allow=False, velocities=False)])
def test_check_of_good_servo_settings_passes(change):
    assert {f.verdict for f in check(changed(**change))} == {Verdict.PASS}


def test_check_without_moveit_asks_nothing_of_it():
    """The arm of a robot that is driven by a controller of its own."""
    kept = tuple(d for d in HEALTHY.diagnostics if "servo" not in d.name and "reset" not in d.name)
    alone = changed(moveit=False, hold=None, holds=Traffic("/policy_hold"), diagnostics=kept)
    assert Verdict.FAIL not in {f.verdict for f in check(alone)}
