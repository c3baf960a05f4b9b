"""Why the robot's side keeps the policy from driving, and whether anybody still says so.

No ROS and no clock. What is said on `hold` is repeated, several times a second: whoever watches the
robot (servo_adapter) may die, and what it said last must not stand for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class PolicyHold:
    """timeout: s without a word on `hold` until the policy holds; 0: nobody is expected to speak"""

    timeout: float = 0.0
    _reason: str = ""
    _heard: float = -math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout >= 0.0):
            raise ValueError(f"hold_timeout is {self.timeout}; expected seconds, 0 or more")

    def said(self, reason: str, now: float) -> None:
        """One message; empty: nothing keeps the policy from driving."""
        self._reason, self._heard = reason, now

    def problem(self, now: float) -> str:
        """Why the policy must not drive now; empty: it may."""
        if self._reason or not self.timeout or now - self._heard <= self.timeout:
            return self._reason
        return (
            f"nothing on hold for more than {self.timeout} s: nobody watches the robot; is "
            "servo_adapter alive?"
        )
