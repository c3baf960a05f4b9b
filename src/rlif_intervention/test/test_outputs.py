# SPDX-License-Identifier: Apache-2.0
"""The arbiter with joints and a gripper, over DDS, against what the controllers would do."""

from __future__ import annotations

import math

import pytest
from rclpy.qos import qos_profile_sensor_data
from rlif_node.qos import RELIABLE, RELIABLE_1
from rlif_node.stamps import to_ns
from ros_graph import JOINT_LIMITS, JOINTS
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from rlif_intervention.outputs import zeros_unless_finite
from rlif_msgs.msg import ControlState


class Arm:
    """A driver: publishes where its joints are, collects what they are commanded."""

    def __init__(self, graph, position=(0.0, 0.0)):
        self.world = world = graph.world
        self.position = list(position)
        for kind, topic in (
            (Float64MultiArray, "joint_command"),
            (JointTrajectory, "joint_trajectory"),
            (Float64, "gripper_command"),
        ):
            world.seen[topic] = []
            world.create_subscription(kind, topic, world.seen[topic].append, RELIABLE)
        self._states = world.create_publisher(JointState, "joint_states", RELIABLE)
        self.connected = True
        world.create_timer(0.02, self._publish)
        world.policy = lambda tick: [0.5, -0.25]
        world.operator = lambda tick: (False, [0.0] * 6)

    def _publish(self):
        if self.connected:  # names in another order than the axes
            self._states.publish(JointState(name=JOINTS[::-1], position=self.position[::-1]))

    @property
    def velocity(self):
        received = self.world.seen["joint_command"]
        return list(received[-1].data) if received else [0.0, 0.0]


@pytest.fixture
def joints(make_graph):
    """`joints(output=…)`: graph and arm, in real time, with an arbiter that is disarmed."""

    def make(position=(0.0, 0.0), connected=True, **values):
        graph = make_graph(lock_step=False)
        arm = Arm(graph, position)
        arm.connected = connected
        graph.add_arbiter(**(JOINT_LIMITS | {"release_dwell": 0.0} | values))
        graph.world.run_in_real_time()
        return graph, arm

    return make


@pytest.mark.ros
def test_joint_velocity_output_sends_zeros_for_ever_when_the_joint_states_are_lost(joints):
    """Pitfall: the last command repeated for ever by a controller with no time-out."""
    graph, arm = joints(output="joint_velocity", pose_timeout=0.5)
    graph.more("joint_command", 5)
    assert graph.control.state == ControlState.DISARMED
    assert all(list(m.data) == [0.0, 0.0] for m in graph.seen["joint_command"])
    graph.drive(lambda: arm.velocity == pytest.approx([0.25, -0.125]))
    assert len(graph.decisions(1)[-1].executed_action) == 2
    arm.connected = False
    graph.until(lambda: arm.velocity == [0.0, 0.0], "zeros without joint_states")
    assert "joint_states" in graph.control.reason
    assert all(list(m.data) == [0.0, 0.0] for m in graph.more("joint_command", 20))
    assert not graph.seen["command"], "no twist for anybody"
    assert all(math.isfinite(v) for m in graph.seen["joint_command"] for v in m.data)


@pytest.mark.ros
def test_joint_states_of_two_best_effort_drivers_are_merged_each_with_its_age(joints):
    """Arm and gripper on one topic, each with its own joints; one of them ends."""
    graph, arm = joints(output="joint_velocity", pose_timeout=0.5)
    world, drivers = graph.world, {"shoulder": True, "elbow": True, "finger": True}
    arm.connected = False
    for name in drivers:
        states = world.create_publisher(JointState, "joint_states", qos_profile_sensor_data)

        def publish(name=name, states=states):
            if drivers[name]:
                states.publish(JointState(name=[name], position=[0.0]))

        world.create_timer(0.02, publish)
    graph.drive(lambda: arm.velocity == pytest.approx([0.25, -0.125]))
    drivers["elbow"] = False
    graph.until(lambda: arm.velocity == [0.0, 0.0], "zeros without the elbow")
    assert "joint_states of elbow" in graph.control.reason
    drivers["elbow"] = True
    graph.until_state(ControlState.POLICY)


@pytest.mark.ros
def test_joint_states_that_do_not_fit_their_names_stop_the_arm_until_the_next_good_ones(joints):
    graph, arm = joints(output="joint_velocity", pose_timeout=0.5)
    graph.drive(lambda: arm.velocity == pytest.approx([0.25, -0.125]))
    arm.position = [0.0]
    graph.until(lambda: arm.velocity == [0.0, 0.0], "zeros without positions that fit")
    reason = "joint_states: joints ['elbow', 'shoulder']: found 1 positions and 0 velocities for 2"
    assert graph.control.state == ControlState.HOLD and graph.control.reason.startswith(reason)
    arm.position = [0.0, 0.0]
    graph.until_state(ControlState.POLICY)


@pytest.mark.ros
def test_joint_states_without_one_of_the_joints_name_it_in_the_reason(joints):
    graph, _ = joints(output="joint_velocity", pose_timeout=0.5, connected=False)
    states = graph.world.create_publisher(JointState, "joint_states", RELIABLE)
    message = JointState(name=["shoulder", "wheel"], position=[0.0, 0.0])
    graph.world.create_timer(0.02, lambda: states.publish(message))
    found = "joint_states: joints ['elbow'] are missing, found ['shoulder', 'wheel']"
    graph.drive(lambda: found in graph.control.reason)
    assert all(list(m.data) == [0.0, 0.0] for m in graph.more("joint_command", 5))


@pytest.mark.ros
def test_joint_velocity_output_stops_at_the_joint_limit(joints):
    graph, arm = joints(output="joint_velocity", position=(0.97, 0.0))
    graph.drive(lambda: arm.velocity[1] < -0.03)
    assert max(m.data[0] for m in graph.seen["joint_command"]) < 0.15


@pytest.mark.ros
def test_joint_trajectory_output_ends_at_rest_and_then_leaves_the_controller_alone(joints):
    graph, arm = joints(output="joint_trajectory")

    def follow(message):
        point = message.points[0]
        share = 0.02 / (point.time_from_start.sec + 1e-9 * point.time_from_start.nanosec)
        arm.position = [
            q + share * (p - q) for q, p in zip(arm.position, point.positions, strict=True)
        ]

    graph.world.create_subscription(JointTrajectory, "joint_trajectory", follow, RELIABLE_1)
    before = graph.world.now()
    received = graph.seen["joint_trajectory"]
    graph.drive(lambda: len(received) > 20)
    for message in received:
        assert message.joint_names == JOINTS
        assert list(message.points[-1].velocities) == [0.0, 0.0]
        assert before < to_ns(message.header.stamp) <= graph.world.now(), "freshly stamped"
    assert received[-1].points[0].positions[0] > received[0].points[0].positions[0] > 0.0
    graph.arm(False)
    graph.until(lambda: len(received[-1].points) == 1, "a last one, of rest")
    count, tick = len(received), graph.world.tick
    graph.until(lambda: graph.world.tick > tick + 5, "half a second")
    assert len(received) == count, "while it stands, planners may use the controller"


@pytest.mark.ros
def test_gripper_axis_is_commanded_and_recorded(joints):
    graph, _ = joints(axes=["x", "y", "z", "gripper"], **{"joy.preset": "xbox"})
    world, received = graph.world, graph.seen["gripper_command"]
    world.policy = lambda tick: [0.1, 0.0, 0.0, -0.9]
    world.operator = lambda tick: None

    def press(*down):
        world.joy.publish(Joy(axes=[0.0] * 8, buttons=[int(i in down) for i in range(11)]))

    timer = world.create_timer(0.05, press)
    graph.drive(lambda: received[-1:] == [Float64(data=-1.0)])
    graph.until(lambda: graph.decisions(1)[-1].executed_action[3] == -1.0, "recorded")
    timer.cancel()
    press(5, 3)  # the deadman and a tap of open
    press(5)
    graph.until(lambda: received[-1].data == 1.0, "opened by a tap")
    graph.arm(False)
    graph.until(lambda: received[-1].data == 0.0, "as it is")


def test_zeros_unless_finite_replaces_all_of_a_command_with_one_bad_entry():
    assert zeros_unless_finite((0.1, math.nan)) == (0.0, 0.0)
    assert zeros_unless_finite((0.1, -0.2)) == (0.1, -0.2)
