# SPDX-License-Identifier: Apache-2.0
"""Runs the phases of a run on a running graph: control source, length, learned from or not.

Between two phases the graph stands still: the last episode has ended, no next one is asked for, and
the learner has worked through what it was sent. Then the nodes switch to the next phase.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from rlif_bringup.graph_client import GraphClient
from rlif_bringup.operators import Operator
from rlif_bringup.progress import Snapshot
from rlif_bringup.summary import (
    WINDOW,
    EpisodeRecord,
    of_phase,
    operator_share,
    success_rate,
)
from rlif_msgs.msg import ControlState, Episode
from rlif_policy.success import SOURCE

START = 180.0  # s of wall time until every node has started, on a slow and busy machine
LEARN = 300.0  # s of wall time for the learner to work through the last steps
_SOURCES = {ControlState.POLICY: "POLICY", ControlState.OPERATOR: "OPERATOR"}


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a run.

    Attributes:
        name: as it stands in the records.
        mode: of the operator: intervene, always or never.
        episodes: after which it ends; 0: `env_steps` decides.
        env_steps: of the whole run, at which it ends.
        evaluation: the episodes are not to be learned from.
        boards: seed of boards and starts, set anew; None: go on as they come.
    """

    name: str
    mode: str
    episodes: int = 0
    env_steps: int = 0
    evaluation: bool = False
    boards: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("intervene", "always", "never"):
            raise ValueError(f"mode: found {self.mode!r}, expected intervene, always or never")
        if (self.episodes > 0) == (self.env_steps > 0):
            raise ValueError(
                f"phase {self.name}: expected a number of episodes or of env_steps, "
                f"found {self.episodes} and {self.env_steps}"
            )


class Session:
    """Runs phases and keeps the records of their episodes.

    Args:
        graph: the running nodes.
        show: called with where the run stands, often.
        phases: all phases of the run, for the display.
        learner: whether there is one to wait for.
        finished: called with every new record.
        operator: who takes over; None: the scripted one.
        pace: episodes wait for the learner; not in real time, where robots do not wait either.
        truth: whether an episode that has ended was a success, where its outcome may be wrong.

    Attributes:
        detects: a success detector ends the episodes, from now on.
    """

    def __init__(
        self,
        graph: GraphClient,
        show: Callable[[Snapshot], None],
        phases: Sequence[Phase],
        learner: bool,
        finished: Callable[[EpisodeRecord], None] = lambda record: None,
        operator: Operator | None = None,
        pace: bool = True,
        truth: Callable[[Episode], bool] | None = None,
    ) -> None:
        self._graph, self._show, self._phases = graph, show, tuple(phases)
        self._learner = learner
        self._pace = learner and pace
        self._finished = finished
        self._truth = truth
        self.detects = False
        self._operator = operator or Operator(graph)
        self._started = time.monotonic()
        self._phase_started = self._started
        self._seconds_per_episode: float | None = None
        self._env_steps = 0
        self._sent = 0  # Steps that the learner has to have received
        self._goal = max((phase.env_steps for phase in phases), default=0)
        self.records: list[EpisodeRecord] = []

    @property
    def elapsed(self) -> float:
        """Seconds of wall time since the start."""
        return time.monotonic() - self._started

    def wait_until_up(self) -> None:
        """Until every node that a phase needs has spoken."""
        graph = self._graph
        for node in ("episode", "policy", *self._operator.nodes, "sim_robot"):
            graph.parameters(node, START)
        graph.wait(lambda: graph.control is not None, "control_state of the arbiter", START)
        if self._learner:
            graph.wait(lambda: graph.learner is not None, "learner_status of the learner", START)
        self._started = time.monotonic()

    def run(self, phase: Phase) -> list[EpisodeRecord]:
        """Run a phase to its end.

        Returns:
            The records of its episodes.
        """
        self._prepare(phase)
        self._phase_started = time.monotonic()
        while not self._done(phase):
            what = f"the end of an episode ({phase.name})"
            self._graph.wait(lambda: self._episode_ended(phase), what, self._operator.patience)
            self._collect(phase)
        self._stand_still(phase)
        done = of_phase(self.records, phase.name)
        if done:  # a phase has none where the demonstrations used up its steps
            self._seconds_per_episode = (time.monotonic() - self._phase_started) / len(done)
        self._show(self._snapshot(phase))
        return done

    def _episode_ended(self, phase: Phase) -> bool:
        """Show where things stand while waiting."""
        self._show(self._snapshot(phase))
        return bool(self._graph.finished)

    def _done(self, phase: Phase) -> bool:
        if phase.episodes:
            return len(of_phase(self.records, phase.name)) >= phase.episodes
        return self._env_steps >= phase.env_steps

    def _prepare(self, phase: Phase) -> None:
        graph = self._graph
        self._operator.prepare(phase.name, phase.mode, phase.episodes)
        graph.set_parameters("policy", deterministic=phase.evaluation)
        if phase.boards is not None:
            graph.set_parameters("sim_robot", seed=phase.boards)
            # The seed counts from the next reset; where that was done already, do it again.
            if graph.reset_done:
                graph.trigger("reset")
        graph.set_parameters(
            "episode",
            evaluation=phase.evaluation,
            pace=self._pace and not phase.evaluation,
            max_episodes=phase.episodes,
            auto_start=True,
        )

    def _stand_still(self, phase: Phase) -> None:
        """No episode runs or is asked for, and the learner has done its part."""
        graph = self._graph
        graph.set_parameters("episode", auto_start=False)
        still = (Episode.READY, Episode.ENDED)
        graph.wait(
            lambda: graph.episode.phase in still, "the last episode to end", self._operator.patience
        )
        # One more may have begun before the node received the parameter.
        self._collect(phase)
        if self._learner and not phase.evaluation:
            deadline = LEARN + self._operator.learning
            graph.wait(self._learned, "the learner to work through the last steps", deadline)

    def _learned(self) -> bool:
        status = self._graph.learner
        if status is None:
            return False
        return bool(status.caught_up and status.steps + status.lost_steps >= self._sent)

    def _collect(self, phase: Phase) -> None:
        """Make records of the episodes that have ended."""
        for episode in self._graph.take_finished():
            if not episode.evaluation and episode.steps:
                self._env_steps += episode.steps
                self._sent += episode.steps + 1
            if episode.outcome == Episode.OUTCOME_DISCARDED:
                continue  # no trial; another one takes its place
            ended = episode.outcome == Episode.OUTCOME_SUCCESS
            record = EpisodeRecord(
                phase=phase.name,
                id=episode.id,
                env_steps=self._env_steps,
                steps=episode.steps,
                operator_steps=episode.operator_steps,
                interventions=episode.interventions,
                success=self._truth(episode) if self._truth else ended,
                wall_seconds=round(self.elapsed, 3),
                ended_by=_ended_by(episode) if self.detects else None,
            )
            self.records.append(record)
            self._operator.finished(record)
            self._finished(record)

    def _snapshot(self, phase: Phase) -> Snapshot:
        graph, recent = self._graph, of_phase(self.records, phase.name)[-WINDOW:]
        state = graph.control.state if graph.control else ControlState.DISARMED
        reason = graph.control.reason if graph.control and state not in _SOURCES else ""
        running = graph.episode.phase == Episode.RUNNING
        learner = graph.learner
        return Snapshot(
            phase=phase.name,
            phase_number=self._phases.index(phase) + 1,
            phases=len(self._phases),
            episode=graph.episode.id,
            control_source=_SOURCES.get(state, "none"),
            operator_share=operator_share(recent),
            interventions=sum(r.interventions for r in recent) / len(recent) if recent else None,
            success=success_rate(recent),
            env_steps=self._env_steps,
            env_steps_goal=self._goal,
            critic_steps_per_s=learner.critic_steps_per_s if learner else 0.0,
            updates=learner.updates if learner else 0,
            elapsed=self.elapsed,
            left=self._left(phase),
            episodes=len(of_phase(self.records, phase.name)),
            episodes_goal=phase.episodes,
            task=self._operator.task,
            note=(reason if running else "") or (learner.message if learner else ""),
        )

    def _left(self, phase: Phase) -> float | None:
        """Seconds until the end of the run, by the pace so far; None: not known yet."""
        spent = time.monotonic() - self._phase_started
        done = of_phase(self.records, phase.name)
        if not done:
            return None
        per_episode = self._seconds_per_episode or spent / len(done)
        left = 0.0
        if phase.episodes:
            left += spent / len(done) * (phase.episodes - len(done))
        else:
            steps = sum(record.steps for record in done)
            left += spent / max(1, steps) * max(0, phase.env_steps - self._env_steps)
        for later in self._phases[self._phases.index(phase) + 1 :]:
            if later.env_steps:
                return None
            left += per_episode * later.episodes
        return left


def _ended_by(episode: Episode) -> str:
    """Of EpisodeRecord."""
    success = episode.outcome == Episode.OUTCOME_SUCCESS
    return "detector" if success and episode.reason == SOURCE else "other"
