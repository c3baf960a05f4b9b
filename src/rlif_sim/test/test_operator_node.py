# SPDX-License-Identifier: Apache-2.0
"""The scripted operator over DDS: when it arms, and its answer to each action."""

from __future__ import annotations

import pytest
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Joy
from std_msgs.msg import Header

from rlif_msgs.msg import ControlState, Episode, PolicyAction, TaskSuccess
from rlif_sim.operator_node import OperatorNode

pytestmark = pytest.mark.ros

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
ARM = 3  # index of the button


def test_operator_arms_then_answers_each_action_with_its_stamp(graph):
    operator = graph.add(
        OperatorNode,
        lock_step=True, use_sim_time=True, beta=1.0, actor_noise=0.0, actor_bias=0.0,
    )  # fmt: skip
    received = graph.collect(Joy, "joy", of=operator)
    graph.until(lambda: any(joy.buttons[ARM] for joy in received), "the arm button")
    control = graph.publisher(ControlState, "control_state", LATCHED)
    control.publish(ControlState(state=ControlState.HOLD))
    episode = graph.publisher(Episode, "episode", LATCHED)
    episode.publish(Episode(id=1, phase=Episode.RUNNING))
    action = graph.publisher(PolicyAction, "policy_action")
    poses = {name: graph.publisher(PoseStamped, name) for name in ("ee_pose", "object_pose")}
    received.clear()

    def answer(second, policy_action):
        header = Header(frame_id="base")
        header.stamp.sec = second
        tip = PoseStamped(header=header)
        tip.pose.position.x, tip.pose.position.z = 0.03, 0.05
        poses["object_pose"].publish(PoseStamped(header=header))
        action.publish(PolicyAction(header=header, tick=second, action=policy_action))
        poses["ee_pose"].publish(tip)
        find = lambda: [joy for joy in received if joy.header.stamp.sec == second]  # noqa: E731
        return graph.until(find, "the operator's answer")[0]

    good, bad = answer(5, [-1.0, 0.0, -1.0]), answer(6, [1.0, 0.0, 0.0])
    assert list(good.buttons) == [0, 0, 0, 0], "a good action is left alone"
    assert list(bad.buttons) == [1, 0, 0, 0], "a bad action is taken over"
    assert bad.axes[0] < -0.5, "towards the hole"


def test_operator_without_simulated_time_never_arms(graph):
    """There may be a real arm on these topics."""
    control = graph.node.create_publisher(ControlState, "control_state", LATCHED)
    control.publish(ControlState(state=ControlState.DISARMED))
    operator = graph.add(OperatorNode, use_sim_time=False, joy_rate=100.0)
    graph.until(control.get_subscription_count, "the operator's subscription")
    received = graph.collect(Joy, "joy", of=operator)
    graph.until(lambda: len(received) > 20, "twenty Joy messages")
    assert not any(joy.buttons[ARM] for joy in received)


def test_operator_of_a_robot_simulated_in_real_time_arms_also_after_a_fault(graph):
    control = graph.node.create_publisher(ControlState, "control_state", LATCHED)
    operator = graph.add(OperatorNode, use_sim_time=False, arms_in_real_time=True, joy_rate=100.0)
    received = graph.collect(Joy, "joy", of=operator)
    pressed = lambda: any(joy.buttons[ARM] for joy in received)  # noqa: E731
    graph.until(pressed, "the arm button")
    control.publish(ControlState(state=ControlState.HOLD))
    graph.until(lambda: operator._armed, "the state HOLD")
    control.publish(ControlState(state=ControlState.FAULT))
    graph.until(lambda: not operator._armed, "the state FAULT")
    received.clear()
    graph.until(pressed, "the arm button after the FAULT")


def test_operator_of_a_robot_that_hides_its_success_presses_the_buttons(graph):
    truth = graph.node.create_publisher(TaskSuccess, "true_success", 10)
    operator = graph.add(
        OperatorNode, lock_step=True, use_sim_time=True, mode="never", success_delay=1, arms=False
    )
    received = graph.collect(Joy, "joy", of=operator)
    graph.until(truth.get_subscription_count, "the operator's subscription")
    names = ("policy_action", "ee_pose", "object_pose")
    kinds = (PolicyAction, PoseStamped, PoseStamped)
    send = [graph.publisher(kind, name) for name, kind in zip(names, kinds, strict=True)]
    episode = graph.publisher(Episode, "episode", LATCHED)

    def stage(number, phase, outcome=0):
        message = Episode(id=number, phase=phase, outcome=outcome)
        message.header.stamp.sec = 10 * number
        episode.publish(message)
        graph.until(
            lambda: (operator._episode.id, operator._episode.phase) == (number, phase), "episode"
        )

    def answer(second):
        header = Header(frame_id="base")
        header.stamp.sec = second
        for publisher, kind in zip(send, kinds, strict=True):
            more = {"action": [0.0] * 3} if kind is PolicyAction else {}
            publisher.publish(kind(header=header, **more))
        find = lambda: [joy for joy in received if joy.header.stamp.sec == second]  # noqa: E731
        return list(graph.until(find, "the operator's answer")[0].buttons)

    stage(1, Episode.RUNNING)
    message = TaskSuccess()
    message.header.stamp.sec = 10
    truth.publish(message)
    graph.until(lambda: operator._until_press is not None, "that it sees the success")
    assert [answer(s)[1] for s in (10, 11, 12)] == [0, 1, 0], "one step later, once"
    received.clear()
    stage(1, Episode.ENDED, Episode.OUTCOME_SUCCESS)
    stage(2, Episode.RUNNING)
    assert not received, "that was one"
    stage(2, Episode.ENDED, Episode.OUTCOME_SUCCESS)
    graph.until(lambda: len(received) == 2, "the failure button and its release")
    assert [list(joy.buttons) for joy in received] == [[0, 0, 1, 0], [0, 0, 0, 0]]
