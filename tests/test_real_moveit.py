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
from geometry_msgs.msg import Pose, TwistStamped
from one_by_one import OneByOne
from rlif_node.qos import LATCHED, RELIABLE
from rlif_node.stamps import to_ns
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger
from waiting import scaled

from rlif_bringup.graph_client import GraphClient, GraphError
from rlif_bringup.launch_file import Process, read
from rlif_bringup.simulation import graph_environment, reserve_domain
from rlif_intervention.device_inputs import STALE_SHARE
from rlif_msgs.msg import ControlState, Episode, PolicyHold


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


MISSING = missing()
if not MISSING:
    from moveit_msgs.msg import CollisionObject, PlanningScene, ServoStatus
    from moveit_msgs.srv import ApplyPlanningScene
    from shape_msgs.msg import SolidPrimitive

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("RLIF_REAL_MOVEIT_REQUIRED"),
        reason=f"the real MoveIt: {MISSING} is not sourced",
    ),
]

ROOT = Path(__file__).parents[1]
SPEED = 0.1  # m/s
# Of a stop at SPEED, as docs/moveit.md has it, and something for a loaded machine.
STOP_TIME, STOP_DISTANCE = 0.40, 0.030  # s, m
AT_REST = 0.002  # m/s
WALL = 0.20  # m, of the box, to both sides
JOINTS = [f"panda_joint{i}" for i in range(1, 8)]
READY = (0.307, 0.0, 0.590)  # m, of panda_link8 in panda_link0, in the SRDF's `ready`
NODES = (
    *("recorder", "observer", "policy", "arbiter", "episode", "watchdog"),
    *("servo_adapter", "reset_by_planning"),
)
Vector = tuple[float, float, float]
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


def configuration(directory: Path) -> Path:
    """A copy of config/ in which a gamepad of this test drives the Panda, at SPEED."""
    shutil.copytree(ROOT / "config", directory)
    path = directory / "panda_demo" / "robot.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["/**"]["ros__parameters"] |= {
        "devices": ["joy"],
        "joy": {"preset": "generic", "topic": "/joy", "timeout": 0.3, "arm_button": 3},
        "speed_scale": 1.0,
        "max_steps": 0,
        "workspace_min": [0.05, -WALL, 0.05],
        "workspace_max": [0.95, WALL, 0.95],
    }
    path.write_text(json.dumps(content), encoding="utf-8")  # a bare y would be a truth value
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


class Rig:
    """MoveIt's demo, the nodes of the suite that move an arm, and a hand at a gamepad."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        domain = stack.enter_context(reserve_domain())
        environment = graph_environment(directory, domain.id)
        self.graph = stack.enter_context(GraphClient("rlif", domain.id))
        moveit = Process(
            name="moveit",
            node="moveit",
            command=(sys.executable, "-c", LAUNCH, str(ROOT / "launch" / "panda_demo.launch.py")),
            environment=environment,
        )
        config = str(configuration(directory / "config"))
        values = {"robot": "panda_demo", "config_directory": config}
        run = {"run_directory": str(directory / "run"), "bag_directory": "none", "images": "false"}
        processes = [
            process
            for file, more in (("robot", run), ("moveit", {}))
            for process in read(
                ROOT / f"launch/{file}.launch.yaml", values | more, environment
            ).processes
        ]
        self.nodes = OneByOne({p.name: p for p in (moveit, *processes)}, directory)
        stack.callback(self.nodes.stop)
        self.axes, self.buttons = [0.0] * 6, [0] * 4
        self.joints: list[tuple[float, list[float]]] = []
        self.holds: list[PolicyHold] = []
        node = self.graph.node
        self._joy = node.create_publisher(Joy, "/joy", RELIABLE)
        self._arm = node.create_client(SetBool, "arm")
        self._joy_timer = node.create_timer(0.02, self._publish_joy)
        node.create_subscription(JointState, "/joint_states", self._on_joints, 50)
        node.create_subscription(PolicyHold, "policy_hold", self.holds.append, RELIABLE)
        self.codes: list[tuple[float, int]] = []  # of Servo's status
        node.create_subscription(ServoStatus, "/servo_node/status", self._on_status, LATCHED)
        for name in ("moveit", *NODES):
            self.nodes.start(name)

    def _on_status(self, message: Any) -> None:
        self.codes.append((time.time(), message.code))

    def _publish_joy(self) -> None:
        message = Joy(axes=self.axes, buttons=self.buttons)
        message.header.stamp = self.graph.node.get_clock().now().to_msg()
        self._joy.publish(message)

    def _on_joints(self, message: JointState) -> None:
        at = dict(zip(message.name, message.position, strict=False))
        if JOINTS[0] in at:
            self.joints.append((to_ns(message.header.stamp) / 1e9, [at[name] for name in JOINTS]))

    # ---- what a person does

    def push(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> None:
        """Hold the deadman and the stick."""
        self.axes[:3], self.buttons[0] = [x, y, z], 1

    def release(self) -> None:
        self.axes[:3], self.buttons[0] = [0.0, 0.0, 0.0], 0

    def disarm(self) -> None:
        self._arm.call_async(SetBool.Request(data=False))

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

    def track(self, since: float, every: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Times [n] in s since `since`, and positions [n, 3] in m."""
        samples = [(t - since, q) for t, q in self.joints if t >= since - 0.5][::every]
        return np.array([t for t, _ in samples]), self.positions([q for _, q in samples])

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

    def to_ready(self) -> None:
        """End the episode that runs, and begin another one: a reset by move_group comes first."""
        self.release()
        if self.state in (ControlState.DISARMED, ControlState.FAULT):
            self.arm()
        elif self.graph.episode.phase == Episode.RUNNING:
            self.graph.trigger("end_episode_failure")
        before = self.graph.episode.id
        with suppress(GraphError):  # one is wanted already after an interrupted reset
            self.graph.trigger("start_episode")
        running = lambda: self.graph.episode.phase == Episode.RUNNING  # noqa: E731
        self.wait(lambda: running() and self.graph.episode.id >= before, "an episode", 60.0)
        self.wait(lambda: self.state == ControlState.POLICY, "the policy in control")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with ExitStack() as stack:
        found = Rig(tmp_path_factory.mktemp("moveit"), stack)
        print(f"\nlogs: {found.nodes.directory}")
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
    began = time.time()
    rig.graph.spin(1.5)
    rig.release()
    t, p = rig.track(began)
    steady = (t > 0.6) & (t < 1.4)
    speed = np.polyfit(t[steady], p[steady, 0], 1)[0]
    off = float(np.abs(p[:, 1:] - start[1:]).max())
    show("drive", speed=speed, off_axis=off)
    assert speed == pytest.approx(SPEED, rel=0.1) and off < 0.002


STOPS: dict[str, Callable[[Rig], object]] = {
    "release": lambda rig: rig.release(),
    "disarm": lambda rig: rig.disarm(),
    "device unplugged": lambda rig: rig._joy_timer.cancel(),
    "arbiter frozen": lambda rig: rig.nodes.signal("arbiter", signal.SIGSTOP),
    "arbiter killed": lambda rig: rig.nodes.signal("arbiter", signal.SIGKILL),
}


@pytest.mark.parametrize("name", STOPS)
def test_arm_stands_soon_after(rig: Rig, name: str) -> None:
    try:
        seconds, metres, deceleration = rig.stop_after(lambda: STOPS[name](rig))
    finally:
        if name == "device unplugged":
            rig._joy_timer.reset()
        if name == "arbiter frozen":
            rig.nodes.signal("arbiter", signal.SIGCONT)
        if name == "arbiter killed":
            rig.nodes.start("arbiter")
        rig.graph.spin(2.0)
        rig.disarm()
        rig.wait(lambda: rig.state in (ControlState.DISARMED, ControlState.FAULT), "the end")
    show(name, seconds=seconds, metres=metres, deceleration=deceleration)
    late = STALE_SHARE * 0.3 if name == "device unplugged" else 0.0  # s, before the braking
    assert seconds <= STOP_TIME + late and metres <= STOP_DISTANCE + late * SPEED


def test_stop_topic_is_a_fault_and_the_arm_stands(rig: Rig) -> None:
    stop = rig.graph.node.create_publisher(Bool, "stop", RELIABLE)
    rig.wait(stop.get_subscription_count, "the arbiter on `stop`")
    seconds, metres, deceleration = rig.stop_after(lambda: stop.publish(Bool(data=True)))
    show("stop", seconds=seconds, metres=metres, deceleration=deceleration)
    assert rig.state == ControlState.FAULT
    assert seconds <= STOP_TIME and metres <= STOP_DISTANCE
    stop.publish(Bool(data=False))
    rig.graph.spin(0.5)
    rig.graph.node.destroy_publisher(stop)
    rig.arm()


def test_arm_rests_at_the_wall_of_its_box(rig: Rig) -> None:
    rig.to_ready()
    rig.push(y=1.0)
    rig.graph.spin(4.0)
    rest = rig.position()
    rig.release()
    show("box", wall=WALL, rest=rest[1])
    assert WALL - 0.02 < rest[1] < WALL + 0.001


def test_servo_paused_by_somebody_else_is_named(rig: Rig) -> None:
    rig.to_ready()
    client = rig.graph.node.create_client(SetBool, "/servo_node/pause_servo")
    rig.wait(client.service_is_ready, "pause_servo")
    client.call_async(SetBool.Request(data=True))
    rig.wait(lambda: "another node has paused it" in rig.hold.reason, "a hold")
    rig.wait(lambda: rig.state == ControlState.HOLD, "HOLD")
    client.call_async(SetBool.Request(data=False))
    rig.wait(lambda: rig.state == ControlState.POLICY, "the policy again")


def test_reset_cancelled_by_a_disarm_leaves_the_arm_at_rest(rig: Rig) -> None:
    rig.to_ready()
    rig.push(y=1.0)
    rig.graph.spin(1.5)
    rig.release()
    rig.graph.trigger("end_episode_failure")
    rig.wait(lambda: rig.state == ControlState.HOLD, "HOLD")
    client = rig.graph.node.create_client(Trigger, "reset")
    rig.wait(client.service_is_ready, "the reset")
    rig.graph.spin(0.5)
    future = client.call_async(Trigger.Request())
    first = rig.joints[-1][1]
    rig.wait(lambda: math.dist(rig.joints[-1][1], first) > 0.02, "the planned motion to begin")
    began = time.time()
    rig.disarm()
    rig.wait(future.done, "an answer of the reset")
    rig.graph.spin(1.0)
    t, p = rig.track(began)
    moving = t[1:][np.linalg.norm(np.diff(p, axis=0), axis=1) / np.diff(t) > AT_REST]
    show("reset cancelled", seconds=float(moving.max()), metres=float(np.linalg.norm(p[-1] - p[0])))
    assert not future.result().success and moving.max() < 1.0


def test_servo_after_a_reset_does_not_jump(rig: Rig) -> None:
    rig.to_ready()
    start = rig.position()
    rig.push(z=-0.3)
    rig.graph.spin(0.3)
    rig.release()
    rig.graph.spin(1.0)
    moved = rig.position() - start
    show("after a reset", moved=float(np.linalg.norm(moved)))
    assert np.linalg.norm(moved) < 0.02


def test_servo_killed_holds_until_a_person_has_driven(rig: Rig) -> None:
    rig.to_ready()
    pid = descendant(rig.nodes.pid("moveit"), "servo_node")
    command = tuple(Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0"))
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    rig.wait(lambda: rig.hold.reason_code != PolicyHold.NONE, "a hold")
    show("servo killed", hold_after=time.monotonic() - began)
    moveit = rig.nodes.processes["moveit"]
    rig.nodes.processes["servo"] = replace(moveit, name="servo", command=command)
    rig.nodes.start("servo")
    rig.wait(lambda: rig.hold.reason_code == PolicyHold.SERVO_PAUSED, "Servo", 60.0)
    print(rig.hold.reason)
    rig.push(x=0.5)
    rig.wait(lambda: rig.hold.reason_code == PolicyHold.NONE, "the hold to end after driving")
    rig.release()


def test_episodes_with_planned_resets_between_stay_within_the_box(rig: Rig) -> None:
    """RLIF_REAL_MOVEIT_EPISODES of them, policy and operator in turn, nobody touching a terminal."""
    count, took = int(os.environ.get("RLIF_REAL_MOVEIT_EPISODES", "3")), []
    since = time.time()
    for number in range(count):
        began = time.monotonic()
        rig.to_ready()
        took.append(time.monotonic() - began)
        assert np.abs(rig.position() - READY).max() < 0.01, f"the reset before episode {number + 1}"
        rig.graph.spin(1.5)
        rig.push(*((-1.0) ** (number // 3) * np.eye(3)[number % 3]))
        rig.graph.spin(1.5)
        rig.release()
        rig.graph.spin(0.5)
    _, p = rig.track(since, every=5)
    show(
        f"{count} episodes",
        reset_median=float(np.median(took)),
        reset_max=max(took),
        widest=float(np.abs(p[:, 1]).max()),
    )
    assert np.abs(p[:, 1]).max() < WALL + 0.001


def scene(rig: Rig, *objects: Any) -> None:
    """Apply a difference to move_group's planning scene."""
    client = rig.graph.node.create_client(ApplyPlanningScene, "/apply_planning_scene")
    rig.wait(client.service_is_ready, "apply_planning_scene")
    request = ApplyPlanningScene.Request(scene=PlanningScene(is_diff=True))
    request.scene.world.collision_objects = list(objects)
    future = client.call_async(request)
    rig.wait(future.done, "the planning scene")
    rig.graph.node.destroy_client(client)
    assert future.result().success


def box(name: str, at: Vector, size: Vector, add: bool = True) -> Any:
    """A collision object in panda_link0."""
    operation = CollisionObject.ADD if add else CollisionObject.REMOVE
    found = CollisionObject(id=name, operation=operation)
    found.header.frame_id = "panda_link0"
    found.primitives = [SolidPrimitive(type=SolidPrimitive.BOX, dimensions=list(size))]
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = at
    pose.orientation.w = 1.0
    found.primitive_poses = [pose]
    return found


def drive_until_held(rig: Rig, seconds: float, **stick: float) -> list[int]:
    """Push until the arm is held or the time is over; Servo's codes on the way."""
    since = time.time()
    rig.push(**stick)
    with suppress(GraphError):
        rig.graph.wait(lambda: rig.hold.reason_code != PolicyHold.NONE, "a hold", seconds)
    rig.graph.spin(0.5)
    rig.release()
    codes = sorted({code for t, code in rig.codes if t >= since})
    print(f"\ncodes {codes}: {rig.hold.reason}")
    return codes


def test_arm_before_an_obstacle_is_held_and_a_reset_frees_it(rig: Rig) -> None:
    rig.to_ready()
    obstacle = ((0.307, 0.30, 0.55), (0.3, 0.1, 0.5))
    scene(rig, box("obstacle", *obstacle))
    codes = drive_until_held(rig, 10.0, y=0.5)
    assert ServoStatus.DECELERATE_FOR_COLLISION in codes
    assert rig.hold.reason_code == PolicyHold.NOT_MOVING
    rig.wait(lambda: rig.state == ControlState.HOLD, "HOLD after the release")
    rig.to_ready()
    assert rig.hold.reason_code == PolicyHold.NONE
    scene(rig, box("obstacle", *obstacle, add=False))


@pytest.mark.parametrize(
    ("stick", "code", "reason"),
    [
        ({"x": 1.0}, "DECELERATE_FOR_APPROACHING_SINGULARITY", PolicyHold.NOT_MOVING),
        ({"x": -0.6, "z": -1.0}, "JOINT_BOUND", PolicyHold.SERVO_STATUS),
    ],
    ids=["stretched", "folded"],
)
def test_arm_at_the_end_of_its_reach_is_held_and_a_reset_frees_it(
    rig: Rig, stick: dict[str, float], code: str, reason: int
) -> None:
    rig.to_ready()
    codes = drive_until_held(rig, 20.0, **stick)
    assert getattr(ServoStatus, code) in codes
    assert rig.hold.reason_code == reason
    rig.to_ready()
    assert rig.hold.reason_code == PolicyHold.NONE


def test_reset_into_an_obstacle_is_refused_with_the_reason(rig: Rig) -> None:
    rig.to_ready()
    rig.push(y=-1.0)
    rig.graph.spin(1.5)
    rig.release()
    rig.graph.trigger("end_episode_failure")
    rig.wait(lambda: rig.state == ControlState.HOLD, "HOLD")
    obstacle = ((0.307, 0.1, 0.59), (0.1, 0.1, 0.1))
    scene(rig, box("in the way", *obstacle))
    with pytest.raises(GraphError, match="call reset_again") as error:
        rig.graph.trigger("reset")
    print(f"\n{error.value}")
    scene(rig, box("in the way", *obstacle, add=False))
    rig.graph.trigger("reset_again")
    rig.to_ready()


def test_command_in_an_unknown_frame_is_invalid_and_holds(rig: Rig) -> None:
    rig.to_ready()
    stray = rig.graph.node.create_publisher(TwistStamped, "/servo_node/delta_twist_cmds", RELIABLE)

    def held() -> bool:
        message = TwistStamped()
        message.header.stamp = rig.graph.node.get_clock().now().to_msg()
        message.header.frame_id, message.twist.linear.x = "nowhere", 0.01
        stray.publish(message)
        return rig.hold.reason_code != PolicyHold.NONE

    since = time.time()
    rig.wait(held, "a hold")
    codes = {code for t, code in rig.codes if t >= since}
    print(f"\ncodes {sorted(codes)}: {rig.hold.reason}")
    rig.graph.node.destroy_publisher(stray)
    assert ServoStatus.INVALID in codes and rig.hold.reason_code == PolicyHold.SERVO_STATUS


def test_command_of_another_publisher_is_named(rig: Rig) -> None:
    stray = rig.graph.node.create_publisher(TwistStamped, "/servo_node/delta_twist_cmds", RELIABLE)
    rig.wait(lambda: "publishes on" in rig.reason, "the warning", 10.0)
    rig.graph.node.destroy_publisher(stray)
