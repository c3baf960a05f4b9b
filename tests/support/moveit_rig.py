# SPDX-License-Identifier: Apache-2.0
"""A MoveIt stack, the nodes of the suite beside it, and a person at an operator device. See test_real_moveit.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from gamepad_rig import GAMEPAD, ROOT, Pad, Rig
from geometry_msgs.msg import Pose
from rclpy.parameter_client import AsyncParameterClient
from rlif_node.qos import LATCHED, RELIABLE
from sensor_msgs.msg import JointState

from rlif_bringup.graph_client import GraphError
from rlif_msgs.msg import ControlState, PolicyHold

SPEED = 0.1  # m/s
AT_REST = 0.002  # m/s
WALL = 0.20  # m, of the box, to both sides
NODES = (
    *("recorder", "observer", "policy", "arbiter", "episode", "watchdog"),
    *("servo_adapter", "reset_by_planning"),
)
# What the small bags of recorded sessions hold.
RECORDED = {
    "/servo_node/status": "moveit_msgs/msg/ServoStatus",
    "/servo_node/delta_twist_cmds": "geometry_msgs/msg/TwistStamped",
    "/joint_states": "sensor_msgs/msg/JointState",
    "/move_action/_action/status": "action_msgs/msg/GoalStatusArray",
    "control_state": "rlif_msgs/msg/ControlState",
    "policy_hold": "rlif_msgs/msg/PolicyHold",
}
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


MOVEIT = ("moveit_servo", "moveit_ros_move_group", "moveit_resources_panda_moveit_config")


@dataclass(frozen=True)
class Arm:
    """What a rig has to know of a robot configuration.

    command: starts the MoveIt stack; {directory} is one to write into
    base, tip: frames; the tip is what `ee_pose` measures
    changes: of robot.yaml, before those of a test
    """

    robot: str
    command: tuple[str, ...]
    joints: tuple[str, ...]
    base: str
    tip: str
    trajectory: str
    changes: Mapping[str, Any]
    pad: Pad = Pad()


PANDA = Arm(
    robot="panda_demo",
    command=(sys.executable, "-c", LAUNCH, str(ROOT / "launch" / "panda_demo.launch.py")),
    joints=tuple(f"panda_joint{i}" for i in range(1, 8)),
    base="panda_link0",
    tip="panda_link8",
    trajectory="/panda_arm_controller/joint_trajectory",
    changes=GAMEPAD | {"workspace_min": [0.05, -WALL, 0.05], "workspace_max": [0.95, WALL, 0.95]},
)
READY = (0.307, 0.0, 0.590)  # m, of the Panda's tip in the SRDF's `ready`
Vector = tuple[float, float, float]


def box(name: str, at: Vector, size: Vector, add: bool = True) -> Any:
    """A collision object in the base of the Panda, or its removal."""
    from moveit_msgs.msg import CollisionObject
    from shape_msgs.msg import SolidPrimitive

    operation = CollisionObject.ADD if add else CollisionObject.REMOVE
    found = CollisionObject(id=name, operation=operation)
    found.header.frame_id = PANDA.base
    found.primitives = [SolidPrimitive(type=SolidPrimitive.BOX, dimensions=list(size))]
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = at
    pose.orientation.w = 1.0
    found.primitive_poses = [pose]
    return found


@dataclass(frozen=True)
class Changes:
    """What differs from the robot configuration as shipped.

    robot, moveit: parameters of robot.yaml and moveit.yaml
    topics: names of topics, ours to theirs; empty: as it is
    servo: parameters of Servo, as on its command line
    launch: arguments of robot.launch.yaml
    """

    robot: Mapping[str, Any] = field(default_factory=dict)
    moveit: Mapping[str, Any] = field(default_factory=dict)
    topics: Mapping[str, str] = field(default_factory=dict)
    servo: Mapping[str, Any] = field(default_factory=dict)
    launch: Mapping[str, str] = field(default_factory=dict)


def configuration(directory: Path, arm: Arm, changes: Changes) -> Path:
    """A copy of config/ with the changes."""
    shutil.copytree(ROOT / "config", directory)
    robot = directory / arm.robot
    for name, more in (
        ("robot", {**arm.changes, **changes.robot}),
        ("moveit", changes.moveit),
    ):
        path = robot / f"{name}.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        content["/**"]["ros__parameters"] |= more
        path.write_text(json.dumps(content), encoding="utf-8")  # a bare y would be a truth value
    path = robot / "topics.launch.yaml"
    launch = yaml.safe_load(path.read_text(encoding="utf-8"))["launch"]
    remaps = {r["set_remap"]["from"]: r["set_remap"]["to"] for r in launch}
    remaps |= changes.topics
    entries = [{"set_remap": {"from": ours, "to": to}} for ours, to in remaps.items() if to]
    path.write_text(json.dumps({"launch": entries}), encoding="utf-8")
    return directory


def descendant(pid: int, name: str) -> int:
    """Process id of a program that `pid` has started, directly or not."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            if Path(f"/proc/{child}/exe").readlink().name == name:
                return child
            with suppress(LookupError):
                return descendant(child, name)
    raise LookupError(f"found no {name} below process {pid}")


class MoveItRig(Rig):
    """A MoveIt stack, the nodes of the suite that move an arm, and a hand at an operator device."""

    def __init__(
        self, directory: Path, stack: ExitStack, changes: Changes, arm: Arm = PANDA
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.arm_of = arm
        super().__init__(
            directory,
            stack,
            arm.robot,
            configuration(directory / "config", arm, changes),
            {"moveit": [word.format(directory=directory) for word in arm.command]},
            ("robot", "moveit"),
            arm.joints,
            arm.pad,
            changes.launch,
        )
        self.holds: list[PolicyHold] = []
        node = self.graph.node
        node.create_subscription(PolicyHold, "policy_hold", self.holds.append, RELIABLE)
        from moveit_msgs.msg import ServoStatus

        self.codes: list[tuple[float, int]] = []  # of Servo's status
        node.create_subscription(ServoStatus, "/servo_node/status", self._on_status, LATCHED)
        for name in ("moveit", *NODES):
            self.nodes.start(name)
        self.wait(lambda: self.joints, "joint states of the demo", 60.0)
        self.wait(lambda: self.holds, "servo_adapter", 60.0)
        self.position()  # move_group answers
        if changes.servo:
            self.restart_servo(changes.servo)

    def restart_servo(self, parameters: Mapping[str, Any] | None = None) -> float:
        """Kill Servo, and start it again as a process of its own with `parameters` on top: s until a hold."""
        if self.nodes.was_started("servo"):
            self.nodes.signal("servo", signal.SIGKILL)
        else:
            self.wait(self._servo, "servo_node", 60.0)
            pid = self._servo()
            command = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
            self.nodes.processes["servo"] = replace(
                self.nodes.processes["moveit"],
                name="servo",
                node="/servo_node",
                command=tuple(command),
            )
            os.kill(pid, signal.SIGKILL)
        armed, seconds = self.state in (ControlState.HOLD, ControlState.POLICY), 0.0
        if armed:
            began, there = time.monotonic(), (PolicyHold.NONE, PolicyHold.SERVO_PAUSED)
            self.wait(lambda: self.hold.reason_code not in there, "a hold")
            seconds = time.monotonic() - began
        self.nodes.start("servo", **(parameters or {}))
        client = AsyncParameterClient(self.graph.node, "/servo_node")
        asked: list[Any] = []

        def answers() -> bool:
            asked.append(client.get_parameters(["moveit_servo.command_in_type"]))
            self.graph.spin(0.5)
            return any(future.done() for future in asked)

        self.wait(answers, "Servo", 60.0)
        if armed:
            self.wait(lambda: "restarted" in self.hold.reason, "the adapter to notice")
        return seconds

    def _servo(self) -> int:
        """Process id of the demo's Servo, 0: there is none."""
        with suppress(LookupError):
            return descendant(self.nodes.pid("moveit"), "servo_node")
        return 0

    def _on_status(self, message: Any) -> None:
        self.codes.append((time.time(), message.code))

    def scene(self, *objects: Any) -> None:
        """Apply a difference to move_group's planning scene."""
        from moveit_msgs.msg import PlanningScene
        from moveit_msgs.srv import ApplyPlanningScene

        client = self.graph.node.create_client(ApplyPlanningScene, "/apply_planning_scene")
        self.wait(client.service_is_ready, "apply_planning_scene")
        request = ApplyPlanningScene.Request(scene=PlanningScene(is_diff=True))
        request.scene.world.collision_objects = list(objects)
        future = client.call_async(request)
        self.wait(future.done, "the planning scene")
        self.graph.node.destroy_client(client)
        assert future.result().success

    def drive_until_held(self, seconds: float, **stick: float) -> list[int]:
        """Push until the arm is held or the time is over; Servo's codes on the way."""
        since = time.time()
        self.push(**stick)
        with suppress(GraphError):
            self.graph.wait(lambda: self.hold.reason_code != PolicyHold.NONE, "a hold", seconds)
        self.graph.spin(0.5)
        self.release()
        codes = sorted({code for t, code in self.codes if t >= since})
        print(f"\ncodes {codes}: {self.hold.reason}")
        return codes

    def end_episode(self) -> None:
        """Fail it, and wait for the HOLD that follows."""
        self.release()
        self.graph.trigger("end_episode_failure")
        self.wait(lambda: self.state == ControlState.HOLD, "HOLD")

    @contextmanager
    def recorded(self, name: str) -> Iterator[None]:
        """The recorder writes RECORDED into the bag `name` of RLIF_REAL_MOVEIT_BAGS, where that is set."""
        if bags := os.environ.get("RLIF_REAL_MOVEIT_BAGS"):
            trajectory = {self.arm_of.trajectory: "trajectory_msgs/msg/JointTrajectory"}
            topics, types = zip(*(RECORDED | trajectory).items(), strict=True)
            node = self.graph.node
            others = {topic: node.count_subscribers(topic) for topic in topics if topic[0] == "/"}
            self.nodes.start(
                "recorder",
                bag_directory=f"{bags}/{name}",
                compression="zstd",
                topics=list(topics),
                types=list(types),
            )
            listens = lambda: all(node.count_subscribers(t) > n for t, n in others.items())  # noqa: E731
            self.wait(listens, "the recorder")
            self.graph.spin(2.0)  # and what it listens to knows it too
        yield
        if bags:
            self.release()
            self.nodes.start("recorder")

    @property
    def hold(self) -> PolicyHold:
        """The newest of servo_adapter."""
        return next(h for h in reversed(self.holds) if h.source.endswith("servo_adapter"))

    def poses(self, samples: Sequence[Sequence[float]]) -> np.ndarray:
        """Of the tip in the base for joint positions, by move_group: [n, 7] m, quaternion x y z w."""
        from moveit_msgs.srv import GetPositionFK

        client = self.graph.node.create_client(GetPositionFK, "/compute_fk")
        self.wait(client.service_is_ready, "move_group's compute_fk")
        futures = []
        for sample in samples:
            request = GetPositionFK.Request(fk_link_names=[self.arm_of.tip])
            request.header.frame_id = self.arm_of.base
            request.robot_state.joint_state = JointState(name=self.arm_of.joints, position=sample)
            futures.append(client.call_async(request))
            self.wait(futures[-1].done, "compute_fk")
        self.graph.node.destroy_client(client)
        found = [future.result().pose_stamped[0].pose for future in futures]
        parts = [(f.position, f.orientation) for f in found]
        return np.array([[p.x, p.y, p.z, q.x, q.y, q.z, q.w] for p, q in parts])

    def position(self) -> np.ndarray:
        count = len(self.joints)
        self.wait(lambda: len(self.joints) > count, "joint states")
        return self.poses([self.joints[-1][1]])[0, :3]

    def track(self, since: float, every: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Times [n] in s since `since`, and positions [n, 3] in m."""
        samples = [(t - since, q) for t, q in self.joints if t >= since - 0.5][::every]
        return np.array([t for t, _ in samples]), self.poses([q for _, q in samples])[:, :3]

    def stop_after(self, act: Callable[[], object]) -> tuple[float, float, float]:
        """Drive at SPEED, act: s and m until the arm stands, and its largest deceleration in m/s^2."""
        self.to_ready()
        self.push(x=1.0)
        self.graph.spin(1.0)
        began = time.time()
        act()
        self.graph.spin(1.5)
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
