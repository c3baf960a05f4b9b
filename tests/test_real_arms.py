# SPDX-License-Identifier: Apache-2.0
"""The shipped robot configurations on the real MoveIt: the vendors' descriptions, mock hardware, our parameters.

UR5e and FR3 without cameras and force sensor and with the pose from tf, at full speed_scale; all other limits
are as shipped. MoveIt's Panda in a wider box. An arm is skipped where its description is not sourced.
`pytest -n 0 -s tests/test_real_arms.py` prints the figures of docs/moveit.md.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import mock_arms
import numpy as np
import pytest
from gamepad_rig import ROOT, STOPS, Pad, marks
from moveit_rig import MOVEIT, PANDA, READY, Arm, Changes, MoveItRig

from rlif_msgs.msg import ControlState

pytestmark = marks("moveit_servo", "moveit_ros_move_group", "joint_trajectory_controller")
MOCK = str(ROOT / "tests" / "support" / "mock_arms.py")
# Of a stop at SPEED, as docs/moveit.md has it, and something for a loaded machine.
STOP_TIME, STOP_DISTANCE = 0.40, 0.030  # s, m


def arm(robot: str, base: str, tip: str, pad: Pad) -> Arm:
    found = mock_arms.ARMS[robot]
    return Arm(
        robot=robot,
        command=(sys.executable, MOCK, robot, "{directory}"),
        joints=tuple(found.start),
        base=base,
        tip=tip,
        trajectory=f"/{found.controller}/joint_trajectory",
        changes={
            "features": ["ee_position", "ee_linear_velocity"],
            "ee_pose": {"tf": [base, tip]},
            "encoder": "none",
            "speed_scale": 1.0,
            "max_steps": 0,
        },
        pad=pad,
    )


XBOX = Pad(axes=(1, 0, 4), held=(5, 4), rest=(0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0))
MOUSE = Pad(topic="/spacenav/joy", held=(), rest=(0.0,) * 6)
ARMS = {
    "panda_demo": PANDA,
    "ur5e_gamepad": arm("ur5e_gamepad", "base", "tool0", XBOX),
    "franka_fr3_spacemouse": arm("franka_fr3_spacemouse", "fr3_link0", "fr3_hand_tcp", MOUSE),
}


PACKAGES = {
    "panda_demo": MOVEIT,
    "ur5e_gamepad": ("ur_description", "ur_moveit_config"),
    "franka_fr3_spacemouse": ("franka_description", "franka_fr3_moveit_config"),
}


def parameters(rig: MoveItRig) -> dict:
    """Of the running nodes."""
    path = rig.nodes.directory / "config" / rig.arm_of.robot / "robot.yaml"
    return json.loads(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=marks(*PACKAGES[name])) for name in ARMS]
)
def rig(request, tmp_path_factory) -> Iterator[MoveItRig]:
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp(request.param) / "rig"
        found = MoveItRig(directory, stack, Changes(), ARMS[request.param])
        found.arm()
        yield found


def test_operator_moves_the_arm_at_the_speed_asked_and_straight(rig: MoveItRig) -> None:
    rig.to_ready()
    start = rig.position()
    if rig.arm_of is PANDA:
        assert start == pytest.approx(READY, abs=0.005)
    rig.push(x=1.0)
    rig.wait(lambda: rig.state == ControlState.OPERATOR, "OPERATOR")
    began = time.time()
    rig.graph.spin(1.0)
    rig.release()
    rig.graph.spin(1.0)
    t, p = rig.track(began)
    steady = (t > 0.4) & (t < 0.9)
    speed = np.polyfit(t[steady], p[steady, 0], 1)[0]
    off = float(np.abs(p[:, 1:] - start[1:]).max())
    asked = parameters(rig)["linear_scale"]
    print(f"\n{rig.arm_of.robot}: start {start}, speed {speed:.4f} of {asked} m/s, off {off:.4f} m")
    assert speed == pytest.approx(asked, rel=0.1) and off < 0.002


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", STOPS)
def test_arm_stands_soon_after(rig: MoveItRig, name: str) -> None:
    """RLIF_REAL_MOVEIT_STOPS times."""
    stops = []
    for _ in range(int(os.environ.get("RLIF_REAL_MOVEIT_STOPS", "1"))):
        stops.append(rig.stop_after(lambda: rig.cause(name)))
        rig.recover(name)
        print(
            f"\n{rig.arm_of.robot}, {name}: "
            + "{:.3f} s, {:.4f} m, {:.2f} m/s^2".format(*stops[-1])
        )
    median, most = np.median(stops, axis=0), np.max(stops, axis=0)
    print(f"{len(stops)} times: median {median.round(4)}, most {most.round(4)}")
    assert most[0] <= STOP_TIME and most[1] <= STOP_DISTANCE


def test_arm_rests_at_the_wall_of_its_box(rig: MoveItRig) -> None:
    rig.to_ready()
    wall = parameters(rig)["workspace_max"][1]
    rig.push(y=1.0)
    rig.graph.spin(5.0)
    rest = rig.position()
    rig.release()
    print(f"\n{rig.arm_of.robot}: wall {wall}, rest {rest[1]:.4f}")
    assert wall - 0.02 < rest[1] < wall + 0.001


def test_episodes_with_planned_resets_between_stay_within_the_box(rig: MoveItRig) -> None:
    """RLIF_REAL_MOVEIT_EPISODES of them, policy and operator in turn, nobody touching a terminal."""
    count, took = int(os.environ.get("RLIF_REAL_MOVEIT_EPISODES", "3")), []
    given, beyond = parameters(rig), -1.0
    low, high = np.array(given["workspace_min"]), np.array(given["workspace_max"])
    for number in range(count):
        began = time.monotonic()
        rig.to_ready()
        took.append(time.monotonic() - began)
        if rig.arm_of is PANDA:
            assert np.abs(rig.position() - READY).max() < 0.01, f"the reset before {number + 1}"
        rig.graph.spin(1.0)
        since = time.time()  # a planned motion may leave the box
        rig.push(*((-1.0) ** (number // 3) * np.eye(3)[number % 3]))
        rig.graph.spin(1.5)
        rig.release()
        rig.graph.spin(0.5)
        _, p = rig.track(since, every=10)
        beyond = max(beyond, float(np.maximum(low - p, p - high).max()))
    print(
        f"\n{rig.arm_of.robot}: {count} episodes, reset {np.median(took):.2f} s "
        f"({max(took):.2f} at most), beyond the box {beyond:.4f} m"
    )
    assert beyond < 0.001
