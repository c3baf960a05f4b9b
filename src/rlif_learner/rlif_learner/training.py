"""Steps in, updates out: what the learner does, in one thread and without ROS.

The number of updates is held to a ratio of the Steps received, so that a result does not depend on
how fast the machine is: `updates_per_step * (steps - warmup_steps)` of them are due.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from rlif_learner.buffer import Buffers
from rlif_learner.steps import Source, StepRecord
from rlif_policy.networks import Actor, PolicySpec

RECENT_EPISODES = 20  # of which the intervention rate is
# Transitions that an algorithm may draw from.
SOURCES: dict[str, Callable[[Buffers], int]] = {
    "prior": lambda b: len(b.prior) if b.prior is not None else 0,
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
    def updates(self) -> int: ...
    @property
    def critic_steps(self) -> int: ...
    def update(self, buffers: Buffers) -> dict[str, float]: ...
    def state_tensors(self) -> dict[str, Tensor]: ...
    def state_values(self) -> dict[str, Any]: ...
    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class TrainingConfig:
    """When to update, and what counts as prior data. ValueError names the field."""

    updates_per_step: float = 1.0  # 0: as fast as possible
    warmup_steps: int = 0  # Steps received before the first update is due
    prior_episodes: int = 0  # the first so many episodes are demonstrations
    prior_into_online: bool = False  # they go into the online buffer, as the authors have it

    def __post_init__(self) -> None:
        if not math.isfinite(self.updates_per_step) or self.updates_per_step < 0.0:
            raise ValueError(
                f"updates_per_step: found {self.updates_per_step}, expected a number of at least 0"
            )
        for name in ("warmup_steps", "prior_episodes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected at least 0")


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

    @property
    def updates_per_step(self) -> float:
        return self.updates / self.steps if self.steps else 0.0


@dataclass
class StepCounts:
    """What has been received: counts, losses, and how often the operator took over."""

    steps: int = 0  # evaluation left out
    episodes: int = 0  # ended, evaluation left out
    lost: int = 0
    last_sequence: int | None = None
    at_episode_end: bool = True
    _last: tuple[int, int] = (0, -1)  # episode and step index of the step before
    _takeovers: int = 0
    _driven: int = 0
    _recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))

    def add(self, step: StepRecord) -> None:
        self.lost += self._missing_before(step)
        self.last_sequence, self._last = step.sequence, (step.episode_id, step.step_index)
        if step.evaluation:
            return
        self.steps += 1
        if step.is_first:
            self._takeovers = self._driven = 0  # what came before had no end
        self.at_episode_end = step.is_last
        if step.is_last:
            self.episodes += 1
            self._recent.append((self._takeovers, self._driven))
            self._takeovers = self._driven = 0
            return
        self._takeovers += step.onset
        self._driven += step.source != Source.NONE

    def _missing_before(self, step: StepRecord) -> int:
        """Steps that must have been between the one before and this one.

        A step lost on the way is missing in both counts, one that the recorder could not make in
        the step index alone: the larger of the two gaps. Of evaluation only the sequence counts.
        """
        if self.last_sequence is None or step.sequence <= self.last_sequence:
            return 0  # the first step ever, or the recorder is another one
        index = self._last[1] if self._last[0] == step.episode_id else -1
        skipped = 0 if step.evaluation else step.step_index - index - 1
        return max(step.sequence - self.last_sequence - 1, skipped)

    @property
    def intervention_rate(self) -> float:
        """Take-overs per driven step over the last episodes."""
        steps = sum(driven for _, driven in self._recent)
        return sum(takeovers for takeovers, _ in self._recent) / steps if steps else 0.0


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
        self.algorithm, self.buffers, self.config = algorithm, buffers, config
        self._sources = [SOURCES[name] for name in sources]
        self.counts = StepCounts()
        self.metrics: dict[str, float] = {}
        self._speed = Speed()

    def receive(self, step: StepRecord) -> None:
        """One Step, in order. ValueError for one of another robot: wrong sizes, not finite."""
        # Which buffer: decided before the step that ends an episode is counted.
        if self.counts.episodes < self.config.prior_episodes:
            self.add_prior(step)
        else:
            self.buffers.online.add_step(step)  # leaves evaluation out
        self.counts.add(step)

    def add_prior(self, step: StepRecord) -> None:
        """One step of a demonstration that was not received: it makes no update due."""
        if self.config.prior_into_online or self.buffers.prior is None:
            self.buffers.online.add_step(step)
        else:
            self.buffers.prior.add_step(step)

    @property
    def ready(self) -> bool:
        """Whether there is anything to learn from."""
        return any(source(self.buffers) for source in self._sources)

    @property
    def due(self) -> bool:
        """Whether an update shall be done now."""
        after_warmup = self.counts.steps - self.config.warmup_steps
        if after_warmup <= 0 or not self.ready:
            return False
        allowed = self.config.updates_per_step * after_warmup
        return self.config.updates_per_step == 0.0 or self.algorithm.updates + 1 <= allowed

    @property
    def caught_up(self) -> bool:
        """No update is due for the Steps received; without a ratio there is nothing to wait for."""
        return self.config.updates_per_step == 0.0 or not self.due

    def update(self) -> None:
        """One update. NonFiniteError where a loss is not finite."""
        self.metrics = self.algorithm.update(self.buffers)
        self._speed.add(self.algorithm.critic_steps, time.monotonic())

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
        )

    def counters(self) -> dict[str, int]:
        """What a checkpoint holds besides algorithm and buffers."""
        counts = self.counts
        return {"steps": counts.steps, "episodes": counts.episodes, "lost_steps": counts.lost}

    def restore(self, counters: dict[str, Any]) -> None:
        """The inverse of `counters`. KeyError for a checkpoint that holds none."""
        self.counts.steps = int(counters["steps"])
        self.counts.episodes = int(counters["episodes"])
        self.counts.lost = int(counters["lost_steps"])


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
