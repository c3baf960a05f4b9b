# SPDX-License-Identifier: Apache-2.0
"""The joint outputs against the real ros2_control: its controllers over mock hardware, an arm of three joints.

Skipped where ros2_control is not sourced. `pytest -n 0 -s tests/test_real_controllers.py` prints the figures of
docs/joints_and_gripper.md.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from ament_index_python.packages import get_package_prefix
from gamepad_rig import GAMEPAD, ROOT, STOPS, Rig, marks
from waiting import scaled

from rlif_msgs.msg import ControlState

pytestmark = marks(
    "controller_manager", "joint_trajectory_controller", "forward_command_controller"
)

JOINTS = ["shoulder", "elbow", "wrist"]
SPEED = 0.2  # rad/s
AT_REST = 0.002  # rad/s
LIMIT = 0.3  # rad, of each joint, as the arbiter is told
VELOCITY, TRAJECTORY = "forward_velocity_controller", "joint_trajectory_controller"
CONTROLLERS = {
    "joint_velocity": (VELOCITY, "joint_command", "commands"),
    "joint_trajectory": (TRAJECTORY, "joint_trajectory", "joint_trajectory"),
}
NODES = ("recorder", "observer", "policy", "arbiter", "episode", "watchdog")


def description() -> str:
    """A chain of JOINTS with ros2_control's mock system, which integrates velocities."""
    links = "".join(f'<link name="link_{name}"/>' for name in JOINTS)
    joints, interfaces, parent = "", "", "base"
    for name in JOINTS:
        joints += (
            f'<joint name="{name}" type="revolute"><parent link="{parent}"/><axis xyz="0 0 1"/>'
            f'<child link="link_{name}"/><origin xyz="0 0 0.2"/>'
            '<limit lower="-3" upper="3" velocity="2" effort="10"/></joint>'
        )
        interfaces += (
            f'<joint name="{name}"><command_interface name="position"/><command_interface '
            'name="velocity"/><state_interface name="position"><param name="initial_value">0.0'
            '</param></state_interface><state_interface name="velocity"/></joint>'
        )
        parent = f"link_{name}"
    return (
        f'<robot name="three"><link name="base"/>{links}{joints}<ros2_control name="mock" '
        'type="system"><hardware><plugin>mock_components/GenericSystem</plugin>'
        f'<param name="calculate_dynamics">true</param></hardware>{interfaces}</ros2_control></robot>'
    )


def parameters() -> dict[str, object]:
    """Of the controller manager and of its controllers."""
    kinds = {
        VELOCITY: "forward_command_controller/ForwardCommandController",
        TRAJECTORY: "joint_trajectory_controller/JointTrajectoryController",
        "joint_state_broadcaster": "joint_state_broadcaster/JointStateBroadcaster",
    }
    trajectory = {"command_interfaces": ["position"], "state_interfaces": ["position", "velocity"]}
    values = {
        "controller_manager": {"update_rate": 100} | {n: {"type": k} for n, k in kinds.items()},
        "robot_state_publisher": {"robot_description": description()},
        VELOCITY: {"joints": JOINTS, "interface_name": "velocity"},
        TRAJECTORY: {"joints": JOINTS} | trajectory,
    }
    return {name: {"ros__parameters": value} for name, value in values.items()}


def configuration(directory: Path, output: str) -> Path:
    """A copy of config/ with a robot `three`."""
    shutil.copytree(ROOT / "config", directory)
    controller, ours, theirs = CONTROLLERS[output]
    robot = GAMEPAD | {
        "output": output,
        "axes": JOINTS,
        "joint_scale": SPEED,
        "max_joint_velocity": [SPEED] * 3,
        "max_joint_acceleration": [1.0] * 3,
        "max_joint_deceleration": [2.0] * 3,
        "joint_position_min": [-LIMIT] * 3,
        "joint_position_max": [LIMIT] * 3,
        "joint_latency": 0.05,
        "features": ["joint_positions"],
        "joints": JOINTS,
        "hidden": [16],
        "reset_service": False,
    }
    remaps = {"joint_states": "/joint_states", "joy": "/joy", ours: f"/{controller}/{theirs}"}
    launch = {"launch": [{"set_remap": {"from": a, "to": b}} for a, b in remaps.items()]}
    (directory / "three").mkdir()
    for name, content in (
        ("robot.yaml", {"/**": {"ros__parameters": robot}}),
        ("topics.launch.yaml", launch),
    ):
        (directory / "three" / name).write_text(json.dumps(content), encoding="utf-8")
    return directory


class ControllerRig(Rig):
    """ros2_control's manager with the controller of an output, and the suite."""

    def __init__(self, directory: Path, stack: ExitStack, output: str) -> None:
        self.controller = CONTROLLERS[output][0]
        directory.mkdir()
        file = directory / "controllers.yaml"
        file.write_text(json.dumps(parameters()), encoding="utf-8")
        arguments = ("--ros-args", "--params-file", str(file))
        programs = {
            "controller_manager": ("controller_manager", "ros2_control_node"),
            "robot_state_publisher": ("robot_state_publisher", "robot_state_publisher"),
        }
        super().__init__(
            directory,
            stack,
            "three",
            configuration(directory / "config", output),
            {name: (program(*p), *arguments) for name, p in programs.items()},
            ("robot",),
            JOINTS,
        )
        for name in (*programs, *NODES):
            self.nodes.start(name)
        self.spawn("joint_state_broadcaster")
        self.spawn(self.controller)
        self.wait(lambda: self.joints, "joint states", 60.0)

    def spawn(self, controller: str) -> None:
        """Load and activate a controller, as a launch file does."""
        environment = self.nodes.processes["controller_manager"].environment
        command = [program("controller_manager", "spawner"), controller]
        subprocess.run(command, env=dict(environment), check=True, timeout=scaled(60.0))

    def switch(self, activate: tuple[str, ...], deactivate: tuple[str, ...]) -> None:
        """As another node that takes the joints."""
        from controller_manager_msgs.srv import SwitchController

        self.graph.node.create_client(
            SwitchController, "/controller_manager/switch_controller"
        ).call_async(
            SwitchController.Request(
                activate_controllers=list(activate),
                deactivate_controllers=list(deactivate),
                strictness=SwitchController.Request.STRICT,
            )
        )

    def track(self, since: float) -> tuple[np.ndarray, np.ndarray]:
        """Times [n] in s since `since`, and positions [n, 3] in rad."""
        samples = [(t - since, q) for t, q in self.joints if t >= since - 0.5]
        return np.array([t for t, _ in samples]), np.array([q for _, q in samples])

    def stop_after(self, act: Callable[[], object]) -> tuple[float, float]:
        """Drive the first joint at SPEED, act: s and rad until it stands."""
        self.to_ready()
        sign = -1.0 if self.joints[-1][1][0] > 0.0 else 1.0
        self.push(x=sign)
        self.graph.spin(0.8)
        began = time.time()
        act()
        self.graph.spin(1.5)
        self.release()
        t, q = self.track(began)
        speed = np.abs(np.diff(q[:, 0])) / np.maximum(np.diff(t), 1e-3)
        moving = t[1:][speed > AT_REST]
        return float(max(moving.max(), 0.0)), float(abs(q[-1, 0] - q[np.searchsorted(t, 0.0), 0]))


def program(package: str, executable: str) -> str:
    return f"{get_package_prefix(package)}/lib/{package}/{executable}"


@pytest.fixture(scope="module", params=CONTROLLERS)
def rig(request, tmp_path_factory) -> Iterator[ControllerRig]:
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp(request.param) / "rig"
        found = ControllerRig(directory, stack, request.param)
        found.arm()
        yield found


def test_operator_moves_the_joint_at_the_speed_asked(rig: ControllerRig) -> None:
    rig.to_ready()
    rig.push(x=1.0)
    rig.wait(lambda: rig.state == ControlState.OPERATOR, "OPERATOR")
    began = time.time()
    rig.graph.spin(1.0)
    rig.release()
    rig.graph.spin(0.5)
    t, q = rig.track(began)
    steady = (t > 0.4) & (t < 0.9)
    speed = np.polyfit(t[steady], q[steady, 0], 1)[0]
    print(f"\n{rig.controller}: {speed:.4f} rad/s, the others moved {np.abs(q[:, 1:]).max():.5f}")
    assert speed == pytest.approx(SPEED, rel=0.1)
    assert np.abs(q[:, 1:]).max() < 0.001


@pytest.mark.parametrize("name", STOPS)
def test_joint_stands_soon_after(rig: ControllerRig, name: str) -> None:
    seconds, angle = rig.stop_after(lambda: rig.cause(name))
    rig.recover(name)
    print(f"\n{rig.controller}, {name}: {seconds:.3f} s, {angle:.4f} rad")
    assert seconds <= 0.6 and angle <= 0.6 * SPEED


def test_joint_rests_at_its_limit(rig: ControllerRig) -> None:
    rig.to_ready()
    rig.push(y=1.0)
    rig.graph.spin(3.0)
    rest = rig.joints[-1][1][1]
    print(f"\n{rig.controller}: limit {LIMIT}, rest {rest:.4f}; {rig.state} {rig.reason!r}")
    rig.release()
    assert LIMIT - 0.03 < rest < LIMIT + 0.001


def test_controller_deactivated_in_motion_and_active_again_does_not_jump(
    rig: ControllerRig,
) -> None:
    """The mock system goes on with the velocity that it was left with, until a controller is active again."""
    seconds, angle = rig.stop_after(lambda: rig.switch((), (rig.controller,)))
    print(f"\n{rig.controller} deactivated: {seconds:.3f} s, {angle:.4f} rad; {rig.reason!r}")
    rig.disarm()
    rig.graph.spin(0.5)
    rig.switch((rig.controller,), ())
    rig.graph.spin(1.0)
    before = np.array(rig.joints[-1][1])
    rig.to_ready()
    rig.graph.spin(1.0)
    assert np.abs(np.array(rig.joints[-1][1]) - before).max() < 0.001
