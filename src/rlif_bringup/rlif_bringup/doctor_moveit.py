# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of Servo, its settings, its adapter, and resets. No ROS."""

from __future__ import annotations

from collections.abc import Iterator

from rlif_bringup.doctor_findings import (
    WARN_LEVEL,
    Finding,
    diagnostic_findings,
    failed,
    passed,
    warned,
)
from rlif_bringup.doctor_snapshot import CONTROLLER, SERVO, Diagnostic, Snapshot

HOLD_RATE = 5.0  # Hz; servo_adapter repeats itself at 10
REACTION = 0.1  # s beyond max_expected_latency: measured on Servo 2.12.4, docs/moveit.md
TOP_LEVEL = ("update_period", "planning_group_name")


def check_servo(s: Snapshot) -> Iterator[Finding]:
    """servo_adapter is there, publishes, and has confirmations from Servo."""
    if s.hold is None:
        yield from _no_adapter(s)
        return
    adapter = _status(s, "servo")
    if not s.lock_step and s.holds.rate < HOLD_RATE:
        yield failed(
            "servo",
            f"policy_hold was published {s.holds.count} times in {s.seconds:.0f} s, expected 10 Hz",
            "servo_adapter hangs or has died: start it again",
        )
    elif s.hold and not s.waits_for_arm:
        yield failed("servo", s.hold, "see docs/moveit.md")
    elif adapter is None:
        yield failed(
            "servo",
            f"{s.hold or 'nothing'} on policy_hold, but no diagnostics",
            "start servo_adapter",
        )
    elif s.waits_for_arm and adapter.values.get("state") != "paused":
        yield failed("servo", "Servo has not confirmed its pause", "look at the log of servo_node")
    elif adapter.values.get("command_type_selected") != "true":
        yield failed(
            "servo",
            "Servo has not confirmed the command type",
            "check servo_interface and command_type against the installed MoveIt",
        )
    else:
        yield passed("servo", s.hold or "Servo follows the arbiter")
    if not s.lock_step and not s.parameter("arbiter", "hold_timeout", 0.0):
        yield warned(
            "hold_timeout",
            "off: the policy drives on if servo_adapter dies",
            "set it in robot.yaml, e.g. to 0.5 s",
        )
    version = _status(s, "MoveIt version")
    if version is not None:
        yield failed("MoveIt version", version.message, "see docs/moveit.md on versions")
    status = _status(s, "servo status")
    if status is not None and status.level == WARN_LEVEL:
        yield warned("servo status", status.message, "drive the arm away from there")


def check_servo_settings(s: Snapshot) -> Iterator[Finding]:
    """Parameters of Servo and of its controller that stop the arm, or let it leave the box."""
    servo = s.parameters.get(SERVO, {})
    if not servo:
        return
    if servo.get("moveit_servo.publish_joint_velocities") and _refuses_velocities(s):
        yield failed(
            "controller",
            f"{servo.get('moveit_servo.command_out_topic')}: allow_nonzero_velocity_at_trajectory_end is "
            "false, and Servo's points end with a velocity: every motion is refused",
            "set it true in the controller's parameters, or publish_joint_velocities: false in Servo's",
        )
    ahead = servo.get("moveit_servo.max_expected_latency")
    latency = s.parameter("arbiter", "pose_latency", 0.0)
    if ahead is not None and s.boxed:
        least = ahead + REACTION
        if latency < least - 1e-9:
            yield failed(
                "pose_latency",
                f"{latency:g} s; Servo stamps its points {ahead:g} s ahead (max_expected_latency), so the "
                "arm rests outside of the box",
                f"set pose_latency to {least:g} s or more in robot.yaml",
            )
        else:
            yield passed("pose_latency", f"{latency:g} s covers Servo's {ahead:g} s")
    scene = servo.get("moveit_servo.monitored_planning_scene_topic")
    primary = servo.get("moveit_servo.is_primary_planning_scene_monitor", True)
    if scene == "/planning_scene" and not primary:
        yield failed(
            "planning scene",
            "Servo listens on /planning_scene, move_group publishes on /monitored_planning_scene: walls "
            "that are applied after Servo's start are missed",
            "set monitored_planning_scene_topic: /monitored_planning_scene",
        )
    missing = [name for name in TOP_LEVEL if servo.get(name) in (None, "")]
    if missing:
        yield warned(
            "servo.yaml",
            f"servo_node has no top-level {' and '.join(missing)}",
            "set them beside moveit_servo: the smoothing plugins end Servo without them",
        )


def _refuses_velocities(s: Snapshot) -> bool:
    controller = s.parameters.get(CONTROLLER, {})
    return controller.get("allow_nonzero_velocity_at_trajectory_end") is False


def _no_adapter(s: Snapshot) -> Iterator[Finding]:
    if s.moveit:
        yield failed(
            "servo",
            "no servo_adapter, and this robot configuration is one with MoveIt",
            "start moveit.launch.yaml with the same robot and namespace",
        )
    elif not s.lock_step:
        yield warned(
            "servo",
            "no servo_adapter",
            "with MoveIt Servo start it (rlif_moveit); without it, halts of Servo are not reported",
        )


def check_reset(s: Snapshot) -> Iterator[Finding]:
    """The node that moves the arm between episodes."""
    advice = "see docs/moveit.md on resets"
    found = list(diagnostic_findings(s, "reset_by_planning: ", advice, "reset"))
    if s.moveit and not found and s.parameter("episode", "reset_service", False):
        yield failed(
            "reset",
            "no reset_by_planning, and reset_service is true",
            "start moveit.launch.yaml, or set reset_service false and reset by hand",
        )
    yield from found
    if (found or s.hold is not None) and not s.lock_step and not s.alive.count:
        yield failed(
            "arbiter_heartbeat",
            f"nothing on {s.alive.name}",
            "resets and servo_adapter wait for it: is the arbiter there, and not another topic's?",
        )


def _status(s: Snapshot, name: str) -> Diagnostic | None:
    """Of servo_adapter."""
    return next((d for d in s.diagnostics if d.name.endswith(f"servo_adapter: {name}")), None)
