# SPDX-License-Identifier: Apache-2.0
"""Why the robot's side keeps the policy from acting.

No ROS and no clock. Messages on `policy_hold` are repeated several times a second: the node that monitors
the robot (servo_adapter) may die, and its last message must not count for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class PolicyHold:
    """timeout: s without a message on `policy_hold` until the policy holds; 0: none is expected"""

    timeout: float = 0.0
    _reason: str = ""
    _received: float = -math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout >= 0.0):
            raise ValueError(f"hold_timeout is {self.timeout}; expected seconds, 0 or more")

    def update(self, reason: str, now: float) -> None:
        """One message; empty: the policy may act."""
        self._reason, self._received = reason, now

    def problem(self, now: float) -> str:
        """Why the policy must not act now; empty: it may."""
        if self._reason or not self.timeout or now - self._received <= self.timeout:
            return self._reason
        return (
            f"nothing on policy_hold for more than {self.timeout} s: is the monitor of the robot "
            "(servo_adapter) alive?"
        )
