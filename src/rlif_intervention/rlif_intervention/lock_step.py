# SPDX-License-Identifier: Apache-2.0
"""Lock-step: one command per set of samples, when everything of that set has been answered.

Knows stamps (ns) and ticks only. The node asks `ready` after each message, and `overdue` on a
wall timer.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

NEVER = -1
_KEPT = 8  # policy actions, until the Observation of their tick arrives

P = TypeVar("P")


@dataclass
class LockStep(Generic[P]):
    """Which stamps have come, and the stamp up to which the world has its command.

    timeout: s of wall time that one set may take
    needs: names of the inputs that a set needs besides Observation and PolicyAction
    """

    timeout: float = 2.0
    needs: tuple[str, ...] = ("joy",)
    tick: int = NEVER
    observed: int = NEVER
    answered: int = NEVER
    _policies: OrderedDict[int, P] = field(default_factory=OrderedDict)
    _stamps: dict[str, int] = field(default_factory=dict)
    _since: float = math.inf

    def __post_init__(self) -> None:
        if not math.isfinite(self.timeout) or self.timeout <= 0.0:
            raise ValueError(f"lock_step_timeout is {self.timeout}; expected seconds above 0")
        self._stamps = dict.fromkeys(self.needs, NEVER)

    def observe(self, tick: int, stamp: int) -> None:
        """A newer Observation. The first of several with one stamp is the one that counts."""
        if stamp > self.observed:
            self.tick, self.observed = tick, stamp

    def answered_by_policy(self, tick: int, action: P) -> None:
        self._policies[tick] = action
        while len(self._policies) > _KEPT:
            self._policies.popitem(last=False)

    def arrived(self, name: str, stamp: int) -> None:
        """Input `name` of the set of `stamp` is there; one that is not needed is no error."""
        if stamp > self._stamps.get(name, stamp):
            self._stamps[name] = stamp

    @property
    def policy(self) -> P | None:
        """The PolicyAction of the newest Observation; None: not there yet."""
        return self._policies.get(self.tick)

    @property
    def pending(self) -> bool:
        """There is an observation to which no command has been sent."""
        return self.observed > self.answered

    @property
    def ready(self) -> bool:
        """Everything of the newest set is there, and it has no command yet."""
        return self.pending and not self.missing()

    def missing(self) -> str:
        """The names of what has not come, for a person; empty: all is there."""
        if not self.pending:
            return "observation"
        names = [] if self.tick in self._policies else ["policy_action"]
        names += [n for n, stamp in self._stamps.items() if stamp < self.observed]
        return ", ".join(names)

    def answer(self, stamp: int) -> None:
        """A command of `stamp` was sent: sets up to it are done."""
        self.answered = max(self.answered, stamp)
        self._since = math.inf

    def overdue(self, wall: float) -> bool:
        """True once the timeout has passed since the first call after the last answer."""
        self._since = min(self._since, wall)
        return wall - self._since > self.timeout
