"""Is the arbiter alive? Its `arbiter_alive` says so, twenty times a second. No ROS, no clock.

The last `control_state` stands for ever: that of an arbiter which was killed while it was armed says
that it is armed. So whoever moves the arm, or lets it move, asks here too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class LifeSign:
    """timeout: s without a sign until the arbiter is taken as gone. `now` in s of a steady clock."""

    timeout: float = 0.5
    _heard: float = -math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout > 0.0):
            raise ValueError(f"arbiter_timeout is {self.timeout}; expected seconds above 0")

    @property
    def ever(self) -> bool:
        return not math.isinf(self._heard)

    def heard(self, now: float) -> None:
        self._heard = now

    def problem(self, now: float) -> str:
        """Empty: it is alive."""
        if not self.ever:
            return "no sign of life from the arbiter on arbiter_alive: start it"
        if now - self._heard > self.timeout:
            return f"no sign of life from the arbiter for more than {self.timeout} s: has it died?"
        return ""
