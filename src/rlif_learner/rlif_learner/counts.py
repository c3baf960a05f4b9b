# SPDX-License-Identifier: Apache-2.0
"""What is counted of the Steps that a learner receives: losses, take-overs, the score of evaluations."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rlif_learner.data.steps import Outcome, Place, Source, StepRecord, missing_before

RECENT_EPISODES = 20  # of which the intervention and success rates are
SCORED_EPISODES = 10  # of evaluation, below which a success rate says too little to be a score


class StepFacts(Place, Protocol):
    """What is counted of a step: of a StepRecord, or of a Step that none could be made of."""

    @property
    def is_first(self) -> bool: ...
    @property
    def is_last(self) -> bool: ...
    @property
    def source(self) -> int: ...
    @property
    def onset(self) -> bool: ...
    @property
    def outcome(self) -> int: ...


@dataclass
class StepCounts:
    """What has been received of one robot: counts, losses, and how often the operator took over."""

    steps: int = 0  # evaluation left out
    episodes: int = 0  # ended, evaluation and discarded ones left out
    lost: int = 0
    last_sequence: int | None = None
    last_stamp: int = 0  # ns, of the Step of last_sequence; 0: not known
    at_episode_end: bool = True
    _last: tuple[int, int] = (0, -1)  # episode and step index of the step before
    # Before a jump: sequence, episode and step index, and how many steps it counted as lost.
    _jump: tuple[int, int, int, int] | None = None
    _takeovers: int = 0
    _driven: int = 0
    _recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))
    _successes: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))

    def add(self, step: StepRecord) -> None:
        """A step that was taken in."""
        self._follow(step, step.stamp)
        self.steps += not step.evaluation

    def drop(self, step: StepFacts) -> None:
        """A step that came but cannot be used: as one that was lost, which ends what it ends."""
        self._follow(step, 0)
        self.lost += 1

    def _follow(self, step: StepFacts, stamp: int) -> None:
        self._count_missing(step)
        self.last_stamp = stamp
        self.last_sequence, self._last = step.sequence, (step.episode_id, step.step_index)
        if step.evaluation:
            return
        if step.is_first:
            self._takeovers = self._driven = 0  # what came before had no end
        self.at_episode_end = step.is_last
        if step.is_last:
            if step.outcome != Outcome.DISCARDED:
                self.episodes += 1
                self._recent.append((self._takeovers, self._driven))
                self._successes.append(step.outcome == Outcome.SUCCESS)
            self._takeovers = self._driven = 0
            return
        self._takeovers += step.onset
        self._driven += step.source != Source.NONE

    def _count_missing(self, step: StepFacts) -> None:
        """What is missing before `step`, at once: with `pace` the next episode waits for it.

        A single Step of another recorder jumps to other numbers, and the next Step goes on from
        before the jump: what the jump counted is then taken back.
        """
        if self._jump is not None:
            sequence, episode, index, missing = self._jump
            if self._goes_back(step, sequence):
                self.lost -= missing
                self.last_sequence, self._last = sequence, (episode, index)
            self._jump = None
        if self.last_sequence is None:
            return
        missing = missing_before(step, self.last_sequence, *self._last)
        if missing or step.sequence <= self.last_sequence:
            self._jump = (self.last_sequence, *self._last, missing)
        self.lost += missing

    def _goes_back(self, step: StepFacts, before: int) -> bool:
        """Whether `step` goes on from the sequence before the jump and not from the one after it."""
        after = self.last_sequence
        assert after is not None
        return before < step.sequence <= after or after < before < step.sequence

    @property
    def last_place(self) -> tuple[int, int, int]:
        """Episode, step index and stamp of the Step of `last_sequence`."""
        return *self._last, self.last_stamp

    @property
    def recent(self) -> tuple[int, int]:
        """Take-overs and driven steps of the last episodes."""
        return sum(takeovers for takeovers, _ in self._recent), sum(d for _, d in self._recent)

    @property
    def intervention_rate(self) -> float:
        """Take-overs per driven step over the last episodes."""
        return _rate(*self.recent)

    @property
    def success_rate(self) -> float:
        """Share of the last episodes that succeeded; not a number before the first one has ended."""
        return sum(self._successes) / len(self._successes) if self._successes else math.nan

    def state(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {
            "steps": self.steps,
            "episodes": self.episodes,
            "lost_steps": self.lost,
            "last_sequence": self.last_sequence,
            "last_stamp": self.last_stamp,
            "at_episode_end": self.at_episode_end,
            "last": list(self._last),
            "jump": None if self._jump is None else list(self._jump),
            "takeovers": self._takeovers,
            "driven": self._driven,
            "recent": [list(counts) for counts in self._recent],
            "successes": list(self._successes),
        }

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of `state`. KeyError names the count that is missing.

        What is under way is not in checkpoints of earlier versions: as at the start then.
        """
        self.steps, self.episodes = int(state["steps"]), int(state["episodes"])
        self.lost = int(state["lost_steps"])
        under_way = {**StepCounts().state(), **state}
        episode, index = under_way["last"]
        self.last_sequence, self._last = under_way["last_sequence"], (episode, index)
        self.last_stamp = int(under_way["last_stamp"])
        jump = under_way["jump"]
        self._jump = None if jump is None else (jump[0], jump[1], jump[2], jump[3])
        self.at_episode_end = bool(under_way["at_episode_end"])
        self._takeovers, self._driven = int(under_way["takeovers"]), int(under_way["driven"])
        self._recent.clear()
        self._recent.extend((takeovers, driven) for takeovers, driven in under_way["recent"])
        self._successes.clear()
        self._successes.extend(under_way["successes"])


def _rate(takeovers: int, driven: int) -> float:
    return takeovers / driven if driven else 0.0


class RobotCounts:
    """The counts of each robot, and their sums. By default there is one robot, without a name."""

    def __init__(self, robots: Sequence[str] = ()) -> None:
        self._named = tuple(robots)
        self._of = {name: StepCounts() for name in ("", *robots)}

    def of(self, robot: str = "") -> StepCounts:
        """The counts of one robot. KeyError for one that is not known."""
        return self._of[robot]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the robots; the one without a name where there are no others."""
        return self._named or ("",)

    @property
    def steps(self) -> int:
        return sum(counts.steps for counts in self._of.values())

    @property
    def episodes(self) -> int:
        return sum(counts.episodes for counts in self._of.values())

    @property
    def lost(self) -> int:
        return sum(counts.lost for counts in self._of.values())

    @property
    def intervention_rate(self) -> float:
        """Take-overs per driven step over the last episodes of every robot."""
        takeovers, driven = zip(*(counts.recent for counts in self._of.values()), strict=True)
        return _rate(sum(takeovers), sum(driven))

    def state(self) -> dict[str, Any]:
        """All of it, as JSON holds it; of one robot without a name its own counts."""
        if not self._named:
            return self._of[""].state()
        sums = {"steps": self.steps, "episodes": self.episodes, "lost_steps": self.lost}
        return {**sums, "robots": {name: counts.state() for name, counts in self._of.items()}}

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of `state`. KeyError names the count that is missing.

        The counts of a robot that is not among the present ones stay in the sums, as its steps do in the buffers.
        """
        for name, counts in state.get("robots", {"": state}).items():
            self._of.setdefault(name, StepCounts()).load(counts)


@dataclass
class EvaluationCounts:
    """Evaluation episodes of the weights as they are: each update makes it begin anew.

    Only whole episodes that the policy drove alone count: what an operator did says nothing of it.
    """

    episodes: int = 0
    successes: int = 0
    _running: set[str] = field(default_factory=set)  # robots whose episode counts

    def add(self, step: StepRecord) -> None:
        if step.is_first:
            self._running.discard(step.robot)
            if step.evaluation:
                self._running.add(step.robot)
        if step.source == Source.OPERATOR:
            self._running.discard(step.robot)
        if step.is_last and step.robot in self._running:
            self._running.discard(step.robot)
            if step.outcome == Outcome.DISCARDED:
                return
            self.episodes += 1
            self.successes += step.outcome == Outcome.SUCCESS

    def begin_anew(self) -> None:
        self.episodes = self.successes = 0
        self._running.clear()

    @property
    def score(self) -> float | None:
        """The success rate; None below SCORED_EPISODES episodes."""
        return self.successes / self.episodes if self.episodes >= SCORED_EPISODES else None
