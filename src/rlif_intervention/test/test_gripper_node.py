# SPDX-License-Identifier: Apache-2.0
"""The gripper node: what it sends to an action server or a topic, and when it cancels."""

from __future__ import annotations

import importlib.util
import time
from types import SimpleNamespace

import pytest
from rclpy.task import Future
from rlif_node.optional import MissingInterfacesError
from rlif_node.qos import LATCHED, RELIABLE
from ros_graph import params
from std_msgs.msg import Float64

from rlif_intervention import gripper_node
from rlif_intervention.gripper import AS_IT_IS, CLOSED, OPEN
from rlif_intervention.gripper_node import ActionGripper, GripperNode
from rlif_msgs.msg import ControlState

HAVE_CONTROL = importlib.util.find_spec("control_msgs") is not None

# ---- the action client, with a stand-in for the server


class Server:
    """What ActionGripper sees of an action server. A future is done when the test ends it."""

    def __init__(self):
        self.sent, self.cancelled, self.accepts = [], [], True
        self._answers, self._results = [], []

    def server_is_ready(self):
        return True

    def send_goal_async(self, goal):
        self.sent.append(goal)
        self._answers.append(Future())
        self._results.append(Future())
        return self._answers[-1]

    def accept(self, index=-1):
        index = range(len(self.sent))[index]
        self._answers[index].set_result(
            SimpleNamespace(
                accepted=self.accepts,
                get_result_async=lambda: self._results[index],
                cancel_goal_async=lambda: self._cancel(index),
            )
        )

    def _cancel(self, index):
        self.cancelled.append(index)
        done = Future()
        done.set_result(None)
        return done

    def end(self, status, stalled=False, reached=False, index=-1):
        result = SimpleNamespace(stalled=stalled, reached_goal=reached)
        self._results[index].set_result(SimpleNamespace(status=status, result=result))


@pytest.fixture
def action():
    server, ended = Server(), []
    return server, ActionGripper(server, lambda p: p, lambda *said: ended.append(said)), ended


@pytest.mark.parametrize(
    ("end", "good"),
    [({"status": 4}, True), ({"status": 6, "stalled": True}, True), ({"status": 6}, False)],
)
def test_action_gripper_with_a_result_or_an_object_between_the_fingers_is_done(action, end, good):
    server, gripper, ended = action
    gripper.send(1, 0.08)
    server.accept()
    assert server.sent == [0.08] and not ended
    server.end(**end)
    assert ended[0][0] == 1 and bool(ended[0][1]) is not good


def test_action_gripper_with_a_goal_accepted_after_the_stop_cancels_it_and_older_ones(action):
    server, gripper, _ = action
    gripper.send(1, 0.0)
    server.accept()
    gripper.send(2, 0.08)
    gripper.cancel(2)
    assert server.cancelled == [0], "it goes on where its successor is refused"
    server.accept()
    assert server.cancelled == [0, 1] and gripper.settled()


def test_action_gripper_with_a_refused_goal_reports_a_failure(action):
    server, gripper, ended = action
    server.accepts = False
    gripper.send(1, 0.0)
    server.accept()
    assert ended == [(1, "the goal was refused")]


# ---- the node, over DDS


class Gripper:
    """The node, the arbiter's side of it, and a driver that takes positions on a topic."""

    def __init__(self, graph, make, state):
        self.graph, self.value, self.positions = graph, AS_IT_IS, []
        world = graph.world
        self._commands = world.create_publisher(Float64, "gripper_command", RELIABLE)
        self._control = world.create_publisher(ControlState, "control_state", LATCHED)
        world.create_timer(0.02, lambda: self._commands.publish(Float64(data=self.value)))
        self.node = graph.add(make())
        self.publish(state)
        graph.status("gripper", "as it is")  # as of an arbiter that was armed just now

    def connect_driver(self):
        self.graph.world.create_subscription(
            Float64, "gripper_position", lambda m: self.positions.append(m.data), RELIABLE
        )

    def publish(self, state):
        self._control.publish(ControlState(state=state))

    def until_reported(self):
        """A report later: everything that was sent has been acted on."""
        self.graph.world.statuses.clear()
        self.graph.until(lambda: self.graph.world.statuses, "a report")


@pytest.fixture
def gripper(make_graph, monkeypatch):
    monkeypatch.setattr(gripper_node, "REPORT_PERIOD", 0.1)
    return lambda make, state: Gripper(make_graph(lock_step=False), make, state)


@pytest.mark.ros
def test_gripper_node_with_a_topic_sends_a_position_once_with_each_change(gripper):
    values = {"gripper_output": "topic", "gripper_open": 0.07, "gripper_command_timeout": 5.0}
    g = gripper(lambda: GripperNode(params(**values)), ControlState.POLICY)
    g.value = OPEN
    g.graph.status("gripper", "driver running")
    g.connect_driver()
    g.graph.until(lambda: g.positions == [0.07], "open")
    g.value = CLOSED
    g.graph.until(lambda: g.positions == [0.07, 0.0], "closed")
    g.publish(ControlState.HOLD)
    g.publish(ControlState.FAULT)
    g.graph.status("gripper", "since the last stop")
    g.value = OPEN
    g.until_reported()
    g.until_reported()
    assert g.positions == [0.07, 0.0], "no motion in FAULT, and no repetition"


@pytest.mark.ros
def test_gripper_node_with_a_slow_server_waits_for_nothing_and_cancels_on_a_stop(gripper):
    """Pitfall: a gripper call blocked the control loop for 0.6 s."""
    server = Server()
    values = params(gripper_goal_timeout=30.0, gripper_command_timeout=5.0)
    g = gripper(
        lambda: GripperNode(values, lambda done: ActionGripper(server, lambda p: p, done)),
        ControlState.OPERATOR,
    )
    g.value = CLOSED
    g.graph.until(lambda: server.sent == [0.0], "a goal")
    server.accept()
    began = time.thread_time()
    g.node._step()
    assert time.thread_time() - began < 0.1, "its result is still out"
    g.value = OPEN
    g.graph.until(lambda: server.sent == [0.0, 0.08], "the newest goal")
    server.accept()
    g.publish(ControlState.FAULT)
    g.graph.until(lambda: 1 in server.cancelled, "a cancellation")
    g.publish(ControlState.HOLD)
    g.value = AS_IT_IS
    g.graph.status("gripper", "as it is")
    g.until_reported()
    assert len(server.sent) == 2, "nothing moves until somebody asks anew"


@pytest.mark.ros
@pytest.mark.skipif(HAVE_CONTROL, reason="control_msgs is installed")
def test_gripper_node_without_control_msgs_names_what_is_missing(make_graph):
    make_graph(lock_step=False)
    with pytest.raises(MissingInterfacesError, match="control-msgs.*|gripper_output action"):
        GripperNode()


@pytest.mark.ros
@pytest.mark.skipif(not HAVE_CONTROL, reason="needs control_msgs")
def test_gripper_node_with_a_real_action_server_sends_goals_and_cancellations(gripper, make_graph):
    from control_msgs.action import GripperCommand
    from rclpy.action import ActionServer, CancelResponse
    from rclpy.callback_groups import ReentrantCallbackGroup

    g = gripper(lambda: GripperNode(params(gripper_max_effort=20.0)), ControlState.POLICY)
    graph, seen = g.graph, []
    cancelled = Future(executor=graph.executor)

    def cancel(_):
        cancelled.set_result(None)
        return CancelResponse.ACCEPT

    async def execute(handle):
        seen.append(handle.request.command.position)
        if handle.request.command.position > 0.0:  # opening takes for ever here
            await cancelled
            seen.append("cancelled")
            handle.canceled()
        else:
            handle.succeed()
        return GripperCommand.Result(reached_goal=not handle.is_cancel_requested)

    ActionServer(
        graph.world, GripperCommand, "gripper_controller/gripper_cmd", execute,
        cancel_callback=cancel, callback_group=ReentrantCallbackGroup(),
    )  # fmt: skip
    g.value = CLOSED
    graph.until(lambda: seen == [0.0], "closed")
    graph.status("gripper", "closed, done")
    g.value = OPEN
    graph.until(lambda: seen == [0.0, 0.08], "opening")
    g.publish(ControlState.FAULT)
    graph.until(lambda: seen[-1] == "cancelled", "a cancellation")


@pytest.mark.ros
def test_gripper_node_with_two_equal_positions_is_refused(make_graph):
    make_graph(lock_step=False)
    with pytest.raises(ValueError, match="gripper_open and gripper_closed are both"):
        GripperNode(params(gripper_output="topic", gripper_open=0.0))
