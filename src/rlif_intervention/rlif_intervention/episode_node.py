# SPDX-License-Identifier: Apache-2.0
"""Node `episode`: begins and ends episodes, calls the reset, counts.

Subscribes
    decision       rlif_msgs/Decision       steps, take-overs; the time limit
    control_state  rlif_msgs/ControlState   no episode without an armed arbiter (latched)
    operator_buttons  rlif_msgs/OperatorButtons  start, success, failure and discard, from the arbiter
    task_success   rlif_msgs/TaskSuccess    a success detector; its stamp ends the episode
    policy_action  rlif_msgs/PolicyAction   until the first one, with `wait_for_policy`
    /diagnostics   diagnostic_msgs/DiagnosticArray  the recorder's: whether the bag is written; whether
                                            recorder and watchdog are alive
    learner_status rlif_msgs/LearnerStatus  whether it is alive; with `pace` the next episode waits for it
                                            (latched)
Publishes
    episode        rlif_msgs/Episode        on change of phase (latched)
    episode_heartbeat  rlif_msgs/Heartbeat  20 Hz: without it the arbiter holds
    /diagnostics   diagnostic_msgs/DiagnosticArray  once a second: what an episode waits for, and which
                                            of recorder, learner and watchdog has fallen silent
Services
    start_episode                              std_srvs/Trigger
    end_episode_success, end_episode_failure   std_srvs/Trigger
    discard_episode                            std_srvs/Trigger  ends it: recorded, not learned from
Calls
    reset          std_srvs/Trigger         before each episode, with `reset_service`
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.subscription import Subscription
from rclpy.task import Future
from rlif_node.parameters import Param, declare
from rlif_node.qos import LATCHED, LATCHED_10, RELIABLE, RELIABLE_1, RELIABLE_100
from rlif_node.running import run
from rlif_node.stamps import to_msg, to_ns
from rlif_node.states import ControlState as State
from std_srvs.srv import Trigger

from rlif_msgs.msg import (
    ControlState,
    Decision,
    Episode,
    Heartbeat,
    LearnerStatus,
    OperatorButtons,
    PolicyAction,
    TaskSuccess,
)

from .diagnostic_messages import diagnostic_array
from .diagnostics import REPORT_PERIOD, Level, Status
from .episodes import CountedDecision, EpisodeConfig, EpisodeKeeper, Outcome, Phase, Report
from .instances import own_instance_id
from .node_monitor import NodeMonitor
from .policy_hold import hold_reason
from .ticks import Source

PARAMETERS = (
    Param("auto_start", False, "start the next episode without start_episode", live=True),
    Param("max_steps", 0, "time limit in steps; 0: none", 0, 1_000_000, live=True),
    Param("max_episodes", 0, "then wait; counts from when it is set; 0: no end", 0, 10**6, True),
    Param("evaluation", False, "episodes are recorded and not learned from", live=True),
    Param("pace", False, "wait until the learner has caught up", live=True),
    Param("wait_for_policy", True, "no episode before the policy has answered once", live=True),
    Param("wait_for_recorder", True, "no episode without a publisher of `replay`", live=True),
    Param("reset_service", True, "call `reset` before each episode", live=True),
    Param("reset_timeout", 60.0, "s until a call of `reset` is given up", 1.0, 3600.0, True),
    Param(
        "control_lost_timeout",
        10.0,
        "s without an active control source until TRUNCATED",
        0.1,
        3600.0,
        True,
    ),
    Param("settle_time", 0.2, "s of ROS time between the end and the reset", 0.0, 60.0, True),
    Param("arm_dwell", 1.0, "s from arming until a reset may begin", 0.0, 10.0),
)
CHECK_PERIOD = 0.02  # s of wall time
HEARTBEAT_PERIOD = 0.05  # s of wall time
RETRY = 1.0  # s of wall time until a reset that failed is called again
CLOCK_LAG = 1_000_000_000  # ns of simulated time that /clock may be late
START_PAUSE = 1.0  # s of wall time after an end in which a start button does nothing
REMIND = 10.0  # s of wall time between two warnings about one cause


def episode_config(p: dict[str, Any]) -> EpisodeConfig:
    """Raises ValueError with the name, the value and what was expected."""
    return EpisodeConfig(
        auto_start=p["auto_start"],
        max_steps=p["max_steps"],
        evaluation=p["evaluation"],
        pace=p["pace"],
        max_episodes=p["max_episodes"],
        reset=p["reset_service"],
        control_lost_timeout=p["control_lost_timeout"],
        settle_time=round(p["settle_time"] * 1e9),
        arm_dwell=p["arm_dwell"],
        wait_for_policy=p["wait_for_policy"],
        wait_for_recorder=p["wait_for_recorder"],
    )


def stamp_problem(stamp: int, now: int, sim_time: bool) -> str:
    """Why an episode cannot end at `stamp`; empty: it can. ns.

    An end in the future would keep the episode in ENDED until then. In simulation the clock may
    arrive after what was stamped with it.
    """
    if stamp == 0:
        return "found no stamp, expected that of the observation that shows the success"
    ahead = stamp - now
    if ahead > (CLOCK_LAG if sim_time else 0):
        return f"found a stamp {ahead / 1e9:.3f} s ahead of this host's clock: synchronise the two"
    return ""


class EpisodeNode(Node):
    """Shell around `EpisodeKeeper`."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("episode", parameter_overrides=list(overrides))
        self._values = declare(self, PARAMETERS)
        self._core = EpisodeKeeper(episode_config(self._values))
        self._sim_time = bool(self.get_parameter("use_sim_time").value)
        self._reset_call: Future | None = None
        self._reset_counts = True  # False: the answer that is awaited does not end the reset
        self._reset_called = 0.0
        self._reset_servers = 0  # the fewest that were seen since the call
        self._reset_failed = -RETRY
        self._complaint, self._complained = "", 0.0
        self._ended = -math.inf
        self._publisher = self.create_publisher(Episode, "episode", LATCHED_10)
        self._heartbeat = self.create_publisher(Heartbeat, "episode_heartbeat", RELIABLE_1)
        self._instance_id = list(own_instance_id())
        self._reset = self.create_client(Trigger, "reset")
        self._replay = self.resolve_topic_name("replay")
        self._monitor = NodeMonitor()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._subscribe()
        for name, answer in (
            ("start_episode", self._on_start),
            ("end_episode_success", self._on_success_service),
            ("end_episode_failure", self._on_failure_service),
            ("discard_episode", self._on_discard_service),
        ):
            self.create_service(Trigger, name, answer)
        self.add_on_set_parameters_callback(self._on_parameters)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(CHECK_PERIOD, self._advance, clock=steady)
        self.create_timer(HEARTBEAT_PERIOD, self._publish_heartbeat, clock=steady)
        self.create_timer(REPORT_PERIOD, self._publish_diagnostics, clock=steady)
        self._publish(self._core.report(self._ros()))

    def _subscribe(self) -> None:
        self.create_subscription(Decision, "decision", self._on_decision, RELIABLE_100)
        self.create_subscription(ControlState, "control_state", self._on_control, LATCHED)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        self._policy: Subscription | None = self.create_subscription(
            PolicyAction, "policy_action", self._on_policy, RELIABLE
        )
        self.create_subscription(TaskSuccess, "task_success", self._on_task_success, RELIABLE)
        self.create_subscription(
            OperatorButtons, "operator_buttons", self._on_buttons, RELIABLE_100
        )
        self.create_subscription(LearnerStatus, "learner_status", self._on_learner, LATCHED)

    def _ros(self) -> int:
        return self.get_clock().now().nanoseconds

    # ---- inputs

    def _on_decision(self, m: Decision) -> None:
        stamp, source = to_ns(m.header.stamp), Source(m.source)
        decision = CountedDecision(stamp, source, m.onset, m.intervention_id)
        self._publish(self._core.decision(m.episode_id, decision, time.monotonic()))

    def _on_control(self, m: ControlState) -> None:
        state, now, ros = State(m.state), time.monotonic(), self._ros()
        self._core.used_episodes(m.last_episode_id)
        hold = hold_reason(m.hold_reason)
        self._publish(self._core.control(state, m.reason, now, ros, m.by_human, hold))

    def _on_buttons(self, m: OperatorButtons) -> None:
        pressed, device = m.pressed, m.device
        # In simulation the Joy answers an observation, on a robot its clock may be another's.
        now = self._ros()
        stamp = to_ns(m.header.stamp) if self._sim_time else now
        problem = stamp_problem(stamp, now, self._sim_time)
        if problem and self._core.phase is Phase.RUNNING:
            self.get_logger().warning(f"buttons of {device}: {problem}: taken as now")
            stamp = now
        if "discard" in pressed:  # before the others: it is what can be made good again
            self._publish(self._core.end(Outcome.DISCARDED, f"discard button of {device}", stamp))
        elif "success" in pressed:
            self._publish(self._core.succeed(stamp, f"success button of {device}"))
        elif "failure" in pressed:
            self._publish(self._core.end(Outcome.FAILURE, f"failure button of {device}", stamp))
        elif "start" in pressed and time.monotonic() - self._ended < START_PAUSE:
            self.get_logger().info(
                f"start button of {device}: ignored, less than {START_PAUSE} s after an end"
            )
        elif "start" in pressed:
            self.get_logger().info(f"start button of {device}: {self._core.request_start()[1]}")
            self._advance()

    def _on_task_success(self, m: TaskSuccess) -> None:
        stamp, now = to_ns(m.header.stamp), self._ros()
        source = m.source or "success detector"
        problem = stamp_problem(stamp, now, self._sim_time)
        if problem:
            self.get_logger().warning(f"task_success ({source}): {problem}: taken as now")
        self._publish(self._core.succeed(now if problem else stamp, source))

    def _on_policy(self, _: PolicyAction) -> None:
        self._core.policy_seen = True

    def _on_diagnostics(self, m: DiagnosticArray) -> None:
        now, own = time.monotonic(), self.get_namespace().strip("/")
        for status in m.status:
            node, _, what = status.name.lstrip("/").partition(": ")
            namespace, _, name = node.rpartition("/")
            if namespace != own:
                continue
            self._monitor.received(name, now)
            if (name, what) == ("recorder", "bag"):
                failed = status.level == DiagnosticStatus.ERROR
                self._core.recording_problem = status.message if failed else ""

    def _on_learner(self, m: LearnerStatus) -> None:
        self._monitor.received("learner", time.monotonic())
        if self._core.pacer.learner(m.steps, m.lost_steps, m.caught_up):
            self.get_logger().warning("the learner counts its steps from 0 again: it was restarted")
        self._advance()

    # ---- services

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._core.request_start()
        self._advance()
        return response

    def _on_success_service(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        return self._end_by_service(Outcome.SUCCESS, response)

    def _on_failure_service(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        return self._end_by_service(Outcome.FAILURE, response)

    def _on_discard_service(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        return self._end_by_service(Outcome.DISCARDED, response)

    def _end_by_service(self, outcome: Outcome, response: Trigger.Response) -> Trigger.Response:
        report = self._core.end(outcome, "service call", self._ros())
        self._publish(report)
        response.success = report is not None
        response.message = outcome.name if report else "no episode is running"
        return response

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        new = {p.name: p.value for p in parameters if p.name in self._values}
        try:
            config = episode_config(self._values | new)
        except ValueError as problem:
            return SetParametersResult(successful=False, reason=str(problem))
        self._values |= new
        self._core.configure(config, restart_count="max_episodes" in new)
        return SetParametersResult(successful=True)

    # ---- progress

    def _advance(self) -> None:
        """All moves that need no message. Called on a timer, and when something has come."""
        core, now, ros = self._core, time.monotonic(), self._ros()
        if core.policy_seen and self._policy is not None:
            self.destroy_subscription(self._policy)  # one action is enough
            self._policy = None
        core.recorder_seen = self.count_publishers(self._replay) > 0
        self._publish(core.check(now, ros))
        self._publish(core.leave_ended(ros))
        if (begun := core.begin_reset(now, ros)) is not None:
            self._reset_counts = False  # a call in flight is that of a reset that was cancelled
            self._publish(begun)
        if core.phase is Phase.RESETTING:
            self._call_reset(now)
        self._publish(core.start(now, ros))
        if core.phase is Phase.READY:
            self._warn(core.waiting_for() or "")

    def _call_reset(self, now: float) -> None:
        if self._reset_call is not None:
            self._give_up_reset(self._reset_call, now)
            return
        if now - self._reset_failed < RETRY:
            return
        if not self._reset.service_is_ready():
            self._warn("the service reset is not there: is the robot's node running?")
            return
        self._reset_called, self._reset_servers = now, self._count_reset_servers()
        self._reset_counts = True
        self._reset_call = self._reset.call_async(Trigger.Request())
        self._reset_call.add_done_callback(self._on_reset_done)

    def _count_reset_servers(self) -> int:
        return self.count_services(self.resolve_service_name("reset"))

    def _give_up_reset(self, call: Future, now: float) -> None:
        """A node that died or was restarted during the call never answers it.

        DDS keeps a killed server in its lists for a while: a call may go to that one alone.
        """
        limit, servers = self._values["reset_timeout"], self._count_reset_servers()
        restarted = servers > self._reset_servers
        self._reset_servers = min(self._reset_servers, servers)
        if not restarted and now - self._reset_called < limit:
            return
        self._reset.remove_pending_request(call)
        self._reset_call, self._reset_failed = None, now
        service = self.resolve_service_name("reset")
        why = (
            f"the service {service} was started anew"
            if restarted
            else f"no answer from the service {service} within {limit} s (reset_timeout)"
        )
        self.get_logger().warning(f"episode {self._core.id}: {why}: it is called again")

    def _on_reset_done(self, call: Future) -> None:
        self._reset_call = None
        error, result = call.exception(), call.result() if call.exception() is None else None
        if result is not None and result.success:
            if self._reset_counts:
                self._publish(self._core.end_reset(self._ros()))
            self._advance()
            return
        self._reset_failed = time.monotonic()
        reason = str(error) if error else getattr(result, "message", "no answer")
        self._warn(f"the reset failed, and is tried again: {reason}")

    def _warn(self, reason: str) -> None:
        """Why an episode waits: at most every 10 s, and only for what lasts."""
        now = time.monotonic()
        if not reason:
            self._complaint = ""
            return
        if reason != self._complaint:
            self._complaint = reason
            self._complained = now - REMIND + 1.0
        if now - self._complained >= REMIND:
            self._complained = now
            self.get_logger().warning(f"episode {self._core.id} is waiting: {reason}")

    def _publish_heartbeat(self) -> None:
        message = Heartbeat(state=int(self._core.phase), instance_id=self._instance_id)
        message.header.stamp = self.get_clock().now().to_msg()
        self._heartbeat.publish(message)

    def _publish_diagnostics(self) -> None:
        between = self._core.phase in (Phase.RESETTING, Phase.READY)
        waiting = self._complaint if between and self._core.wanted else ""
        level = Level.WARN if waiting else Level.OK
        message = f"waiting: {waiting}" if waiting else self._core.phase.name.lower()
        statuses = [Status("episode", level, message), self._monitor.status(time.monotonic())]
        self._diagnostics.publish(diagnostic_array(self, statuses))

    def _publish(self, report: Report | None) -> None:
        if report is None:
            return
        if report.phase is not Phase.READY:
            self._complaint = ""  # whatever it waited for
        message = Episode(
            id=report.id,
            phase=int(report.phase),
            outcome=int(report.outcome),
            reason=report.reason,
            max_steps=report.max_steps,
            steps=report.steps,
            interventions=report.interventions,
            operator_steps=report.operator_steps,
            evaluation=report.evaluation,
            last_intervention_id=report.last_intervention,
            unrecorded=report.unrecorded,
        )
        message.header.stamp = to_msg(report.stamp)
        self._publisher.publish(message)
        if report.phase == Phase.ENDED:
            self._ended = time.monotonic()
            self.get_logger().info(
                f"episode {report.id}: {report.outcome.name} after {report.steps} steps, "
                f"{report.operator_steps} by the operator in {report.interventions} take-overs: "
                f"{report.reason}"
            )
            if report.unrecorded:
                self.get_logger().error(f"episode {report.id} is not recorded: {report.unrecorded}")


def main() -> int:
    """Console script `episode`."""
    return run("episode", EpisodeNode, shared_memory=False)
