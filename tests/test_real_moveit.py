# SPDX-License-Identifier: Apache-2.0
"""Against the real MoveIt: its Panda demo with mock hardware, Servo and move_group, as docs/panda_demo.md.

Skipped where MoveIt is not sourced. `pytest -n 0 -s tests/test_real_moveit.py` prints the figures of
docs/moveit.md.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from geometry_msgs.msg import TwistStamped
from rlif_node.qos import RELIABLE
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger
from waiting import scaled

from rlif_bringup.graph_client import GraphClient, GraphError
from rlif_bringup.launch_file import Process, read
from rlif_bringup.processes import Processes
from rlif_bringup.simulation import graph_environment, reserve_domain
from rlif_msgs.msg import ControlState, PolicyHold


def missing() -> str:
    """What of MoveIt is not there; empty: all is."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    for package in (
        "moveit_servo",
        "moveit_ros_move_group",
        "moveit_resources_panda_moveit_config",
    ):
        try:
            get_package_prefix(package)
        except PackageNotFoundError:
            return package
    return ""


pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing()), reason=f"the real MoveIt: {missing()} is not sourced"),
]

ROOT = Path(__file__).parents[1]
SPEED = 0.1  # m/s
STOP_TIME, STOP_DISTANCE = 0.35, 0.025  # s, m: what docs/moveit.md promises of a stop at SPEED
AT_REST = 0.002  # m/s
JOINTS = [f"panda_joint{i}" for i in range(1, 8)]
READY = (0.307, 0.0, 0.590)  # m, of panda_link8 in panda_link0, in the SRDF's `ready`
NODES = ("observer", "arbiter", "episode", "watchdog", "servo_adapter", "reset_by_planning")
LAUNCH = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
service = LaunchService()
service.include_launch_description(
    IncludeLaunchDescription(AnyLaunchDescriptionSource(sys.argv[1])))
sys.exit(service.run())
"""


def configuration(directory: Path, **robot: Any) -> Path:
    """A copy of config/ in which a gamepad of this test drives the Panda, at SPEED."""
    shutil.copytree(ROOT / "config", directory)
    path = directory / "panda_demo" / "robot.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["/**"]["ros__parameters"] |= {
        "devices": ["joy"],
        "joy": {"preset": "generic", "topic": "/joy", "timeout": 0.3, "arm_button": 3},
        "speed_scale": 1.0,
        "max_steps": 0,
        **robot,
    }
    path.write_text(json.dumps(content), encoding="utf-8")  # a bare y would be a truth value
    return directory


def descendant(pid: int, name: str) -> int:
    """Process id of a program that `pid` has started, directly or not."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            if Path(os.readlink(f"/proc/{child}/exe")).name == name:
                return child
            with suppress(LookupError):
                return descendant(child, name)
    raise LookupError(f"found no {name} below process {pid}")


class Rig:
    """MoveIt's demo, the nodes of the suite that move an arm, and a hand at a gamepad."""

    def __init__(self, directory: Path, stack: ExitStack, **robot: Any) -> None:
        domain = stack.enter_context(reserve_domain())
        self._environment = graph_environment(directory, domain.id)
        self.directory = directory
        self._log = (directory / "log.txt").open("a", encoding="utf-8")
        self.graph = stack.enter_context(GraphClient("rlif", domain.id, lambda: None))
        self.running: dict[str, Processes] = {}
        stack.callback(self.stop)
        moveit = Process(
            name="moveit",
            node="moveit",
            command=(sys.executable, "-c", LAUNCH, str(ROOT / "launch" / "panda_demo.launch.py")),
            environment=self._environment,
        )
        values = {
            "robot": "panda_demo",
            "config_directory": str(configuration(directory / "config", **robot)),
        }
        files = (
            ("robot", {"run_directory": str(directory / "run"), "bag_directory": "none"}),
            ("moveit", {}),
        )
        self.processes = {"moveit": moveit} | {
            process.name: process
            for file, more in files
            for process in read(
                ROOT / f"launch/{file}.launch.yaml", values | more, self._environment
            ).processes
        }
        self.axes, self.buttons = [0.0] * 6, [0] * 4
        self.joints: list[tuple[float, list[float]]] = []
        self.states: list[ControlState] = []
        self.holds: list[PolicyHold] = []
        node = self.graph.node
        self._joy = node.create_publisher(Joy, "/joy", RELIABLE)
        self._joy_timer = node.create_timer(0.02, self._publish_joy)
        node.create_subscription(JointState, "/joint_states", self._on_joints, 50)
        node.create_subscription(ControlState, "control_state", self.states.append, RELIABLE)
        node.create_subscription(PolicyHold, "policy_hold", self.holds.append, RELIABLE)
        for name in ("moveit", *NODES):
            self.start(name)

    def start(self, name: str) -> None:
        running = Processes([self.processes[name]], self._write)
        running.__enter__()
        self.running[name] = running

    def _write(self, name: str, line: str) -> None:
        self._log.write(f"{name}: {line}\n")
        self._log.flush()

    def stop(self) -> None:
        for running in self.running.values():
            running.stop()

    def signal(self, name: str, number: int) -> None:
        os.killpg(self.running[name].pids[name], number)

    def _publish_joy(self) -> None:
        message = Joy(axes=self.axes, buttons=self.buttons)
        message.header.stamp = self.graph.node.get_clock().now().to_msg()
        self._joy.publish(message)

    def _on_joints(self, message: JointState) -> None:
        at = dict(zip(message.name, message.position, strict=False))
        if JOINTS[0] in at:
            self.joints.append((time.monotonic(), [at[name] for name in JOINTS]))

    # ---- what a person does

    def push(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> None:
        """Hold the deadman and the stick."""
        self.axes[:3], self.buttons[0] = [x, y, z], 1

    def release(self) -> None:
        self.axes[:3], self.buttons[0] = [0.0, 0.0, 0.0], 0

    def arm(self) -> None:
        """Arm, and wait until the arbiter would let an operator drive."""

        def armed() -> bool:
            with suppress(GraphError):
                self.graph.call(SetBool, "arm", SetBool.Request(data=True))
                return True
            return False

        self.wait(armed, "the arbiter to arm", 60.0)
        self.wait(lambda: self.state == ControlState.HOLD, "HOLD", 20.0)

    # ---- what is seen

    @property
    def state(self) -> int:
        return self.graph.control.state if self.graph.control else -1

    @property
    def reason(self) -> str:
        return self.graph.control.reason if self.graph.control else ""

    @property
    def hold(self) -> PolicyHold:
        """The newest of servo_adapter."""
        return next(h for h in reversed(self.holds) if h.source.endswith("servo_adapter"))

    def wait(self, condition: Callable[[], object], what: str, deadline: float = 20.0) -> None:
        self.graph.wait(condition, what, scaled(deadline))

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.graph.turn()

    def positions(self, samples: list[list[float]]) -> np.ndarray:
        """Of panda_link8 in panda_link0 [n, 3] in m, by move_group, for joint positions."""
        from moveit_msgs.srv import GetPositionFK

        client = self.graph.node.create_client(GetPositionFK, "/compute_fk")
        self.wait(client.service_is_ready, "move_group's compute_fk")
        futures = []
        for sample in samples:
            request = GetPositionFK.Request(fk_link_names=["panda_link8"])
            request.header.frame_id = "panda_link0"
            request.robot_state.joint_state = JointState(name=JOINTS, position=sample)
            futures.append(client.call_async(request))
            self.wait(futures[-1].done, "compute_fk")
        self.graph.node.destroy_client(client)
        points = [future.result().pose_stamped[0].pose.position for future in futures]
        return np.array([[p.x, p.y, p.z] for p in points])

    def position(self) -> np.ndarray:
        count = len(self.joints)
        self.wait(lambda: len(self.joints) > count, "joint states")
        return self.positions([self.joints[-1][1]])[0]

    def track(self, since: float) -> tuple[np.ndarray, np.ndarray]:
        """Times [n] in s since `since`, and positions [n, 3] in m."""
        samples = [(t - since, q) for t, q in self.joints if t >= since - 0.5]
        return np.array([t for t, _ in samples]), self.positions([q for _, q in samples])

    def stop_after(self, act: Callable[[], object]) -> tuple[float, float, float]:
        """Drive at SPEED, act: s and m until the arm stands, and its largest deceleration in m/s^2."""
        self.to_ready()
        self.push(x=1.0)
        self.spin(1.0)
        began = time.monotonic()
        act()
        self.spin(1.5)
        self.release()
        t, p = self.track(began)
        speed = np.linalg.norm(np.diff(p, axis=0), axis=1) / np.maximum(np.diff(t), 1e-3)
        smooth = np.convolve(speed, np.ones(3) / 3, mode="same")
        moving = t[1:][smooth > AT_REST]
        start = p[np.searchsorted(t, 0.0)]
        rate = np.convolve(np.gradient(smooth, t[1:]), np.ones(3) / 3, mode="same")
        return (
            float(max(moving.max(), 0.0)),
            float(np.linalg.norm(p[-1] - start)),
            float(-rate.min()),
        )

    def to_ready(self) -> None:
        """The suite's own reset, by move_group."""
        if self.state in (ControlState.DISARMED, ControlState.FAULT):
            self.arm()
        self.release()
        self.wait(lambda: self.state == ControlState.HOLD, "HOLD")
        self.graph.trigger("reset")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with ExitStack() as stack:
        found = Rig(tmp_path_factory.mktemp("moveit"), stack)
        print(f"\nlogs: {found.directory}")
        found.wait(lambda: found.joints, "joint states of the demo", 60.0)
        found.wait(lambda: found.holds, "servo_adapter", 60.0)
        yield found


def show(what: str, **figures: float) -> None:
    print(f"\n{what}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))


def test_operator_moves_the_arm_at_the_speed_asked_and_straight(rig: Rig) -> None:
    rig.arm()
    rig.to_ready()
    start = rig.position()
    assert start == pytest.approx(READY, abs=0.005)
    rig.push(x=1.0)
    rig.wait(lambda: rig.state == ControlState.OPERATOR, "OPERATOR")
    began = time.monotonic()
    rig.spin(1.5)
    rig.release()
    t, p = rig.track(began)
    steady = (t > 0.6) & (t < 1.4)
    speed = np.polyfit(t[steady], p[steady, 0], 1)[0]
    off = float(np.abs(p[:, 1:] - start[1:]).max())
    show("drive", speed=speed, off_axis=off)
    assert speed == pytest.approx(SPEED, rel=0.1) and off < 0.002


STOPS: dict[str, Callable[[Rig], object]] = {
    "release": lambda rig: rig.release(),
    "disarm": lambda rig: rig.graph.call(SetBool, "arm", SetBool.Request(data=False)),
    "device unplugged": lambda rig: rig._joy_timer.cancel(),
    "arbiter frozen": lambda rig: rig.signal("arbiter", signal.SIGSTOP),
    "arbiter killed": lambda rig: rig.signal("arbiter", signal.SIGKILL),
}


@pytest.mark.parametrize("name", STOPS)
def test_arm_stands_soon_after(rig: Rig, name: str) -> None:
    seconds, metres, deceleration = rig.stop_after(lambda: STOPS[name](rig))
    show(name, seconds=seconds, metres=metres, deceleration=deceleration)
    if name == "device unplugged":
        rig._joy_timer.reset()
    if name == "arbiter frozen":
        rig.signal("arbiter", signal.SIGCONT)
    if name == "arbiter killed":
        rig.running.pop("arbiter").stop()
        rig.start("arbiter")
    rig.spin(2.0)
    rig.graph.call(SetBool, "arm", SetBool.Request(data=False))
    rig.arm()
    # The time-outs of a lost device or arbiter come before the braking.
    late = 0.3 if name in ("device unplugged", "arbiter frozen") else 0.0
    assert seconds <= STOP_TIME + late and metres <= STOP_DISTANCE + late * SPEED


def test_stop_topic_is_a_fault_and_the_arm_stands(rig: Rig) -> None:
    stop = rig.graph.node.create_publisher(Bool, "stop", RELIABLE)
    rig.wait(stop.get_subscription_count, "the arbiter on `stop`")
    seconds, metres, deceleration = rig.stop_after(lambda: stop.publish(Bool(data=True)))
    show("stop", seconds=seconds, metres=metres, deceleration=deceleration)
    assert rig.state == ControlState.FAULT
    assert seconds <= STOP_TIME and metres <= STOP_DISTANCE
    stop.publish(Bool(data=False))
    rig.spin(0.5)
    rig.graph.node.destroy_publisher(stop)
    rig.arm()


def test_arm_rests_at_the_wall_of_its_box(rig: Rig) -> None:
    rig.to_ready()
    wall = yaml.safe_load((ROOT / "config/panda_demo/robot.yaml").read_text(encoding="utf-8"))
    y = wall["/**"]["ros__parameters"]["workspace_max"][1]
    rig.push(y=1.0)
    rig.spin(4.0)
    rest = rig.position()
    rig.release()
    show("box", wall=y, rest=rest[1])
    assert y - 0.02 < rest[1] < y + 0.001


def test_servo_paused_by_somebody_else_is_named(rig: Rig) -> None:
    rig.to_ready()
    client = rig.graph.node.create_client(SetBool, "/servo_node/pause_servo")
    rig.wait(client.service_is_ready, "pause_servo")
    client.call_async(SetBool.Request(data=True))
    rig.wait(lambda: rig.hold.reason_code == PolicyHold.SERVO_PAUSED, "a hold")
    assert "paused" in rig.hold.reason and rig.state != ControlState.POLICY
    client.call_async(SetBool.Request(data=False))
    rig.wait(lambda: rig.hold.reason_code != PolicyHold.SERVO_PAUSED, "the hold to end")


def test_reset_cancelled_by_a_disarm_leaves_the_arm_at_rest(rig: Rig) -> None:
    rig.to_ready()
    rig.push(y=1.0)
    rig.spin(1.5)
    rig.release()
    rig.spin(1.0)
    client = rig.graph.node.create_client(Trigger, "reset")
    future = client.call_async(Trigger.Request())
    first = rig.joints[-1][1]
    rig.wait(lambda: math.dist(rig.joints[-1][1], first) > 0.02, "the planned motion to begin")
    began = time.monotonic()
    rig.graph.call(SetBool, "arm", SetBool.Request(data=False))
    rig.wait(future.done, "an answer of the reset")
    rig.spin(1.0)
    t, p = rig.track(began)
    moving = t[1:][np.linalg.norm(np.diff(p, axis=0), axis=1) / np.diff(t) > AT_REST]
    show("reset cancelled", seconds=float(moving.max()), metres=float(np.linalg.norm(p[-1] - p[0])))
    assert not future.result().success and moving.max() < 1.0


def test_servo_after_a_reset_does_not_jump(rig: Rig) -> None:
    rig.arm()
    rig.to_ready()
    start = rig.position()
    rig.push(z=-0.3)
    rig.spin(0.3)
    rig.release()
    rig.spin(1.0)
    moved = rig.position() - start
    show("after a reset", moved=float(np.linalg.norm(moved)))
    assert np.linalg.norm(moved) < 0.02


def test_servo_killed_holds_until_a_person_has_driven(rig: Rig) -> None:
    rig.to_ready()
    pid = descendant(rig.running["moveit"].pids["moveit"], "servo_node")
    command = tuple(Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0"))
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    rig.wait(lambda: rig.hold.reason_code != PolicyHold.NONE, "a hold")
    show("servo killed", hold_after=time.monotonic() - began)
    rig.processes["servo"] = replace(rig.processes["moveit"], name="servo", command=command)
    rig.start("servo")
    rig.wait(lambda: rig.hold.reason_code == PolicyHold.SERVO_PAUSED, "Servo", 60.0)
    print(rig.hold.reason)
    rig.push(x=0.5)
    rig.wait(lambda: rig.hold.reason_code == PolicyHold.NONE, "the hold to end after driving")
    rig.release()


def test_command_of_another_publisher_is_named(rig: Rig) -> None:
    stray = rig.graph.node.create_publisher(TwistStamped, "/servo_node/delta_twist_cmds", RELIABLE)
    rig.wait(lambda: "publishes on" in rig.reason, "the warning", 10.0)
    rig.graph.node.destroy_publisher(stray)
