# SPDX-License-Identifier: Apache-2.0
"""When the arbiter's timer fires: regularly, and shortly after the policy's actions arrive.

Policy and arbiter have clocks of their own. Left to chance, an action waits for the next command for
anything up to a whole period, and for the same time in every tick of a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MARGIN = 0.2  # of a period, by which commands follow actions: actions are not quite regular
SLEW = 0.02  # of a period, by which one period may be longer or shorter: hardly more than chance


@dataclass
class Cadence:
    """Draws the commands, spaced by `period` seconds, towards the actions; times in s, any clock."""

    period: float
    _arrived: float | None = field(default=None, init=False)

    def action_arrived(self, now: float) -> None:
        """An action of the policy has come, which the next command will carry."""
        self._arrived = now

    def next_period(self, now: float) -> float:
        """At a command: how long until the one after the next, counted from the next."""
        arrived, self._arrived = self._arrived, None
        if arrived is None or not 0.0 <= now - arrived <= self.period:
            return self.period
        late = now - arrived - MARGIN * self.period
        if late > self.period / 2:  # nearer to the command before
            late -= self.period
        slew = SLEW * self.period
        return self.period - min(slew, max(-slew, late))
