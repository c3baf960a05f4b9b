# SPDX-License-Identifier: Apache-2.0
"""What may come out of the arbiter: clamp, acceleration and jerk, workspace box, in this order.

`Limiter.drive` takes an action in [-1, 1] and `Limiter.brake` none at all; both return the twist
for one command period. The promises, each with a property-based test:

- no input, NaN and infinities included, leads to a twist that is not finite or exceeds a limit;
- the twist never changes faster than the acceleration limit (deceleration, while braking);
- an arm that follows its commands does not leave the workspace box, however old the measured
  position is within what `pose_extrapolator` allows for, and however the motion is stopped;
- braking reaches zero within speed / deceleration.

The jerk limit is a moving average over the last n acceleration-limited twists: that is exact in
any norm and cannot overshoot, at the price of a delay of n / 2 periods. Braking skips it: a stop
is worth a jerk.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

AXES = ("x", "y", "z", "roll", "pitch", "yaw")
LINEAR = frozenset(AXES[:3])

_TINY = 1e-9  # m/s: below this a twist is zero

Vector = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class LimitConfig:
    """Limits on the twist of the end effector, in the base frame. 0 switches a limit off.

    axes: entries of an action, out of x y z roll pitch yaw
    linear_scale, angular_scale: m/s and rad/s of an action entry of 1
    period: s, of one command
    max_*_speed: of the norm, m/s and rad/s
    max_*_acceleration: m/s^2 and rad/s^2, of the norm, while driving
    max_*_deceleration: the same while braking, and at the workspace box; 0: at once
    max_linear_jerk: m/s^3, needs max_linear_acceleration
    workspace_min, workspace_max: m, of the end effector's x, y, z; both empty: no box
    pose_latency: s, how old a measured pose may be when it arrives, and what a command needs to act
    tool_actions: actions come in the tool's frame (`action_frames`): its orientation must be known
    """

    axes: tuple[str, ...] = ("x", "y", "z")
    linear_scale: float = 0.1
    angular_scale: float = 0.5
    period: float = 0.02
    max_linear_speed: float = 0.0
    max_angular_speed: float = 0.0
    max_linear_acceleration: float = 0.0
    max_angular_acceleration: float = 0.0
    max_linear_deceleration: float = 0.0
    max_angular_deceleration: float = 0.0
    max_linear_jerk: float = 0.0
    workspace_min: Vector = ()
    workspace_max: Vector = ()
    pose_latency: float = 0.0
    tool_actions: bool = False

    def __post_init__(self) -> None:
        _check_axes(self.axes)
        for name in ("linear_scale", "angular_scale", "period"):
            _check_number(name, getattr(self, name), above_zero=True)
        for group in ("speed", "acceleration", "deceleration"):
            _check_number(f"max_linear_{group}", getattr(self, f"max_linear_{group}"))
            _check_number(f"max_angular_{group}", getattr(self, f"max_angular_{group}"))
        _check_number("max_linear_jerk", self.max_linear_jerk)
        _check_number("pose_latency", self.pose_latency)
        if self.max_linear_jerk and not self.max_linear_acceleration:
            raise ValueError(
                f"max_linear_jerk is {self.max_linear_jerk} m/s^3 without an acceleration limit: "
                "set max_linear_acceleration too, or max_linear_jerk to 0"
            )
        _check_box(self.workspace_min, self.workspace_max)

    @property
    def scales(self) -> Vector:
        """(n,) m/s or rad/s of an action entry of 1, per axis."""
        return tuple(self.linear_scale if a in LINEAR else self.angular_scale for a in self.axes)

    @property
    def boxed(self) -> bool:
        return bool(self.workspace_min)

    @property
    def needs(self) -> str:
        """The topic of measured positions without which nothing moves; empty: none."""
        return "ee_pose" if self.boxed or self.tool_actions else ""

    @property
    def needed_for(self) -> str:
        return f"{'the workspace box' if self.boxed else 'action_frame tool'} needs it"

    @property
    def position_size(self) -> int:
        return 3

    @property
    def latency(self) -> float:
        return self.pose_latency

    def velocity(self, twist: Vector) -> Vector:
        """(3,) m/s of the measured position at `twist` (n,)."""
        found = dict(zip(self.axes, twist, strict=True))
        return tuple(found.get(axis, 0.0) for axis in AXES[:3])


def _check_axes(axes: tuple[str, ...]) -> None:
    unknown = [a for a in axes if a not in AXES]
    if not axes or unknown or len(set(axes)) != len(axes):
        raise ValueError(
            f"axes is {list(axes)}; expected one or more of {list(AXES)}, each at most once"
        )


def _check_number(name: str, value: float, above_zero: bool = False) -> None:
    if not math.isfinite(value) or value < 0.0 or (above_zero and value == 0.0):
        wanted = "a finite number above 0" if above_zero else "a finite number, 0 (off) or more"
        raise ValueError(f"{name} is {value}; expected {wanted}")


def _check_box(low: Vector, high: Vector) -> None:
    if not low and not high:
        return
    if len(low) != 3 or len(high) != 3:
        raise ValueError(
            f"workspace_min has {len(low)} and workspace_max {len(high)} entries; "
            "expected x, y, z in both, or both empty for no box"
        )
    if not all(
        math.isfinite(a) and math.isfinite(b) and a < b for a, b in zip(low, high, strict=True)
    ):
        raise ValueError(
            f"workspace_min {list(low)} is not below workspace_max {list(high)} in every entry"
        )


@dataclass(frozen=True)
class Limited:
    """One command: `twist` (n,) in m/s and rad/s, `action` (n,) = twist / scale, what acted.

    reference: (n,) rad, of joints under a position controller, from which it goes on; else empty
    """

    twist: Vector  # of the end effector, or the velocities of joints
    action: Vector
    names: tuple[str, ...]  # of the limits that changed it, in order
    reference: Vector = ()


@dataclass(frozen=True)
class _Part:
    """The linear or the angular axes: which entries, and their limits (0: off)."""

    indices: tuple[int, ...]
    speed: float
    acceleration: float
    deceleration: float


@dataclass(frozen=True)
class Drift:
    """How far the arm may have moved since it was measured: between the two, in each entry."""

    least: Vector
    most: Vector


STILL = Drift((0.0,) * 3, (0.0,) * 3)


def norm(values: Vector | list[float]) -> float:
    return math.sqrt(sum(v * v for v in values))


def shape_problem(action: Vector, size: int) -> str | None:
    """Why `action` cannot be an action of `size` entries; None: it can."""
    if len(action) != size:
        return f"has {len(action)} entries, expected {size}"
    if not all(math.isfinite(v) for v in action):
        return f"is not finite: {list(action)}"
    return None


def check_speed_scale(value: float) -> None:
    """ValueError for what is no factor in (0, 1]."""
    if not 0.0 < value <= 1.0:  # not a number is neither
        raise ValueError(f"speed_scale is {value}; expected a factor above 0, at most 1")


@dataclass
class Limiter:
    """Turns what is asked for into what may be sent. One call per command period."""

    config: LimitConfig
    speed_scale: float = 1.0  # in (0, 1], changeable while running
    _twist: list[float] = field(init=False, repr=False)
    _window: deque[list[float]] = field(init=False, repr=False)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "speed_scale" and isinstance(value, (int, float)):
            check_speed_scale(value)
        super().__setattr__(name, value)

    def __post_init__(self) -> None:
        c = self.config
        linear = tuple(i for i, a in enumerate(c.axes) if a in LINEAR)
        angular = tuple(i for i, a in enumerate(c.axes) if a not in LINEAR)
        self._scales = c.scales
        self._box_axes = tuple((i, "xyz".index(c.axes[i])) for i in linear) if c.boxed else ()
        self._parts = (
            _Part(linear, c.max_linear_speed, c.max_linear_acceleration, c.max_linear_deceleration),
            _Part(
                angular, c.max_angular_speed, c.max_angular_acceleration, c.max_angular_deceleration
            ),
        )
        fastest = c.max_linear_speed or c.linear_scale * math.sqrt(len(linear))
        self._approach_time = c.period
        if c.max_linear_deceleration:
            self._approach_time += fastest / c.max_linear_deceleration
        self._twist = [0.0] * len(c.axes)
        jerk, acceleration = c.max_linear_jerk, c.max_linear_acceleration
        length = max(1, math.ceil(2.0 * acceleration / (jerk * c.period) - 1e-9)) if jerk else 1
        self._window = deque([list(self._twist)] * length, maxlen=length)

    @property
    def moving(self) -> bool:
        """The last twist was not zero."""
        return any(self._twist)

    def drive(
        self, action: Vector, position: Vector | None = None, drift: Drift = STILL
    ) -> Limited:
        """Limit `action` (n,) in [-1, 1].

        position: (3,) m, measured end effector; None only if no box is configured, else it brakes.
        drift: (3,) m, how far it has moved since.
        An action of another size, or one that is not finite, brakes.
        """
        if shape_problem(action, len(self._scales)):
            return self.brake("finite")
        if self._box_axes and (position is None or not all(map(math.isfinite, position))):
            return self.brake("workspace")
        names: list[str] = []
        target = self._clamp(action, names)
        if not all(map(math.isfinite, target)):  # min and max would make a number of it
            return self.brake("finite")
        self._accelerate(target, names)
        if self._box_axes and position is not None:
            self._contain(target, position, drift, names)
        return self._finish(target, names, settle="workspace" in names)

    def brake(self, reason: str = "") -> Limited:
        """Bring the twist to zero along its direction, within the deceleration limits."""
        twist = list(self._twist)
        for part in self._parts:
            self._brake_part(part, twist)
        names = [reason] if reason else []
        if any(twist):
            names.append("deceleration")
        return self._finish(twist, names, settle=True)

    def _clamp(self, action: Vector, names: list[str]) -> list[float]:
        """Per-axis and norm clamp, then `speed_scale`."""
        clamped = [min(1.0, max(-1.0, v)) for v in action]
        if clamped != list(action):
            names.append("clamp")
        if self.speed_scale != 1.0:
            names.append("speed_scale")
        target = [v * s * self.speed_scale for v, s in zip(clamped, self._scales, strict=True)]
        for part in self._parts:
            speed = norm([target[i] for i in part.indices])
            if part.speed and speed > part.speed:
                for i in part.indices:
                    target[i] *= part.speed / speed
                names.append("speed")
        return target

    def _accelerate(self, target: list[float], names: list[str]) -> None:
        """Acceleration, then jerk. Changes `target` in place."""
        before = self._window[-1]
        for part in self._parts:
            if not part.acceleration:
                continue
            change = norm([target[i] - before[i] for i in part.indices])
            allowed = part.acceleration * self.config.period
            if change > allowed:
                for i in part.indices:
                    target[i] = before[i] + (target[i] - before[i]) * allowed / change
                names.append("acceleration")
        if len(self._window) == 1:
            return
        self._window.append(list(target))
        for i in self._parts[0].indices:
            mean = sum(t[i] for t in self._window) / len(self._window)
            if abs(mean - target[i]) > 1e-12 and "jerk" not in names:
                names.append("jerk")
            target[i] = mean

    def _contain(
        self, target: list[float], position: Vector, drift: Drift, names: list[str]
    ) -> None:
        """Slow down towards the faces of the box. Changes `target` in place."""
        nearest, wanted = list(self._twist), list(target)
        for i, axis in self._box_axes:
            high, low = position[axis] + drift.most[axis], position[axis] + drift.least[axis]
            up = self._approach_speed(self.config.workspace_max[axis] - high)
            down = -self._approach_speed(low - self.config.workspace_min[axis])
            nearest[i] = min(up, max(down, nearest[i]))
            wanted[i] = min(up, max(down, wanted[i]))
        if wanted != target:
            names.append("workspace")
            self._approach(target, nearest, wanted)

    def _approach_speed(self, distance: float) -> float:
        """Largest speed towards a face `distance` m away.

        distance / (T + V / D): T, one period, passes at this speed; V / D is how long braking from
        the largest speed takes. It slows down within the deceleration limit on all axes together,
        and a stop along any direction ends before the face.
        """
        return max(0.0, distance) / self._approach_time

    def _approach(self, target: list[float], nearest: list[float], wanted: list[float]) -> None:
        """Set `target` to `wanted`, or as near to it as the limits on the change allow.

        nearest: what the faces allow that is nearest to the last twist. To get there comes first.
        Where even that is out of reach, e.g. when a measurement shows the arm closer to a face than
        it could be, all axes brake along their direction, which ends before any face.
        """
        part, period = self._parts[0], self.config.period
        indices, before = part.indices, self._twist
        needed = norm([nearest[i] - before[i] for i in indices])
        if part.deceleration and needed > part.deceleration * period * (1.0 + 1e-9):
            self._brake_part(part, target)
            return
        share = 1.0
        if part.deceleration and part.acceleration:
            allowed = max(part.deceleration, part.acceleration) * period
            share = _share(
                [nearest[i] - before[i] for i in indices],
                [wanted[i] - nearest[i] for i in indices],
                allowed,
            )
        for i in indices:
            target[i] = nearest[i] + (wanted[i] - nearest[i]) * share

    def _brake_part(self, part: _Part, target: list[float]) -> None:
        """The last twist of `part`, slowed down along its direction, into `target`."""
        speed = norm([self._twist[i] for i in part.indices])
        step = part.deceleration * self.config.period
        keep = 1.0 - step / speed if part.deceleration and speed > step + _TINY else 0.0
        for i in part.indices:
            target[i] = self._twist[i] * keep

    def _finish(self, twist: list[float], names: list[str], settle: bool) -> Limited:
        self._twist = twist
        if settle or len(self._window) == 1:  # what the smoothing goes on from
            self._window.extend([twist] * len(self._window))
        action = tuple(v / s for v, s in zip(twist, self._scales, strict=True))
        return Limited(tuple(twist), action, tuple(dict.fromkeys(names)))


def _share(start: list[float], step: list[float], radius: float) -> float:
    """The largest share in [0, 1] of `step` that keeps |start + share * step| within `radius`."""
    a = sum(s * s for s in step)
    b = sum(x * s for x, s in zip(start, step, strict=True))
    c = sum(x * x for x in start) - radius * radius
    if a + 2.0 * b + c <= 0.0:
        return 1.0
    return max(0.0, (math.sqrt(max(0.0, b * b - a * c)) - b) / a) if a else 0.0
