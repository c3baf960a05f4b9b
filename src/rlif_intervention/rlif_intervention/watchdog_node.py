# SPDX-License-Identifier: Apache-2.0
"""Node `watchdog`: zeros to the robot when the arbiter has died or hangs. A process of its own.

Subscribes
    arbiter_heartbeat  rlif_msgs/Heartbeat     whether the arbiter is alive, and whether it is armed
Publishes
    command        geometry_msgs/TwistStamped  zeros while the arbiter is silent
    joint_command  std_msgs/Float64MultiArray  instead, with output joint_velocity
    policy_hold    rlif_msgs/PolicyHold        while a pause that it asked for is in force (latched)
    /diagnostics   diagnostic_msgs/DiagnosticArray
Calls
    pause_service  std_srvs/SetBool            true, until it is confirmed, when an armed arbiter is
                                               lost or none comes; false when a human arms, unless a
                                               servo_adapter does that; by parameter

With output joint_trajectory there is nothing to send: what is under way ends at rest by itself.
Not for lock-step, where commands come as they are answered. This is no safety-rated stop.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from rlif_node.parameters import Param, declare
from rlif_node.qos import LATCHED, RELIABLE
from rlif_node.running import run
from rlif_node.states import ControlState as State
from rlif_node.states import HoldReason
from std_srvs.srv import SetBool

from rlif_msgs.msg import Heartbeat, PolicyHold

from .arbiter_parameters import OUTPUTS, motion_axes
from .arbitration import ARMED
from .diagnostic_messages import diagnostic_array
from .diagnostics import REPORT_PERIOD, Level, Status
from .outputs import JointVelocityOutput, Output, TwistOutput
from .watchdog import PauseCall, Stage, Watchdog

PARAMETERS = (
    Param(
        "timeout",
        0.3,
        "s without a heartbeat, which comes at 20 Hz, until it acts; above stall_timeout",
        0.15,
        10.0,
    ),
    Param("linger", 1.0, "s of zeros after an arbiter that was not armed", 0.0, 60.0),
    Param("start_timeout", 10.0, "s without any arbiter until it pauses; 0: never", 0.0, 600.0),
    Param("rate", 50.0, "Hz of its zeros", 5.0, 500.0),
    Param("command_frame", "base", "frame_id of its zeros, as the arbiter's"),
    Param("output", "twist", "as the arbiter's", choices=OUTPUTS),
    Param("axes", ["x", "y", "z"], "as the arbiter's: with joint_velocity how many zeros"),
    Param("pause_service", "", "std_srvs/SetBool to call, e.g. servo_node/pause_servo; empty: no"),
)
ADAPTER = "servo_adapter"  # name of the node


class WatchdogNode(Node):
    """Shell around `Watchdog`."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("watchdog", parameter_overrides=list(overrides))
        p = declare(self, PARAMETERS)
        self._core = Watchdog(p["timeout"], p["linger"], p["start_timeout"])
        self._call = PauseCall()
        self._absent = False
        self._reason = ""  # of the pause that is asked for
        self._published_hold: tuple[HoldReason, str] = (HoldReason.NONE, "")
        self._timeout: float = p["timeout"]
        self._turn, self._late = time.monotonic(), False
        self._service: str = p["pause_service"]
        self._pause = (
            self.create_client(SetBool, p["pause_service"]) if p["pause_service"] else None
        )
        self._zeros: Output | None = None
        if p["output"] == "twist":
            self._zeros = TwistOutput(self, (), p["command_frame"])
        elif p["output"] == "joint_velocity":
            self._zeros = JointVelocityOutput(self, motion_axes(p["axes"]))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._hold = self.create_publisher(PolicyHold, "policy_hold", LATCHED)
        self._publish_hold()  # withdraws what this node published before it was restarted
        self.create_subscription(Heartbeat, "arbiter_heartbeat", self._on_heartbeat, RELIABLE)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / p["rate"], self._on_timer, clock=steady)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)

    def _on_heartbeat(self, m: Heartbeat) -> None:
        armed = State(m.state) in ARMED
        if not self._core.heartbeat(bytes(m.instance_id), armed, time.monotonic()):
            return
        # A human has armed. servo_adapter then lets Servo run by itself, at the right moment.
        others = self.get_publishers_info_by_topic(self._hold.topic_name)
        if any(info.node_name == ADAPTER for info in others):
            self._call.forget()
        else:
            self._call.release()

    def _on_timer(self) -> None:
        now = time.monotonic()
        # Starved itself, it finds heartbeats in its queue: they are taken before the next turn. Never
        # two turns in a row, or one that is always late would never act.
        self._late = now - self._turn > self._timeout / 2.0 and not self._late
        self._turn = now
        if self._late:
            return
        send, lost = self._core.check(now)
        if lost:
            then = "sending zeros" if self._zeros else "its last trajectory ends at rest"
            reason = f"no heartbeat of the armed arbiter for {self._timeout} s"
            self.get_logger().error(f"{reason}: {then}")
            self._ask_for_pause(reason)
        if send and self._zeros:
            self._zeros.stop(self.get_clock().now().nanoseconds)
        self._follow_pause(now)

    def _ask_for_pause(self, reason: str) -> None:
        if self._pause is not None:
            self._reason = reason
            self._call.want()

    def _follow_pause(self, now: float) -> None:
        absent = self._core.absent(now)
        if absent and not self._absent:
            self.get_logger().error("no arbiter is running: pausing the robot")
            self._ask_for_pause("no arbiter was running")
        self._absent = absent
        if not absent and not self._core.tripped:
            self._call.arbiter_is_back()
        due = self._call.due(self._pause.service_is_ready(), now) if self._pause else None
        if self._pause and due:
            ticket, pauses = due
            call = self._pause.call_async(SetBool.Request(data=pauses))
            call.add_done_callback(lambda done: self._on_answer(done, ticket))
        if self._current_hold() != self._published_hold:
            self._publish_hold()

    def _current_hold(self) -> tuple[HoldReason, str]:
        """The pause, as the arbiter and a person at the robot shall know of it."""
        call = self._call
        if call.stage is Stage.NONE:
            return HoldReason.NONE, ""
        reason = (
            f"the robot was paused by the watchdog with {self._service}, because {self._reason}"
        )
        if call.stage is Stage.RELEASING:
            reason += f"; its release is asked for: {call.problem}" if call.problem else ""
        return HoldReason.SERVO_PAUSED, f"{reason} (undone when the arbiter is armed)"

    def _publish_hold(self) -> None:
        code, reason = self._published_hold = self._current_hold()
        message = PolicyHold(reason_code=int(code), reason=reason)
        message.source = self.get_fully_qualified_name()
        message.header.stamp = self.get_clock().now().to_msg()
        self._hold.publish(message)

    def _on_answer(self, call: Future, ticket: int) -> None:
        failed = call.exception()
        answer = None if failed else call.result()
        problem = str(failed) if failed else ""
        if answer is not None and not answer.success:
            problem = answer.message or "it answered no"
        stage = self._call.stage
        self._call.answered(ticket, problem, time.monotonic())
        done = "pause" if stage is Stage.PAUSING else "release"
        if problem:
            self.get_logger().error(f"{self._service} did not {done} the robot: {problem}")
        else:
            self.get_logger().warning(f"{done} of the robot by {self._service}: confirmed")

    def _statuses(self) -> list[Status]:
        if self._core.tripped:
            found = [Status("arbiter", Level.ERROR, "the arbiter is silent")]
        elif self._absent:
            found = [Status("arbiter", Level.ERROR, "no arbiter is running")]
        elif not self._core.ever:
            found = [Status("arbiter", Level.WARN, "no heartbeat of an arbiter yet")]
        else:
            found = [Status("arbiter", Level.OK, "the arbiter is alive")]
        if self._pause is None:
            return found
        call, reason = self._call, self._current_hold()[1]
        if call.problem:
            message = f"{call.stage.name} with {self._service}: {call.problem}"
            return [*found, Status("pause", Level.ERROR, message)]
        level = Level.WARN if reason else Level.OK
        return [*found, Status("pause", level, reason or "ready")]

    def _report(self) -> None:
        if self._published_hold[0] is not HoldReason.NONE:
            self._publish_hold()
        self._diagnostics.publish(diagnostic_array(self, self._statuses()))


def main() -> int:
    """Console script `watchdog`."""
    return run("watchdog", WatchdogNode, shared_memory=False)
