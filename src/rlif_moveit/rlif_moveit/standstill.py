# SPDX-License-Identifier: Apache-2.0
"""Whether an arm that is commanded to move does not. No ROS, no clock.

Servo near a collision or a singularity scales every direction, down to zero, and reports no halt: an
operator who pushes away from the obstacle for seconds moves nothing. Here the commanded distance is
compared with the measured one, over windows of `after` seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Vector = tuple[float, ...]
LEAST = (0.005, 0.02)  # m, rad: a shorter commanded way is no test
GAP = 0.2  # s; the longest time that one command counts for


@dataclass(frozen=True, kw_only=True)
class StandstillConfig:
    """after: s that the arm is commanded to move in vain until it counts as standing; 0: never
    share: of the commanded way, below which the arm does not move
    """

    after: float = 2.0
    share: float = 0.2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.after) and self.after >= 0.0):
            raise ValueError(f"standstill_after is {self.after}; expected seconds, 0 or more")
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"standstill_share is {self.share}; expected more than 0, less than 1")


class Standstill:
    """Feed commands and poses; `found` compares them. `now` is in s of a steady clock."""

    def __init__(self, config: StandstillConfig) -> None:
        self.config = config
        self._pose: tuple[Vector, Vector] | None = None
        self._last: tuple[tuple[float, float], float] | None = None  # command, its time
        self.clear()

    def clear(self) -> None:
        """Begin a new window with the next command."""
        self._start: tuple[float, tuple[Vector, Vector]] | None = None
        self._way = [0.0, 0.0]  # m, rad

    def pose(self, position: Vector, orientation: Vector) -> None:
        """Measured: m, and a quaternion x, y, z, w."""
        self._pose = (position, orientation)

    def command(self, speeds: tuple[float, float], now: float) -> None:
        """Commanded: the norms of the linear (m/s) and the angular (rad/s) velocity."""
        if self._last is not None:
            seconds = min(now - self._last[1], GAP)
            self._way = [w + v * seconds for w, v in zip(self._way, self._last[0], strict=True)]
        self._last = (speeds, now)

    def found(self, now: float) -> bool:
        """The window is over, and the arm did not move although it was commanded to.

        False without a measured pose.
        """
        if self._pose is None or not self.config.after:
            return False
        if self._start is None:
            self._start, self._way = (now, self._pose), [0.0, 0.0]
            return False
        begin, pose = self._start
        if now - begin < self.config.after:
            return False
        ways, moved = self._way, _distances(pose, self._pose)
        self.clear()
        asked = [(w, m) for w, m, least in zip(ways, moved, LEAST, strict=True) if w >= least]
        return bool(asked) and all(m < self.config.share * w for w, m in asked)


def _distances(a: tuple[Vector, Vector], b: tuple[Vector, Vector]) -> tuple[float, float]:
    """m and rad between two poses."""
    cosine = abs(sum(p * q for p, q in zip(a[1], b[1], strict=True)))
    return math.dist(a[0], b[0]), 2.0 * math.acos(min(1.0, cosine))
