# SPDX-License-Identifier: Apache-2.0
"""The arbiter's parameters, and the configuration of its core made out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlif_node.parameters import Param
from rlif_node.pose_source import TF

from .action_frames import BASE, FRAMES, TOOL, check_tool_axes
from .arbiter_types import ArbiterConfig
from .device_inputs import CONSOLE_PARAMETER, device_names
from .gripper import AXIS as GRIPPER
from .gripper import GripperConfig
from .interventions import InterventionConfig
from .joint_limits import JointLimitConfig
from .limits import LimitConfig
from .motion_check import MotionCheckConfig

OUTPUTS = ("twist", "joint_velocity", "joint_trajectory")
LEAST_HORIZON = 2.0  # command periods: one that is late must not stop the arm

PARAMETERS = (
    Param(
        "axes",
        ["x", "y", "z"],
        "entries of an action, out of x y z roll pitch yaw; with a joint output names of joints; "
        "last, if there is one, gripper",
    ),
    Param("linear_scale", 0.1, "m/s of an action of 1", 0.001, 1.0),
    Param("angular_scale", 0.5, "rad/s of an action of 1", 0.001, 3.0),
    Param("command_frame", "base", "frame_id of the commands; the base frame of the robot"),
    TF,
    Param(
        "action_frame",
        BASE,
        "frame of actions, output twist; tool: that of ee_pose",
        choices=FRAMES,
    ),
    Param("output", "twist", "kind of command", choices=OUTPUTS),
    Param("control_rate", 10.0, "Hz of observations and decisions", 0.5, 100.0),
    Param("command_rate", 100.0, "Hz of commands, not in lock-step", 5.0, 500.0),
    Param("observation_timeout", 0.3, "s without an observation until HOLD", 0.01, 10.0),
    Param("policy_timeout", 0.3, "s without an action of the policy until HOLD", 0.01, 10.0),
    Param(
        "pose_timeout",
        0.3,
        "s without ee_pose, if there is a box, or joint_states, with a joint output, until HOLD",
        0.01,
        10.0,
    ),
    Param(
        "device_timeout",
        0.5,
        "s of silence until a device is gone; default of NAME.timeout",
        0.01,
        10.0,
    ),
    Param(
        "hold_timeout",
        0.0,
        "s without a message on `policy_hold` until HOLD; 0: no messages are expected",
        0.0,
        10.0,
    ),
    Param(
        "follow_timeout",
        1.5,
        "s of commands that the arm does not follow until HOLD; 0, or in lock-step: not checked",
        0.0,
        60.0,
    ),
    Param(
        "episode_timeout",
        0.5,
        "s without a heartbeat of the episode node until HOLD; 0: not checked",
        0.0,
        60.0,
    ),
    Param(
        "fault_on_foreign_command",
        False,
        "FAULT while another node publishes commands too; false: it is only reported",
    ),
    Param("require_operator", True, "without a live operator device the policy holds"),
    Param("label_only", False, "a take-over is only marked; the policy keeps control"),
    Param("arm_dwell", 1.0, "s of zeros after arming; none in lock-step", 0.0, 10.0),
    Param("release_dwell", 0.2, "s of zeros after a release before the policy goes on", 0.0, 10.0),
    Param("minimum_length", 0.0, "s that an intervention lasts at least", 0.0, 10.0),
    Param("speed_scale", 1.0, "factor on all speeds, for first runs", 0.01, 1.0, live=True),
    Param("max_linear_speed", 0.0, "m/s, of the norm; 0: off", 0.0, 3.0),
    Param("max_angular_speed", 0.0, "rad/s, of the norm; 0: off", 0.0, 6.0),
    Param("max_linear_acceleration", 0.0, "m/s^2 while driving; 0: off", 0.0, 50.0),
    Param("max_angular_acceleration", 0.0, "rad/s^2 while driving; 0: off", 0.0, 100.0),
    Param("max_linear_deceleration", 0.0, "m/s^2 while braking; 0: at once", 0.0, 50.0),
    Param("max_angular_deceleration", 0.0, "rad/s^2 while braking; 0: at once", 0.0, 100.0),
    Param("max_linear_jerk", 0.0, "m/s^3 while driving; 0: off", 0.0, 1000.0),
    Param("workspace_min", [], "m; x, y, z of the end effector, base frame; empty: no box"),
    Param("workspace_max", [], "m; x, y, z of the end effector, base frame; empty: no box"),
    Param(
        "pose_latency",
        0.05,
        "s that ee_pose may be old when it arrives, plus what a command needs to act",
        0.0,
        1.0,
    ),
    Param("joint_scale", 0.5, "joint output: rad/s of an action of 1", 0.001, 5.0),
    Param("max_joint_velocity", [], "joint output: rad/s, one for each joint of axes"),
    Param("max_joint_acceleration", [], "joint output: rad/s^2 while driving, for each joint"),
    Param("max_joint_deceleration", [], "joint output: rad/s^2 while braking, for each joint"),
    Param("joint_position_min", [], "joint output: rad, for each joint"),
    Param("joint_position_max", [], "joint output: rad, for each joint"),
    Param("joint_latency", 0.05, "s; look-ahead for the age of joint_states", 0.0, 1.0),
    Param(
        "trajectory_horizon",
        0.1,
        "joint_trajectory: s until it begins to brake by itself",
        0.01,
        1.0,
    ),
    Param("max_joint_lead", 0.1, "joint_trajectory: rad ahead of the measured joint", 0.001, 1.0),
    Param("gripper_threshold", 0.5, "axis gripper: entries beyond it open or close", 0.01, 1.0),
    Param("gripper_interval", 0.5, "axis gripper: s between two changes", 0.0, 10.0),
    Param("lock_step", False, "answer instead of ticking; simulation only"),
    Param("lock_step_timeout", 2.0, "s of wall time that one step may take", 0.1, 60.0),
    Param("devices", ["joy"], "names of operator devices; each has parameters NAME.*"),
    CONSOLE_PARAMETER,
    Param("locks", [], "names of locks; each has parameters NAME.*", items=str),
    Param("stop_topics", ["stop"], "std_msgs/Bool; one for each publisher that may stop the arm"),
    Param(
        "stall_timeout", 0.25, "s that the arbiter may stand still itself, else FAULT", 0.1, 10.0
    ),
)


def arbiter_config(p: Mapping[str, Any]) -> ArbiterConfig:
    """Raises ValueError with the name, the value and what was expected."""
    axes = motion_axes(p["axes"])
    if not p["command_frame"]:
        raise ValueError("command_frame is empty; Servo refuses commands without a frame")
    if not p["stop_topics"] or len(set(p["stop_topics"])) != len(p["stop_topics"]):
        raise ValueError(f"stop_topics is {p['stop_topics']}; expected one or more, each once")
    if p["require_operator"] and not device_names(p):
        raise ValueError("devices is empty and require_operator true: name a device, or set false")
    return ArbiterConfig(
        limits=limit_config(p, axes) if p["output"] == "twist" else joint_config(p, axes),
        gripper=GripperConfig(threshold=p["gripper_threshold"], interval=p["gripper_interval"])
        if len(axes) < len(p["axes"])
        else None,
        interventions=InterventionConfig(
            release_dwell=p["release_dwell"], minimum_length=p["minimum_length"]
        ),
        motion=MotionCheckConfig(timeout=0.0 if p["lock_step"] else p["follow_timeout"]),
        observation_timeout=p["observation_timeout"],
        policy_timeout=p["policy_timeout"],
        pose_timeout=p["pose_timeout"],
        hold_timeout=p["hold_timeout"],
        require_operator=p["require_operator"],
        label_only=p["label_only"],
        arm_dwell=0.0 if p["lock_step"] else p["arm_dwell"],
    )


def motion_axes(axes: Sequence[str]) -> tuple[str, ...]:
    """`axes` without the gripper, which may only be the last."""
    motion = tuple(axes[:-1] if axes and axes[-1] == GRIPPER else axes)
    if GRIPPER in motion:
        raise ValueError(f"axes is {list(axes)}; expected {GRIPPER} once, as the last of them")
    return motion


def limit_config(p: Mapping[str, Any], axes: tuple[str, ...]) -> LimitConfig:
    """The period is that of commands: a control period in lock-step."""
    rate = p["control_rate"] if p["lock_step"] else p["command_rate"]
    in_tool = p["action_frame"] == TOOL
    if in_tool:
        check_tool_axes(axes)
    same = (
        "linear_scale",
        "angular_scale",
        "max_linear_speed",
        "max_angular_speed",
        "max_linear_acceleration",
        "max_angular_acceleration",
        "max_linear_deceleration",
        "max_angular_deceleration",
        "max_linear_jerk",
    )
    return LimitConfig(
        axes=axes,
        period=1.0 / rate,
        workspace_min=tuple(p["workspace_min"]),
        workspace_max=tuple(p["workspace_max"]),
        pose_latency=0.0 if p["lock_step"] else p["pose_latency"],
        tool_actions=in_tool,
        **{name: p[name] for name in same},
    )


def joint_config(p: Mapping[str, Any], axes: tuple[str, ...]) -> JointLimitConfig:
    """For the two joint outputs. What would have no effect there is refused, not ignored."""
    if p["action_frame"] != BASE:
        raise ValueError(
            f"action_frame is {p['action_frame']} with output {p['output']}; expected {BASE}: joints have no "
            "tool's frame"
        )
    if p["workspace_min"] or p["workspace_max"]:
        raise ValueError(
            f"workspace_min and workspace_max are set with output {p['output']}: the box bounds twists "
            "and would hold nothing back here; leave it out, and bound the joints with "
            "joint_position_min and joint_position_max"
        )
    if p["lock_step"]:
        raise ValueError(
            f"lock_step is true with output {p['output']}; the simulated arm takes output twist"
        )
    period = 1.0 / p["command_rate"]
    trajectory = p["output"] == "joint_trajectory"
    if trajectory and p["trajectory_horizon"] < LEAST_HORIZON * period:
        raise ValueError(
            f"trajectory_horizon is {p['trajectory_horizon']} s at command_rate {p['command_rate']} "
            f"Hz; expected {LEAST_HORIZON:g} periods or more: {LEAST_HORIZON * period:.3f} s"
        )
    return JointLimitConfig(
        axes=axes,
        scale=p["joint_scale"],
        period=period,
        horizon=p["trajectory_horizon"] if trajectory else period,
        max_velocity=tuple(p["max_joint_velocity"]),
        max_acceleration=tuple(p["max_joint_acceleration"]),
        max_deceleration=tuple(p["max_joint_deceleration"]),
        position_min=tuple(p["joint_position_min"]),
        position_max=tuple(p["joint_position_max"]),
        latency=p["joint_latency"],
        max_lead=p["max_joint_lead"] if trajectory else 0.0,
    )
