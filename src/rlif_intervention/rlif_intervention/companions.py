# SPDX-License-Identifier: Apache-2.0
"""Which nodes have fallen silent that nobody else would miss. No ROS, no clock: times in s.

The arbiter misses observer, policy and episode node, the watchdog misses the arbiter; the rest is here.
"""

from __future__ import annotations

from .diagnostics import Level, Status

SILENCE = 5.0  # s; each of them reports once a second
LOSS = {
    "recorder": "nothing is recorded, and the learner gets nothing",
    "learner": "nothing is learned",
    "watchdog": "nobody stops the robot if the arbiter dies",
}


class Companions:
    """When each of `LOSS` was heard; one that was never heard was not started."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}

    def hear(self, name: str, now: float) -> None:
        """A message of a node; those that are not in `LOSS` do not count."""
        if name in LOSS:
            self._heard[name] = now

    def status(self, now: float) -> Status:
        """One line for the diagnostics."""
        silent = {name: now - at for name, at in self._heard.items() if now - at > SILENCE}
        lost = [
            f"{name}: silent for {age:.0f} s, so {LOSS[name]}: start it again"
            for name, age in silent.items()
        ]
        level = Level.ERROR if lost else Level.OK
        return Status("companions", level, "; ".join(lost) or "all that were heard are there")
