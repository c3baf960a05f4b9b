# SPDX-License-Identifier: Apache-2.0
"""The scripted operator: who acts, who judges, and when to take over (PAPER: RLIF, section 5.1).

The actor is imperfect: its estimate of the hole's position has an error that differs from episode to
episode, and its actions have noise. The judge compares actions; it may know better than the actor, as
a person may recognise a failure that they could not avoid themselves. No ROS, no physics.

The peg's judge and actor see its tip's position relative to the hole, [3] m. Strategies and `Operator`
take what any other judge and actor see: `benchmarks/paper` uses them with learned ones. Actions are [n]
in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Approach:
    """Above the hole first, then down: where to go from a position, and how long it takes."""

    speed: float = 0.1  # m/s of an action of 1
    period: float = 0.1  # s of an action
    aligned: float = 0.001  # m off the axis at which the peg goes down
    hover: float = 0.003  # m above the face that a peg which is off the axis keeps
    depth: float = 0.025  # m below the face: the end of the approach

    def __post_init__(self) -> None:
        for name in ("speed", "period", "aligned", "hover", "depth"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected more than 0")

    @property
    def reach(self) -> float:
        """Way of one action of 1, m."""
        return self.speed * self.period

    def action(self, position: Array) -> Array:
        """[3] in [-1, 1]: the straight way to above the hole, then down."""
        step = np.zeros(3)
        step[:2] = -position[:2]
        distance = float(np.hypot(*position[:2]))
        if distance <= self.aligned:
            step[2] = -self.depth - position[2]
        elif position[2] < self.hover:
            step[2] = self.hover - position[2]
        elif distance < self.reach:
            # Almost there: go down as far as the hover height meanwhile.
            step[2] = self.hover - position[2]
        else:
            step[2] = (self.hover - position[2]) * self.reach / distance
        return np.clip(step / self.reach, -1.0, 1.0)

    def steps_to_go(self, position: Array) -> float:
        """Actions that are still needed from `position`: the judge's -V_ref, smooth in between."""
        distance = max(float(np.hypot(*position[:2])) - self.aligned, 0.0)
        if distance == 0.0 or position[2] < -self.hover:
            return max(position[2] + self.depth, 0.0) / self.reach
        # Off the axis: sideways and down at once as far as possible, then down into the hole.
        above = abs(position[2] - self.hover)
        return (max(distance, above) + self.hover + self.depth) / self.reach

    def after(self, position: Array, action: Array) -> Array:
        """Where `action` leads within one period; the board stops a peg that is off the axis."""
        reached = position + np.asarray(action[:3]) * self.reach
        off_axis = float(np.hypot(*reached[:2])) > self.aligned
        if off_axis and position[2] >= 0.0:
            reached[2] = max(reached[2], 0.0)
        return reached


class Judge(Protocol):
    """Q_ref(s, a), the value of an action in a state by the reference, and the reference's action."""

    def value(self, state: Array, action: Array, /) -> float: ...

    def best_action(self, state: Array, /) -> Array: ...


class Acting(Protocol):
    """The operator's own policy. `start_episode` draws what stays the same for an episode."""

    def start_episode(self) -> None: ...

    def action(self, state: Array, /) -> Array: ...


@dataclass(frozen=True)
class ReferenceJudge:
    """Q_ref(s, a) = -(steps that the reference still needs after `action`)."""

    approach: Approach = Approach()

    def value(self, position: Array, action: Array) -> float:
        return -self.approach.steps_to_go(self.approach.after(position, action))

    def best_action(self, position: Array) -> Array:
        return self.approach.action(position)


@dataclass(frozen=True)
class ActorConfig:
    """Errors of the operator."""

    bias: float = (
        0.002  # m, standard deviation of the error in the hole's position, per axis and episode
    )
    noise: float = 0.15  # standard deviation of an action's error
    noise_memory: float = 0.7  # correlation of the error from step to step

    def __post_init__(self) -> None:
        if self.bias < 0.0 or self.noise < 0.0 or not 0.0 <= self.noise_memory < 1.0:
            raise ValueError(
                f"actor: found bias {self.bias}, noise {self.noise}, noise_memory "
                f"{self.noise_memory}; expected bias and noise at least 0, memory in [0, 1)"
            )


class Actor:
    """The operator's actions: the approach, to a position with a bias, with noise."""

    def __init__(self, config: ActorConfig, approach: Approach, seed: int) -> None:
        self._config, self._approach = config, approach
        self._rng = np.random.default_rng(seed)
        self.start_episode()

    def start_episode(self) -> None:
        """Draw another bias."""
        self._bias = np.zeros(3)
        self._bias[:2] = self._rng.normal(0.0, self._config.bias, 2)
        self._error = np.zeros(3)

    def action(self, position: Array) -> Array:
        """[3] in [-1, 1]."""
        config = self._config
        fresh = np.sqrt(1.0 - config.noise_memory**2)
        self._error = config.noise_memory * self._error + fresh * self._rng.normal(
            0.0, config.noise, 3
        )
        return np.clip(self._approach.action(position - self._bias) + self._error, -1.0, 1.0)


@dataclass(frozen=True)
class RandomStrategy:
    """Take over with the same probability at every step, whatever the policy does."""

    probability: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability: found {self.probability}, expected 0 to 1")

    def chance(self, judge: Judge, state: Array, policy_action: Array) -> float:
        return self.probability


@dataclass(frozen=True)
class ValueStrategy:
    """P(take over | s) = beta if the policy's action is worse than the reference's, else 1 - beta.

    Worse means Q_ref(s, a_ref) > Q_ref(s, a) + delta; with `alpha`, Q_ref(s, a) < alpha Q_ref(s, a_ref)
    where Q_ref is positive, and the mirror image of it, Q_ref(s, a) < Q_ref(s, a_ref) / alpha, where it
    is negative.
    """

    beta: float = 0.95
    delta: float = 0.6
    alpha: float | None = None

    def __post_init__(self) -> None:
        if not 0.5 <= self.beta <= 1.0:
            raise ValueError(f"beta: found {self.beta}, expected 0.5 to 1")
        if self.delta < 0.0:
            raise ValueError(f"delta: found {self.delta}, expected at least 0")
        if self.alpha is not None and not 0.0 < self.alpha <= 1.0:
            raise ValueError(f"alpha: found {self.alpha}, expected more than 0 and at most 1")

    def is_worse(self, reference: float, found: float) -> bool:
        """Whether the value `found` falls short of the value `reference`."""
        if self.alpha is None:
            return reference > found + self.delta
        if reference >= 0.0:
            return found < self.alpha * reference
        return found < reference / self.alpha

    def chance(self, judge: Judge, state: Array, policy_action: Array) -> float:
        reference = judge.value(state, judge.best_action(state))
        worse = self.is_worse(reference, judge.value(state, policy_action))
        return self.beta if worse else 1.0 - self.beta


class Operator:
    """Takes over for `length` steps where the strategy asks for it.

    After a take-over the policy drives `rest` steps before the next one; with 0 the next one may follow
    at once, and is then a part of the same intervention.
    """

    def __init__(
        self,
        strategy: RandomStrategy | ValueStrategy,
        judge: Judge,
        actor: Acting,
        length: int,
        seed: int,
        rest: int = 0,
    ) -> None:
        if length < 1:
            raise ValueError(f"length of a take-over: found {length}, expected at least 1 step")
        if rest < 0:
            raise ValueError(f"rest after a take-over: found {rest}, expected at least 0 steps")
        self._strategy, self._judge, self._actor = strategy, judge, actor
        self._length, self._rest = length, rest
        self._rng = np.random.default_rng(seed)
        self._left = self._resting = 0

    def start_episode(self) -> None:
        """End a take-over, and draw another bias."""
        self._left = self._resting = 0
        self._actor.start_episode()

    def act(self, state: Array) -> Array:
        """The actor's action, whatever the strategy asks for."""
        return self._actor.action(state)

    def decide(self, state: Array, policy_action: Array) -> Array | None:
        """The action with which the operator takes or keeps control; None: the policy keeps it."""
        if self._left == 0:
            if self._resting > 0:
                self._resting -= 1
                return None
            chance = self._strategy.chance(self._judge, state, policy_action)
            if self._rng.random() >= chance:
                return None
            self._left, self._resting = self._length, self._rest
        self._left -= 1
        return self._actor.action(state)
