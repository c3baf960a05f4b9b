"""Is the arbiter alive? Its commands are its heartbeat; without one the watchdog takes over.

No clock and no ROS: `now` in s of a steady clock. The watchdog hears its own zeros on the command
topic too, and knows them by their stamps.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

_KEPT = 100  # stamps of own zeros; more than can be on the way


@dataclass
class Watchdog:
    """timeout: s without a command until it acts

    linger: s for which it goes on sending zeros after an arbiter that left in order; an arbiter
        that left without a word gets zeros until a new one commands.
    """

    timeout: float = 0.3
    linger: float = 1.0
    _heard: float = -math.inf
    _left_in_order: bool = True
    _own: deque[int] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _tripped: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout > 0.0 and self.linger >= 0.0):
            raise ValueError(
                f"timeout is {self.timeout}, linger is {self.linger}; "
                "expected timeout above 0 s and linger 0 s or more"
            )

    @property
    def tripped(self) -> bool:
        return self._tripped

    def command(self, stamp: int, now: float) -> None:
        """A command on the topic, stamp in ns."""
        if stamp not in self._own:
            self._heard = now

    def control(self, armed: bool) -> None:
        """The arbiter's last word on its state."""
        self._left_in_order = not armed

    def sent_zero(self, stamp: int) -> None:
        self._own.append(stamp)

    def check(self, now: float) -> tuple[bool, bool]:
        """(send a zero now, the arbiter has been lost with this call)."""
        silent = now - self._heard
        if math.isinf(silent) or silent <= self.timeout:
            self._tripped = False
            return False, False
        lost = not self._tripped
        self._tripped = True
        return not self._left_in_order or silent <= self.timeout + self.linger, lost
