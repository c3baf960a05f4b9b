"""`hold` has to be repeated: whoever says it may die."""

from __future__ import annotations

import pytest
from rclpy.parameter import Parameter
from rlif_node.qos import LATCHED
from std_msgs.msg import String

from rlif_intervention.arbiter_node import ArbiterNode
from rlif_intervention.policy_hold import PolicyHold
from rlif_msgs.msg import ControlState


def test_without_a_timeout_the_last_word_stands():
    hold = PolicyHold()
    assert hold.problem(1e9) == ""
    hold.said("Servo has halted", 0.0)
    assert hold.problem(1e9) == "Servo has halted"


def test_with_one_silence_holds_too_and_a_reason_keeps_its_words():
    hold = PolicyHold(0.5)
    assert "nothing on hold" in hold.problem(0.0)
    hold.said("", 10.0)
    assert hold.problem(10.5) == "" and "0.5 s" in hold.problem(10.6)
    hold.said("Servo has halted", 11.0)
    assert hold.problem(99.0) == "Servo has halted"


def test_a_timeout_that_makes_no_sense_is_refused_by_name():
    with pytest.raises(ValueError, match="hold_timeout"):
        PolicyHold(float("nan"))


@pytest.mark.ros
def test_the_policy_stops_when_whoever_watches_the_robot_dies(make_graph):
    graph = make_graph(lock_step=False)
    world, lives = graph.world, [True]
    hold = world.create_publisher(String, "hold", LATCHED)

    def state():
        return world.seen["control_state"][-1] if world.seen["control_state"] else None

    def tick():
        world.stamp = world.get_clock().now().nanoseconds
        world.move()

    values = {"hold_timeout": 0.5, "policy_timeout": 1.0, "observation_timeout": 1.0}
    values |= {"device_timeout": 2.0, "stall_timeout": 2.0}
    graph.add(ArbiterNode([Parameter(name, value=value) for name, value in values.items()]))
    world.create_timer(0.1, tick)
    world.create_timer(0.1, lambda: lives[0] and hold.publish(String()))
    graph.until(state, what="the arbiter")
    assert graph.arm().success
    world.run_episode(1, start=world.get_clock().now().nanoseconds)
    graph.until(lambda: state().state == ControlState.POLICY, what="the policy drives")
    lives[0] = False
    graph.until(lambda: "nothing on hold" in state().reason, what="the reason")
    assert state().state == ControlState.HOLD
    graph.until(lambda: world.seen["command"][-1].twist.linear.x == 0.0, what="zeros")
