# SPDX-License-Identifier: Apache-2.0
"""Whether the arbiter is alive: it publishes `arbiter_heartbeat` twenty times a second. No ROS, no clock.

The last `control_state` stays latched for ever: an arbiter that was killed while it was armed still
reads as armed. So a node that moves the arm, or lets it move, checks the heartbeat too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Heartbeat:
    """Time of the arbiter's last heartbeat. `now` is in s of a steady clock.

    Of several arbiters only the oldest acts, so only its heartbeat counts until it is gone.

    timeout: s without a heartbeat until the arbiter counts as gone; ValueError unless above 0
    """

    timeout: float = 0.5
    _received: float = -math.inf
    _instance: bytes = b""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout > 0.0):
            raise ValueError(f"arbiter_timeout is {self.timeout}; expected seconds above 0")

    @property
    def ever(self) -> bool:
        """One has been received."""
        return not math.isinf(self._received)

    def received(self, now: float, instance: bytes = b"") -> bool:
        """Take one message, with the id of the arbiter's process. True: it is the first of one that is
        younger than the arbiter before, which is gone. It began disarmed, so what it is now counts."""
        if not (instance <= self._instance or self.problem(now)):
            return False
        younger = self.ever and instance > self._instance
        self._received, self._instance = now, instance
        return younger

    def problem(self, now: float) -> str:
        """Why the arbiter counts as gone; empty: it is alive."""
        if not self.ever:
            return "no heartbeat of the arbiter on arbiter_heartbeat: start it"
        if now - self._received > self.timeout:
            return f"no heartbeat of the arbiter for more than {self.timeout} s: has it died?"
        return ""
