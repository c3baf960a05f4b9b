# SPDX-License-Identifier: Apache-2.0
"""Which nodes have stopped that nobody else would miss. No ROS, no clock: times in s.

The arbiter misses observer, policy and episode node, the watchdog misses the arbiter; the rest is here.
"""

from __future__ import annotations

from dataclasses import dataclass

from .diagnostics import Level, Status


@dataclass(frozen=True)
class Watched:
    """timeout: s without a message; loss: what is lost meanwhile"""

    timeout: float
    loss: str


# Each reports once a second. The learner only between two updates, which may take several seconds.
WATCHED = {
    "recorder": Watched(5.0, "nothing is recorded, and the learner gets nothing"),
    "learner": Watched(20.0, "nothing is learned"),
    "watchdog": Watched(5.0, "nobody stops the robot if the arbiter dies"),
}


class NodeMonitor:
    """When a message of each of `WATCHED` was received; one that has sent none was not started."""

    def __init__(self) -> None:
        self._received: dict[str, float] = {}

    def received(self, name: str, now: float) -> None:
        """A message of a node; those that are not in `WATCHED` do not count."""
        if name in WATCHED:
            self._received[name] = now

    def status(self, now: float) -> Status:
        """One line for the diagnostics."""
        ages = {name: now - at for name, at in self._received.items()}
        silent = [
            f"{name}: no message for {age:.0f} s, so {WATCHED[name].loss}: start it again, if it has ended"
            for name, age in ages.items()
            if age > WATCHED[name].timeout
        ]
        level = Level.ERROR if silent else Level.OK
        return Status("nodes", level, "; ".join(silent) or f"received: {', '.join(ages) or 'none'}")
