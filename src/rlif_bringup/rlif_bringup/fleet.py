# SPDX-License-Identifier: Apache-2.0
"""Several simulated robots, each with a graph and a scripted operator of its own, and one learner.

Every robot runs the phases of a demo in a thread, in its own namespace, with its share of episodes and
steps. Between two phases they wait for each other, so that all are judged with the same weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rlif_bringup.graph_client import GraphClient
from rlif_bringup.processes import Interrupt
from rlif_bringup.progress import Progress, Snapshot
from rlif_bringup.session import Phase, Session
from rlif_bringup.simulation import chosen_domain, simulation, write_configuration
from rlif_bringup.summary import TRIAL, EpisodeRecord, summarise, trial_name

MEET = 900.0  # s of wall time for the slowest robot to come where the others are
SEEDS = 1000  # between the seeds of two robots: other boards, another operator
NODES = ("sim_robot", "observer", "policy", "arbiter", "episode", "recorder", "sim_operator")
# Launch arguments of the learner that the robots' launch file has too.
LEARNER_ARGUMENTS = ("robot", "config_directory", "log_level")


def robot_names(count: int) -> tuple[str, ...]:
    """Their namespaces."""
    return tuple(f"arm_{number}" for number in range(1, count + 1))


def share(total: int, robots: int) -> int:
    """What each robot does of a total, rounded up."""
    return -(-total // robots)


def robot_arguments(arguments: argparse.Namespace, number: int) -> argparse.Namespace:
    """Those of `rlif demo` as robot `number`, from 0, has them: its share of each count."""
    counts = ("demonstrations", "steps", "eval_every", "eval_episodes", "trials")
    own = {name: share(getattr(arguments, name), arguments.robots) for name in counts}
    return argparse.Namespace(**{**vars(arguments), **own, "seed": arguments.seed + SEEDS * number})


def robot_values(common: Mapping[str, object], directory: Path, name: str) -> dict[str, object]:
    """Launch arguments of a robot's graph, out of those that a demo of one robot has."""
    robot: dict[str, object] = {
        "namespace": name,
        "clock": f"/{name}/clock",
        "learner": False,
        "pace": True,
        "bag_directory": directory / name / "bag",
    }
    return {**common, "run_directory": "", "prior_episodes": 0, **robot}


def learner_values(
    common: Mapping[str, object], robots: Sequence[str], prior_episodes: int
) -> dict[str, object]:
    """Launch arguments of the learner."""
    shared = {name: common[name] for name in LEARNER_ARGUMENTS if name in common}
    own = {"robots": f"[{', '.join(robots)}]", "pace": True, "prior_episodes": prior_episodes}
    return {**shared, "seed": common["seed"], "run_directory": common["run_directory"], **own}


def merge(records: Mapping[str, Sequence[EpisodeRecord]]) -> list[EpisodeRecord]:
    """The episodes of all robots in the order of their ends; environment steps are of all robots."""
    done = dict.fromkeys(records, 0)
    merged = []
    pairs = [(name, record) for name, own in records.items() for record in own]
    for name, record in sorted(pairs, key=lambda pair: pair[1].wall_seconds):
        done[name] = record.env_steps
        phase = record.phase
        if phase.startswith(TRIAL):
            phase = trial_name(int(phase.removeprefix(TRIAL)) * len(records))
        merged.append(
            dataclasses.replace(record, phase=phase, env_steps=sum(done.values()), robot=name)
        )
    return merged


def combine(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Where several robots stand, as one: sums of steps, means of rates."""

    def mean(name: str) -> float | None:
        known = [v for s in snapshots if (v := getattr(s, name)) is not None]
        return sum(known) / len(known) if known else None

    first = snapshots[0]
    return dataclasses.replace(
        first,
        control_source=", ".join(s.control_source for s in snapshots),
        operator_share=mean("operator_share"),
        interventions=mean("interventions"),
        success=mean("success"),
        env_steps=sum(s.env_steps for s in snapshots),
        env_steps_goal=sum(s.env_steps_goal for s in snapshots),
        episodes=sum(s.episodes for s in snapshots),
        episodes_goal=sum(s.episodes_goal for s in snapshots),
        note="; ".join(dict.fromkeys(s.note for s in snapshots if s.note)),
    )


class Fleet:
    """Runs the phases on several robots at once.

    Args:
        values: launch arguments of a demo of one robot.
        arguments: of the command line.
        phases: those of one robot, out of its share of the arguments.
        finished: called with each record, from the threads of the robots, one at a time.
    """

    def __init__(
        self,
        values: Mapping[str, object],
        arguments: argparse.Namespace,
        directory: Path,
        progress: Progress,
        phases: Callable[[argparse.Namespace], list[Phase]],
        finished: Callable[[EpisodeRecord], None],
    ) -> None:
        self._values, self._arguments, self._directory = values, arguments, directory
        self._progress, self._phases, self._finished = progress, phases, finished
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._arrived: dict[str, int] = {}  # robots at each of the points where they wait
        self._snapshots: dict[str, Snapshot] = {}
        self._records: dict[str, list[EpisodeRecord]] = {}
        self.names = robot_names(arguments.robots)
        self.learner: GraphClient | None = None
        self.cpu_seconds: dict[str, float] = {}

    @property
    def records(self) -> list[EpisodeRecord]:
        """Of all robots."""
        with self._lock:
            return merge(self._records)

    def run(self, interrupt: Interrupt) -> None:
        """All of it. Raises what one of the robots raised first."""
        prior = share(self._arguments.demonstrations, len(self.names))
        values = learner_values(self._values, self.names, prior)
        run = (self._directory, self._progress)
        with (
            chosen_domain(self._arguments.domain_id) as domain,
            simulation(values, *run, domain, interrupt, "learner.launch.yaml") as graph,
            ThreadPoolExecutor(len(self.names), "robot") as pool,
        ):
            self.learner = graph
            stop = _Stop(interrupt, self._stopped)
            robots = [
                pool.submit(self._run_robot, number, domain, stop)
                for number in range(len(self.names))
            ]
            try:
                while not all(robot.done() for robot in robots):
                    graph.turn()
                    _raise_first(robots)
            finally:
                self._stopped.set()
            _raise_first(robots)
            self.cpu_seconds["learner"] = graph.cpu_seconds()["learner"]
            write_configuration(graph, values, ["learner"], self._directory / "config")

    def _run_robot(self, number: int, domain: int, stop: _Stop) -> None:
        name = self.names[number]
        arguments = robot_arguments(self._arguments, number)
        values = robot_values(self._values, self._directory, name) | {"seed": arguments.seed}
        phases = self._phases(arguments)
        with simulation(values, self._directory / name, self._progress, domain, stop) as graph:
            session = Session(
                graph, lambda snapshot: self._show(name, snapshot), phases, learner=True,
                finished=lambda record: self._on_record(name, record),
            )  # fmt: skip
            session.wait_until_up()
            write_configuration(graph, values, list(NODES), self._directory / name / "config")
            self._meet(graph, "the start")
            session.wait_until_up()  # the time of a run counts from here
            for place, phase in enumerate(phases):
                session.run(phase)
                self._meet(graph, f"the end of phase {place + 1}, {phase.name}")
            self._add_cpu_seconds(graph)

    def _meet(self, graph: GraphClient, where: str) -> None:
        """Wait until all robots are here."""
        with self._lock:
            self._arrived[where] = self._arrived.get(where, 0) + 1
        everyone = len(self.names)
        graph.wait(lambda: self._arrived[where] == everyone, f"all robots at {where}", MEET)

    def _show(self, name: str, snapshot: Snapshot) -> None:
        with self._lock:
            self._snapshots[name] = snapshot
            self._progress.show(combine([self._snapshots[n] for n in sorted(self._snapshots)]))

    def _on_record(self, name: str, record: EpisodeRecord) -> None:
        with self._lock:
            self._records.setdefault(name, []).append(record)
            # Not always the last one: another robot's may have ended later and come first.
            merged = reversed(merge(self._records))
            self._finished(next(r for r in merged if (r.robot, r.id) == (name, record.id)))

    def _add_cpu_seconds(self, graph: GraphClient) -> None:
        with self._lock:
            for node, seconds in graph.cpu_seconds().items():
                self.cpu_seconds[node] = self.cpu_seconds.get(node, 0.0) + seconds

    def summary(self) -> dict[str, Any]:
        """Per robot: what the summary of a run says, and what the learner has received of it."""
        status = self.learner.learner if self.learner else None
        received = {row.robot: row for row in status.robots} if status else {}
        keys = (
            "env_steps", "training_episodes", "interventions", "operator_share_first20",
            "operator_share_last20", "training_success_last20", "policy_success",
        )  # fmt: skip
        robots = {}
        for name in self.names:
            own = summarise(self._records.get(name, ()))
            robots[name] = {key: own[key] for key in keys}
            if name in received:
                robots[name]["lost_steps"] = int(received[name].lost_steps)
                robots[name]["intervention_rate"] = float(received[name].intervention_rate)
        cpu = {node: round(seconds, 1) for node, seconds in sorted(self.cpu_seconds.items())}
        return {"robots": robots, "cpu_seconds": cpu}


class _Stop(Interrupt):
    """Ends a robot's run when a person asks for it, or when another robot's has failed."""

    def __init__(self, interrupt: Interrupt, stopped: threading.Event) -> None:
        self._interrupt, self._stopped = interrupt, stopped

    def wait(self, seconds: float) -> bool:
        return self._stopped.is_set() or self._interrupt.wait(seconds)


def _raise_first(robots: Sequence[Future[None]]) -> None:
    """What has ended a robot's run before its time."""
    for robot in robots:
        if robot.done():
            robot.result()
