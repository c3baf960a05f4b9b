# SPDX-License-Identifier: Apache-2.0
"""Node `recorder`: joins Observations and Decisions to Steps, and writes the bag.

Subscribes
    observation   rlif_msgs/Observation   what was seen at a tick
    decision      rlif_msgs/Decision      control source and action of that tick
    episode       rlif_msgs/Episode       where episodes begin and end (latched)
    every topic of the parameter `topics`, to the bag, as the bytes that came
Publishes
    replay        rlif_msgs/Step          every step once and in order, one step late
    /diagnostics  diagnostic_msgs/DiagnosticArray   once a second: messages written and lost, errors

The bag holds the Steps and `topics`. A disk that is slow costs messages. One that is full ends the bag;
the recording resumes in bag_2, bag_3 … beside it when there is room. Both are reported, and the Steps go
on to the learner in any case. Ctrl-C finishes the bag,
and after a SIGKILL at most the last second of it is missing (`rlif bag repair` mends the rest).
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.subscription import Subscription
from rlif_node.parameters import Param, declare
from rlif_node.qos import REPLAY
from rlif_node.running import run
from rlif_node.stamps import to_ns

from rlif_msgs.msg import Decision, Episode, Observation, Step

from .bag_recorder import BagRecorder, BagStatus, LogClock
from .bag_writer import COMPRESSIONS, BagConfig, BagError, BagWriter, Topic, qos_profile
from .diagnostic_messages import diagnostic_array
from .diagnostics import Level, Status
from .join import EpisodeEvent, JoinedStep, Phase, StepJoin, TimedDecision, TimedObservation
from .message_definitions import definition, type_hash

PARAMETERS: tuple[Param, ...] = (
    Param("bag_directory", "", "of the bag, which must not exist yet; empty: no bag is written"),
    Param("topics", [], "to write besides the Steps; relative names are in this namespace", items=str),
    Param("types", [], "of `topics`, one each, as in sensor_msgs/msg/Joy", items=str),
    Param("compression", "none", f"of the bag's chunks: {', '.join(sorted(COMPRESSIONS))}"),
    Param("split_mib", 0, "MiB after which a new file begins; 0: never", 0, 1_000_000),
    Param("split_seconds", 0.0, "s after which a new file begins; 0: never", 0.0, 1e6),
    Param("required_free_mib", 200, "MiB; recording stops before the disk has less", 0, 1_000_000),
    Param("queue_mib", 256, "MiB that may wait for the disk; more is lost and reported", 1, 65536),
    Param("join_capacity", 128, "observations that may wait for their decision", 2, 10_000),
    Param("final_timeout", 1.0, "s after an episode's end that its last messages may take", 0.05, 60.0),
    Param("control_rate", 10.0, "Hz; as the observer's", 0.1, 200.0),
    Param("max_gap", 2.5, "control periods between two steps above which one is missing; 0: any", 0.0, 1000.0),
)  # fmt: skip

_LATCHED_TYPES = frozenset(
    f"rlif_msgs/msg/{name}"
    for name in ("ControlState", "Episode", "LearnerStatus", "PolicyHold", "PolicyWeights")
)
# Cameras offer either. Reliable is asked for first: then nothing is lost where it is offered.
_OFTEN_BEST_EFFORT = frozenset({"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"})
# DDS does not tell it for other processes. A guess of keep_last, with the depth of 0 that comes along,
# makes `ros2 bag` complain.
_HISTORIES = {HistoryPolicy.KEEP_LAST: "keep_last", HistoryPolicy.KEEP_ALL: "keep_all"}
RESUME_PERIOD, LONGEST_RESUME_PERIOD = 10.0, 300.0  # s between tries after the recording stopped
_TICK = 0.2  # s; of the timer that looks for deadlines, errors and new publishers


def subscription_qos(type_name: str, modest: bool = False) -> QoSProfile:
    """The most that a topic of this type may be offered with; `modest`: what fits any offer."""
    latched = type_name in _LATCHED_TYPES and not modest
    return QoSProfile(
        depth=100,
        reliability=ReliabilityPolicy.BEST_EFFORT if modest else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def message_class(type_name: str) -> Any:
    """The Python class of `package/msg/Name`. ValueError says what is missing."""
    definition(type_name)
    package, _, name = type_name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"message type {type_name!r}: no Python code: {error}") from error


def paired_topics(topics: Sequence[str], types: Sequence[str]) -> dict[str, str]:
    """Types by topic. ValueError where the two lists do not fit."""
    if len(topics) != len(types):
        raise ValueError(
            f"topics and types: found {len(topics)} and {len(types)} entries; give one type for "
            "each topic, in the same order"
        )
    if len(set(topics)) != len(topics):
        raise ValueError(f"topics: found {sorted(topics)}, expected each topic once")
    return dict(zip(topics, types, strict=True))


@dataclasses.dataclass
class Stopped:
    """When a recording that has stopped may be tried again, and the messages lost with earlier bags."""

    lost: int = 0
    wait: float = RESUME_PERIOD  # s
    since: float | None = None

    def is_due(self, now: float) -> bool:
        """Whether to try at `now` (s, steady); doubles the time until the next try."""
        if self.since is None:
            self.since = now
        if now - self.since < self.wait:
            return False
        self.since, self.wait = now, min(2.0 * self.wait, LONGEST_RESUME_PERIOD)
        return True


def next_directory(first: Path, required_free_mib: int) -> Path:
    """bag_2, bag_3 … beside the bag `first`. OSError where the disk has not twice what it must keep."""
    free, needed = shutil.disk_usage(first.parent).free >> 20, 2 * required_free_mib
    if free < needed:
        raise OSError(f"found {free} MiB free, expected {needed}")
    names = (first.with_name(f"{first.name}_{number}") for number in itertools.count(2))
    return next(path for path in names if not path.exists())


def step_message(joined: JoinedStep[Observation, Decision]) -> Step:
    """The Step of a joined tick; images are shared with the Observation, not copied."""
    seen, decision = joined.observation, joined.decision
    step = Step(
        header=seen.header,
        sequence=joined.sequence,
        tick=joined.tick,
        episode_id=joined.episode_id,
        step_index=joined.step_index,
        is_first=joined.is_first,
        is_last=joined.is_last,
        outcome=joined.outcome,
        evaluation=joined.evaluation,
        state=seen.state,
        camera_names=seen.camera_names,
        images=seen.images,
    )
    if decision is not None:
        step.source = decision.source
        step.policy_action = decision.policy_action
        step.operator_action = decision.operator_action
        step.executed_action = decision.executed_action
        step.onset = decision.onset
        step.intervention_id = decision.intervention_id
        step.policy_version = decision.policy_version
    return step


def _offered(node: Node, topic: str, fallback: QoSProfile) -> tuple[dict[str, Any], ...]:
    """QoS profiles of the topic's publishers, as a bag's metadata has them."""
    infos = node.get_publishers_info_by_topic(topic)
    found = {
        (
            "best_effort" if q.reliability == ReliabilityPolicy.BEST_EFFORT else "reliable",
            "transient_local" if q.durability == DurabilityPolicy.TRANSIENT_LOCAL else "volatile",
            q.depth,
            _HISTORIES.get(q.history, "unknown"),
        )
        for q in [info.qos_profile for info in infos] or [fallback]
    }
    return tuple(qos_profile(*values) for values in sorted(found))


class RecorderNode(Node):
    """Shell around `StepJoin` and `BagRecorder`."""

    def __init__(self, overrides: Sequence[Parameter] = ()) -> None:
        super().__init__("recorder", parameter_overrides=list(overrides))
        p = declare(self, PARAMETERS)
        self._join: StepJoin[Observation, Decision] = StepJoin(
            p["join_capacity"], p["final_timeout"], p["max_gap"] / p["control_rate"]
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._log_time = LogClock()
        self._topics: dict[str, Topic] = {}
        self._types = {
            self.resolve_topic_name(name): kind
            for name, kind in paired_topics(p["topics"], p["types"]).items()
        }
        self._types[self.resolve_topic_name("replay")] = "rlif_msgs/msg/Step"
        for kind in self._types.values():
            message_class(kind)  # a type that is not installed is an error now, not later
        self._settings = p
        self._bag: BagRecorder | None = None
        if p["bag_directory"]:
            self._bag = self._open_bag(Path(p["bag_directory"]).expanduser())
        self._stopped = Stopped()
        # Only now: episodes begin when it is seen, and nothing is recorded without the bag.
        self._replay = self.create_publisher(Step, "replay", REPLAY)
        self._reported_error, self._reported_lost = "", 0
        self._lost_by_middleware: Counter[str] = Counter()
        self._received: Counter[str] = Counter()
        self._latched: dict[str, bytes] = {}  # newest message of each latched topic
        self._kinds = dict(self._types)
        self._raw: dict[str, Subscription] = {}
        self._refused: set[str] = set()
        self._subscribe()
        self._ticks = 0
        self.create_timer(_TICK, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _open_bag(self, directory: Path) -> BagRecorder:
        p = self._settings
        config = BagConfig(
            directory=directory,
            compression=p["compression"],
            split_mib=p["split_mib"],
            split_seconds=p["split_seconds"],
            required_free_mib=p["required_free_mib"],
        )
        try:
            bag = BagRecorder(partial(BagWriter, config), queue_mib=p["queue_mib"])
        except (OSError, BagError) as error:
            raise ValueError(f"bag_directory {str(config.directory)!r}: {error}") from error
        self.get_logger().info(f"recording to {config.directory}")
        return bag

    # ---- subscriptions: one per topic, raw, whether it is joined, written, or both

    def _subscribe(self) -> None:
        joined: dict[str, tuple[str, Callable[[bytes], None]]] = {
            self.resolve_topic_name(name): (f"rlif_msgs/msg/{kind}", callback)
            for name, kind, callback in (
                ("observation", "Observation", self._on_observation),
                ("decision", "Decision", self._on_decision),
                ("episode", "Episode", self._on_episode),
            )
        }
        for name, (kind, callback) in joined.items():
            self._kinds[name] = kind
            if self._types.get(name, kind) != kind:
                raise ValueError(f"types: found {self._types[name]} for {name}, expected {kind}")
            written = name in self._types and self._bag is not None
            self._listen(
                name, kind, partial(self._write_and, name, callback) if written else callback
            )
        if self._bag is not None:
            for name, kind in self._types.items():
                if name not in joined and name != self._replay.topic_name:
                    self._listen(name, kind, partial(self._write, name))

    def _listen(
        self, name: str, kind: str, callback: Callable[[bytes], None], modest: bool = False
    ) -> None:
        self._raw[name] = self.create_subscription(
            message_class(kind),
            name,
            callback,
            subscription_qos(kind, modest),
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda _: self._refused.add(name),
                message_lost=partial(self._on_message_lost, name),
            ),
        )

    def _on_message_lost(self, name: str, info: Any) -> None:
        """Of a topic whose newest message is kept for who comes late, what that one replaced before
        it came here is of before this node listened."""
        if self._kinds[name] in _LATCHED_TYPES and self._received[name] <= 1:
            return
        self._lost_by_middleware[name] += info.total_count_change

    def _take_what_is_offered(self) -> None:
        """Subscribe again, modestly, where a publisher offers less than was asked for."""
        while self._refused:
            name = self._refused.pop()
            old = self._raw[name]
            if old.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT:
                continue
            message = (
                f"{name} is offered with less than was asked for: taken as best effort, volatile"
            )
            if self._kinds[name] in _OFTEN_BEST_EFFORT:
                self.get_logger().info(message)
            else:
                self.get_logger().warning(message)
            self.destroy_subscription(old)
            self._listen(name, self._kinds[name], old.callback, modest=True)

    # ---- the bag

    def _write(self, name: str, data: bytes) -> None:
        if self._bag is None:
            return
        self._received[name] += 1
        if self._kinds[name] in _LATCHED_TYPES:
            self._latched[name] = data
        topic = self._topics.get(name)
        if topic is None:
            kind = self._kinds[name]
            fallback = subscription_qos(kind)
            topic = self._topics[name] = Topic(
                name, kind, definition(kind), type_hash(kind), _offered(self, name, fallback)
            )
        self._bag.record(topic, self._log_time(), data)

    def _write_and(self, name: str, callback: Callable[[bytes], None], data: bytes) -> None:
        self._write(name, data)
        callback(data)

    # ---- the join

    def _on_observation(self, data: bytes) -> None:
        message = deserialize_message(data, Observation)
        self._emit(
            self._join.observe(TimedObservation(message.tick, to_ns(message.header.stamp), message))
        )

    def _on_decision(self, data: bytes) -> None:
        m = deserialize_message(data, Decision)
        self._emit(
            self._join.decide(
                TimedDecision(m.tick, to_ns(m.header.stamp), m.episode_id, m.step_index, m)
            )
        )  # fmt: skip

    def _on_episode(self, data: bytes) -> None:
        m = deserialize_message(data, Episode)
        stage = EpisodeEvent(m.id, Phase(m.phase), to_ns(m.header.stamp), m.outcome, m.evaluation)
        self._emit(self._join.stage(stage, time.monotonic()))

    def _emit(self, steps: Sequence[JoinedStep[Observation, Decision]]) -> None:
        for joined in steps:
            data = serialize_message(step_message(joined))
            self._replay.publish(data)
            self._write(self._replay.topic_name, data)

    # ---- timer

    def _on_timer(self) -> None:
        self._emit(self._join.expire(time.monotonic()))
        self._take_what_is_offered()
        for text in self._join.take_reports():
            self.get_logger().warning(text)
        self._ticks += 1
        if self._ticks % round(1.0 / _TICK) == 0:
            self._publish_status()

    def _resume_if_possible(self) -> None:
        """A bag that a full disk has ended is followed by another, as soon as there is room."""
        status = self._bag.status() if self._bag else None
        if status is None or not status.error or not self._stopped.is_due(time.monotonic()):
            return
        first = Path(self._settings["bag_directory"]).expanduser()
        try:
            bag = self._open_bag(next_directory(first, self._settings["required_free_mib"]))
        except (OSError, ValueError) as problem:
            self.get_logger().debug(f"recording does not resume: {problem}")
            return
        self._stopped = Stopped(self._stopped.lost + status.lost, self._stopped.wait)
        self._bag, self._reported_error = bag, ""
        for name, data in self._latched.items():  # whose publishers will not send them again
            bag.record(self._topics[name], self._log_time(), data)
        self.get_logger().warning(f"recording resumed; {self._stopped.lost} messages are in no bag")

    def _publish_status(self) -> None:
        """Log what is new, publish diagnostics."""
        self._resume_if_possible()
        status = self._bag.status() if self._bag else None
        lost = (status.lost if status else 0) + self._stopped.lost
        lost += self._lost_by_middleware.total()
        if status and status.error and status.error != self._reported_error:
            self._reported_error = status.error
            self.get_logger().error(f"{status.error}; the Steps still reach the learner")
        elif lost > self._reported_lost:
            by_topic = self._bag.lost() if self._bag else {}
            self.get_logger().error(
                f"{lost} messages lost so far: {by_topic} the disk was too slow for, "
                f"{dict(self._lost_by_middleware)} never reached this node"
            )
        self._reported_lost = lost
        self._diagnostics.publish(diagnostic_array(self, [self._bag_status(status, lost)]))

    def _bag_status(self, status: BagStatus | None, lost: int) -> Status:
        level, message = Level.OK, "recording" if status else "no bag"
        if lost or self._join.problems:
            problems = [f"{count} {name}" for name, count in self._join.problems.items()]
            found = "; ".join([f"{lost} messages lost"] * (lost > 0) + problems)
            level, message = Level.WARN, found
        if status and status.error:
            level, message = Level.ERROR, status.error
        values = {"steps": self._join.sequence, "lost": lost, **self._join.problems}
        if status:
            values |= {
                "written": status.written, "waiting": status.waiting, "bytes": status.bytes_written,
            }  # fmt: skip
        return Status("bag", level, message, {k: str(v) for k, v in values.items()})

    def finish(self) -> None:
        """Graceful shutdown: the last step, the end of the bag, and a log line with its message count."""
        self._emit(self._join.flush())
        if self._bag is None:
            return
        status = self._bag.close()
        if status.error:
            self.get_logger().error(status.error)
        self.get_logger().info(f"bag closed: {status.written} messages, {status.lost} lost")
        self._bag = None


def main() -> int:
    """Entry point of the executable `recorder`."""
    return run("recorder", RecorderNode, at_end=RecorderNode.finish)
