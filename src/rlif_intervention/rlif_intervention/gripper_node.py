# SPDX-License-Identifier: Apache-2.0
"""Node `gripper`: does what the arbiter commands of the gripper. A process of its own.

Subscribes
    gripper_command  std_msgs/Float64        of the arbiter, again and again: 1 open, -1 closed, 0 as
                                             it is; silence counts as a stop
    control_state    rlif_msgs/ControlState  FAULT, DISARMED: what is under way is cancelled (latched)
Publishes
    gripper_position std_msgs/Float64        with gripper_output topic: once with each change
    /diagnostics     diagnostic_msgs/DiagnosticArray  once a second: done, on its way, or what failed
Calls
    gripper_action   control_msgs/GripperCommand  an action, with gripper_output action

An action takes as long as the fingers do. No callback waits for it: goals are sent, and their results
come when they come, so that the arbiter, which is another process, never notices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from rlif_node.optional import require
from rlif_node.parameters import Param, declare
from rlif_node.qos import LATCHED, RELIABLE, RELIABLE_1
from rlif_node.running import run
from rlif_node.states import ControlState as State
from std_msgs.msg import Float64

from rlif_msgs.msg import ControlState

from .arbitration import ARMED
from .diagnostic_messages import diagnostic_array
from .diagnostics import REPORT_PERIOD, Level, Status
from .gripper import OPEN
from .gripper_goals import GoalConfig, GripperGoals

OUTPUTS = ("action", "topic")
PARAMETERS = (
    Param("gripper_output", "action", "control_msgs/GripperCommand, or a Float64", choices=OUTPUTS),
    Param("gripper_action", "/gripper_controller/gripper_cmd", "name of the action"),
    Param("gripper_open", 0.08, "position when open, in the driver's unit: m or rad", -10.0, 10.0),
    Param("gripper_closed", 0.0, "position when closed, likewise", -10.0, 10.0),
    Param("gripper_max_effort", 0.0, "N, with the action; 0: the driver's own", 0.0, 1000.0),
    Param("gripper_command_timeout", 0.5, "s of a silent arbiter until it stops", 0.05, 10.0),
    Param("gripper_goal_timeout", 5.0, "s that a goal may take", 0.1, 60.0),
    Param("gripper_retry", 1.0, "s from a failure to the next try", 0.1, 60.0),
)
PERIOD = 0.05  # s between two looks; a new command does not wait for it
SHUTDOWN_TIMEOUT = 0.5  # s at most, for the last cancellation to be confirmed
SUCCEEDED = 4  # action_msgs/GoalStatus


class Actuator(Protocol):
    """Where goals go. Nothing here waits."""

    def ready(self) -> bool: ...
    def send(self, ticket: int, position: float) -> None: ...
    def cancel(self, ticket: int) -> None: ...
    def settled(self) -> bool: ...  # no cancellation waits for its confirmation


class TopicGripper:
    """A position on a topic: done when it is out. There is nothing to cancel."""

    def __init__(self, node: Node, finished: Callable[[int, str], None]) -> None:
        self._publisher = node.create_publisher(Float64, "gripper_position", RELIABLE_1)
        self._finished = finished

    def ready(self) -> bool:
        return bool(self._publisher.get_subscription_count() > 0)

    def send(self, ticket: int, position: float) -> None:
        self._publisher.publish(Float64(data=position))
        self._finished(ticket, "")

    def cancel(self, ticket: int) -> None:
        """The driver goes on to the position that it has."""

    def settled(self) -> bool:
        return True


class ActionGripper:
    """client: an action client, or a stand-in of its shape; make_goal: a goal for a position"""

    def __init__(
        self, client: Any, make_goal: Callable[[float], Any], finished: Callable[[int, str], None]
    ) -> None:
        self._client, self._make_goal, self._finished = client, make_goal, finished
        self._handles: dict[int, Any] = {}  # of goals under way, by ticket
        self._cancelled = 0  # tickets up to this one shall not go on
        self._cancels: list[Future] = []

    def ready(self) -> bool:
        return bool(self._client.server_is_ready())

    def send(self, ticket: int, position: float) -> None:
        call = self._client.send_goal_async(self._make_goal(position))
        call.add_done_callback(lambda done: self._on_answer(ticket, done))

    def cancel(self, ticket: int) -> None:
        """Older ones too: they go on if the driver has refused what was to take their place."""
        self._cancelled = ticket
        self._cancels = [self._handles[t].cancel_goal_async() for t in self._handles if t <= ticket]

    def settled(self) -> bool:
        return all(call.done() for call in self._cancels)

    def _on_answer(self, ticket: int, call: Future) -> None:
        if call.exception() is not None:
            self._finished(ticket, f"the goal was not sent: {call.exception()}")
            return
        handle = call.result()
        if not handle.accepted:
            self._finished(ticket, "the goal was refused")
            return
        if ticket <= self._cancelled:  # stopped before it was accepted
            self._cancels.append(handle.cancel_goal_async())
            return
        self._handles[ticket] = handle
        handle.get_result_async().add_done_callback(lambda done: self._on_result(ticket, done))

    def _on_result(self, ticket: int, call: Future) -> None:
        self._handles.pop(ticket, None)
        if call.exception() is not None:
            self._finished(ticket, f"no result: {call.exception()}")
            return
        answer = call.result()
        # Stalled: the fingers have met something, which is what closing is for.
        done = answer.status == SUCCEEDED or answer.result.stalled or answer.result.reached_goal
        self._finished(ticket, "" if done else f"the goal ended with status {answer.status}")


class GripperNode(Node):
    """Shell around `GripperGoals`.

    actuator: a stand-in for tests, made with what it calls when a goal has ended; None: the real one
    """

    def __init__(
        self,
        overrides: Sequence[Parameter] = (),
        actuator: Callable[[Callable[[int, str], None]], Actuator] | None = None,
    ) -> None:
        super().__init__("gripper", parameter_overrides=list(overrides))
        p = declare(self, PARAMETERS)
        if p["gripper_open"] == p["gripper_closed"]:
            raise ValueError(
                f"gripper_open and gripper_closed are both {p['gripper_open']}; expected two positions"
            )
        self._open, self._closed = p["gripper_open"], p["gripper_closed"]
        names = ("command_timeout", "goal_timeout", "retry")
        self._core = GripperGoals(GoalConfig(**{n: p[f"gripper_{n}"] for n in names}))
        self._actuator = actuator(self._finished) if actuator else self._make_actuator(p)
        self._reported = ""
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self.create_subscription(Float64, "gripper_command", self._on_command, RELIABLE_1)
        self.create_subscription(ControlState, "control_state", self._on_control, LATCHED)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(PERIOD, self._step, clock=steady)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)

    def _make_actuator(self, p: dict[str, Any]) -> Actuator:
        if p["gripper_output"] == "topic":
            return TopicGripper(self, self._finished)
        needed_for = "gripper_output action (or set it to topic)"
        kind = require("control_msgs", "action", needed_for).GripperCommand
        effort = p["gripper_max_effort"]

        def goal(position: float) -> Any:
            made = kind.Goal()
            made.command.position, made.command.max_effort = position, effort
            return made

        return ActionGripper(ActionClient(self, kind, p["gripper_action"]), goal, self._finished)

    def _on_command(self, m: Float64) -> None:
        self._core.command(m.data if math.isfinite(m.data) else 0.0, time.monotonic())
        self._step()

    def _on_control(self, m: ControlState) -> None:
        self._core.armed(State(m.state) in ARMED)
        self._step()

    def _finished(self, ticket: int, problem: str) -> None:
        self._core.finished(ticket, problem, time.monotonic())

    def _step(self) -> None:
        order = self._core.step(self._actuator.ready(), time.monotonic())
        if order is not None and order.send:
            position = self._open if order.target == OPEN else self._closed
            self._actuator.send(order.ticket, position)
        elif order is not None:
            self._actuator.cancel(order.ticket)
        if self._core.problem and self._core.problem != self._reported:
            self.get_logger().error(f"gripper: {self._core.problem}")
        self._reported = self._core.problem

    def _report(self) -> None:
        level = Level.ERROR if self._core.problem else Level.OK
        status = Status("gripper", level, self._core.summary())
        self._diagnostics.publish(diagnostic_array(self, [status]))

    def shut_down(self) -> None:
        """What is under way is cancelled, and not before that has arrived; what is held stays held."""
        self._core.armed(False)
        self._step()
        end = time.monotonic() + SHUTDOWN_TIMEOUT
        executor = self.executor
        while executor and not self._actuator.settled() and time.monotonic() < end:
            executor.spin_once(timeout_sec=PERIOD)


def main() -> int:
    """Console script `gripper`."""
    at_end = GripperNode.shut_down
    return run("gripper", GripperNode, at_end=at_end, events=False, shared_memory=False)
