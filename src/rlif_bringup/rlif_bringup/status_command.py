# SPDX-License-Identifier: Apache-2.0
"""Shows the state of a live system on one screen: control, episode, rates, learner, disk, problems.

Listens only. Exit code: 0 there is a graph, 1 there is none.
"""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlif_node.states import ControlState, Outcome, Phase

from rlif_bringup import graph_command

TOPICS = ("observation", "policy_action", "decision")  # whose rates are shown
OTHER_CLOCK = 3600.0  # s; an age beyond this is a difference of two clocks
OK, STALE = 0, 3  # levels of diagnostic_msgs/DiagnosticStatus


@dataclass
class Seen:
    """What was received in `seconds`.

    control, episode, learner: the newest message of each; None: none
    counts: messages by topic; ages: s from the observation's stamp to the policy's answer
    problems: diagnostics that are not OK, by name
    bag: of the recorder; None: no recorder answered; empty: it writes none
    free: bytes on the bag's disk; None: it is not on this machine
    """

    seconds: float
    control: Any = None
    episode: Any = None
    learner: Any = None
    counts: Mapping[str, int] = field(default_factory=dict)
    ages: Sequence[float] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    bag: str | None = None
    free: int | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `rlif status`."""
    parser.add_argument(
        "--seconds",
        type=graph_command.positive,
        default=2.0,
        help="to listen for rates (%(default)s)",
    )
    graph_command.add_arguments(parser)


def rows(s: Seen) -> list[tuple[str, str]]:
    """Label and text of each line."""
    found = [("control", _control(s)), ("episode", _episode(s)), ("rates", _rates(s))]
    found += [("age", _age(s)), ("learner", _learner(s)), *_robots(s), ("disk", _disk(s))]
    problems = [f"{name}: {text}" for name, text in sorted(s.problems.items())] or ["none"]
    return found + [("problems" if not n else "", line) for n, line in enumerate(problems)]


def _control(s: Seen) -> str:
    if s.control is None:
        return "no arbiter"
    device = f" by {s.control.device}" if s.control.device else ""
    reason = f": {s.control.reason}" if s.control.reason else ""
    return f"{ControlState(s.control.state).name}{device}{reason}"


def _episode(s: Seen) -> str:
    e = s.episode
    if e is None:
        return "no episode node"
    limit = f" of {e.max_steps}" if e.max_steps else ""
    outcome = f" as {Outcome(e.outcome).name.lower()}" if e.outcome else ""
    evaluation = ", evaluation" if e.evaluation else ""
    evaluation += f", not recorded: {e.unrecorded}" if e.unrecorded else ""
    return (
        f"{e.id} {Phase(e.phase).name.lower()}{outcome}: {e.steps}{limit} steps, {e.operator_steps} by the operator, "
        f"{e.interventions} interventions{evaluation}"
    )


def _rates(s: Seen) -> str:
    return ", ".join(f"{topic} {s.counts.get(topic, 0) / s.seconds:.1f} Hz" for topic in TOPICS)


def _age(s: Seen) -> str:
    if not s.ages:
        return "no answers of the policy"
    ages = [age for age in s.ages if abs(age) < OTHER_CLOCK]
    if not ages:
        return "not known: stamps of another clock (simulated time?)"
    mean, most = sum(ages) / len(ages), max(ages)
    return f"observation to action {1e3 * mean:.0f} ms, at most {1e3 * most:.0f} ms"


def _learner(s: Seen) -> str:
    m = s.learner
    if m is None:
        return "no learner"
    lag = "caught up" if m.caught_up else "behind"
    text = f": {m.message}" if m.message else ""
    return (
        f"{m.updates:,} updates for {m.steps:,} steps ({m.updates_per_step:.2f} per step, {lag}), "
        f"{m.lost_steps} lost, weights {m.policy_version}{text}"
    )


def _robots(s: Seen) -> list[tuple[str, str]]:
    """What the learner of several robots has received of each."""
    rows = s.learner.robots if s.learner is not None else ()
    return [(row.robot, _robot(row)) for row in rows]


def _robot(row: Any) -> str:
    silent = math.isnan(row.age)  # since the learner was started, maybe from a checkpoint
    if silent and not row.steps and not row.lost_steps:
        return "no Step yet"
    success = "–" if math.isnan(row.success_rate) else f"{row.success_rate:.0%}"
    late = "" if math.isnan(row.latency) else f" after {1e3 * row.latency:.0f} ms"
    last = "none since the learner started" if silent else f"the last {row.age:.1f} s ago{late}"
    return (
        f"{row.steps:,} steps, {row.lost_steps} lost, {last}; {row.episodes} episodes, "
        f"{success} successful, {row.intervention_rate:.3f} interventions per step, weights {row.policy_version}"
    )


def _disk(s: Seen) -> str:
    if s.bag is None:
        return "no recorder"
    if not s.bag:
        return "no bag is written"
    where = "not on this machine" if s.free is None else f"{s.free / 1e9:.1f} GB free"
    return f"{where}, bag {s.bag}"


def listen(client: Any, seconds: float) -> Seen:
    """Listen for `seconds`, after at most `client`'s time-out for the nodes to be discovered."""
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rlif_node.stamps import to_ns

    from rlif_bringup.graph_client import GraphError
    from rlif_msgs.msg import Decision, Observation, PolicyAction

    counts = dict.fromkeys(TOPICS, 0)
    ages: list[float] = []
    problems: dict[str, str] = {}

    def count(topic: str, message: Any) -> None:
        counts[topic] += 1
        if topic == "policy_action":
            now = client.node.get_clock().now().nanoseconds
            ages.append((now - to_ns(message.header.stamp)) * 1e-9)

    def note(message: Any) -> None:
        for status in message.status:
            problems.pop(status.name, None)
            if status.level[0] not in (OK, STALE):
                problems[status.name] = status.message

    either = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
    for topic, kind in zip(TOPICS, (Observation, PolicyAction, Decision), strict=True):
        # Images are not unpacked for a rate.
        client.node.create_subscription(
            kind, topic, lambda m, t=topic: count(t, m), either, raw=topic == "observation"
        )
    client.node.create_subscription(DiagnosticArray, "/diagnostics", note, either)
    try:
        bag = str(client.parameters("recorder").get("bag_directory", ""))
    except GraphError:
        bag = None
    counts.update(dict.fromkeys(TOPICS, 0))  # those before all nodes were discovered
    ages.clear()
    client.spin(seconds)
    episode = client.episode if client.episode.id else None
    free = None
    if bag and Path(bag).expanduser().exists():
        free = shutil.disk_usage(Path(bag).expanduser()).free
    return Seen(seconds, client.control, episode, client.learner, counts, ages, problems, bag, free)


def run(arguments: argparse.Namespace) -> int:
    """Run `rlif status`."""
    return graph_command.run(arguments, lambda client: _show(listen(client, arguments.seconds)))


def _show(seen: Seen) -> None:
    known = (seen.control, seen.episode, seen.learner)
    if not any(seen.counts.values()) and all(message is None for message in known):
        from rlif_bringup.graph_client import GraphError

        raise GraphError(
            "no node of the suite answers: start it (rlif launch), or check --namespace and --domain-id"
        )
    for label, text in rows(seen):
        print(f"{label:<9} {text}")
