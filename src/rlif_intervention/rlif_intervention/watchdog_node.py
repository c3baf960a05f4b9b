# SPDX-License-Identifier: Apache-2.0
"""Node `watchdog`: zeros to the robot when the arbiter has died or hangs. A process of its own.

Subscribes
    command        geometry_msgs/TwistStamped  the arbiter's heartbeat, with output twist
    arbiter_heartbeat  rlif_msgs/Heartbeat     the same with a joint output
    control_state  rlif_msgs/ControlState      whether it was shut down gracefully (latched)
Publishes
    command        geometry_msgs/TwistStamped  zeros while the arbiter is silent
    joint_command  std_msgs/Float64MultiArray  instead, with output joint_velocity
    /diagnostics   diagnostic_msgs/DiagnosticArray
Calls
    pause_service  std_srvs/SetBool            true, until it is confirmed, when the arbiter is lost
                                               or never comes; by parameter

With output joint_trajectory there is nothing to send: what is under way ends at rest by itself.
Not for lock-step, where commands come as they are answered. This is no safety-rated stop.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from rlif_node.parameters import Param, declare
from rlif_node.qos import LATCHED, RELIABLE
from rlif_node.running import run
from rlif_node.stamps import to_ns
from std_srvs.srv import SetBool

from rlif_msgs.msg import ControlState, Heartbeat

from .arbiter_parameters import OUTPUTS, motion_axes
from .arbitration import ARMED
from .arbitration import ControlState as State
from .diagnostic_messages import diagnostic_array
from .diagnostics import REPORT_PERIOD, Level, Status
from .outputs import JointVelocityOutput, Output, TwistOutput
from .watchdog import PauseCall, Watchdog

PARAMETERS = (
    Param("timeout", 0.3, "s without a command until it acts; above stall_timeout", 0.02, 10.0),
    Param("linger", 1.0, "s of zeros after a graceful shutdown of the arbiter", 0.0, 60.0),
    Param("start_timeout", 10.0, "s without any arbiter until it pauses; 0: never", 0.0, 600.0),
    Param("rate", 50.0, "Hz of its zeros", 5.0, 500.0),
    Param("command_frame", "base", "frame_id of its zeros, as the arbiter's"),
    Param("output", "twist", "as the arbiter's", choices=OUTPUTS),
    Param("axes", ["x", "y", "z"], "as the arbiter's: with joint_velocity how many zeros"),
    Param("pause_service", "", "std_srvs/SetBool to call, e.g. servo_node/pause_servo; empty: no"),
)
LEAST_TIMEOUT = 0.15  # s; three heartbeats


class WatchdogNode(Node):
    """Shell around `Watchdog`."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("watchdog", parameter_overrides=list(overrides))
        p = declare(self, PARAMETERS)
        self._core = Watchdog(p["timeout"], p["linger"], p["start_timeout"])
        self._call = PauseCall()
        self._absent = False
        self._timeout: float = p["timeout"]
        self._service: str = p["pause_service"]
        self._pause = (
            self.create_client(SetBool, p["pause_service"]) if p["pause_service"] else None
        )
        self._connect(p)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self.create_subscription(ControlState, "control_state", self._on_control, LATCHED)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / p["rate"], self._on_timer, clock=steady)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)

    def _connect(self, p: dict[str, Any]) -> None:
        """The arbiter's heartbeat, and the output of its own zeros."""
        self._zeros: Output | None = None
        if p["output"] == "twist":
            self._zeros = TwistOutput(self, (), p["command_frame"])
            self.create_subscription(TwistStamped, "command", self._on_heartbeat, RELIABLE)
            return
        if p["timeout"] < LEAST_TIMEOUT:
            raise ValueError(
                f"timeout is {p['timeout']} s with output {p['output']}; expected {LEAST_TIMEOUT} s or "
                "more: arbiter_heartbeat comes at 20 Hz"
            )
        if p["output"] == "joint_velocity":
            self._zeros = JointVelocityOutput(self, motion_axes(p["axes"]))
        self.create_subscription(Heartbeat, "arbiter_heartbeat", self._on_heartbeat, RELIABLE)

    def _on_heartbeat(self, m: Heartbeat | TwistStamped) -> None:
        self._core.command(to_ns(m.header.stamp), time.monotonic())

    def _on_control(self, m: ControlState) -> None:
        self._core.control(State(m.state) in ARMED)

    def _on_timer(self) -> None:
        send, lost = self._core.check(time.monotonic())
        if lost:
            then = "sending zeros" if self._zeros else "its last trajectory ends at rest"
            self.get_logger().error(f"no command from the arbiter for {self._timeout} s: {then}")
            self._call.want()
        if send and self._zeros:
            stamp = self.get_clock().now().nanoseconds
            self._core.sent_zero(stamp)
            self._zeros.stop(stamp)
        self._follow_pause(time.monotonic())

    def _follow_pause(self, now: float) -> None:
        absent = self._core.absent(now)
        if absent and not self._absent:
            self.get_logger().error("no arbiter since the start: pausing the robot")
            self._call.want()
        self._absent = absent
        if not absent and not self._core.tripped:
            self._call.forget()
        if self._pause is None:
            return
        ticket = self._call.due(self._pause.service_is_ready(), now)
        if ticket is not None:
            call = self._pause.call_async(SetBool.Request(data=True))
            call.add_done_callback(lambda done: self._on_paused(done, ticket))

    def _on_paused(self, call: Future, ticket: int) -> None:
        failed = call.exception()
        answer = None if failed else call.result()
        problem = str(failed) if failed else ""
        if answer is not None and not answer.success:
            problem = answer.message or "it answered no"
        self._call.answered(ticket, problem, time.monotonic())
        if problem:
            self.get_logger().error(f"{self._service} did not pause the robot: {problem}")
        else:
            self.get_logger().warning(f"the robot is paused by {self._service}")

    def _statuses(self) -> list[Status]:
        if self._core.tripped:
            found = [Status("arbiter", Level.ERROR, "the arbiter is silent")]
        elif self._absent:
            found = [Status("arbiter", Level.ERROR, "no arbiter since the start")]
        elif not self._core.ever:
            found = [Status("arbiter", Level.WARN, "no command from an arbiter yet")]
        else:
            found = [Status("arbiter", Level.OK, "the arbiter is alive")]
        if self._pause is None:
            return found
        call = self._call
        if call.problem:
            message = f"the robot is not paused by {self._service}: {call.problem}"
            return [*found, Status("pause", Level.ERROR, message)]
        message = "the robot is paused" if call.confirmed else "ready"
        return [*found, Status("pause", Level.OK, message)]

    def _report(self) -> None:
        name = self.get_fully_qualified_name().lstrip("/")
        array = diagnostic_array(name, self._statuses())
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def main() -> int:
    """Console script `watchdog`."""
    return run("watchdog", WatchdogNode)
