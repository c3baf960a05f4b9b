# SPDX-License-Identifier: Apache-2.0
"""Steps out of Observations, Decisions and Episodes: the join by tick, free of ROS.

The three topics arrive in any order relative to each other, each of them in its own order; the
Steps do not depend on it. One step is kept back until its successor is there, because the end of
an episode may be announced after a Decision was made on what turns out to be the final
observation.

    episode      RUNNING(start) ................................ ENDED(end)
    observation      o0      o1      o2      o3 >= end
    decision         d0      d1      d2      (d3: made before the arbiter knew; dropped)
    steps            s0      s1      s2      s3 = o3, is_last, no action

A stamp is that of the oldest sample in an observation, so an end "now" lies after the stamps of
observations that the arbiter gets later, and answers no more. So the final observation is the
first one that has either a stamp at or after the end, or no Decision though all have come.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from rlif_node.states import Phase

O = TypeVar("O")  # noqa: E741  what an Observation carries
D = TypeVar("D")  # what a Decision carries

_CLOSED_KEPT = 16  # episodes of which late Decisions are still recognised


@dataclass(frozen=True)
class TimedObservation(Generic[O]):
    """An Observation. stamp: ns, of its header."""

    tick: int
    stamp: int
    message: O


@dataclass(frozen=True)
class TimedDecision(Generic[D]):
    """A Decision. stamp: ns, of its header; episode_id 0: of no episode."""

    tick: int
    stamp: int
    episode_id: int
    step_index: int
    message: D


@dataclass(frozen=True)
class EpisodeEvent:
    """An Episode message. stamp: ns, of the start (RUNNING) or of the end (ENDED)."""

    id: int
    phase: Phase
    stamp: int
    outcome: int = 0
    evaluation: bool = False


@dataclass(frozen=True)
class JoinedStep(Generic[O, D]):
    """One Step; `decision` is None in the last one of an episode.

    sequence: counts Steps; one is left out where a step must be missing and step_index hides it
    """

    sequence: int
    tick: int
    episode_id: int
    step_index: int
    is_last: bool
    outcome: int
    evaluation: bool
    observation: O
    decision: D | None

    @property
    def is_first(self) -> bool:
        return self.step_index == 0


@dataclass
class _Episode(Generic[O, D]):
    """What is known of one episode whose Steps are not all out yet."""

    id: int
    evaluation: bool
    start: int
    end: EpisodeEvent | None = None
    aborted: bool = False  # another one began without an end of this one
    since: float = 0.0  # s, when its end or abortion became known
    held: tuple[TimedDecision[D], TimedObservation[O]] | None = None
    decided: int = -1  # tick of the last Decision dealt with
    released: int = -1  # tick of the last Step that is out
    released_index: int = -1
    last_stamp: int = -1  # of the last Step that is out
    cut: int = -1  # step index after which the ticks were restarted; -1: they were not
    unrecorded: int = 0  # Decisions that make no Step

    @property
    def over(self) -> bool:
        return self.aborted or self.end is not None


class StepJoin(Generic[O, D]):
    """Feed it the three topics; each call returns the Steps that became certain.

    capacity: Observations and Decisions kept while their counterpart is missing
    final_timeout: s after the end of an episode that its last messages may take
    max_gap: s between the stamps of two Steps, above which one must be missing; 0: any
    """

    def __init__(
        self, capacity: int = 64, final_timeout: float = 1.0, max_gap: float = 0.0
    ) -> None:
        if capacity < 2:
            raise ValueError(f"capacity: found {capacity}, expected at least 2")
        if not final_timeout > 0.0:
            raise ValueError(f"final_timeout: found {final_timeout}, expected seconds above 0")
        if not (math.isfinite(max_gap) and max_gap >= 0.0):
            raise ValueError(f"max_gap: found {max_gap}, expected seconds, or 0 for no limit")
        self.capacity, self.final_timeout, self.max_gap = capacity, final_timeout, max_gap
        self.sequence = 0  # of the next Step
        self.problems: Counter[str] = Counter()
        self._reports: list[str] = []
        self._observations: OrderedDict[int, TimedObservation[O]] = OrderedDict()
        self._newest, self._newest_stamp = -1, -1  # of the newest Observation: tick, stamp
        self._decisions: deque[TimedDecision[D]] = deque()
        self._episodes: deque[_Episode[O, D]] = deque()
        self._closed: OrderedDict[int, tuple[int, int]] = OrderedDict()  # id: last index, stamp

    def observe(self, seen: TimedObservation[O]) -> list[JoinedStep[O, D]]:
        """An Observation arrived."""
        if seen.tick <= self._newest:
            self._report(
                "observer_restarted",
                f"tick {seen.tick} came after tick {self._newest}: the observer was restarted, "
                "what was waiting for its old ticks is dropped",
            )
            self._observations.clear()
            self._decisions.clear()
            self._forget_ticks()
        self._observations[seen.tick] = seen
        self._newest, self._newest_stamp = seen.tick, seen.stamp
        return self._make_room() + self._advance()

    def decide(self, driven: TimedDecision[D]) -> list[JoinedStep[O, D]]:
        """A Decision arrived."""
        if driven.episode_id == 0:
            return []
        self._decisions.append(driven)
        if len(self._decisions) > self.capacity:
            lost = self._decisions.popleft()
            self._report(
                "decision_dropped",
                f"decision of tick {lost.tick} dropped: {self.capacity} wait for an observation "
                f"or for episode {lost.episode_id} to be announced",
            )
        return self._advance()

    def stage(self, stage: EpisodeEvent, now: float) -> list[JoinedStep[O, D]]:
        """An Episode arrived at `now` (s, any steady clock)."""
        last = self._episodes[-1] if self._episodes else None
        if last is not None and not last.over and (
            last.id != stage.id or stage.phase in (Phase.RESETTING, Phase.READY)
        ):  # fmt: skip
            last.aborted, last.since = True, now
        if stage.id and stage.phase in (Phase.RUNNING, Phase.ENDED):
            self._note(stage, now)
        return self._advance()

    def expire(self, now: float) -> list[JoinedStep[O, D]]:
        """Call now and then: ends the wait for messages that did not come."""
        steps: list[JoinedStep[O, D]] = []
        while self._episodes:
            episode = self._episodes[0]
            if not episode.over or now - episode.since < self.final_timeout:
                break
            steps += self._close(episode)
            steps += self._advance()
        return steps

    def flush(self) -> list[JoinedStep[O, D]]:
        """The recorder ends: the step kept back is released as the ordinary one it seems to be."""
        steps: list[JoinedStep[O, D]] = []
        while self._episodes:
            episode = self._episodes[0]
            if episode.over:
                steps += self._close(episode)
            else:
                steps += self._release(episode)
                self._episodes.popleft()
            steps += self._advance()
        return steps

    def take_reports(self) -> list[str]:
        """Problems since the last call, for the log."""
        reports, self._reports = self._reports, []
        return reports

    def _report(self, kind: str, text: str) -> None:
        self.problems[kind] += 1
        self._reports.append(text)

    def _forget_ticks(self) -> None:
        """Ticks are counted from the beginning again: those of running episodes compare with nothing any more."""
        for episode in self._episodes:
            episode.decided = episode.released = -1
            held = episode.held
            episode.cut = held[0].step_index if held is not None else episode.released_index

    def _make_room(self) -> list[JoinedStep[O, D]]:
        """Forget the oldest Observations; one that ends an episode is not waited with any longer."""
        steps: list[JoinedStep[O, D]] = []
        while len(self._observations) > self.capacity:
            first = self._episodes[0] if self._episodes else None
            oldest = next(iter(self._observations.values()))
            if first is not None and first.end is not None and self._final(first) is oldest:
                steps += self._close(first)
            self._observations.popitem(last=False)
        return steps

    def _note(self, stage: EpisodeEvent, now: float) -> None:
        episode = next((e for e in self._episodes if e.id == stage.id), None)
        ended = stage.phase == Phase.ENDED
        if episode is None:
            if ended and stage.id in self._closed:
                return  # repeated
            self._closed.pop(stage.id, None)
            start = 0 if ended else stage.stamp
            episode = _Episode(stage.id, stage.evaluation, start)
            self._episodes.append(episode)
        if ended and episode.end is None:
            episode.end, episode.since = stage, now

    def _advance(self) -> list[JoinedStep[O, D]]:
        steps: list[JoinedStep[O, D]] = []
        while True:
            self._drop_late_decisions()
            if not self._episodes:
                return steps
            episode = self._episodes[0]
            steps += self._join(episode)
            if not self._complete(episode):
                return steps
            steps += self._close(episode)

    def _drop_late_decisions(self) -> None:
        """Those of episodes whose Steps are all out: the arbiter did not know yet."""
        open_ids = {e.id for e in self._episodes}
        while self._decisions:
            first = self._decisions[0]
            if first.episode_id in open_ids:
                return
            index, stamp = self._closed.get(first.episode_id, (first.step_index + 1, -1))
            if first.step_index < index and first.stamp > stamp:
                return  # of an episode that is not announced yet
            self._decisions.popleft()

    def _join(self, episode: _Episode[O, D]) -> list[JoinedStep[O, D]]:
        """Pair Decisions of `episode` with their Observations, as far as both are there."""
        steps: list[JoinedStep[O, D]] = []
        while self._decisions and self._decisions[0].episode_id == episode.id:
            driven = self._decisions[0]
            if driven.tick > self._newest and driven.stamp > self._newest_stamp:
                break
            self._decisions.popleft()
            if driven.tick <= self._newest:  # else: of an observer before the present one
                episode.decided = driven.tick
            seen = self._observations.get(driven.tick)
            if seen is None or seen.stamp != driven.stamp:
                episode.unrecorded += 1
                self._report(
                    "observation_missing",
                    f"step {driven.step_index} of episode {episode.id} is not recorded: no "
                    f"observation of tick {driven.tick} with the decision's stamp",
                )
            elif episode.end is None or driven.stamp < episode.end.stamp:
                steps += self._release(episode)
                episode.held = (driven, seen)
                self._prune(driven.tick)
        if episode.end is not None and episode.held is not None:
            if episode.held[0].stamp < episode.end.stamp:
                steps += self._release(episode)
            else:
                episode.held = None  # its observation is the final one
        return steps

    def _prune(self, tick: int) -> None:
        """Observations before `tick` are not needed any more."""
        while self._observations and next(iter(self._observations)) < tick:
            self._observations.popitem(last=False)

    def _complete(self, episode: _Episode[O, D]) -> bool:
        """Whether nothing of `episode` can come any more, as far as the order tells."""
        if not episode.over:
            return False
        if self._decisions and self._decisions[0].episode_id != episode.id:
            no_more = True  # decisions arrive in order
        elif episode.end is None:
            return False
        else:
            no_more = not any(
                seen.tick > episode.decided and episode.start <= seen.stamp < episode.end.stamp
                for seen in self._observations.values()
            )
        return no_more and (episode.aborted or self._final(episode) is not None)

    def _final(self, episode: _Episode[O, D]) -> TimedObservation[O] | None:
        """The first Observation at or after the end, or after the last Decision."""
        assert episode.end is not None
        for seen in self._observations.values():
            undecided = seen.tick > episode.decided and seen.stamp >= episode.start
            if seen.tick > episode.released and (undecided or seen.stamp >= episode.end.stamp):
                return seen
        return None

    def _close(self, episode: _Episode[O, D]) -> list[JoinedStep[O, D]]:
        """All Steps that are left of `episode`, the last one at the end."""
        steps: list[JoinedStep[O, D]] = []
        if episode.end is None:
            self._report(
                "episode_without_end",
                f"episode {episode.id} has no end: its steps have no last one",
            )
            steps = self._release(episode)
        elif episode.released_index >= 0:
            steps = self._last(episode, episode.end)
        elif episode.unrecorded:
            self.sequence += episode.unrecorded + 1  # no Step is left whose index could tell
        self._closed[episode.id] = (episode.released_index, episode.last_stamp)
        while len(self._closed) > _CLOSED_KEPT:
            self._closed.popitem(last=False)
        self._episodes.popleft()
        return steps

    def _last(self, episode: _Episode[O, D], end: EpisodeEvent) -> list[JoinedStep[O, D]]:
        """The last Step. Nothing where there is no Observation at all."""
        if episode.last_stamp >= end.stamp:
            self._report(
                "end_came_late",
                f"the end of episode {episode.id} was announced after later steps were out",
            )
        seen = self._final(episode)
        if seen is None and self._observations:
            seen = next(reversed(self._observations.values()))
            self._report(
                "final_observation_missing",
                f"no observation after the end of episode {episode.id} within "
                f"{self.final_timeout} s: its last step carries the newest one, tick {seen.tick}",
            )
        if seen is None:
            self._report(
                "final_observation_missing",
                f"episode {episode.id} has no last step: there is no observation at all",
            )
            self.sequence += 1
            return []
        # Ticks without a Decision leave a gap in the index; so does an observation that is not
        # newer than the last step's: it must not be learned from as what the action led to.
        ahead = seen.tick - episode.released if episode.released >= 0 else 2
        index = episode.released_index + (ahead if ahead > 0 else 2)
        self._leave_out(episode, seen.tick, index, seen.stamp)
        step: JoinedStep[O, D] = JoinedStep(
            self.sequence, seen.tick, episode.id, index, True, end.outcome, episode.evaluation,
            seen.message, None,
        )  # fmt: skip
        self.sequence += 1
        episode.released_index, episode.last_stamp = index, seen.stamp
        return [step]

    def _leave_out(self, episode: _Episode[O, D], tick: int, index: int, stamp: int) -> None:
        """Leave a sequence number out before a Step whose index alone hides that one is missing.

        A transition over two control periods must not be learned from as one over one.
        """
        if episode.released_index < 0 or index != episode.released_index + 1:
            return
        gap = (stamp - episode.last_stamp) * 1e-9
        before = f"before step {index} of episode {episode.id}, though its step index goes on"
        if index == episode.cut + 1:
            self._report("step_left_out", f"the observer was restarted {before}")
        elif 0 <= episode.released < tick - 1:
            self._report(
                "decision_missing",
                f"no decision between ticks {episode.released} and {tick} {before}",
            )
        elif 0.0 < self.max_gap < gap:
            self._report(
                "observation_gap",
                f"{gap:.3f} s without an observation {before}: max_gap is exceeded",
            )
        else:
            return
        self.sequence += 1

    def _release(self, episode: _Episode[O, D]) -> list[JoinedStep[O, D]]:
        """Let the step that is kept back go, as one that is not the last."""
        if episode.held is None:
            return []
        driven, seen = episode.held
        episode.held = None
        self._leave_out(episode, driven.tick, driven.step_index, driven.stamp)
        # The tick of an observer before the present one compares with none that comes.
        episode.released = driven.tick if driven.step_index > episode.cut else -1
        episode.released_index = driven.step_index
        episode.last_stamp = driven.stamp
        step = JoinedStep(
            self.sequence, driven.tick, episode.id, driven.step_index, False, 0,
            episode.evaluation, seen.message, driven.message,
        )  # fmt: skip
        self.sequence += 1
        return [step]
