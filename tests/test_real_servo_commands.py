# SPDX-License-Identifier: Apache-2.0
"""The other ways to command the real Servo: relayed, in the tool's frame, about another point, unitless, joints.

Skipped where MoveIt is not sourced, as test_real_moveit.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from gamepad_rig import marks
from moveit_rig import MOVEIT, PANDA, SPEED, Changes, MoveItRig
from rlif_node.qos import RELIABLE
from sensor_msgs.msg import Joy

from rlif_moveit.twists import rotation_matrix
from rlif_msgs.msg import ControlState

pytestmark = marks(*MOVEIT)

RELAYED = {"command": "", "servo_command": "/servo_node/delta_twist_cmds"}
TOOL = (0.0, 0.0, 0.1)  # m, of a point below the flange, in the axes of panda_link8
ALL_AXES = {
    "axes": ["x", "y", "z", "roll", "pitch", "yaw"],
    "angular_scale": 0.2,
}
JOINT_SPEED = 0.1  # rad/s
JOINTS = list(PANDA.joints)


def relay(**moveit: object) -> Changes:
    return Changes(moveit={"relay": True, **moveit}, topics=RELAYED)


WAYS = {
    "relayed": relay(),
    "in the tool's frame": relay(output_frame="panda_link8"),
    "not about the end effector": Changes(
        moveit={"relay": True},
        topics=RELAYED,
        servo={"moveit_servo.apply_twist_commands_about_ee_frame": False},
    ),
    "unitless": Changes(
        moveit={
            "relay": True,
            "command_in_type": "unitless",
            "scale_linear": 0.15,
            "scale_rotational": 0.5,
        },
        topics=RELAYED,
        servo={"moveit_servo.command_in_type": "unitless"},
    ),
}


@pytest.fixture
def start(tmp_path) -> Iterator:
    with ExitStack() as stack:
        yield lambda changes: MoveItRig(tmp_path / "rig", stack, changes)


def driven(rig: MoveItRig, **stick: float) -> tuple[np.ndarray, np.ndarray]:
    """Poses [7] of the flange before and after 1.5 s of the stick."""
    rig.arm()
    rig.to_ready()
    before = rig.poses([rig.joints[-1][1]])[0]
    rig.push(**stick)
    rig.wait(lambda: rig.state == ControlState.OPERATOR, "OPERATOR")
    rig.graph.spin(1.5)
    rig.release()
    rig.graph.spin(1.0)
    return before, rig.poses([rig.joints[-1][1]])[0]


@pytest.mark.parametrize("name", WAYS)
def test_arm_moves_along_the_axis_that_is_pushed(start, name: str) -> None:
    before, after = driven(start(WAYS[name]), x=1.0)
    moved = after[:3] - before[:3]
    print(f"\n{name}: moved {moved} m")
    assert 1.2 * SPEED < moved[0] < 1.8 * SPEED
    assert np.abs(moved[1:]).max() < 0.003


def test_device_of_the_higher_priority_drives(start) -> None:
    mouse = {"preset": "spacemouse", "topic": "/spacenav/joy", "timeout": 0.25, "priority": 150}
    rig = start(Changes(robot={"devices": ["joy", "mouse"], "mouse": mouse}))
    rest, push = [0.0] * 6, [0.0, -0.5] + [0.0] * 4
    axes = rest
    publisher = rig.graph.node.create_publisher(Joy, "/spacenav/joy", RELIABLE)

    def publish() -> None:
        message = Joy(axes=axes, buttons=[0, 0])
        message.header.stamp = rig.graph.node.get_clock().now().to_msg()
        publisher.publish(message)

    rig.graph.node.create_timer(0.02, publish)
    rig.arm()
    rig.to_ready()
    before = rig.position()
    rig.push(x=0.5)
    rig.wait(lambda: rig.graph.control.device == "joy", "the gamepad in control")
    axes = push
    rig.wait(lambda: rig.graph.control.device == "mouse", "the mouse in control")
    between = rig.position()
    follows = lambda: rig.position()[1] - between[1] < -0.3 * SPEED  # noqa: E731
    rig.wait(follows, "the arm to follow the mouse")
    moved = rig.position() - between
    axes = rest
    rig.wait(lambda: rig.graph.control.device != "mouse", "the mouse to let go")
    rig.release()
    rig.wait(lambda: rig.state == ControlState.POLICY, "the policy again")
    print(f"\ntwo devices: by the gamepad {between - before} m, then by the mouse {moved} m")
    assert abs(moved[0]) < 0.3 * abs(moved[1])


@pytest.mark.parametrize("about", ["flange", "tool"])
def test_arm_turns_about_the_flange_or_with_an_offset_about_the_tool(start, about: str) -> None:
    offset = np.array(TOOL if about == "tool" else (0.0, 0.0, 0.0))
    changes = relay(tool_offset=offset.tolist())
    before, after = driven(start(Changes(ALL_AXES, changes.moveit, changes.topics)), roll=1.0)
    points = [p[:3] + rotation_matrix(tuple(p[3:])) @ offset for p in (before, after)]
    turned = 2.0 * np.arccos(min(1.0, abs(float(before[3:] @ after[3:]))))
    print(f"\nabout the {about}: turned {turned:.3f} rad, moved {points[1] - points[0]} m")
    assert turned > 0.2
    assert np.linalg.norm(points[1] - points[0]) < 0.004
    if about == "tool":
        assert np.linalg.norm(after[:3] - before[:3]) > 0.5 * turned * TOOL[2]


def test_joint_jog_moves_the_joint_of_the_axis(start) -> None:
    count = len(JOINTS)
    rig = start(
        Changes(
            robot={
                "output": "joint_velocity",
                "axes": JOINTS,
                "joint_scale": JOINT_SPEED,
                "max_joint_velocity": [0.2] * count,
                "max_joint_acceleration": [0.5] * count,
                "max_joint_deceleration": [1.0] * count,
                "joint_position_min": [-2.8, -1.7, -2.8, -3.0, -2.8, 0.0, -2.8],
                "joint_position_max": [2.8, 1.7, 2.8, -0.1, 2.8, 3.7, 2.8],
                "joint_latency": 0.15,
                "workspace_min": [],  # of Cartesian outputs
                "workspace_max": [],
                "features": ["joint_positions"],
                "joints": JOINTS,
            },
            moveit={"command_type": "joint_jog", "joints": JOINTS},
            topics={"servo_joint_command": "/servo_node/delta_joint_cmds"},
        )
    )
    rig.arm()
    rig.to_ready()
    before = np.array(rig.joints[-1][1])
    rig.push(x=1.0)
    began = time.time()
    rig.graph.spin(1.5)
    rig.release()
    rig.graph.spin(1.0)
    moved = np.array(rig.joints[-1][1]) - before
    t = np.array([t - began for t, _ in rig.joints])
    q = np.array([q[0] for _, q in rig.joints])
    steady = (t > 0.6) & (t < 1.4)
    print(f"\njoint jog: {np.polyfit(t[steady], q[steady], 1)[0]:.4f} rad/s, moved {moved} rad")
    assert np.polyfit(t[steady], q[steady], 1)[0] == pytest.approx(JOINT_SPEED, rel=0.1)
    assert np.abs(moved[1:]).max() < 0.002
