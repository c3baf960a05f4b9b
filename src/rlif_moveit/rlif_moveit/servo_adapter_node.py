# SPDX-License-Identifier: Apache-2.0
"""Node `servo_adapter`: keeps an existing MoveIt Servo in step with the arbiter.

Subscribes
    control_state      rlif_msgs/ControlState     Servo runs only while the arbiter is armed (latched)
    arbiter_heartbeat  rlif_msgs/Heartbeat        ... and its heartbeat comes
    servo_node/status  moveit_msgs/ServoStatus    Humble: std_msgs/Int8; halts become `policy_hold`
    command            geometry_msgs/TwistStamped the arbiter's: Servo is paused when it is zero; with
                                                  `relay` it is converted, and passed on
    joint_command      std_msgs/Float64MultiArray with command_type joint_jog: rad/s of `joints`
    ee_pose            geometry_msgs/PoseStamped  whether the arm follows; with `relay` it turns commands
Publishes
    policy_hold        rlif_msgs/PolicyHold       why the policy must hold; reason_code NONE: it may act
                                                  (latched, 10 Hz and on change)
    servo_command      geometry_msgs/TwistStamped with `relay`: for Servo; stamped as the command
    servo_joint_command  control_msgs/JointJog    with command_type joint_jog
    /diagnostics       diagnostic_msgs/DiagnosticArray  once a second
Services
    pause_servo        std_srvs/SetBool           true: Servo stays paused, armed or not; answers
                                                  when Servo has confirmed it
Calls
    servo_node/switch_command_type, servo_node/pause_servo      servo_interface jazzy
    servo_node/start_servo, servo_node/stop_servo               servo_interface humble

Without `relay` the arbiter's `command` goes straight to Servo, and this node is not in its way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from rlif_node.parameters import Param, declare
from rlif_node.pose_source import TF, subscribe_pose
from rlif_node.qos import LATCHED, LATCHED_10, RELIABLE, RELIABLE_1, SENSOR
from rlif_node.running import run
from rlif_node.states import ControlState as State
from rlif_node.states import HoldReason
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool

from rlif_intervention.arbitration import ARMED
from rlif_intervention.diagnostic_messages import diagnostic_array
from rlif_intervention.diagnostics import Level, Status
from rlif_msgs.msg import ControlState, Heartbeat, PolicyHold

from .commands import UNITS, CommandConfig, CommandConverter
from .interfaces import COMMAND_TYPES, ServoInterfaces, servo_interfaces
from .moveit_version import installed_version, version_problem
from .servo_client import ServoClient
from .servo_status import Dialect
from .standstill import StandstillConfig
from .supervision import Request, ServoSupervisor, SupervisorConfig

DIALECTS = tuple(d.value for d in Dialect)
PARAMETERS = (
    Param("servo_interface", "jazzy", "of the installed MoveIt; jazzy: and newer", choices=DIALECTS),
    Param("servo_node_name", "servo_node", "node name of Servo; its services are NAME/..."),
    Param("command_type", "twist", "command type that Servo is set to", choices=tuple(COMMAND_TYPES)),
    Param("joints", [], "with joint_jog: names for the entries of joint_command", items=str),
    Param("relay", False, "turn commands into Servo's frame, units and point, and pass them on"),
    Param("base_frame", "base", "frame of poses, and of the arbiter's commands unless in the tool's"),
    TF,
    Param("tool_frame", "tool", "frame of the end effector that ee_pose measures"),
    Param("output_frame", "base", "with `relay`: base_frame or tool_frame, as Servo shall get them"),
    Param("tool_offset", [0.0, 0.0, 0.0], "m, tool axes; the point of ee_pose seen from Servo's"),
    Param("command_in_type", "speed_units", "with `relay`: as Servo's", choices=UNITS),
    Param("scale_linear", 0.4, "with unitless: Servo's scale.linear, m/s", 0.001, 10.0),
    Param("scale_rotational", 0.8, "with unitless: Servo's scale.rotational, rad/s", 0.001, 10.0),
    Param("pose_timeout", 0.3, "s; an older ee_pose turns no command", 0.01, 10.0),
    Param("status_timeout", 0.5, "s without a status from a running Servo until hold", 0.05, 10.0),
    Param("halt_dwell", 0.1, "s that a halt lasts until it counts", 0.0, 5.0),
    Param("clear_after", 0.5, "s that the operator must move the arm, Servo well, to clear a halt", 0.0, 10.0),
    Param("call_timeout", 2.0, "s until a service call is given up", 0.1, 30.0),
    Param("retry", 1.0, "s until a refused call is made again", 0.1, 30.0),
    Param("arbiter_timeout", 0.5, "s without a heartbeat of the arbiter until Servo is paused", 0.1, 10.0),
    Param("pause_delay", 0.15, "s of zero commands after a disarm until Servo is paused", 0.0, 2.0),
    Param("pause_deadline", 0.5, "s after a disarm until Servo is paused at the latest", 0.0, 5.0),
    Param("standstill_after", 2.0, "s of commands in vain while Servo slows down until hold; 0: off", 0.0, 60.0),
    Param("standstill_share", 0.2, "of the commanded way; a slowed arm that moves less stands", 0.01, 0.9),
)  # fmt: skip
POLL = 0.1  # s between two looks at the graph, and between two messages on `policy_hold`


def supervisor_config(p: dict[str, Any]) -> SupervisorConfig:
    names = (
        "status_timeout", "halt_dwell", "clear_after", "call_timeout", "retry", "arbiter_timeout",
        "pause_delay", "pause_deadline",
    )  # fmt: skip
    standstill = StandstillConfig(after=p["standstill_after"], share=p["standstill_share"])
    return SupervisorConfig(standstill=standstill, **{name: p[name] for name in names})


def command_config(p: dict[str, Any]) -> CommandConfig:
    names = (
        "base_frame", "tool_frame", "output_frame", "command_in_type", "scale_linear", "scale_rotational",
    )  # fmt: skip
    return CommandConfig(tool_offset=tuple(p["tool_offset"]), **{name: p[name] for name in names})


class ServoAdapterNode(Node):
    """Shell around `ServoSupervisor` and `CommandConverter`.

    interfaces: stand-ins, for tests; None: those of the installed MoveIt
    """

    def __init__(
        self, overrides: Sequence[Parameter] = (), interfaces: ServoInterfaces | None = None
    ) -> None:
        super().__init__("servo_adapter", parameter_overrides=list(overrides))
        p = declare(self, PARAMETERS)
        dialect = Dialect(p["servo_interface"])
        kind: str = p["command_type"]
        self._jog = kind == "joint_jog"
        if self._jog and not p["joints"]:
            raise ValueError("joints is empty; command_type joint_jog needs their names")
        if self._jog and p["relay"]:
            raise ValueError("relay is true, but it turns twists; expected false with joint_jog")
        found = interfaces or servo_interfaces(dialect, self._jog)
        self._core = ServoSupervisor(supervisor_config(p), dialect)
        self._servo = ServoClient(self, p["servo_node_name"], dialect, found, COMMAND_TYPES[kind])
        self._converter = CommandConverter(command_config(p))
        self._interfaces = found
        self._joints: list[str] = list(p["joints"])
        self._pose_timeout: float = p["pose_timeout"]
        self._orientation: tuple[float, ...] | None = None
        self._posed = -np.inf
        self._problem = ""
        self._published_hold: tuple[HoldReason, str] | None = None
        self._pauses: list[Future] = []  # callers of pause_servo who wait
        self._status_topic = self.resolve_topic_name(f"{p['servo_node_name']}/status")
        self._version_problem = version_problem(installed_version())
        if self._version_problem:
            self.get_logger().error(self._version_problem)
        self._connect(p)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(POLL, self._poll, clock=steady)
        self.create_timer(1.0, self._report, clock=steady)

    def _connect(self, p: dict[str, Any]) -> None:
        self._hold = self.create_publisher(PolicyHold, "policy_hold", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self.create_subscription(ControlState, "control_state", self._on_control, LATCHED_10)
        self.create_subscription(Heartbeat, "arbiter_heartbeat", self._on_heartbeat, RELIABLE_1)
        self.create_subscription(
            self._interfaces.status_type, self._status_topic, self._on_status, SENSOR
        )
        # Its callers wait for Servo; meanwhile everything else must go on.
        group = ReentrantCallbackGroup()
        self.create_service(SetBool, "pause_servo", self._on_pause, callback_group=group)
        subscribe_pose(self, p[TF.name], self._on_pose, SENSOR)
        if p["relay"]:
            self._out = self.create_publisher(TwistStamped, "servo_command", RELIABLE_1)
            self.create_subscription(TwistStamped, "command", self._on_command, RELIABLE_1)
        elif not self._jog:
            self.create_subscription(TwistStamped, "command", self._watch_command, SENSOR)
        if self._jog:
            self._jog_type: Any = self._interfaces.joint_jog_type
            self._jog_out = self.create_publisher(self._jog_type, "servo_joint_command", RELIABLE_1)
            self.create_subscription(
                Float64MultiArray, "joint_command", self._on_joint_command, RELIABLE_1
            )

    # ---- inputs

    def _on_control(self, m: ControlState) -> None:
        state = State(m.state)
        self._core.control(state in ARMED, state is State.OPERATOR, time.monotonic())
        self._follow()

    def _on_heartbeat(self, m: Heartbeat) -> None:
        self._core.alive(time.monotonic(), bytes(m.instance_id))

    def _on_status(self, m: Any) -> None:
        self._core.status(self._interfaces.read_code(m), time.monotonic())
        self._publish_hold()

    async def _on_pause(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        self._core.inhibit("asked for on pause_servo, as a reset does" if request.data else "")
        self._follow()
        problem = await self._paused() if request.data else ""
        response.success = not problem
        response.message = problem or ("paused" if request.data else "follows the arbiter")
        return response

    async def _paused(self) -> str:
        """Wait until Servo is paused; else the problem, after `call_timeout`."""
        end = time.monotonic() + self._core.config.call_timeout
        while self._core.paused is not True:
            if time.monotonic() > end:
                return f"Servo has not confirmed the pause: {self._core.reason(end)}"
            turn = Future(executor=self.executor)
            self._pauses.append(turn)
            await turn
        return ""

    def _on_pose(self, m: PoseStamped) -> None:
        p, q = m.pose.position, m.pose.orientation
        self._orientation, self._posed = (q.x, q.y, q.z, q.w), time.monotonic()
        self._core.pose((p.x, p.y, p.z), self._orientation)

    def _watch_command(self, m: TwistStamped) -> None:
        """A command on its way to Servo."""
        linear, angular = m.twist.linear, m.twist.angular
        speeds = (
            math.hypot(linear.x, linear.y, linear.z),
            math.hypot(angular.x, angular.y, angular.z),
        )
        self._core.command(any(speeds), time.monotonic(), speeds)
        self._follow()

    def _on_command(self, m: TwistStamped) -> None:
        self._watch_command(m)
        linear, angular = m.twist.linear, m.twist.angular
        twist = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        fresh = time.monotonic() - self._posed <= self._pose_timeout
        made = self._converter.convert(
            twist, m.header.frame_id, self._orientation if fresh else None
        )
        if made.problem and made.problem != self._problem:
            self.get_logger().error(f"sending zeros: {made.problem}")
        self._problem = made.problem
        out = TwistStamped()
        out.header.stamp, out.header.frame_id = m.header.stamp, made.frame
        v, w = out.twist.linear, out.twist.angular
        v.x, v.y, v.z, w.x, w.y, w.z = made.twist.tolist()
        self._out.publish(out)
        self._publish_hold()

    def _on_joint_command(self, m: Float64MultiArray) -> None:
        """Zeros for what cannot be used: a velocity once sent must be taken back."""
        speeds = list(m.data)
        self._problem = ""
        if len(speeds) != len(self._joints) or not np.isfinite(speeds).all():
            self._problem = (
                f"joint_command is {speeds}; expected {len(self._joints)} finite speeds in rad/s"
            )
            speeds = [0.0] * len(self._joints)
        out = self._jog_type()
        out.header.stamp = self.get_clock().now().to_msg()
        out.header.frame_id = self._converter.config.base_frame
        out.joint_names, out.velocities = self._joints, speeds
        self._jog_out.publish(out)
        self._core.command(any(speeds), time.monotonic())
        self._follow()

    # ---- Servo

    def _poll(self) -> None:
        publishers = self.get_publishers_info_by_topic(self._status_topic)
        ids = frozenset(bytes(i.endpoint_gid).hex() for i in publishers)
        now = time.monotonic()
        self._core.look(now)
        self._core.seen(ids, self._servo.ready, now)
        self._published_hold = None  # published again, changed or not
        self._follow()
        waiting, self._pauses = self._pauses, []
        for turn in waiting:
            turn.set_result(None)

    def _follow(self) -> None:
        now = time.monotonic()
        request = self._core.next_request(now)
        if request is not None:
            ticket = self._core.sent(request, now)
            self._servo.ask(request, lambda problem: self._on_answer(request, ticket, problem))
        self._publish_hold()

    def _on_answer(self, request: Request, ticket: int, problem: str) -> None:
        log = self.get_logger()
        if problem:
            log.error(f"Servo did not {request.value}: {problem}")
        else:
            log.info(f"Servo: {request.value}: done")
        self._core.answered(request, ticket, problem, time.monotonic())
        self._follow()

    # ---- outputs

    def _publish_hold(self) -> None:
        """Publish `policy_hold`, on change and with each poll."""
        hold = self._core.hold(time.monotonic())
        if hold[0] is HoldReason.NONE and self._problem:
            hold = HoldReason.OTHER, self._problem
        if hold != self._published_hold:
            self._published_hold = hold
            self._hold.publish(self._hold_message(*hold))

    def _hold_message(self, code: HoldReason, reason: str) -> PolicyHold:
        message = PolicyHold(reason_code=int(code), reason=reason)
        message.source = self.get_fully_qualified_name()
        message.header.stamp = self.get_clock().now().to_msg()
        return message

    def _report(self) -> None:
        statuses = self._core.diagnostics(time.monotonic())
        if self._problem:
            statuses.append(Status("commands", Level.ERROR, self._problem))
        if self._version_problem:
            statuses.append(Status("MoveIt version", Level.ERROR, self._version_problem))
        self._diagnostics.publish(diagnostic_array(self, statuses))

    def shut_down(self) -> None:
        """Hold the policy: without this node the halts of Servo are not reported."""
        reason = "the servo_adapter has ended: start it again"
        self._hold.publish(self._hold_message(HoldReason.NOT_CONNECTED, reason))


def main() -> int:
    """Console script `servo_adapter`."""
    at_end = ServoAdapterNode.shut_down
    return run("servo_adapter", ServoAdapterNode, at_end=at_end, events=False, shared_memory=False)
