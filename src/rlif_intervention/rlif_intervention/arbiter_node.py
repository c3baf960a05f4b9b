# SPDX-License-Identifier: Apache-2.0
"""Node `arbiter`: selects the control source and limits its commands.

Subscribes
    observation_tick  rlif_msgs/ObservationTick  the ticks, or why there is no observation
    policy_action  rlif_msgs/PolicyAction      the action of the policy
    joy            sensor_msgs/Joy             the operator's device, with the arm button (others
                                               by parameter: rlif_intervention.device_inputs)
    episode        rlif_msgs/Episode           a running episode allows motion (latched)
    episode_heartbeat  rlif_msgs/Heartbeat     whether the episode node is alive
    arbiter_heartbeat  rlif_msgs/Heartbeat     of other arbiters: only the oldest may act
    ee_pose        geometry_msgs/PoseStamped   whether the arm follows; with a workspace box in
                                               command_frame; from tf instead with `ee_pose.tf`
    joint_states   sensor_msgs/JointState      only with a joint output
    stop           std_msgs/Bool               true: FAULT (latched); more of them by parameter,
                                               one for each that may stop
    policy_hold    rlif_msgs/PolicyHold        reason why the policy must not act, e.g. Servo has
                                               halted; reason_code NONE: it may (latched)
Publishes
    command        geometry_msgs/TwistStamped  at command_rate; zeros without an active source
    joint_command  std_msgs/Float64MultiArray  instead, with output joint_velocity: rad/s
    joint_trajectory  trajectory_msgs/JointTrajectory  instead, with output joint_trajectory: while
                                               the arm moves, each ending at rest
    gripper_command  std_msgs/Float64          with the axis gripper, with each command: 1 open,
                                               -1 closed, 0 as it is
    decision       rlif_msgs/Decision          one per tick of an episode
    intervention   rlif_msgs/InterventionEvent a take-over begins, or ends
    control_state  rlif_msgs/ControlState      on change, and at 1 Hz (latched)
    operator_buttons  rlif_msgs/OperatorButtons  which buttons of a device were pressed
    arbiter_heartbeat  rlif_msgs/Heartbeat     20 Hz
    /diagnostics   diagnostic_msgs/DiagnosticArray  once a second, a status per concern
Services
    arm            std_srvs/SetBool            true: arm; false: disarm

Parameters: rlif_intervention.arbiter_parameters. Lock-step: docs/architecture.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import qos_profile_sensor_data
from rlif_node.joints import JointError, JointMerger
from rlif_node.parameters import declare
from rlif_node.pose_source import TF, subscribe_pose
from rlif_node.qos import LATCHED, LATCHED_10, RELIABLE, RELIABLE_1, RELIABLE_100, SENSOR
from rlif_node.running import run
from rlif_node.stamps import clock_of, to_msg, to_ns
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64
from std_srvs.srv import SetBool

from rlif_msgs.msg import (
    ControlState,
    Decision,
    Episode,
    Heartbeat,
    InterventionEvent,
    ObservationTick,
    OperatorButtons,
    PolicyAction,
    PolicyHold,
)

from .arbiter import Arbiter, Command
from .arbiter_messages import decision_message, intervention_message
from .arbiter_parameters import PARAMETERS, arbiter_config
from .cadence import Cadence
from .command_publishers import CommandPublishers
from .device_inputs import Handlers, device_names, make_rack
from .devices import DeviceRack, Reading
from .diagnostic_messages import diagnostic_array
from .diagnostics import REPORT_PERIOD, Level, PeriodMeter, Status, arbiter_statuses
from .instances import LISTEN, Peers, own_instance_id
from .lock_step import LockStep
from .outputs import make_output
from .policy_hold import hold_reason

HEARTBEAT_PERIOD = 0.05  # s; planners that move the arm wait for this heartbeat
GRAPH_PERIOD = 0.5  # s between two looks at who publishes commands
LISTEN_BEATS = round(LISTEN / HEARTBEAT_PERIOD)
ANOTHER, FOREIGN = "another arbiter", "foreign commands"  # causes of a fault
SHUTDOWN_TIMEOUT = Duration(seconds=0.5)  # s for each of the last messages to arrive


class ArbiterNode(Node):
    """Shell around `Arbiter`: in real time on a timer, in lock-step on messages."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("arbiter", parameter_overrides=list(overrides))
        p = declare(self, PARAMETERS)
        config = arbiter_config(p)
        self._joints = JointMerger(config.limits.axes if p["output"] != "twist" else ())
        self._frame: str = p["command_frame"]
        self._now = clock_of(self)
        self._core = Arbiter(config, self._make_rack(p))
        self._core.limiter.speed_scale = p["speed_scale"]
        self._stall_timeout: float = p["stall_timeout"]
        self._last_output: float | None = None
        self._published: tuple[Any, ...] | None = None
        self._instance_id = own_instance_id()
        self._peers = Peers(self._instance_id)
        self._yields = False  # to an arbiter that was started before
        self._listens = 0 if p["lock_step"] else LISTEN_BEATS  # heartbeats until it acts
        self._episode_timeout: float = 0.0 if p["lock_step"] else p["episode_timeout"]
        self._episode_alive: float | None = None  # time of its last heartbeat
        self._command_publishers = CommandPublishers(self.get_namespace(), self.get_name())
        self._fault_on_foreign: bool = p["fault_on_foreign_command"]
        self._lock_step: LockStep[PolicyAction] | None = None
        if p["lock_step"]:
            if not self.get_parameter("use_sim_time").value:
                raise ValueError("lock_step is true and use_sim_time false: set use_sim_time")
            operator = (device_names(p)[0],) if p["require_operator"] else ()
            needs = operator + ("ee_pose",) * bool(config.limits.needs)
            self._lock_step = LockStep(p["lock_step_timeout"], needs)
        self._output = make_output(self, p["output"], config.limits, p["command_frame"])
        self._advertise(with_gripper=config.gripper is not None)
        measured = config.limits.needs or ("ee_pose" if config.motion.timeout else "")
        self._subscribe(measured, p["stop_topics"], p[TF.name])
        self.add_on_set_parameters_callback(self._on_parameters)
        rate, tick = (
            (p["control_rate"], self._idle)
            if self._lock_step
            else (p["command_rate"], self._on_timer)
        )
        # A steady clock: zeros must come out even when the clock of a simulation stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._meter = PeriodMeter(1.0 / p["command_rate"])
        self._cadence = Cadence(1.0 / rate)
        self._timer = self.create_timer(1.0 / rate, tick, clock=steady)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)
        self.create_timer(HEARTBEAT_PERIOD, self._on_heartbeat_timer, clock=steady)
        self.create_timer(GRAPH_PERIOD, self._check_publishers, clock=steady)
        self._publish_state()

    def _make_rack(self, p: dict[str, Any]) -> DeviceRack:
        handlers = Handlers(
            reading=self._on_reading,
            pressed=self._on_pressed,
            problem=self._on_device_problem,
            arrived=self._on_device_arrived,
        )
        axes, timeout = tuple(p["axes"]), p["device_timeout"]
        rack = make_rack(self, device_names(p), p["locks"], axes, timeout, self._now, handlers)
        if p["lock_step"]:  # each message answers an observation, whatever the clock does meanwhile
            for device in rack.devices:
                device.stale_after = math.inf
        return rack

    def _advertise(self, with_gripper: bool) -> None:
        self._gripper = (
            self.create_publisher(Float64, "gripper_command", RELIABLE_1) if with_gripper else None
        )
        self._decision = self.create_publisher(Decision, "decision", RELIABLE_100)
        self._intervention = self.create_publisher(InterventionEvent, "intervention", RELIABLE_100)
        self._state = self.create_publisher(ControlState, "control_state", LATCHED_10)
        self._buttons = self.create_publisher(OperatorButtons, "operator_buttons", RELIABLE_100)
        self._heartbeat = self.create_publisher(Heartbeat, "arbiter_heartbeat", RELIABLE)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self.create_service(SetBool, "arm", self._on_arm)

    def _subscribe(self, needs: str, stops: Sequence[str], frames: Sequence[str]) -> None:
        self.create_subscription(ObservationTick, "observation_tick", self._on_tick, RELIABLE)
        self.create_subscription(PolicyAction, "policy_action", self._on_policy, RELIABLE)
        self.create_subscription(Episode, "episode", self._on_episode, LATCHED_10)
        self.create_subscription(Heartbeat, "episode_heartbeat", self._on_episode_alive, RELIABLE_1)
        self.create_subscription(Heartbeat, "arbiter_heartbeat", self._on_peer, RELIABLE)
        # Twice: what was latched before this node, and publishers of any other quality of service.
        for topic, qos in product(stops, (LATCHED, qos_profile_sensor_data)):
            self.create_subscription(Bool, topic, partial(self._on_stop, topic), qos)
        # Several nodes publish it: with a depth of 1 the last of one would displace another's.
        self.create_subscription(PolicyHold, "policy_hold", self._on_hold, LATCHED_10)
        # The robot's drivers publish with any reliability, and a lost sample is replaced by the next
        # one: best effort is served by all. In lock-step every sample counts.
        sensor = RELIABLE if self._lock_step else SENSOR
        if needs == "ee_pose":
            subscribe_pose(self, frames, self._on_pose, sensor)
        elif needs == "joint_states":
            self.create_subscription(JointState, needs, self._on_joints, sensor)

    # ---- inputs

    def _on_tick(self, message: ObservationTick) -> None:
        if message.problem:
            self._core.no_observation(message.problem, self._now())
            return
        stamp = to_ns(message.header.stamp)
        if self._lock_step:
            self._lock_step.observe(message.tick, stamp)
            self._step_if_ready()
            return
        decision = self._core.observe(message.tick, stamp, self._now())
        if decision:
            self._publish(self._decision, decision_message(decision))

    def _on_policy(self, message: PolicyAction) -> None:
        if self._lock_step:
            self._lock_step.answered_by_policy(message.tick, message)
            self._step_if_ready()
        else:
            self._take_policy(message, self._now())
            self._cadence.action_arrived(time.monotonic())

    def _take_policy(self, message: PolicyAction, now: float) -> None:
        self._core.policy_action(
            message.tick,
            to_ns(message.header.stamp),
            tuple(message.action),
            message.policy_version,
            now,
        )
        self._publish_state()

    def _on_reading(self, name: str, reading: Reading) -> None:
        self._core.device_reading(name, reading, self._now())
        self._publish_state()

    def _on_pressed(self, name: str, pressed: frozenset[str], stamp: int) -> None:
        message = OperatorButtons(device=name, pressed=sorted(pressed))
        message.header.stamp = to_msg(stamp)
        self._publish(self._buttons, message)
        if "stop" in pressed:
            self._core.fault("", f"the stop button of {name} was pressed", by_human=True)
        elif "arm" in pressed and not self._core.armed:
            _, message = self._arm(True)
            self.get_logger().info(f"arm button of {name}: {message}")
        self._publish_state()

    def _on_device_problem(self, name: str, problem: str) -> None:
        self._core.device_fault(name, problem)
        self._publish_state()

    def _on_device_arrived(self, name: str, stamp: int) -> None:
        if self._lock_step:
            self._lock_step.arrived(name, stamp)
            self._step_if_ready()

    def _on_pose(self, message: PoseStamped) -> None:
        p, q, found = message.pose.position, message.pose.orientation, message.header.frame_id
        stamp = to_ns(message.header.stamp)
        # In lock-step the clock of its stamp may come later.
        now = max(self._now(), stamp * 1e-9) if self._lock_step else self._now()
        self._core.motion((p.x, p.y, p.z), now, (q.x, q.y, q.z, q.w))
        if found == self._frame:
            self._core.pose((p.x, p.y, p.z), now, orientation=(q.x, q.y, q.z, q.w))
        else:
            self._core.refuse_pose(
                f"ee_pose is in frame {found!r}, expected {self._frame!r} (command_frame): the "
                "workspace box means nothing there",
                now,
            )
        if self._lock_step:
            self._lock_step.arrived("ee_pose", stamp)
            self._step_if_ready()

    def _on_joints(self, message: JointState) -> None:
        now, joints = self._now(), self._joints
        stamp, received = to_ns(message.header.stamp), round(now * 1e9)
        try:
            if not joints.put(message.name, message.position, message.velocity, stamp, received):
                return
            merged = joints.merged()
        except JointError as problem:
            self._core.refuse_pose(f"joint_states: {problem}", now)
            return
        oldest = merged.oldest if merged.several else ""
        self._core.pose(merged.positions, merged.received * 1e-9, oldest)
        self._core.motion(merged.positions, now)

    def _on_episode(self, message: Episode) -> None:
        stamp = to_ns(message.header.stamp)
        self._core.used_interventions(message.last_intervention_id)
        if message.phase == Episode.RUNNING:
            self._core.begin_episode(message.id, stamp, message.max_steps)
        else:
            self._core.end_episode(stamp if message.phase == Episode.ENDED else None)
        if self._lock_step:
            self._step_if_ready()

    def _on_hold(self, message: PolicyHold) -> None:
        code = hold_reason(message.reason_code)
        self._core.hold_policy(message.source, code, message.reason, self._now())

    def _on_episode_alive(self, _: Heartbeat) -> None:
        self._episode_alive = time.monotonic()

    def _on_peer(self, message: Heartbeat) -> None:
        self._peers.heartbeat(bytes(message.instance_id), time.monotonic())

    def _on_stop(self, topic: str, message: Bool) -> None:
        publishers = self.count_publishers(self.resolve_topic_name(topic))
        self._core.stop(message.data, topic, publishers)
        self._publish_state()

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success, response.message = self._arm(request.data)
        self.get_logger().info(f"arm service: {response.message}")
        self._publish_state()
        return response

    def _arm(self, on: bool) -> tuple[bool, str]:
        if on and self._listens and not self._yields:
            return (
                False,
                f"not armed: for {LISTEN} s after its start it listens for another arbiter",
            )
        return self._core.arm(on)

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "speed_scale":
                try:
                    self._core.limiter.speed_scale = parameter.value
                except ValueError as problem:
                    return SetParametersResult(successful=False, reason=str(problem))
        return SetParametersResult(successful=True)

    # ---- outputs, in real time

    def _on_timer(self) -> None:
        turn = time.monotonic()
        self._check_stall()
        command = self._core.output(self._now())
        self._send(command, self.get_clock().now().nanoseconds)
        self._timer.timer_period_ns = int(1e9 * self._cadence.next_period(turn))

    def _check_stall(self) -> None:
        """A process that was stopped, or starved, must not go on as before."""
        now, last = time.monotonic(), self._last_output
        self._last_output = now
        self._meter.tick(now)
        if last is not None and now - last > self._stall_timeout and self._core.armed:
            self._core.fault("", f"the arbiter itself stood still for {now - last:.1f} s")

    # ---- outputs, in lock-step

    def _step_if_ready(self) -> None:
        """The Decision and the command of the newest set of samples, when it is complete."""
        step = self._lock_step
        if step is None or not step.pending or not self._core.expects_steps:
            return
        if step.observed < self._core.episode_start:
            # No source is active before the first observation of the episode: lead the world there.
            self._send(self._core.output(self._now()), self._zero_stamp(step))
        elif step.ready and step.policy is not None:
            self._core.hold("lock-step", "")
            self._step(step, step.policy)

    def _step(self, step: LockStep[PolicyAction], policy: PolicyAction | None) -> None:
        stamp = step.observed
        now = max(self._now(), stamp * 1e-9)
        self._core.observe(step.tick, stamp, now)
        if policy is not None:
            self._take_policy(policy, now)
        command = self._core.output(now)
        decision = self._core.close_tick()
        if decision:
            self._publish(self._decision, decision_message(decision))
        self._send(command, stamp)

    def _idle(self) -> None:
        """Wall timer: zeros while no episode runs, and when a step takes too long."""
        step = self._lock_step
        if step is None:
            return
        if not self._core.expects_steps:
            self._send(self._core.output(self._now()), self._zero_stamp(step))
        elif step.overdue(time.monotonic()):
            self._core.hold(
                "lock-step",
                f"lock-step: no {step.missing()} of this step for {step.timeout} s of wall time",
            )
            if step.pending:
                self._step(step, step.policy)
            else:
                self._send(self._core.output(self._now()), self._zero_stamp(step))

    def _zero_stamp(self, step: LockStep[PolicyAction]) -> int:
        """Not older than the newest samples, so that an idle world goes on."""
        return max(self.get_clock().now().nanoseconds, step.observed)

    # ---- messages

    def _send(self, command: Command, stamp: int) -> None:
        if self._lock_step:
            self._lock_step.answer(stamp)
        for change in command.changes:
            self._publish(self._intervention, intervention_message(change))
        if not self._quiet:
            self._output.send(command.twist, command.reference, stamp)
        if self._gripper:
            self._publish(self._gripper, Float64(data=command.gripper))
        self._publish_state()

    @property
    def _quiet(self) -> bool:
        """Nothing is published that the rest of the graph acts on: another arbiter may be in charge."""
        return self._yields or self._listens > 0

    def _publish(self, publisher: Publisher, message: Any) -> None:
        if not self._quiet:
            publisher.publish(message)

    def _publish_state(self) -> None:
        """Publish ControlState if anything in it has changed."""
        core = self._core
        hold, episode = core.hold_reason, core.last_episode
        content = (core.state, core.reason, core.device, core.by_human, hold, episode)
        if content == self._published or self._quiet:
            return
        before, self._published = self._published, content
        message = ControlState(
            state=int(core.state),
            reason=core.reason,
            device=core.device,
            by_human=core.by_human,
            hold_reason=int(hold),
            last_episode_id=episode,
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._state.publish(message)
        if before is None or before[0] != core.state:
            self._publish_heartbeat()  # the watchdog must see a FAULT that a human clears at once

    def _on_heartbeat_timer(self) -> None:
        self._publish_heartbeat()
        self._listens = max(0, self._listens - 1)
        self._check_peers()
        self._check_episode()

    def _check_peers(self) -> None:
        """Of several arbiters only the oldest acts."""
        older = self._peers.older(time.monotonic())
        if older and not self._yields:
            reason = (
                "another arbiter, which was started before this one, is running: end one of them"
            )
            self._core.fault(ANOTHER, reason)
            self.get_logger().error(f"this arbiter publishes nothing and cannot be armed: {reason}")
        elif self._yields and not older:
            self._core.fault_over(
                ANOTHER, "the other arbiter has ended: arm to go on with this one"
            )
            self.get_logger().warning("the other arbiter has ended: this one may be armed")
        self._yields = older

    def _check_episode(self) -> None:
        """Without its node an episode would go on, and nobody would end it."""
        seen, limit = self._episode_alive, self._episode_timeout
        dead = limit > 0.0 and seen is not None and time.monotonic() - seen > limit
        reason = f"no heartbeat of the episode node for more than {limit} s: start it again"
        self._core.hold("episode", reason if dead else "")

    def _check_publishers(self) -> None:
        """Whoever else publishes commands passes no limit, and makes the arbiter's void."""
        topic = self._output.publisher.topic_name
        infos = self.get_publishers_info_by_topic(topic)
        found = [(info.node_namespace, info.node_name) for info in infos]
        foreign = self._command_publishers.foreign(found)
        warning = f"{foreign} publishes on {topic} too, past all limits: end it" if foreign else ""
        if warning and warning != self._core.warning:
            self.get_logger().error(warning)
        self._core.warning = warning
        if warning and self._fault_on_foreign:
            self._core.fault(FOREIGN, warning)
        else:
            self._core.fault_over(
                FOREIGN, "no other node publishes commands any more: arm to go on"
            )

    def _publish_heartbeat(self) -> None:
        """On its own topic: the watchdog publishes on `command` too, and `control_state` is latched."""
        message = Heartbeat(state=int(self._core.state), instance_id=list(self._instance_id))
        message.header.stamp = self.get_clock().now().to_msg()
        self._heartbeat.publish(message)

    def _report(self) -> None:
        """Diagnostics; and the state again, for who has another arbiter's in mind."""
        self._published = None
        self._publish_state()
        statuses = arbiter_statuses(self._core, self._now())
        if self._peers.count:
            others = f"{self._peers.count + 1} arbiters are running: end all but one"
            statuses.append(Status("instances", Level.ERROR, others))
        if not self._lock_step:  # there commands come as they are answered
            statuses.append(self._meter.status())
        self._diagnostics.publish(diagnostic_array(self, statuses))

    def shut_down(self) -> None:
        """Graceful shutdown: zeros to the robot, and this process ends after they have arrived."""
        if not self._quiet:
            self._output.stop(self.get_clock().now().nanoseconds)
        self._core.leave()
        self._publish_state()
        self._publish_heartbeat()
        for publisher in (self._output.publisher, self._state, self._heartbeat):
            publisher.wait_for_all_acked(SHUTDOWN_TIMEOUT)


def main() -> int:
    """Console script `arbiter`."""
    return run("arbiter", ArbiterNode, at_end=ArbiterNode.shut_down, shared_memory=False)
