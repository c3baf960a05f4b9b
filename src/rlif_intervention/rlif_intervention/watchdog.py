# SPDX-License-Identifier: Apache-2.0
"""Is the arbiter alive? Its commands are its heartbeat; without one the watchdog takes over.

No clock and no ROS: `now` in s of a steady clock. The watchdog receives its own zeros on the
command topic too, and recognises them by their stamps.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

_KEPT = 100  # stamps of own zeros; more than can be on the way


@dataclass
class Watchdog:
    """timeout: s without a command until it acts

    linger: s for which it goes on sending zeros after a graceful shutdown of the arbiter;
        without one it sends zeros until a new arbiter commands.
    start_timeout: s after its own start without any command, until the arbiter counts as absent: it
        may have died before. Then no zeros, since the topic may not be the arbiter's, but
        the robot is paused; 0: never.
    """

    timeout: float = 0.3
    linger: float = 1.0
    start_timeout: float = 10.0
    _started: float | None = None
    _received: float = -math.inf
    _shut_down: bool = True
    _own: deque[int] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _tripped: bool = False

    def __post_init__(self) -> None:
        times = self.linger >= 0.0 and self.start_timeout >= 0.0
        if not (math.isfinite(self.timeout) and self.timeout > 0.0 and times):
            raise ValueError(
                f"timeout is {self.timeout}, linger is {self.linger}, start_timeout is "
                f"{self.start_timeout}; expected timeout above 0 s and the others 0 s or more"
            )

    @property
    def tripped(self) -> bool:
        return self._tripped

    @property
    def ever(self) -> bool:
        """A heartbeat has been received."""
        return not math.isinf(self._received)

    def absent(self, now: float) -> bool:
        """No heartbeat was received within `start_timeout` of this watchdog's start."""
        started = now if self._started is None else self._started
        return not self.ever and 0.0 < self.start_timeout < now - started

    def command(self, stamp: int, now: float) -> None:
        """A command on the topic, stamp in ns."""
        if stamp not in self._own:
            self._received = now

    def control(self, armed: bool) -> None:
        """The arbiter's last state."""
        self._shut_down = not armed

    def sent_zero(self, stamp: int) -> None:
        self._own.append(stamp)

    def check(self, now: float) -> tuple[bool, bool]:
        """(send a zero now, the arbiter has been lost with this call)."""
        self._started = now if self._started is None else self._started
        silent = now - self._received
        if math.isinf(silent) or silent <= self.timeout:
            self._tripped = False
            return False, False
        lost = not self._tripped
        self._tripped = True
        return not self._shut_down or silent <= self.timeout + self.linger, lost


@dataclass
class PauseCall:
    """The robot's pause, asked for until it is confirmed: a refusal or no answer is not the end.

    answer: s until a call is given up; retry: s from a refusal to the next call
    """

    answer: float = 2.0
    retry: float = 1.0
    wanted: bool = False
    confirmed: bool = False
    problem: str = ""  # why it is not confirmed; empty: it is, or it is not wanted
    _round: int = 0  # counts losses of the arbiter
    _sent: float | None = None
    _not_before: float = -math.inf

    def want(self) -> None:
        self.wanted, self.confirmed, self.problem = True, False, "it was not asked yet"
        self._round, self._sent, self._not_before = self._round + 1, None, -math.inf

    def forget(self) -> None:
        """The arbiter is back: what Servo does is again its adapter's and a human's."""
        self.wanted, self.confirmed, self.problem, self._sent = False, False, "", None

    def due(self, ready: bool, now: float) -> int | None:
        """A call is to be made now: its ticket for `answered`. ready: the service is there."""
        if not self.wanted or self.confirmed:
            return None
        if self._sent is not None:
            if now - self._sent <= self.answer:
                return None
            self._sent, self.problem = None, f"no answer within {self.answer} s"
        if not ready:
            self.problem = "the service is not there"
            return None
        if now < self._not_before:
            return None
        self._sent = now
        return self._round

    def answered(self, ticket: int, problem: str, now: float) -> None:
        """problem: empty if the robot is paused."""
        if ticket != self._round or not self.wanted:
            return
        self._sent, self.problem, self.confirmed = None, problem, not problem
        self._not_before = now + self.retry
