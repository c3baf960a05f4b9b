# SPDX-License-Identifier: Apache-2.0
"""Joints out of JointState messages, of which each may hold only some: no ROS in here.

Arm and gripper often have a driver each, and both publish on one /joint_states.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


class JointMerger:
    """The newest position of each of `joints`, by name, with the time of its receipt.

    A message without any of them is no fault: it is another driver's.
    """

    def __init__(self, joints: Sequence[str]) -> None:
        self._positions: dict[str, float] = dict.fromkeys(joints, math.nan)
        self._received: dict[str, float] = dict.fromkeys(joints, -math.inf)

    def update(self, names: Sequence[str], positions: Sequence[float], now: float) -> bool:
        """One message, received at `now` in s. Returns whether it brought all joints up to date.

        A message with more or fewer positions than names says nothing of any joint.
        """
        if len(names) != len(positions):
            return False
        ours = {n: float(p) for n, p in zip(names, positions, strict=True) if n in self._positions}
        self._positions |= ours
        self._received |= dict.fromkeys(ours, now)
        return bool(ours) and not self.missing

    @property
    def missing(self) -> list[str]:
        """Joints that no message has held yet."""
        return [name for name, received in self._received.items() if math.isinf(received)]

    @property
    def positions(self) -> tuple[float, ...]:
        """(n,) rad, in the order of `joints`; NaN for what is missing."""
        return tuple(self._positions.values())

    @property
    def oldest(self) -> tuple[str, float]:
        """The joint that was received the longest ago, and when in s."""
        return min(self._received.items(), key=lambda item: item[1])
