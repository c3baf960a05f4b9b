# SPDX-License-Identifier: Apache-2.0
"""The action axis `gripper`: when it opens and closes. No ROS, no clock.

An action entry is what is asked for: 1 open, -1 close, in between as it is. What comes out is the
position commanded last, latched: 1 open, -1 closed, 0 nothing commanded
yet, since arming or the start of the episode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .ticks import Source

AXIS = "gripper"
OPEN, CLOSED, AS_IT_IS = 1.0, -1.0, 0.0


@dataclass(frozen=True, kw_only=True)
class GripperConfig:
    """threshold: entries beyond it, to either side, ask for a change; between them is the hysteresis
    interval: s between two changes
    """

    threshold: float = 0.5
    interval: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise ValueError(f"gripper_threshold is {self.threshold}; expected above 0, at most 1")
        if not (math.isfinite(self.interval) and self.interval >= 0.0):
            raise ValueError(f"gripper_interval is {self.interval}; expected seconds, 0 or more")


class Gripper:
    """Latches what was asked for last. One call per command period: `drive`, `keep` or `forget`."""

    def __init__(self, config: GripperConfig) -> None:
        self.config = config
        self.target = AS_IT_IS
        self._wanted = AS_IT_IS  # asked for, and not done yet
        self._source = Source.NONE
        self._changed, self._changed_by = -math.inf, Source.NONE

    def drive(self, asked: float, source: Source, now: float) -> float:
        """A control source is active. What one source asked for and did not get yet is not done under another.

        The operator does not wait for what the policy has just done.
        """
        if source != self._source:
            self._wanted, self._source = AS_IT_IS, source
        if math.isfinite(asked) and abs(asked) >= self.config.threshold:
            self._wanted = math.copysign(1.0, asked)
        first = source is Source.OPERATOR and self._changed_by is not source
        due = first or now - self._changed >= self.config.interval
        if self._wanted not in (AS_IT_IS, self.target) and due:
            self.target = self._wanted
            self._changed, self._changed_by = now, source
        return self.target

    def keep(self) -> float:
        """No active control source: the grasp stays, and commands that still wait are dropped."""
        self._wanted, self._source = AS_IT_IS, Source.NONE
        return self.target

    def forget(self) -> float:
        """Not armed, or a new episode: wherever it is, nothing moves until it is commanded again."""
        self.keep()
        self.target = AS_IT_IS
        return self.target
