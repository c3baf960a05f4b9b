"""The arbiter with joints and a gripper, over DDS, against what the controllers would do."""

from __future__ import annotations

import math
import signal
import subprocess
import sys

import pytest
from rclpy.parameter import Parameter
from rlif_node.qos import RELIABLE, RELIABLE_1
from rlif_node.stamps import to_ns
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from rlif_intervention.arbiter_node import ArbiterNode
from rlif_intervention.arbiter_parameters import PARAMETERS, arbiter_config
from rlif_intervention.outputs import zeros_unless_finite
from rlif_intervention.watchdog_node import WatchdogNode
from rlif_msgs.msg import ControlState

pytestmark = pytest.mark.ros

JOINTS = ["shoulder", "elbow"]
LIMITS = {
    "axes": JOINTS,
    "joint_scale": 0.5,
    "max_joint_velocity": [0.5, 0.5],
    "max_joint_acceleration": [2.0, 2.0],
    "max_joint_deceleration": [4.0, 4.0],
    "joint_position_min": [-1.0, -1.0],
    "joint_position_max": [1.0, 1.0],
}


class Arm:
    """A driver: says where its joints are, hears what they shall do."""

    def __init__(self, graph, position=(0.0, 0.0)):
        self.world = graph.world
        self.position = list(position)
        self.heard = {"joint_command": [], "joint_trajectory": [], "gripper_command": []}
        for kind, topic in (
            (Float64MultiArray, "joint_command"),
            (JointTrajectory, "joint_trajectory"),
            (Float64, "gripper_command"),
        ):
            self.world.create_subscription(kind, topic, self.heard[topic].append, RELIABLE)
        self._states = self.world.create_publisher(JointState, "joint_states", RELIABLE)
        self._gripper = self.world.create_publisher(JointState, "joint_states", RELIABLE)
        self.speaks = True
        self.world.create_timer(0.02, self._say)
        self.world.policy = lambda tick: [0.5, -0.25]
        self.world.operator = lambda tick: (False, [0.0] * 6)
        self.tick_timer = self.world.create_timer(0.1, self._tick)

    def _say(self):
        if self.speaks:  # another driver's message in between; names in another order
            self._gripper.publish(JointState(name=["finger"], position=[0.04]))
            self._states.publish(JointState(name=JOINTS[::-1], position=self.position[::-1]))

    def _tick(self):
        self.world.stamp = self.world.get_clock().now().nanoseconds
        self.world.move()

    @property
    def velocity(self):
        heard = self.heard["joint_command"]
        return list(heard[-1].data) if heard else None


def begin(graph, **values):
    params = [Parameter(n, value=v) for n, v in (LIMITS | {"release_dwell": 0.0} | values).items()]
    node = graph.add(ArbiterNode(params))
    assert graph.arm().success
    graph.world.run_episode(1, start=graph.world.get_clock().now().nanoseconds)
    return node


def test_joint_velocities_for_a_controller_that_never_forgets(make_graph):
    """Pitfall: the last command repeated for ever by a controller with no time-out."""
    graph = make_graph(lock_step=False)
    arm = Arm(graph)
    begin(graph, output="joint_velocity")
    graph.until(lambda: arm.velocity == pytest.approx([0.25, -0.125]), what="the policy's velocity")
    decision = graph.until(lambda: graph.world.seen["decision"], what="a decision")[-1]
    assert len(decision.executed_action) == 2
    arm.speaks = False
    graph.until(lambda: arm.velocity == [0.0, 0.0], what="zeros without joint_states")
    assert "joint_states" in graph.world.seen["control_state"][-1].reason
    count = len(arm.heard["joint_command"])
    graph.until(lambda: len(arm.heard["joint_command"]) > count + 20, what="zeros that go on")
    assert not graph.world.seen["command"], "no twist for anybody"
    assert all(math.isfinite(v) for m in arm.heard["joint_command"] for v in m.data)


def test_the_joint_limit_stops_a_policy_that_does_not(make_graph):
    graph = make_graph(lock_step=False)
    arm = Arm(graph, position=(0.97, 0.0))
    begin(graph, output="joint_velocity", policy_timeout=2.0)
    graph.until(lambda: (arm.velocity or [0.0, 0.0])[1] < -0.03, what="the free joint moves")
    assert max(m.data[0] for m in arm.heard["joint_command"]) < 0.15


def start_process(*more):
    """An arbiter for joint velocities in a process of its own."""
    code = "from rlif_intervention.arbiter_node import main; raise SystemExit(main())"
    words = ["output:=joint_velocity", "require_operator:=false", *more]
    words += [f"{name}:={value}".replace("'", "") for name, value in LIMITS.items()]
    arguments = [part for word in words for part in ("-p", word)]
    return subprocess.Popen([sys.executable, "-c", code, "--ros-args", *arguments])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_zeros_are_the_last_words_to_the_joints(make_graph, number):
    graph = make_graph(lock_step=False)
    arm = Arm(graph)
    process = start_process()
    try:
        graph.until(lambda: graph.world.seen["control_state"], 30.0, "the arbiter's process")
        assert graph.arm().success
        graph.world.run_episode(1, start=graph.world.get_clock().now().nanoseconds)
        graph.until(lambda: (arm.velocity or [0.0])[0] > 0.0, what="motion")
        process.send_signal(number)
        graph.until(lambda: process.poll() is not None, what="the end")
        graph.until(lambda: arm.velocity == [0.0, 0.0], what="zeros")
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_the_watchdog_ends_the_velocities_of_a_dead_arbiter(make_graph, number):
    """Pitfall: the last command repeated for ever by a controller with no time-out."""
    graph = make_graph(lock_step=False)
    arm = Arm(graph)
    watchdog = {"output": "joint_velocity", "axes": [*JOINTS, "gripper"]}
    graph.add(WatchdogNode([Parameter(n, value=v) for n, v in watchdog.items()]))
    process = start_process("stall_timeout:=1.0", "policy_timeout:=1.0")
    try:
        graph.until(lambda: graph.world.seen["control_state"], 30.0, "the arbiter's process")
        assert graph.arm().success
        graph.world.run_episode(1, start=graph.world.get_clock().now().nanoseconds)
        graph.until(lambda: (arm.velocity or [0.0])[0] > 0.0, what="motion")
        process.send_signal(number)
        graph.until(lambda: arm.velocity == [0.0, 0.0], what="zeros")
        count = len(arm.heard["joint_command"])
        graph.until(lambda: len(arm.heard["joint_command"]) > count + 75, what="1.5 s of zeros")
        assert all(list(m.data) == [0.0, 0.0] for m in arm.heard["joint_command"][count:])
        if number == signal.SIGSTOP:
            process.send_signal(signal.SIGCONT)
            states = graph.world.seen["control_state"]
            graph.until(lambda: states[-1].state == ControlState.FAULT, what="FAULT after a hang")
            graph.until(lambda: arm.velocity == [0.0, 0.0], what="zeros of its own")
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"output": "joint_velocity", "timeout": 0.1}, "timeout is 0.1 s .*20 Hz"),
        ({"output": "joints"}, "found 'joints', expected one of twist"),
    ],
)
def test_a_watchdog_that_could_not_work_is_refused(make_graph, values, words):
    make_graph(lock_step=False)
    with pytest.raises(ValueError, match=words):
        WatchdogNode([Parameter(n, value=v) for n, v in values.items()])


def test_trajectories_end_at_rest_and_then_the_controller_is_left_alone(make_graph):
    graph = make_graph(lock_step=False)
    arm = Arm(graph)

    def follow(message):
        point = message.points[0]
        share = 0.02 / (point.time_from_start.sec + 1e-9 * point.time_from_start.nanosec)
        arm.position = [
            q + share * (p - q) for q, p in zip(arm.position, point.positions, strict=True)
        ]

    graph.world.create_subscription(JointTrajectory, "joint_trajectory", follow, RELIABLE_1)
    begin(graph, output="joint_trajectory")
    heard = arm.heard["joint_trajectory"]
    graph.until(lambda: len(heard) > 20, what="trajectories")
    now = graph.world.get_clock().now().nanoseconds
    for message in heard:
        assert message.joint_names == JOINTS
        assert list(message.points[-1].velocities) == [0.0, 0.0]
    assert abs(now - to_ns(heard[-1].header.stamp)) < 500_000_000, "freshly stamped"
    assert heard[-1].points[0].positions[0] > heard[0].points[0].positions[0] > 0.0
    graph.arm(False)
    graph.until(lambda: len(heard[-1].points) == 1, what="a last one, of rest")
    count = len(heard)
    ticks = len(graph.world.seen["decision"]), graph.world.tick
    graph.until(lambda: graph.world.tick > ticks[1] + 5, what="half a second")
    assert len(heard) == count, "while it stands, planners may use the controller"


def test_a_gripper_axis_is_commanded_and_recorded(make_graph):
    graph = make_graph(lock_step=False)
    arm = Arm(graph)
    world = graph.world
    world.policy = lambda tick: [0.1, 0.0, 0.0, -0.9]
    begin(graph, axes=["x", "y", "z", "gripper"], joy__preset="xbox", **{"joy.preset": "xbox"})
    joy = lambda **down: Joy(axes=[0.0] * 8, buttons=[int(i in down.values()) for i in range(11)])  # noqa: E731
    world.operator = lambda tick: None
    timer = world.create_timer(0.05, lambda: world.joy.publish(joy()))
    graph.until(lambda: arm.heard["gripper_command"][-1:] == [Float64(data=-1.0)], what="closed")
    graph.until(
        lambda: world.seen["decision"] and world.seen["decision"][-1].executed_action[3] == -1.0,
        what="recorded",
    )
    timer.cancel()
    world.joy.publish(joy(deadman=5, open=3))
    world.joy.publish(joy(deadman=5))
    graph.until(lambda: arm.heard["gripper_command"][-1].data == 1.0, what="opened by a tap")
    graph.arm(False)
    graph.until(lambda: arm.heard["gripper_command"][-1].data == 0.0, what="as it is")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"axes": ["x", "y", "z"]}, "Jacobian.*Servo"),
        ({"max_joint_velocity": []}, "max_velocity is .*one finite number for each"),
        ({"workspace_min": [0.0] * 3, "workspace_max": [1.0] * 3}, "the box bounds twists"),
        ({"lock_step": True}, "the simulated arm takes output twist"),
        ({"output": "joint_trajectory", "trajectory_horizon": 0.01}, "trajectory_horizon is 0.01"),
        ({"axes": ["gripper", "elbow"]}, "expected gripper once, as the last"),
        ({"axes": ["gripper"]}, "expected names of joints"),
    ],
)
def test_what_makes_no_sense_with_joints_is_refused(values, words):
    defaults = {row.name: row.default for row in PARAMETERS}
    with pytest.raises(ValueError, match=words):
        arbiter_config(defaults | LIMITS | {"output": "joint_velocity"} | values)


def test_nothing_that_is_no_number_leaves():
    assert zeros_unless_finite((0.1, math.nan)) == (0.0, 0.0)
    assert zeros_unless_finite((0.1, -0.2)) == (0.1, -0.2)


def test_disarmed_is_zeros_from_the_start(make_graph):
    graph = make_graph(lock_step=False)
    arm = Arm(graph)
    graph.add(
        ArbiterNode(
            [Parameter(n, value=v) for n, v in (LIMITS | {"output": "joint_velocity"}).items()]
        )
    )
    graph.until(lambda: len(arm.heard["joint_command"]) > 5, what="commands")
    assert graph.world.seen["control_state"][-1].state == ControlState.DISARMED
    assert all(list(m.data) == [0.0, 0.0] for m in arm.heard["joint_command"])
