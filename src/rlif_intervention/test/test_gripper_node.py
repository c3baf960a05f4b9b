"""The gripper's goals: nobody waits, the newest wins, a stop cancels, a grasp is kept."""

from __future__ import annotations

import importlib.util
import math
import time
from types import SimpleNamespace

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from hypothesis import given
from hypothesis import strategies as st
from rclpy.parameter import Parameter
from rclpy.task import Future
from rlif_node.optional import MissingInterfacesError
from rlif_node.qos import LATCHED, RELIABLE
from std_msgs.msg import Float64

from rlif_intervention.gripper import AS_IT_IS, CLOSED, OPEN
from rlif_intervention.gripper_goals import GoalConfig, GripperGoals
from rlif_intervention.gripper_node import ActionGripper, GripperNode
from rlif_msgs.msg import ControlState

HAVE_CONTROL = importlib.util.find_spec("control_msgs") is not None
EVENTS = st.sampled_from(
    ["open", "close", "as it is", "nan", "arm", "stop", "done", "failed", "late", "wait"]
)


def goals(**changes):
    made = GripperGoals(GoalConfig(**changes))
    made.armed(True)
    made.command(AS_IT_IS, 0.0)
    return made


@given(st.lists(EVENTS, max_size=80), st.booleans())
def test_a_goal_is_sent_only_as_commanded_and_none_is_under_way_after_a_stop(events, ready):
    g, now, ticket, armed, commanded = GripperGoals(GoalConfig()), 0.0, 0, False, AS_IT_IS
    values = {"open": OPEN, "close": CLOSED, "as it is": AS_IT_IS, "nan": math.nan}
    for event in events:
        now += 0.1
        if event in values:
            commanded = values[event] if event != "nan" else AS_IT_IS
            g.command(values[event], now)
        elif event in ("arm", "stop"):
            armed = event == "arm"
            g.armed(armed)
        elif event in ("done", "failed", "late"):
            g.finished(ticket - (event == "late"), "broken" if event == "failed" else "", now)
        before = g.under_way
        order = g.step(ready, now)
        if order is not None and order.send:
            assert armed and ready and order.target == commanded and order.ticket == ticket + 1
            ticket = order.ticket
        elif order is not None:
            assert before and order.ticket == ticket, "the newest, and only once"
        if not armed:
            assert not g.under_way
        assert order is None or g.step(ready, now) is None, "nothing is ordered twice"


def test_hold_keeps_the_goal_and_the_newest_command_takes_its_place():
    g = goals()
    g.command(CLOSED, 0.0)
    first = g.step(True, 0.0)
    g.command(CLOSED, 0.3)
    assert g.step(True, 0.3) is None and g.under_way
    g.command(OPEN, 0.4)
    second = g.step(True, 0.4)
    assert (second.ticket, second.target) == (first.ticket + 1, OPEN)
    g.finished(first.ticket, "preempted", 0.5)
    assert g.under_way and not g.problem, "what an older goal came to concerns nobody"


def test_a_silent_arbiter_is_a_stop_and_a_grasp_that_is_done_is_not_touched():
    g = goals(command_timeout=0.5)
    g.command(CLOSED, 0.0)
    order = g.step(True, 0.0)
    assert g.step(True, 0.4) is None
    cancel = g.step(True, 0.6)
    assert not cancel.send and cancel.ticket == order.ticket
    g.command(CLOSED, 1.0)
    assert g.step(True, 1.0) is None, "of an arbiter that hung: nobody asked anew"
    g.command(AS_IT_IS, 1.0)
    g.command(CLOSED, 1.0)
    order = g.step(True, 1.0)
    g.finished(order.ticket, "", 1.1)
    assert g.step(True, 5.0) is None, "held"


@pytest.mark.parametrize("order", ["stop first", "command first"])
def test_after_a_stop_the_old_command_is_no_new_wish_in_whatever_order_it_is_heard(order):
    g = goals()
    g.command(CLOSED, 0.0)
    g.step(True, 0.0)
    if order == "command first":
        g.command(AS_IT_IS, 0.1)
    g.armed(False)
    assert not g.step(True, 0.1).send
    if order == "stop first":
        g.armed(True)
        g.command(CLOSED, 0.2)  # still on its way when the stop came
        assert g.step(True, 0.2) is None and "since the last stop" in g.words()
    g.command(AS_IT_IS, 0.3)
    g.armed(True)
    g.command(CLOSED, 0.4)
    assert g.step(True, 0.4).send


def test_no_result_in_time_is_said_and_tried_again_while_it_is_commanded():
    g = goals(goal_timeout=2.0, retry=1.0, command_timeout=100.0)
    g.command(CLOSED, 0.0)
    g.step(True, 0.0)
    assert not g.step(True, 2.1).send and "no result within 2.0 s" in g.words()
    assert g.step(True, 3.0) is None
    assert g.step(True, 3.2).send and not g.problem


def test_without_a_server_it_says_so_and_sends_as_soon_as_there_is_one():
    g = goals()
    g.command(OPEN, 0.0)
    assert g.step(False, 0.0) is None and "driver" in g.words()
    assert g.step(True, 0.1).send


@pytest.mark.parametrize("bad", [{"retry": 0.0}, {"goal_timeout": math.nan}])
def test_times_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="gripper_"):
        GoalConfig(**bad)


# ---- the action client: a stand-in that answers when it is told to


class Server:
    """What ActionGripper sees of an action server. Futures are done when `answer` says so."""

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
def test_a_result_comes_when_it_comes_and_an_object_between_the_fingers_is_one(action, end, good):
    server, gripper, ended = action
    gripper.send(1, 0.08)
    server.accept()
    assert server.sent == [0.08] and not ended
    server.end(**end)
    assert ended[0][0] == 1 and bool(ended[0][1]) is not good


def test_a_goal_that_is_accepted_after_the_stop_is_cancelled_and_older_ones_too(action):
    server, gripper, _ = action
    gripper.send(1, 0.0)
    server.accept()
    gripper.send(2, 0.08)
    gripper.cancel(2)
    assert server.cancelled == [0], "it goes on where its successor is refused"
    server.accept()
    assert server.cancelled == [0, 1] and gripper.settled()


def test_a_refused_goal_is_a_failure(action):
    server, gripper, ended = action
    server.accepts = False
    gripper.send(1, 0.0)
    server.accept()
    assert ended == [(1, "the goal was refused")]


# ---- the node, over DDS


class Driver:
    """Arbiter's voice and gripper's ear."""

    def __init__(self, graph):
        self.world = graph.world
        self.commands = self.world.create_publisher(Float64, "gripper_command", RELIABLE)
        self.control = self.world.create_publisher(ControlState, "control_state", LATCHED)
        self.positions, self.value, self.statuses = [], None, {}
        self.world.create_timer(0.02, self._repeat)
        self.world.create_subscription(DiagnosticArray, "/diagnostics", self._report, RELIABLE)

    def listen(self):
        self.world.create_subscription(
            Float64, "gripper_position", lambda m: self.positions.append(m.data), RELIABLE
        )

    def _repeat(self):
        if self.value is not None:
            self.commands.publish(Float64(data=self.value))

    def _report(self, message):
        self.statuses |= {s.name.split(": ")[-1]: s for s in message.status}

    def say(self, state):
        self.control.publish(ControlState(state=state))


def rest(graph, driver, state):
    """As an arbiter that was armed just now."""
    driver.value = AS_IT_IS
    driver.say(state)

    def heard():
        return "as it is" in getattr(driver.statuses.get("gripper"), "message", "")

    graph.until(heard, what="rest")


def params(**values):
    return [Parameter(name, value=value) for name, value in values.items()]


@pytest.mark.ros
def test_a_position_on_a_topic_once_with_each_change(make_graph):
    graph = make_graph(lock_step=False)
    driver = Driver(graph)
    graph.add(GripperNode(params(gripper_output="topic", gripper_open=0.07)))
    rest(graph, driver, ControlState.POLICY)
    driver.value = OPEN
    graph.until(lambda: "driver running" in getattr(driver.statuses.get("gripper"), "message", ""),
                what="word of a driver that is missing")  # fmt: skip
    driver.listen()
    graph.until(lambda: driver.positions == [0.07], what="open")
    driver.value = CLOSED
    graph.until(lambda: driver.positions == [0.07, 0.0], what="closed")
    driver.say(ControlState.HOLD)
    driver.value = CLOSED
    driver.say(ControlState.FAULT)
    driver.value = OPEN
    driver.statuses.clear()
    graph.until(lambda: driver.statuses, what="a second in FAULT")
    assert driver.positions == [0.07, 0.0], "no motion in FAULT, and no repetition"


@pytest.mark.ros
def test_a_slow_gripper_holds_nobody_up_and_a_stop_cancels(make_graph):
    """Pitfall: a gripper call blocked the control loop for 0.6 s."""
    graph = make_graph(lock_step=False)
    driver, server = Driver(graph), Server()
    made = []

    def actuator(finished):
        made.append(ActionGripper(server, lambda p: p, finished))
        return made[-1]

    node = graph.add(GripperNode(params(gripper_goal_timeout=30.0), actuator))
    rest(graph, driver, ControlState.OPERATOR)
    driver.value = CLOSED
    graph.until(lambda: server.sent == [0.0], what="a goal")
    server.accept()
    began = time.monotonic()
    node._step()
    assert time.monotonic() - began < 0.1, "its result is still out"
    driver.value = OPEN
    graph.until(lambda: server.sent == [0.0, 0.08], what="the newest goal")
    server.accept()
    driver.say(ControlState.FAULT)
    graph.until(lambda: 1 in server.cancelled, what="a cancellation")
    driver.say(ControlState.HOLD)
    driver.value = AS_IT_IS
    driver.statuses.clear()
    graph.until(lambda: driver.statuses, what="a second after arming again")
    assert len(server.sent) == 2, "nothing moves until somebody asks anew"


@pytest.mark.ros
@pytest.mark.skipif(HAVE_CONTROL, reason="control_msgs is installed")
def test_without_control_msgs_it_says_what_is_missing(make_graph):
    make_graph(lock_step=False)
    with pytest.raises(MissingInterfacesError, match="control-msgs.*|gripper_output action"):
        GripperNode()


@pytest.mark.skipif(not HAVE_CONTROL, reason="needs control_msgs")
def test_a_real_action_server_gets_goals_and_cancellations(make_graph):
    from control_msgs.action import GripperCommand
    from rclpy.action import ActionServer, CancelResponse
    from rclpy.callback_groups import ReentrantCallbackGroup

    graph = make_graph(lock_step=False)
    driver, seen = Driver(graph), []
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
    graph.add(GripperNode(params(gripper_max_effort=20.0)))
    rest(graph, driver, ControlState.POLICY)
    driver.value = CLOSED
    graph.until(lambda: seen == [0.0], what="closed")
    done = lambda: "closed, done" in getattr(driver.statuses.get("gripper"), "message", "")  # noqa: E731
    graph.until(done, what="the result")
    driver.value = OPEN
    graph.until(lambda: seen == [0.0, 0.08], what="opening")
    driver.say(ControlState.FAULT)
    graph.until(lambda: seen[-1] == "cancelled", what="a cancellation")


@pytest.mark.ros
def test_two_positions_that_are_one_are_refused(make_graph):
    make_graph(lock_step=False)
    with pytest.raises(ValueError, match="gripper_open and gripper_closed are both"):
        GripperNode(params(gripper_output="topic", gripper_open=0.0))
