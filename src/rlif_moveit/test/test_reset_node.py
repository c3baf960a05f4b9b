# SPDX-License-Identifier: Apache-2.0
"""The reset over DDS: adapter, Servo and a planner that succeeds, fails and hangs."""

from __future__ import annotations

import importlib.util
import signal
import threading

import pytest
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from rlif_node.qos import LATCHED
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from waiting import scaled

from rlif_moveit.interfaces import MissingInterfacesError
from rlif_moveit.move_group_planner import MoveGroupPlanner
from rlif_moveit.reset_node import ResetNode, plan_config
from rlif_moveit.reset_procedure import Outcome
from rlif_moveit.servo_adapter_node import ServoAdapterNode
from rlif_moveit.servo_status import Dialect
from rlif_msgs.msg import ControlState

pytestmark = pytest.mark.ros

HAVE_MOVEIT = importlib.util.find_spec("moveit_msgs") is not None
GOAL = {"planning_group": "arm", "goal_state": "ready", "seed": 1}


def overrides(**values):
    return [Parameter(name, value=value) for name, value in values.items()]


class StandInPlanner:
    """`problems` are its answers, in order, then success; `wait`: answer on `cancel` only, and not
    to the first `deaf` of them."""

    def __init__(self, node):
        self.node, self.goals, self.problems, self.wait = node, [], [], False
        self.running = None
        self.cancels = self.deaf = 0
        self.at_go = lambda: None

    def problem(self):
        return ""

    async def go(self, goal):
        self.goals.append(goal)
        self.at_go()
        if self.wait:
            self.running = Future(executor=self.node.executor)
            return await self.running
        return Outcome(self.problems.pop(0) if self.problems else "")

    def cancel(self):
        self.cancels += 1
        if self.cancels > self.deaf and not self.running.done():
            self.running.set_result(Outcome("PREEMPTED"))


@pytest.fixture
def rig(bench, stand_in_servo, interfaces_of, patient):
    """(servo, planner, call) with an armed arbiter in HOLD."""

    def start(**values):
        servo = bench.add(stand_in_servo())
        adapter = patient | {name: values[name] for name in patient if name in values}
        bench.add(ServoAdapterNode(overrides(**adapter), interfaces_of(Dialect.JAZZY)))
        made = []

        def planner(node, _):
            made.append(StandInPlanner(node))
            return made[0]

        bench.add(ResetNode(overrides(**(GOAL | {"arbiter_timeout": 10.0} | values)), planner))
        bench.say(ControlState.HOLD)
        bench.until(lambda: not servo.paused and bench.hold == "", "a running Servo")
        return servo, made[0], lambda name="reset": bench.call(Trigger, name)

    return start


def moving(bench, planner):
    """A reset whose motion goes on; the future of its answer."""
    planner.wait = True
    client = bench.node.create_client(Trigger, "reset")
    bench.until(client.service_is_ready, "reset")
    done = client.call_async(Trigger.Request())
    bench.until(lambda: planner.running, "the motion")
    return done


def test_reset_pauses_servo_during_the_motion(bench, rig):
    servo, planner, call = rig()
    during = []
    planner.at_go = lambda: during.append(servo.paused)
    answer = call()
    assert answer.success, answer.message
    assert during == [True]
    bench.until(lambda: not servo.paused and bench.hold == "", "Servo after the reset")


def test_reset_holds_the_policy_while_the_arm_moves(bench, rig):
    servo, planner, call = rig()
    done = moving(bench, planner)
    bench.until(lambda: "pause_servo" in bench.hold, "hold with the reason")
    planner.running.set_result(Outcome())
    bench.until(done.done, "the answer")
    assert done.result().success


def test_reset_after_the_last_attempt_asks_a_human_and_moves_nothing(bench, rig):
    servo, planner, call = rig(attempts=2)
    planner.problems = ["PLANNING_FAILED"] * 2
    answer = call()
    assert not answer.success and "reset_by_hand" in answer.message
    assert not call().success and len(planner.goals) == 2
    assert servo.paused
    bench.until(
        lambda: (s := bench.diagnostics(": reset")) and "a human has to act" in s.message,
        "a diagnostic",
    )
    assert call("reset_by_hand").success
    assert call().success and len(planner.goals) == 2
    bench.until(lambda: not servo.paused, "Servo again")


def test_reset_at_a_fault_stops_the_arm(bench, rig):
    servo, planner, _ = rig()
    done = moving(bench, planner)
    bench.say(ControlState.FAULT)
    bench.until(done.done, "the answer")
    assert not done.result().success and "FAULT" in done.result().message
    assert len(planner.goals) == 1


def test_reset_whose_arbiter_dies_stops_the_arm(bench, rig):
    """Killed, it says nothing more: its last state, HOLD, stands on the latched topic for ever."""
    servo, planner, call = rig(arbiter_timeout=0.5)
    done = moving(bench, planner)
    bench.lives = False
    bench.until(done.done, "the answer", 5.0)
    assert not done.result().success and "has it died" in done.result().message
    assert len(planner.goals) == 1 and servo.paused
    answer = call()
    assert not answer.success and "has it died" in answer.message
    bench.lives = True  # its heartbeat was only late: it repeats the state that it had
    bench.until(lambda: "disarm and arm" in call().message, "still refused")
    seen = bench.listen(ControlState, "control_state", LATCHED)
    bench.until(lambda: seen, "the latched state")
    bench.say(ControlState.HOLD)
    bench.until(lambda: len(seen) > 1, "the state again")
    assert "disarm and arm" in call().message, "no reset without a human"
    assert len(planner.goals) == 1 and servo.paused
    bench.say(ControlState.DISARMED)
    bench.until(lambda: "arm first" in call().message, "a human has disarmed")
    bench.say(ControlState.HOLD)
    planner.wait = False
    bench.until(lambda: call().success, "a reset after a human has armed")


@pytest.mark.parametrize("seen_disarmed", [True, False])
def test_reset_with_a_new_arbiter_that_is_armed_at_once_moves(bench, rig, seen_disarmed):
    """Regression: its DISARMED, which came before its first heartbeat or not at all, did not count."""
    _, planner, call = rig(arbiter_timeout=0.5)
    done = moving(bench, planner)
    bench.lives = False
    bench.until(done.done, "the loss", 5.0)
    if seen_disarmed:
        seen = bench.listen(ControlState, "control_state", LATCHED)
        bench.say(ControlState.DISARMED)
        bench.until(lambda: seen and seen[-1].state == ControlState.DISARMED, "its state")
        assert "has it died" in call().message, "it is without a heartbeat"
    bench.lives, bench.instance = True, bytes([1] * 16)
    expected = "arm first" if seen_disarmed else "no state that counts"
    bench.until(lambda: expected in call().message, "its heartbeat")
    bench.say(ControlState.HOLD)
    planner.wait = False
    bench.until(lambda: call().success, "a reset")


def test_reset_whose_cancel_is_lost_repeats_it(bench, rig):
    _, planner, _ = rig()
    planner.deaf = 2
    done = moving(bench, planner)
    bench.say(ControlState.FAULT)
    bench.until(done.done, "the answer", 5.0)
    assert planner.cancels >= 3 and len(planner.goals) == 1


def test_reset_at_a_stop_signal_stops_the_arm(bench, rig):
    _, planner, call = rig(stop_topics=["stop", "pedal"])
    stop = bench.node.create_publisher(Bool, "pedal", 10)
    done = moving(bench, planner)
    stop.publish(Bool(data=True))
    bench.until(done.done, "the answer")
    assert not done.result().success and "stop signal" in done.result().message
    assert not call().success and len(planner.goals) == 1
    stop.publish(Bool(data=False))
    planner.wait = False
    bench.until(lambda: call().success, "a reset after the stop")


@pytest.mark.parametrize(
    ("state", "word"),
    [(ControlState.DISARMED, "arm first"), (ControlState.POLICY, "end the episode first")],
)
def test_reset_outside_of_hold_is_refused(bench, rig, state, word):
    _, planner, call = rig()
    bench.say(state)

    def refused():
        answer = call()
        return not answer.success and word in answer.message

    bench.until(refused, "a refusal")
    planner.goals.clear()
    assert not call().success and planner.goals == []


def test_reset_without_the_adapter_is_refused(bench):
    made = []

    def planner(node, _):
        made.append(StandInPlanner(node))
        return made[0]

    bench.add(ResetNode(overrides(**GOAL, require_hold=False), planner))
    answer = bench.call(Trigger, "reset")
    assert not answer.success and "servo_adapter" in answer.message and made[0].goals == []


@pytest.mark.skipif(HAVE_MOVEIT, reason="moveit_msgs is installed here")
def test_reset_node_without_moveit_msgs_names_it(bench):
    with pytest.raises(MissingInterfacesError, match="moveit_msgs"):
        ResetNode(overrides(**GOAL))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"planner": "ompl"}, "planner"),
        ({"planning_group": ""}, "planning_group"),
        ({"goal": "home"}, "goal"),
        ({"goal_state": ""}, "goal_state"),
    ],
)
def test_reset_node_with_bad_parameters_is_refused_by_name(bench, values, word):
    with pytest.raises(ValueError, match=word):
        ResetNode(overrides(**(GOAL | values)))


@pytest.mark.parametrize("end", ["arbiter", "node"])
def test_reset_by_move_group_is_cancelled_with_the_arbiter_or_the_node(
    bench, stand_in_move_group, planning_types, end
):
    """The node with its planner, against a stand-in of the action."""
    client = stand_in_move_group(code=None)

    def planner(node, p):
        return MoveGroupPlanner(node, plan_config(p), planning_types, client=client)

    joints = {"goal": "joints", "goal_joints": ["a"], "goal_positions": [0.1]}
    values = overrides(planning_group="arm", use_servo=False, **joints)
    node = bench.add(ResetNode(values, planner))
    bench.say(ControlState.HOLD)
    bench.until(lambda: not node._may_move(), "the arbiter")
    asking = bench.node.create_client(Trigger, "reset")
    bench.until(asking.service_is_ready, "reset")
    done = asking.call_async(Trigger.Request())
    bench.until(lambda: client.goals, "the goal")
    (asked,) = client.goals[0].request.goal_constraints
    assert asked.joint_constraints[0].joint_name == "a" and client.cancels == 0
    if end == "arbiter":
        bench.lives = False
    else:
        node.shut_down()
    bench.until(done.done, "the answer", 5.0)
    assert client.cancels and not done.result().success


def test_reset_node_that_ends_cancels_the_motion(bench, start_node):
    """Over the real action: what moves the arm must be told before the process goes."""
    action = pytest.importorskip("moveit_msgs.action").MoveGroup
    cancelled, moving = threading.Event(), threading.Event()

    def execute(handle):
        moving.set()
        assert cancelled.wait(scaled(20))
        handle.canceled()
        return action.Result()

    def cancel(_):
        cancelled.set()
        return CancelResponse.ACCEPT

    move_group = Node("stand_in_move_group")
    executor = MultiThreadedExecutor(2)
    executor.add_node(move_group)
    group = ReentrantCallbackGroup()
    server = ActionServer(
        move_group, action, "move_action", execute, callback_group=group, cancel_callback=cancel
    )
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        process = start_node(
            "rlif_moveit", "reset_by_planning", planning_group="arm", goal="joints",
            goal_joints="[a]", goal_positions="[0.1]", use_servo=False, require_hold=False,
        )  # fmt: skip
        client = bench.node.create_client(Trigger, "reset")
        bench.until(client.service_is_ready, "the node")

        def asked():
            client.call_async(Trigger.Request())
            return bench.until(lambda: True, "a turn") and moving.wait(0.5)

        bench.until(asked, "the motion")
        process.send_signal(signal.SIGINT)
        assert cancelled.wait(scaled(10)), "the motion went on without anybody"
        assert process.wait(scaled(10)) == 0
    finally:
        cancelled.set()
        executor.shutdown()
        thread.join(10)
        server.destroy()
        move_group.destroy_node()
