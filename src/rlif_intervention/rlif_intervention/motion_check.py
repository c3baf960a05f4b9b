# SPDX-License-Identifier: Apache-2.0
"""Whether the arm follows its commands at all. No ROS, no clock.

A paused Servo, an emergency stop, another controller, a Servo that was restarted: the commands go
out and nothing moves. Since the arm was last seen to move by `still`, the way that it was commanded
is summed up; when that is `LEAST` times `still`, over `timeout` seconds, the arm stands.

Contact is no standstill: an arm that pushes against something gives way, or slides, by more than
`still` when its command changes. Only one that has moved before, and whose command does not change, may
have met something stiff: there the time is `STEADY_FACTOR` times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .limits import LINEAR, Vector

LEAST = 30.0  # times `still`: a shorter commanded way is no test
GAP = 0.2  # s; the longest time that one command counts for
STALE = 0.5  # s; a measurement that is older says nothing
STEADY = 0.99  # length of the sum of all commands over the sum of their lengths; 1: all are equal
STEADY_FACTOR = 6.0


@dataclass(frozen=True, kw_only=True)
class MotionCheckConfig:
    """timeout: s of commands in vain until the arm stands; 0: no check
    still: m, and still_angle: rad: a measured arm that stays within them does not move
    """

    timeout: float = 1.5
    still: float = 0.0003
    still_angle: float = 0.001

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout >= 0.0):
            raise ValueError(f"follow_timeout is {self.timeout}; expected seconds, 0 or more")


@dataclass(frozen=True)
class _Pose:
    position: Vector
    orientation: Vector  # unit quaternion x, y, z, w; empty: not measured


class MotionCheck:
    """axes: of the commands: out of x y z roll pitch yaw, or names of joints, which turn."""

    def __init__(self, config: MotionCheckConfig, axes: tuple[str, ...]) -> None:
        self.config = config
        twist = any(axis in LINEAR for axis in axes)
        self._still = config.still if twist else config.still_angle  # of `position`
        self._units = [config.still if a in LINEAR else config.still_angle for a in axes]
        self._pose: _Pose | None = None
        self._measured = -math.inf
        self._last: tuple[Vector, float] | None = None  # the command in force, and since when
        self.reset()

    def reset(self) -> None:
        """Forget what was commanded: the arm was moved by other means, or a human armed."""
        self._anchor = self._pose
        self._time = 0.0  # s of commands since the arm moved
        self._way, self._net = 0.0, [0.0] * len(self._units)  # commanded, in units of still
        self.moved = False  # the arm has moved since

    def measured(self, position: Vector, now: float, orientation: Vector = ()) -> None:
        """The end effector (3,) in m with its quaternion (4,), or the joints (n,) in rad."""
        norm = math.hypot(*orientation)  # of 32-bit numbers it is not 1, and 0 from one without any
        unit = tuple(q / norm for q in orientation) if norm else ()
        self._pose, self._measured = _Pose(position, unit), now
        if self._anchor is None or self._apart(self._anchor, self._pose):
            moved = self.moved or self._anchor is not None
            self.reset()
            self.moved = moved

    def _apart(self, a: _Pose, b: _Pose) -> bool:
        if math.dist(a.position, b.position) > self._still:
            return True
        if not (a.orientation and b.orientation):
            return False
        cosine = abs(sum(p * q for p, q in zip(a.orientation, b.orientation, strict=True)))
        return 2.0 * math.acos(min(1.0, cosine)) > self.config.still_angle

    def commanded(self, velocity: Vector, now: float) -> None:
        """What was output, (n,) m/s and rad/s, in force from now on."""
        if self._last is not None and any(self._last[0]):
            before, since = self._last
            seconds = min(max(now - since, 0.0), GAP)
            self._time += seconds
            step = [v * seconds / unit for v, unit in zip(before, self._units, strict=True)]
            self._way += math.hypot(*step)
            self._net = [a + b for a, b in zip(self._net, step, strict=True)]
        self._last = velocity, now

    def problem(self, now: float) -> str:
        """Why the arm counts as one that does not follow; empty: it does, or it is not known.

        Not known without a measured pose.
        """
        timeout, known = self.config.timeout, now - self._measured <= STALE
        if not timeout or self._anchor is None or not known or self._way < LEAST:
            return ""
        steady = self.moved and math.hypot(*self._net) >= STEADY * self._way
        if self._time < timeout * (STEADY_FACTOR if steady else 1.0):
            return ""
        return (
            f"the arm does not follow its commands: it has not moved for {self._time:.1f} s of them. Is "
            "Servo or the robot paused, stopped, or under another controller? See to it, then drive "
            "with the operator device, or disarm and arm"
        )
