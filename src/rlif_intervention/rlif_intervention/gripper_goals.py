# SPDX-License-Identifier: Apache-2.0
"""One goal at a time for a gripper, the newest wins, and no call waits for it.

No ROS and no clock: `now` in s of a steady clock. What is commanded comes again and again (1 open,
-1 closed, 0 as it is); `step` returns what to do now.

    command changes       send the new goal; it takes the place of the one under way
    stop, or silence      cancel what is under way; a goal that is done is not touched. Then nothing
                          until "as it is" was received: an older command is no new one
    no result in time     cancel, report it, and try again after `retry` while it is still commanded
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .gripper import AS_IT_IS, CLOSED, OPEN

NAMES = {OPEN: "open", CLOSED: "closed", AS_IT_IS: "as it is"}


@dataclass(frozen=True, kw_only=True)
class GoalConfig:
    """command_timeout: s without a command until it counts as a stop
    goal_timeout: s that a goal may take; retry: s from a failure to the next try
    """

    command_timeout: float = 0.5
    goal_timeout: float = 5.0
    retry: float = 1.0

    def __post_init__(self) -> None:
        for name in ("command_timeout", "goal_timeout", "retry"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"gripper_{name} is {value}; expected seconds above 0")


@dataclass(frozen=True)
class Order:
    """send: a goal for `target` (1 open, -1 closed); else cancel the goal of this ticket."""

    ticket: int
    target: float = AS_IT_IS

    @property
    def send(self) -> bool:
        return self.target != AS_IT_IS


class GripperGoals:
    """Takes commands and results; `step` returns the goal to send or to cancel."""

    def __init__(self, config: GoalConfig) -> None:
        self.config = config
        self.problem = ""  # of the last goal; empty: none
        self._commanded = AS_IT_IS
        self._received = -math.inf
        self._stopped = True  # until an arbiter is armed
        self._rested = False  # "as it is" was received since the last stop
        self._target = AS_IT_IS  # of the goal sent last; 0: the next command is sent again
        self._ticket = 0
        self._sent: float | None = None  # when, of the goal under way; None: none is
        self._not_before = -math.inf

    @property
    def under_way(self) -> bool:
        return self._sent is not None

    def command(self, value: float, now: float) -> None:
        """The arbiter's command, repeated; a value that is none of the three is as it is."""
        self._received = now
        self._commanded = value if value in (OPEN, CLOSED) else AS_IT_IS
        if self._commanded == AS_IT_IS:
            self._target, self._rested = AS_IT_IS, True

    def armed(self, armed: bool) -> None:
        """Not armed: the gripper holds still."""
        if armed == self._stopped:
            self._stopped, self._rested = not armed, self._rested and armed

    def finished(self, ticket: int, problem: str, now: float) -> None:
        """The goal has ended. The result of an older goal is ignored."""
        if ticket != self._ticket or self._sent is None:
            return
        self._sent, self.problem = None, problem
        if problem:
            self._target, self._not_before = AS_IT_IS, now + self.config.retry

    def step(self, ready: bool, now: float) -> Order | None:
        """What to do now; None: nothing. ready: there is a server for goals."""
        if self._stopped or now - self._received > self.config.command_timeout:
            self._target = AS_IT_IS
            self._rested = self._rested and self._stopped  # silence: a new arbiter begins at rest
            return self._cancel()
        if not self._rested:
            return None
        if self._sent is not None and now - self._sent > self.config.goal_timeout:
            order = self._cancel()
            self.problem = f"no result within {self.config.goal_timeout} s: cancelled"
            self._target, self._not_before = AS_IT_IS, now + self.config.retry
            return order
        if self._commanded in (AS_IT_IS, self._target) or now < self._not_before:
            return None
        if not ready:
            self.problem = "no server takes goals for the gripper: is its driver running?"
            return None
        self._ticket, self._sent, self._target = self._ticket + 1, now, self._commanded
        self.problem = ""
        return Order(self._ticket, self._target)

    def summary(self) -> str:
        """For the diagnostics."""
        if self.problem:
            return self.problem
        if not self._rested:
            return "waits for a command that was given since the last stop"
        doing = "on its way" if self.under_way else "done"
        return (
            NAMES[self._target] if self._target == AS_IT_IS else f"{NAMES[self._target]}, {doing}"
        )

    def _cancel(self) -> Order | None:
        if self._sent is None:
            return None
        self._sent = None
        return Order(self._ticket)
