# SPDX-License-Identifier: Apache-2.0
"""One control tick: requested and executed actions, summed up in a Decision."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlif_node.states import Source

from .interventions import Intervention
from .limits import Limited, Vector


@dataclass(frozen=True)
class Decision:
    """As rlif_msgs/Decision; `stamp` in ns, actions (n,) in [-1, 1] or empty."""

    stamp: int
    tick: int
    episode_id: int
    step_index: int
    source: Source
    policy_action: Vector
    operator_action: Vector
    executed_action: Vector
    onset: bool
    intervention_id: int
    limited: bool
    blocked: bool
    limits: tuple[str, ...]
    policy_version: int
    speed_scale: float = 1.0  # of the last command


@dataclass(frozen=True)
class InterventionChange:
    """As rlif_msgs/InterventionEvent: a take-over begins (`started`) or ends."""

    started: bool
    intervention: Intervention
    stamp: int
    episode_id: int
    step_index: int
    policy_action: Vector
    operator_action: Vector
    duration: float


@dataclass
class Tick:
    """The open tick. `episode_id` 0: it belongs to no episode and becomes no Decision."""

    number: int
    stamp: int
    speed_scale: float = 1.0  # in force when it began, then with each command
    gripper: bool = False  # the last entry of an action is latched: no motion, and no mean
    episode_id: int = 0
    step_index: int = 0
    policy_action: Vector = ()
    policy_version: int = 0
    operator_action: Vector = ()
    intervention_id: int = 0
    onset: bool = False
    source: Source = Source.NONE
    asked: bool = False
    held: bool = False
    limits: dict[str, None] = field(default_factory=dict)
    _sum: list[float] = field(default_factory=list)
    _count: int = 0
    _latched: Vector = ()

    def add(self, limited: Limited, source: Source, asked: Vector, held: bool) -> None:
        """One command of this tick. The operator marks the whole tick.

        asked: (n,) before the limits, empty without an active source; held: in HOLD, FAULT or DISARMED.
        """
        self.source = max(self.source, source)
        self.asked = self.asked or any(self._motion(asked))
        self._latched = limited.action[-1:] if self.gripper else ()
        self.held = self.held or held
        self.limits.update(dict.fromkeys(limited.names))
        self._sum = (
            [a + b for a, b in zip(self._sum, limited.action, strict=True)]
            if self._sum
            else [*limited.action]
        )
        self._count += 1

    def _motion(self, action: Vector) -> Vector:
        return action[:-1] if self.gripper else action

    def mark(self, intervention: int, onset: bool, operator_action: Vector) -> None:
        """This tick belongs to an intervention."""
        self.intervention_id = intervention
        self.onset = self.onset or onset
        self.operator_action = operator_action

    def close(self, in_force: Vector) -> Decision:
        """in_force: (n,) the action last output, for a tick in which no command was due."""
        executed = in_force
        if self._count:
            executed = self._motion(tuple(v / self._count for v in self._sum)) + self._latched
        return Decision(
            stamp=self.stamp,
            tick=self.number,
            episode_id=self.episode_id,
            step_index=self.step_index,
            source=self.source,
            policy_action=self.policy_action,
            operator_action=self.operator_action,
            executed_action=executed,
            onset=self.onset,
            intervention_id=self.intervention_id,
            limited=bool(self.limits),
            blocked=not any(self._motion(executed)) and (self.asked or self.held),
            limits=tuple(self.limits),
            policy_version=self.policy_version,
            speed_scale=self.speed_scale,
        )
