# SPDX-License-Identifier: Apache-2.0
"""The newest reading of each joint, by name and with its own age. No ROS; times are passed in, in ns.

One topic of joint states may have several publishers, such as an arm and its gripper, each with its
own joints. They are merged here, for the observer, the arbiter and external recordings alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlif_policy.features import FeatureError, Joints, Vector


@dataclass(frozen=True)
class JointSample:
    """One joint. position in rad or m; velocity in rad/s or m/s, NaN where none was sent.

    stamp: when it was measured, ROS time in ns; received: when it came, steady time in ns
    """

    position: float
    velocity: float
    stamp: int
    received: int


@dataclass(frozen=True)
class MergedJoints:
    """All wanted joints in their order; stamp and received are those of the oldest of them.

    several: they were received at different times
    """

    joints: Joints
    stamp: int
    received: int
    oldest: str
    several: bool = False


class JointSamples:
    """Merges joint states by name.

    joints: the wanted ones, in the order of the state
    """

    def __init__(self, joints: Sequence[str]) -> None:
        self.joints = tuple(joints)
        self._wanted = frozenset(joints)
        self._samples: dict[str, JointSample] = {}
        self._broken: dict[str, str] = {}  # why a joint's last message could not be used
        self._others: dict[str, None] = {}  # names received and not wanted, in their order

    def put(
        self, names: Sequence[str], positions: Vector, velocities: Vector, stamp: int, received: int
    ) -> bool:
        """Take the wanted joints of one message. False: it names none of them, which is no fault.

        FeatureError where positions or velocities do not fit the names; its joints then have no
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
            raise FeatureError(reason)
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
        """The newest sample of each joint. FeatureError names those that are missing."""
        if missing := self.missing():
            raise FeatureError(missing)
        samples = [self._samples[name] for name in self.joints]
        # A stamp of 0 means that the sender set none: then the age of all is that since reception.
        oldest = min(self.joints, key=lambda name: self._samples[name].received)
        return MergedJoints(
            Joints(tuple(s.position for s in samples), tuple(s.velocity for s in samples)),
            min(s.stamp for s in samples),
            self._samples[oldest].received,
            oldest,
            len({s.received for s in samples}) > 1,
        )
