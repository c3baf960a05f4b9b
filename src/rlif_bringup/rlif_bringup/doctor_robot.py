# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of what is between the arbiter and the arm: commands, pose, limits, Servo. No ROS."""

from __future__ import annotations

from collections.abc import Iterator

from rlif_bringup.doctor_findings import (
    Finding,
    diagnostic_findings,
    failed,
    late,
    one_publisher,
    passed,
    rate_finding,
    warned,
)
from rlif_bringup.doctor_snapshot import Snapshot

UNARMED = ("DISARMED", "FAULT")
OURS = frozenset({"arbiter", "watchdog"})  # nodes that may command the robot
SLOWEST = 0.8  # of the configured rate
SERVO_RATE = 30.0  # Hz; three commands within Servo's incoming_command_timeout of 0.1 s
FAST, FAST_TURN = (
    0.25,
    1.0,
)  # m/s, rad/s that a collaborating arm should not exceed without a thought
TURNS = frozenset({"roll", "pitch", "yaw"})


def check_command(s: Snapshot) -> Iterator[Finding]:
    rate = s.parameter("arbiter", "command_rate", 50.0)
    output = s.parameter("arbiter", "output", "twist")
    if output != "joint_trajectory":  # which is silent while the arm stands
        advice = "is the arbiter overloaded? See docs/arbiter.md on latency"
        yield from rate_finding("command", s, s.command, SLOWEST * rate, advice)
    if output == "twist" and rate < SERVO_RATE and not s.lock_step:
        yield failed(
            "command_rate",
            f"{rate:g} Hz",
            f"Servo drops commands older than 0.1 s: use {SERVO_RATE:g} Hz or more",
        )
    if s.command.subscribers:
        yield passed("robot", f"{s.command.subscribers} listening on {s.command.name}")
    elif s.command.count or output == "joint_trajectory":
        yield failed(
            "robot",
            f"no node subscribes to {s.command.name}",
            "start Servo or the controller, or remap it in topics.launch.yaml",
        )
    yield from _others(s)


def _others(s: Snapshot) -> Iterator[Finding]:
    strangers = sorted(s.command_publishers - OURS)
    if strangers:
        yield failed(
            "publishers",
            f"{', '.join(strangers)} can command the robot too, on {s.command.name}",
            "end it: what it sends passes no limit, and the arbiter knows nothing of it",
        )
    if s.state in UNARMED and s.command_moves:
        yield failed(
            "zeros",
            "commands that are not zero although the arbiter is not armed",
            f"another node publishes on {s.command.name}: stop it",
        )


def check_frames(s: Snapshot) -> Iterator[Finding]:
    base = s.parameter("observer", "base_frame", "")
    frame = s.parameter("arbiter", "command_frame", "")
    if s.needs_pose and base and frame != base:
        yield failed(
            "frames",
            f"command_frame is {frame!r}, base_frame {base!r}",
            "the workspace box, and action_frame tool, need commands in the base frame",
        )
    elif s.ee_pose and base and s.ee_pose[1] != base:
        yield failed(
            "frames",
            f"ee_pose comes in {s.ee_pose[1]!r}, base_frame is {base!r}",
            "publish it in the base frame, or correct base_frame",
        )
    elif s.command_frames and frame and s.command_frames != {frame}:
        yield failed(
            "frames", f"commands come in {sorted(s.command_frames)}", f"expected {frame!r} only"
        )
    elif frame:
        yield passed("frames", f"commands in {frame!r}, poses in {base!r}")


def check_pose(s: Snapshot) -> Iterator[Finding]:
    """What the box and action_frame tool go by: there, often, fresh, from one publisher."""
    if s.needs_pose and not s.boxed and s.ee_pose is None:
        yield failed("ee_pose", f"nothing on {s.pose.name}", "action_frame tool needs it: remap it")
    if not s.needs_pose or s.ee_pose is None:
        return  # check_limits reports it for a box
    yield from one_publisher(s.pose)
    if s.lock_step:
        return
    timeout = s.parameter("arbiter", "pose_timeout", 0.3)
    advice = "raise its publish rate: the arbiter holds after pose_timeout without one"
    yield from rate_finding("ee_pose", s, s.pose, 2.0 / timeout, advice)
    if s.pose_age is None or s.sim_time:
        return
    greatest, latency = s.pose_age[1], s.parameter("arbiter", "pose_latency", 0.0)
    if finding := late("ee_pose age", "poses", s.pose_age, timeout):
        yield finding
    elif greatest > timeout:
        yield failed(
            "ee_pose age",
            f"poses are up to {greatest:.3f} s old when they come",
            "their publisher, or this machine, is overloaded: the arbiter holds after pose_timeout",
        )
    elif greatest > latency:
        yield warned(
            "ee_pose age",
            f"poses are up to {greatest:.3f} s old when they come, pose_latency is {latency:g} s",
            "set pose_latency above it: the box looks that far ahead",
        )
    else:
        yield passed("ee_pose age", f"poses are at most {greatest:.3f} s old when they come")


def check_limits(s: Snapshot) -> Iterator[Finding]:
    joints = s.parameter("arbiter", "output", "twist") != "twist"
    if "arbiter" not in s.parameters or s.lock_step or joints:
        return  # a joint output does not start without its limits
    turns = TURNS & set(s.parameter("arbiter", "axes", []))
    for kind, name, unit, fast in (
        ("linear", "speed", "m/s", FAST),
        ("angular", "turning", "rad/s", FAST_TURN),
    ):
        if kind == "linear" or turns:
            yield from _speed(s, kind, name, unit, fast)
            yield from _acceleration(s, kind, unit)


def _speed(s: Snapshot, kind: str, name: str, unit: str, fast: float) -> Iterator[Finding]:
    scale = s.parameter("arbiter", f"{kind}_scale", 0.0)
    scale *= s.parameter("arbiter", "speed_scale", 1.0)
    limit = s.parameter("arbiter", f"max_{kind}_speed", 0.0)
    motion = f"up to {scale:.2f} {unit} per axis"
    if not limit:
        off = warned if s.sim_time else failed
        yield off(name, f"{motion}, max_{kind}_speed is off", f"set it, in {unit} of the norm")
    elif min(scale, limit) > fast:
        yield warned(name, motion, "begin with speed_scale 0.3")
    else:
        yield passed(name, f"{motion}, {limit:g} {unit} in all")


def _acceleration(s: Snapshot, kind: str, unit: str) -> Iterator[Finding]:
    name = "acceleration" if kind == "linear" else "turning acceleration"
    names = (f"max_{kind}_acceleration", f"max_{kind}_deceleration")
    off = [n for n in names if not s.parameter("arbiter", n, 0.0)]
    if off:
        given = "0.5 and 1.0" if kind == "linear" else "2.0 and 4.0"
        yield (warned if s.sim_time else failed)(
            name, f"{', '.join(off)} off", f"set them, e.g. {given} {unit}^2"
        )
    else:
        yield passed(name, "limited")


def check_box(s: Snapshot) -> Iterator[Finding]:
    joints = s.parameter("arbiter", "output", "twist") != "twist"
    if "arbiter" not in s.parameters or s.lock_step or joints:
        return
    low = s.parameter("arbiter", "workspace_min", [])
    high = s.parameter("arbiter", "workspace_max", [])
    if not low or not high:
        yield warned("workspace", "no box", "set workspace_min and workspace_max around the task")
    elif s.ee_pose is None:
        yield failed("workspace", "no ee_pose", "the box needs it: remap it in topics.launch.yaml")
    else:
        where = s.ee_pose[0]
        inside = all(a <= v <= b for a, v, b in zip(low, where, high, strict=True))
        position = "(" + ", ".join(f"{v:.3f}" for v in where) + ") m"
        if inside:
            yield passed("workspace", f"the end effector is inside, at {position}")
        else:
            yield failed(
                "workspace",
                f"the end effector is at {position}, outside of the box",
                "drive it inside by the robot's own means, or correct the box",
            )


def check_stall_timeout(s: Snapshot) -> Iterator[Finding]:
    stall, timeout = (
        s.parameter("arbiter", "stall_timeout", 0.0),
        s.parameter("watchdog", "timeout", 0.0),
    )
    if stall and timeout and stall >= timeout and not (s.sim_time or s.lock_step):
        yield failed(
            "stall_timeout",
            f"{stall:g} s, the watchdog's timeout is {timeout:g} s: the watchdog acts first",
            "set stall_timeout below it in robot.yaml",
        )


def check_watchdog(s: Snapshot) -> Iterator[Finding]:
    if s.lock_step:
        return
    advice = "see the log of the arbiter, and docs/arbiter.md"
    found = list(diagnostic_findings(s, "watchdog: ", advice, "watchdog"))
    if not found:
        advice = "start it: nothing else stops the robot if the arbiter dies"
        found = [warned("watchdog", "there is none", advice)]
    yield from found
