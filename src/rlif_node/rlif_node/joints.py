# SPDX-License-Identifier: Apache-2.0
"""Joint states of several publishers, merged by name. No ROS; times are passed in, in ns.

Arm and gripper often have a driver each, and both publish on one /joint_states, each with its own
joints. They are merged here for the observer, the arbiter and external recordings alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


class JointError(ValueError):
    """Joint states that cannot be used; the message names the joints or what does not fit."""


@dataclass(frozen=True)
class JointSample:
    """One joint. position in rad or m; velocity in rad/s or m/s, NaN where none was sent.

    stamp: when it was measured, ROS time in ns; 0: the sender set none
    received: when it was received, ns of the caller's clock
    """

    position: float
    velocity: float
    stamp: int
    received: int


@dataclass(frozen=True)
class MergedJoints:
    """All wanted joints in their order: positions (n,) and velocities (n,) as in `JointSample`.

    stamp: the oldest of all; 0: at least one sender set none
    received: when the joint `oldest` was received, the longest ago of all
    several: they were received at different times
    """

    positions: tuple[float, ...]
    velocities: tuple[float, ...]
    stamp: int
    received: int
    oldest: str
    several: bool = False


class JointMerger:
    """The newest sample of each joint, by name and with its own age.

    joints: the wanted ones, in the order of the state
    """

    def __init__(self, joints: Sequence[str]) -> None:
        self.joints = tuple(joints)
        self._wanted = frozenset(joints)
        self._samples: dict[str, JointSample] = {}
        self._broken: dict[str, str] = {}  # why a joint's last message could not be used
        self._others: dict[str, None] = {}  # names received and not wanted, in their order

    def put(
        self,
        names: Sequence[str],
        positions: Sequence[float],
        velocities: Sequence[float],
        stamp: int,
        received: int,
    ) -> bool:
        """Take the wanted joints of one message. False: it names none of them, which is no fault.

        JointError where positions or velocities do not fit the names; its joints then have no
        sample any more, since the last good one must not be used either.
        """
        wanted = [name for name in names if name in self._wanted]
        if not wanted:
            self._others |= dict.fromkeys(names)
            return False
        if len(positions) != len(names) or len(velocities) not in (0, len(names)):
            reason = (
                f"found {len(positions)} positions and {len(velocities)} velocities for "
                f"{len(names)} joints"
            )
            for name in wanted:
                self._samples.pop(name, None)
            self._broken |= dict.fromkeys(wanted, reason)
            raise JointError(self.missing())
        speeds = velocities if len(velocities) else [math.nan] * len(names)
        for name, position, speed in zip(names, positions, speeds, strict=True):
            if name in self._wanted:
                self._samples[name] = JointSample(float(position), float(speed), stamp, received)
                self._broken.pop(name, None)
            else:
                self._others[name] = None
        return True

    def missing(self) -> str:
        """Which wanted joints have no sample, and why; empty: all have one."""
        if self._broken:
            return f"joints {list(self._broken)}: {'; '.join(dict.fromkeys(self._broken.values()))}"
        missing = [name for name in self.joints if name not in self._samples]
        if not missing:
            return ""
        found = [*self._samples, *self._others]
        return f"joints {missing} are missing, found {found}" if found else "nothing received yet"

    def merged(self) -> MergedJoints:
        """The newest sample of each joint. JointError names those that are missing."""
        if missing := self.missing():
            raise JointError(missing)
        samples = [self._samples[name] for name in self.joints]
        # A stamp of 0 means that the sender set none: then the age of all is that since reception.
        oldest = min(self.joints, key=lambda name: self._samples[name].received)
        return MergedJoints(
            tuple(s.position for s in samples),
            tuple(s.velocity for s in samples),
            min(s.stamp for s in samples),
            self._samples[oldest].received,
            oldest,
            len({s.received for s in samples}) > 1,
        )
