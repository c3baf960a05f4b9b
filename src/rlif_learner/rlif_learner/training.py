# SPDX-License-Identifier: Apache-2.0
"""Steps in, updates out: what the learner does, in one thread and without ROS.

The number of updates is held to a ratio of the Steps received, so that a result does not depend on
how fast the machine is: `updates_per_step * (steps - warmup_steps)` of them are due. Where Steps come
faster than the machine updates and no node waits for it, the backlog grows; `Trainer.drop_backlog`
takes back updates that are due.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from rlif_learner.counts import EvaluationCounts, RobotCounts, StepFacts
from rlif_learner.data.sampling import DRIVEN, Buffers
from rlif_learner.data.steps import StepRecord
from rlif_learner.vision import as_stored
from rlif_policy.networks import Actor, PolicySpec

SMOOTHING = 0.1  # weight of the newest update in the mean duration of updates
NORMALISED_EPISODES = 10  # of demonstrations, at most, that the state's normaliser is fitted to
log = logging.getLogger(__name__)
# Transitions that an algorithm may draw from.
SOURCES: dict[str, Callable[[Buffers], int]] = {
    "prior": lambda b: len(b.prior) if b.prior is not None else 0,
    "driven_prior": lambda b: b.prior.count(DRIVEN) if b.prior is not None else 0,
    "online": lambda b: len(b.online),
    "operator": lambda b: b.online.operator_count(),
}


class Algorithm(Protocol):
    """RLPD, BC, HG-DAgger."""

    @property
    def spec(self) -> PolicySpec: ...
    @property
    def config(self) -> Any: ...
    @property
    def actor(self) -> Actor: ...
    @property
    def policy(self) -> Actor: ...
    @property
    def updates(self) -> int: ...
    @property
    def critic_steps(self) -> int: ...
    def update(self, buffers: Buffers) -> dict[str, float]: ...
    def value(self, step: StepRecord) -> float | None: ...
    def state_tensors(self) -> dict[str, Tensor]: ...
    def state_values(self) -> dict[str, Any]: ...
    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class TrainingConfig:
    """When to update, and what counts as prior data. ValueError names the field."""

    updates_per_step: float = 1.0  # 0: as fast as possible
    warmup_steps: int = 0  # Steps received before the first update is due
    prior_episodes: int = 0  # the first so many episodes of each robot are demonstrations
    prior_into_online: bool = False  # they go into the online buffer, as the authors have it
    robots: tuple[str, ...] = ()  # names of several; empty: there is one, without a name

    def __post_init__(self) -> None:
        if not math.isfinite(self.updates_per_step) or self.updates_per_step < 0.0:
            raise ValueError(
                f"updates_per_step: found {self.updates_per_step}, expected a number of at least 0"
            )
        for name in ("warmup_steps", "prior_episodes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected at least 0")


@dataclass(frozen=True)
class RobotStatus:
    """As rlif_msgs/RobotStatus."""

    robot: str
    steps: int
    lost_steps: int
    episodes: int
    intervention_rate: float
    success_rate: float
    age: float
    latency: float
    policy_version: int
    caught_up: bool


@dataclass(frozen=True)
class TrainingStatus:
    """As rlif_msgs/LearnerStatus."""

    steps: int
    transitions: int
    prior_transitions: int
    updates: int
    critic_steps: int
    critic_steps_per_s: float
    caught_up: bool
    lost_steps: int
    intervention_rate: float
    metrics: dict[str, float]
    backlog: int = 0
    robots: tuple[RobotStatus, ...] = ()  # of several

    @property
    def updates_per_step(self) -> float:
        return self.updates / self.steps if self.steps else 0.0


class Trainer:
    """An algorithm, its data, and how many updates are due."""

    def __init__(
        self,
        algorithm: Algorithm,
        buffers: Buffers,
        config: TrainingConfig,
        sources: tuple[str, ...] = ("prior", "online"),
    ) -> None:
        """sources: what the algorithm draws from, any of which is enough to begin; see SOURCES."""
        self._see = as_stored(algorithm.actor)
        self.algorithm, self.buffers, self.config = algorithm, buffers, config
        self._sources = [SOURCES[name] for name in sources]
        self.counts = RobotCounts(config.robots)
        self.evaluation = EvaluationCounts()
        # Whether the state's normaliser has its numbers: given, or fitted before the first update.
        self._normalised = bool(algorithm.spec.state_offset or algorithm.spec.state_scale)
        self.demonstrated = False  # there are demonstrations, or all data, that were not received
        self.stopped = False  # no update is ever due again
        self.metrics: dict[str, float] = {}
        self.dropped_updates = 0  # that were due, and are not any more
        self._kept_updates = 0  # of the first so many none is dropped: demonstrations held them up
        self.update_seconds = 0.0  # mean duration of the last updates but the first; 0: none yet
        self.timed_updates = 0  # of this process
        self._speed = Speed()

    def receive(self, step: StepRecord) -> None:
        """One Step, in order. ValueError for one that cannot be taken in: wrong sizes, not finite.

        Nothing was changed then; `drop` it, so that it counts as lost.
        """
        # Which buffer: decided before the step that ends an episode is counted.
        counts = self.counts.of(step.robot)
        if counts.episodes < self.config.prior_episodes:
            self._add_demonstration(step)
        else:
            self.buffers.online.add_step(self._see(step))  # leaves evaluation out
        counts.add(step)
        self.evaluation.add(step)

    def value(self, step: StepRecord) -> float | None:
        """What the critics expect of the action executed at a Step that was received.

        None: no action, no critic or an untrained one, or an evaluation of other sizes: nobody refuses it.
        """
        spec, sizes = self.algorithm.spec, (len(step.state), len(step.action))
        if not self.algorithm.updates or sizes != (spec.state_dim, spec.action_dim):
            return None
        try:
            # A frozen trunk makes its maps of what is learned from alone.
            return self.algorithm.value(self._see(replace(step, evaluation=False)))
        except ValueError:  # images of other sizes
            return None

    def drop(self, step: StepFacts, robot: str = "") -> None:
        """A Step that came but cannot be taken in. The gap it leaves joins nothing."""
        self.counts.of(robot).drop(step)

    def add_prior(self, step: StepRecord) -> None:
        """One step of a demonstration that was not received: it makes no update due."""
        self.demonstrated = True
        self._add_demonstration(step)

    def _add_demonstration(self, step: StepRecord) -> None:
        if self.config.prior_into_online or self.buffers.prior is None:
            self.buffers.online.add_step(self._see(step))
        else:
            self.add_to_prior(step)

    def add_to_prior(self, step: StepRecord) -> None:
        """One step into the prior buffer, whatever `prior_into_online` says. ValueError if there is
        none."""
        if self.buffers.prior is None:
            raise ValueError("prior: found no buffer for it, expected Buffers with one")
        self.buffers.prior.add_step(self._see(step))

    @property
    def ready(self) -> bool:
        """Whether there is anything to learn from."""
        return any(source(self.buffers) for source in self._sources)

    @property
    def due(self) -> bool:
        """Whether an update shall be done now."""
        after_warmup = self.counts.steps - self.config.warmup_steps
        if self.stopped or after_warmup <= 0 or not self.ready or self._waits_for_demonstrations:
            return False
        return self.config.updates_per_step == 0.0 or self._allowance >= 1.0

    @property
    def _waits_for_demonstrations(self) -> bool:
        """Whether the state's normaliser shall see more of them first, of robots that have sent Steps."""
        each, robots = self.config.prior_episodes, map(self.counts.of, self.counts.names)
        shown = [min(counts.episodes, each) for counts in robots if counts.steps]
        wanted = min(each * len(shown), NORMALISED_EPISODES)
        return not (self._normalised or self.demonstrated) and sum(shown) < wanted

    def _normalise(self) -> None:
        """Fit the state's normaliser to the demonstrations, for good: the networks learn with it.

        Without any, the first Steps may all be of an arm at rest: it stays at 0 and 1.
        """
        self._normalised = True
        if not (self.demonstrated or self.config.prior_episodes):
            log.info("no demonstrations: the state's offset stays 0 and its scale 1")
            return
        if not self.demonstrated:
            self._kept_updates = self.algorithm.updates + self.backlog
        buffers = [b for b in (self.buffers.prior, self.buffers.online) if b is not None]
        states = np.concatenate([buffer.states() for buffer in buffers])
        normaliser = self.algorithm.actor.normaliser
        normaliser.fit(states)
        offset, scale = (
            [float(f"{value:.3g}") for value in numbers[: states.shape[1]].tolist()]
            for numbers in (normaliser.offset, normaliser.scale)
        )
        log.info(
            "fitted to %d states: state_offset: %s, state_scale: %s", len(states), offset, scale
        )

    @property
    def _allowance(self) -> float:
        """How many more updates the ratio allows; without a ratio that says nothing."""
        after_warmup = self.counts.steps - self.config.warmup_steps
        done = self.algorithm.updates + self.dropped_updates
        return self.config.updates_per_step * after_warmup - done

    @property
    def backlog(self) -> int:
        """Updates that are due for the Steps received; without a ratio none are."""
        return int(self._allowance) if self.due and self.config.updates_per_step else 0

    def drop_backlog(self, longest: float) -> int:
        """Take back all updates that are due if they would take longer than this, in s.

        Returns how many these are. The Steps stay in the buffers. What became due while it waited
        for demonstrations is not taken back.
        """
        backlog = self.backlog - max(0, self._kept_updates - self.algorithm.updates)
        if backlog * self.update_seconds <= longest:
            return 0
        self.dropped_updates += backlog
        return backlog

    @property
    def caught_up(self) -> bool:
        """No update is due for the Steps received; without a ratio there is nothing to wait for."""
        return self.config.updates_per_step == 0.0 or not self.due

    def update(self) -> None:
        """One update. NonFiniteError where a loss is not finite."""
        if not self._normalised and self.ready:
            self._normalise()
        begin = time.monotonic()
        self.metrics = self.algorithm.update(self.buffers)
        self.evaluation.begin_anew()
        now = time.monotonic()
        self._speed.add(self.algorithm.critic_steps, now)
        # Without the first one, which takes the memory that the others have.
        if self.timed_updates:
            change = now - begin - self.update_seconds
            self.update_seconds += change * max(SMOOTHING, 1.0 / self.timed_updates)
        self.timed_updates += 1

    def status(self) -> TrainingStatus:
        buffers, counts = self.buffers, self.counts
        return TrainingStatus(
            steps=counts.steps,
            transitions=len(buffers.online),
            prior_transitions=len(buffers.prior) if buffers.prior is not None else 0,
            updates=self.algorithm.updates,
            critic_steps=self.algorithm.critic_steps,
            critic_steps_per_s=self._speed.rate(time.monotonic()),
            caught_up=self.caught_up,
            lost_steps=counts.lost,
            intervention_rate=counts.intervention_rate,
            metrics=dict(self.metrics),
            backlog=self.backlog,
        )

    def counters(self) -> dict[str, Any]:
        """What a checkpoint holds besides algorithm and buffers."""
        own = {
            "dropped_updates": self.dropped_updates,
            "kept_updates": self._kept_updates,
            "normalised": self._normalised,
            "demonstrated": self.demonstrated,
        }
        return {**self.counts.state(), **own}

    def restore(self, counters: dict[str, Any]) -> None:
        """The inverse of `counters`. KeyError for a checkpoint that holds none."""
        self.counts.load(counters)
        # Not in earlier versions, which took the spec's numbers.
        self.dropped_updates = int(counters.get("dropped_updates", 0))
        self._normalised |= bool(counters.get("normalised", True))
        self._kept_updates = int(counters.get("kept_updates", 0))
        self.demonstrated |= bool(counters.get("demonstrated", False))


class Speed:
    """Critic steps per second over the last few seconds."""

    WINDOW = 5.0  # s

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def add(self, count: int, now: float) -> None:
        self._marks.append((now, count))
        self._forget(now)

    def rate(self, now: float) -> float:
        self._forget(now)
        if len(self._marks) < 2:
            return 0.0
        (start, first), (_, last) = self._marks[0], self._marks[-1]
        return (last - first) / (now - start) if now > start else 0.0

    def _forget(self, now: float) -> None:
        while self._marks and self._marks[0][0] < now - self.WINDOW:
            self._marks.popleft()
