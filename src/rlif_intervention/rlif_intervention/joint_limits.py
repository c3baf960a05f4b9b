# SPDX-License-Identifier: Apache-2.0
"""What may come out of the arbiter for joints: velocity, acceleration, position limits, each per joint.

`JointLimiter` has the interface of `limits.Limiter`, and its promises, each with a property-based test:

- no input, NaN and infinities included, leads to a velocity that is not finite or exceeds a limit;
- no joint's velocity changes faster than its acceleration limit (deceleration, while braking);
- a joint that follows does not leave its position limits, whichever way it brakes;
- braking reaches zero within the longest velocity / deceleration of all joints, along a line.

Units are rad, or m for prismatic joints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .limits import AXES, Drift, Limited, Vector, check_speed_scale, shape_problem

FASTEST = 20.0  # rad/s; no arm's joint, so that a limit above it is a slip of the pen
LONGEST_STOP = 2.0  # s from full velocity; more is no braking
_TINY = 1e-9  # rad/s or s: below this a velocity, or a difference of times, is zero
# s; a message's times are whole nanoseconds and must increase, and over so short a time the
# difference of two positions is mostly rounding
_SHORTEST_STOP = 1e-6
_SETTLED = 0.25  # of max_lead: at rest, the part of it that gravity and friction may explain


@dataclass(frozen=True, kw_only=True)
class JointLimitConfig:
    """Limits on the joints, one entry for each of `axes`, which names them in their order.

    scale: rad/s of an action entry of 1
    period: s, of one command; horizon: s for which the controller may go on at a command's velocity
    max_velocity, max_acceleration, max_deceleration: rad/s, rad/s^2; the last one also at limits
    position_min, position_max: rad
    latency: s, how old measured positions may be when they arrive, and what a command needs to act
    max_lead: rad that the reference of a position controller may be ahead of the measured joint;
        0: no reference is kept
    """

    axes: tuple[str, ...]
    scale: float = 0.5
    period: float = 0.02
    horizon: float = 0.02
    max_velocity: Vector
    max_acceleration: Vector
    max_deceleration: Vector
    position_min: Vector
    position_max: Vector
    latency: float = 0.05
    max_lead: float = 0.0

    def __post_init__(self) -> None:
        _check_joints(self.axes)
        for name in ("max_velocity", "max_acceleration", "max_deceleration"):
            self._check_entries(name)
            if min(getattr(self, name)) <= 0.0:
                raise ValueError(f"{name} is {list(getattr(self, name))}; expected all above 0")
        for name in ("position_min", "position_max"):
            self._check_entries(name)
        if not (math.isfinite(self.scale) and self.scale > 0.0):
            raise ValueError(f"joint_scale is {self.scale}; expected rad/s above 0")
        ordered = 0.0 < self.period <= self.horizon < math.inf
        if not (ordered and 0.0 <= self.latency < math.inf and 0.0 <= self.max_lead < math.inf):
            raise ValueError(
                f"period is {self.period}, horizon {self.horizon}, latency {self.latency}, max_lead "
                f"{self.max_lead}; expected 0 < period <= horizon, the others 0 or more"
            )
        if self.max_lead and self.max_lead <= self.latency * max(self.max_velocity):
            raise ValueError(
                f"max_joint_lead is {self.max_lead}; expected more than the fastest joint moves within "
                f"joint_latency ({self.latency} s): {self.latency * max(self.max_velocity):.3f} rad"
            )
        self._check_sense()

    def _check_entries(self, name: str) -> None:
        values = getattr(self, name)
        if len(values) != len(self.axes) or not all(map(math.isfinite, values)):
            raise ValueError(
                f"{name} is {list(values)}; expected one finite number for each of {list(self.axes)}"
            )

    def _check_sense(self) -> None:
        for i, joint in enumerate(self.axes):
            low, high = self.position_min[i], self.position_max[i]
            if low >= high:
                raise ValueError(f"{joint}: position_min is {low}, position_max {high}; turn them")
            if self.max_velocity[i] > FASTEST:
                raise ValueError(
                    f"{joint}: max_velocity is {self.max_velocity[i]}; expected rad/s, at most "
                    f"{FASTEST}: are these degrees?"
                )
            stop = self.max_velocity[i] / self.max_deceleration[i]
            if stop > LONGEST_STOP:
                raise ValueError(
                    f"{joint}: a stop from {self.max_velocity[i]} rad/s takes {stop:.1f} s with "
                    f"{self.max_deceleration[i]} rad/s^2; expected at most {LONGEST_STOP} s: raise "
                    "max_deceleration, or lower max_velocity"
                )

    @property
    def needs(self) -> str:
        """The topic of measured positions without which nothing moves."""
        return "joint_states"

    @property
    def needed_for(self) -> str:
        return "the joint limits need it"

    @property
    def position_size(self) -> int:
        return len(self.axes)

    def velocity(self, velocity: Vector) -> Vector:
        """(n,) rad/s of the measured positions."""
        return velocity

    @property
    def approach_time(self) -> float:
        """s of travel at a velocity that always end in time: flying blind, then the longest stop."""
        stops = zip(self.max_velocity, self.max_deceleration, strict=True)
        return self.horizon + self.latency + max(v / d for v, d in stops)


def _check_joints(axes: tuple[str, ...]) -> None:
    cartesian = [a for a in axes if a in AXES]
    if cartesian:
        raise ValueError(
            f"axes has {cartesian}, which are of the end effector; a joint output needs names of "
            "joints. Cartesian commands to joints need a Jacobian, which this suite leaves to MoveIt "
            "Servo: set output to twist and drive through Servo, or give joints"
        )
    if not axes or len(set(axes)) != len(axes) or not all(axes):
        raise ValueError(f"axes is {list(axes)}; expected names of joints, each once")


@dataclass
class JointLimiter:
    """Turns what is asked of the joints into what may be sent. One call per command period."""

    config: JointLimitConfig
    speed_scale: float = 1.0  # in (0, 1], changeable while running
    reference: Vector = ()  # (n,) rad, where a position controller should be now; empty: unknown
    _velocity: list[float] = field(init=False, repr=False)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "speed_scale" and isinstance(value, (int, float)):
            check_speed_scale(value)
        super().__setattr__(name, value)

    def __post_init__(self) -> None:
        self._velocity = [0.0] * len(self.config.axes)

    @property
    def moving(self) -> bool:
        """The last velocity was not zero."""
        return any(self._velocity)

    def drive(
        self, action: Vector, position: Vector | None = None, drift: Drift | None = None
    ) -> Limited:
        """Limit `action` (n,) in [-1, 1].

        position: (n,) rad, measured; without it, or with an action that is none, it brakes.
        drift: (n,) rad, how far they have moved since.
        """
        n = len(self._velocity)
        if shape_problem(action, n):
            return self.brake("finite")
        if position is None or shape_problem(position, n):
            return self.brake("joint_states")
        if not self._follow(position):
            return self.brake("lead")
        names: list[str] = []
        target = self._clamp(action, names)
        self._accelerate(target, names)
        self._contain(target, position, drift or Drift((0.0,) * n, (0.0,) * n), names)
        return self._finish(target, names)

    def brake(self, reason: str = "") -> Limited:
        """Bring all joints to rest together, along the line on which they move."""
        stops = zip(self._velocity, self.config.max_deceleration, strict=True)
        left = max(abs(v) / d for v, d in stops)
        keep = 1.0 - self.config.period / left if left > self.config.period + _TINY else 0.0
        names = [reason] if reason else []
        target = [v * keep for v in self._velocity]
        if any(target):
            names.append("deceleration")
        return self._finish(target, names)

    def _follow(self, position: Vector) -> bool:
        """Whether the joints are where they were sent. At rest they may have been moved by others."""
        lead = self.config.max_lead
        if not lead:
            return True
        if not self.reference:
            self.reference = position
        apart = max(abs(r - p) for r, p in zip(self.reference, position, strict=True))
        if not self.moving and apart > _SETTLED * lead:
            self.reference, apart = position, 0.0
        return apart <= lead

    def _clamp(self, action: Vector, names: list[str]) -> list[float]:
        """Each entry to [-1, 1], `speed_scale`, then all together below the velocity limits."""
        clamped = [min(1.0, max(-1.0, v)) for v in action]
        if clamped != list(action):
            names.append("clamp")
        if self.speed_scale != 1.0:
            names.append("speed_scale")
        target = [v * self.config.scale * self.speed_scale for v in clamped]
        factor = _fits(target, self.config.max_velocity)
        if factor < 1.0:
            names.append("speed")
        return [v * factor for v in target]

    def _accelerate(self, target: list[float], names: list[str]) -> None:
        """Shorten the change along its direction. Changes `target` in place."""
        change = [t - v for t, v in zip(target, self._velocity, strict=True)]
        factor = _fits(change, [a * self.config.period for a in self.config.max_acceleration])
        if factor < 1.0:
            names.append("acceleration")
            target[:] = [v + c * factor for v, c in zip(self._velocity, change, strict=True)]

    def _contain(
        self, target: list[float], position: Vector, drift: Drift, names: list[str]
    ) -> None:
        """Slow each joint down towards its limits; outside of them only the way back is open.

        distance / approach_time: it slows down within the deceleration, as at the workspace box.
        """
        c = self.config
        for i, measured in enumerate(position):
            ahead = self.reference[i] if c.max_lead else measured
            high = max(measured + drift.most[i], ahead)
            low = min(measured + drift.least[i], ahead)
            up = max(0.0, c.position_max[i] - high) / c.approach_time
            down = max(0.0, low - c.position_min[i]) / c.approach_time
            allowed = min(up, max(-down, target[i]))
            if allowed != target[i]:
                names.append("joint_limit")
                step = max(c.max_deceleration[i], c.max_acceleration[i]) * c.period
                before = self._velocity[i]
                target[i] = min(before + step, max(before - step, allowed))

    def _finish(self, velocity: list[float], names: list[str]) -> Limited:
        c = self.config
        self._velocity = velocity
        sent_from = self.reference if c.max_lead else ()
        if sent_from:
            self.reference = tuple(
                r + v * c.period for r, v in zip(sent_from, velocity, strict=True)
            )
        action = tuple(v / c.scale for v in velocity)
        return Limited(tuple(velocity), action, tuple(dict.fromkeys(names)), sent_from)


def _fits(values: Sequence[float], limits: Sequence[float]) -> float:
    """The factor, at most 1, that brings every entry of `values` within its limit."""
    pairs = zip(values, limits, strict=True)
    return min((limit / abs(v) for v, limit in pairs if abs(v) > limit), default=1.0)


@dataclass(frozen=True)
class TrajectoryPoint:
    """time: s from the stamp; positions, velocities: (n,) rad, rad/s"""

    time: float
    positions: Vector
    velocities: Vector


def stopping_trajectory(
    reference: Vector, velocity: Vector, config: JointLimitConfig
) -> tuple[TrajectoryPoint, ...]:
    """Go on for `horizon` s, then come to rest within the deceleration limits.

    A controller that gets nothing more follows it to its end and stands. Two points say it exactly:
    between them a cubic with these ends is the parabola of a constant deceleration. Who all but
    stands, and would be at rest within a microsecond, gets the one point where it is.
    """
    rest = (0.0,) * len(velocity)
    on = tuple(r + v * config.horizon for r, v in zip(reference, velocity, strict=True))
    stops = zip(velocity, config.max_deceleration, strict=True)
    braking = max(abs(v) / d for v, d in stops)
    if braking < _SHORTEST_STOP:
        return (TrajectoryPoint(config.horizon, reference, rest),)
    end = tuple(p + 0.5 * v * braking for p, v in zip(on, velocity, strict=True))
    return (
        TrajectoryPoint(config.horizon, on, velocity),
        TrajectoryPoint(config.horizon + braking, end, rest),
    )
