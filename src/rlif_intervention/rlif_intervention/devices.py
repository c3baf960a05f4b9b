# SPDX-License-Identifier: Apache-2.0
"""Operator devices: messages reduced to "engaged" and an action.

A device is fed with each of its messages exactly once, at receipt; flag and action always come
from the same message. `DeviceRack` holds several with priorities, time-outs and locks.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from .gripper import AXIS as GRIPPER
from .limits import AXES, Vector

NEVER = -math.inf


class DeviceMessageError(ValueError):
    """A device message that cannot be used: not finite, or too short for the configured layout."""


def _require_finite(whose: str, **values: float | Vector) -> None:
    """ValueError that names the first value with an entry that is not finite."""
    for name, value in values.items():
        entries = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(v) for v in entries):
            raise ValueError(f"{whose} {name} is {value}; expected finite numbers")


@dataclass(frozen=True)
class Reading:
    """One device message: `engaged` and `action` (n,) in [-1, 1] from the same moment."""

    engaged: bool
    action: Vector
    pressed: frozenset[str] = frozenset()  # names of the buttons that are down


GRIPPER_BUTTONS = ("gripper_open", "gripper_close")
BUTTONS = (
    *("deadman", "turbo", "start", "success", "failure", "discard", "arm", "stop"),
    *GRIPPER_BUTTONS,
)


@dataclass(frozen=True, kw_only=True)
class JoyLayout:
    """Which entries of a sensor_msgs/Joy mean what.

    names: what the axes are, x y z roll pitch yaw or joints
    axes: index into Joy.axes for each of `names`; -1: not on this device
    scales: factor per axis, the sign turns it around; full deflection should give 1
    buttons: index into Joy.buttons per name out of `BUTTONS`; -1: not on this device
    triggers: indices of axes that rest at 1 and go to -1; read as 0 to 1
    deadzone: deflections up to this are 0, in [0, 1)
    slow: factor on the action while the turbo button, if configured, is not pressed, in (0, 1]
    """

    names: tuple[str, ...] = AXES
    axes: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    scales: Vector = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    buttons: tuple[tuple[str, int], ...] = (
        ("deadman", 0),
        ("success", 1),
        ("failure", 2),
        ("arm", 3),
    )
    triggers: tuple[int, ...] = ()
    deadzone: float = 0.0
    slow: float = 1.0

    def __post_init__(self) -> None:
        for name in ("axes", "scales"):
            if len(getattr(self, name)) != len(self.names):
                raise ValueError(
                    f"joy {name} has {len(getattr(self, name))} entries; expected one for each of "
                    f"{list(self.names)} (-1 in joy axes: not on this device)"
                )
        # Times 0 a scale that is no number is none either, and would pass as -1 below: full speed.
        _require_finite("joy", scales=self.scales, deadzone=self.deadzone, slow=self.slow)
        unknown = [name for name, _ in self.buttons if name not in BUTTONS]
        if unknown:
            raise ValueError(f"unknown joy buttons {unknown}; expected some of {list(BUTTONS)}")
        if not 0.0 <= self.deadzone < 1.0 or not 0.0 < self.slow <= 1.0:
            raise ValueError(
                f"deadzone is {self.deadzone}, slow is {self.slow}; "
                "expected deadzone in [0, 1) and slow in (0, 1]"
            )

    def read(
        self,
        axes: Sequence[float],
        buttons: Sequence[int],
        wanted: Sequence[str],
        ignored: Container[str] = (),
    ) -> Reading:
        """A Joy message as a Reading with one action entry per axis in `wanted`.

        ignored: names of axes that are 0 whatever the message has
        Raises DeviceMessageError if a configured entry is missing or not finite.
        """
        pressed = self.pressed(buttons)
        factor = 1.0 if "turbo" in pressed or not self.index("turbo") >= 0 else self.slow
        action = tuple(
            _gripper_entry(pressed)
            if name == GRIPPER
            else factor * self._entry(self._deflection(axes, name), name, ignored)
            for name in wanted
        )
        return Reading("deadman" in pressed, action, pressed)

    def index(self, button: str) -> int:
        return dict(self.buttons).get(button, -1)

    def pressed(self, buttons: Sequence[int]) -> frozenset[str]:
        """Names of the buttons that are down. Without any in the message: none."""
        if not buttons:
            return frozenset()
        highest = max((i for _, i in self.buttons), default=-1)
        if highest >= len(buttons):
            raise DeviceMessageError(
                f"the Joy message has {len(buttons)} buttons, the layout uses button {highest}: "
                "check which device is connected and the *_button parameters"
            )
        return frozenset(name for name, i in self.buttons if i >= 0 and buttons[i])

    def deflections(self, axes: Sequence[float], wanted: Sequence[str]) -> dict[str, float]:
        """How far each axis of `wanted` on this device is from its rest, without scale.

        Raises DeviceMessageError as `read`.
        """
        found = (n for n in wanted if n in self.names and self.axes[self.names.index(n)] >= 0)
        return {name: self._deflection(axes, name) for name in found}

    def _deflection(self, axes: Sequence[float], name: str) -> float:
        index = self.axes[self.names.index(name)]
        if index < 0:
            return 0.0
        if index >= len(axes):
            raise DeviceMessageError(
                f"the Joy message has {len(axes)} axes, the layout uses axis {index} for "
                f"{name}: check which device is connected and the joy_axes parameter"
            )
        value = float(axes[index])
        if not math.isfinite(value):
            raise DeviceMessageError(f"axis {index} of the Joy message is {value}, not a number")
        return (1.0 - value) / 2.0 if index in self.triggers else value

    def _entry(self, deflection: float, name: str, ignored: Container[str]) -> float:
        """Of an action, in [-1, 1]."""
        value = 0.0 if abs(deflection) <= self.deadzone or name in ignored else deflection
        return min(1.0, max(-1.0, value * self.scales[self.names.index(name)]))


def _gripper_entry(pressed: frozenset[str]) -> float:
    """1 open, -1 close, 0 (neither button, or both) as it is."""
    return float("gripper_open" in pressed) - float("gripper_close" in pressed)


@dataclass
class _Axis:
    counts: bool
    near_since: float | None  # continuously near its rest; None: it is not
    value: float  # since when it has not changed
    unchanged_since: float


class AxisRest:
    """Which axes of a Joy have been seen at their rest and may move the arm.

    Triggers rest at 1, many drivers report 0 until their first press, and a stick may hang: read as
    a deflection, any of these is full speed at the press of the deadman. So an axis whose first
    message is off centre, or that stays off centre unchanged for REST seconds while the deadman is
    up, counts for nothing until it has been near its rest for SETTLE seconds. A trigger that only
    passes through the middle does not get there.

    near: deflection up to which an axis is at rest
    """

    SETTLE, REST, CHANGE = 0.3, 1.0, 0.02  # s, s, deflection

    def __init__(self, near: float = 0.1) -> None:
        self._near = near
        self._axes: dict[str, _Axis] = {}

    def update(self, deflections: Mapping[str, float], engaged: bool, now: float) -> frozenset[str]:
        """One message, before it is acted on. Returns the names of the axes that do not count."""
        for name, value in deflections.items():
            near = abs(value) <= self._near
            axis = self._axes.setdefault(name, _Axis(near, now if near else None, value, now))
            if axis.near_since is not None and now - axis.near_since >= self.SETTLE:
                axis.counts = True
            if not near or axis.near_since is None:
                axis.near_since = now if near else None
            if near or engaged or abs(value - axis.value) > self.CHANGE:
                axis.value, axis.unchanged_since = value, now
            elif now - axis.unchanged_since >= self.REST:
                axis.counts = False
        return frozenset(name for name in deflections if not self._axes[name].counts)


class RepeatLimit:
    """Messages that do not change at all while the device is engaged.

    The receiver of a wireless pad that is out of range may repeat its last message for ever, with
    the deadman held. A thumb trembles; only a stick at its stop gives the same numbers for long.

    limit: s; 0: off
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._content: tuple[tuple[float, ...], ...] = ()
        self._since = NEVER

    def exceeded(
        self, axes: Sequence[float], buttons: Sequence[int], engaged: bool, now: float
    ) -> bool:
        """Whether this message is one too many of the same."""
        content = (tuple(axes), tuple(buttons))
        if content != self._content or not engaged:
            self._content, self._since = content, now
        return 0.0 < self._limit < now - self._since


class ButtonMemory:
    """The buttons as last received, for drivers that do not send all of them in every message.

    spacenav_node sends its motion without buttons, and with a button that moves only those up to
    it. `size`: how many the layout needs; 0: a message with buttons has them all.
    """

    def __init__(self, size: int = 0) -> None:
        self._size = size
        self._last: tuple[int, ...] = ()

    def complete(self, buttons: Sequence[int]) -> tuple[int, ...]:
        """`buttons`, and those that the message leaves out as they were last."""
        if len(buttons) and self._size:
            known = (*buttons, *self._last[len(buttons) :])
            self._last = (*known, *(0,) * (self._size - len(known)))
        elif len(buttons):
            self._last = tuple(buttons)
        return self._last


@dataclass
class ButtonEdges:
    """Which buttons went down with this message. Fed with every message, so no tap is lost."""

    _down: frozenset[str] | None = None

    def pressed(self, down: frozenset[str]) -> frozenset[str]:
        """Names newly down. What is down in the first message ever was not pressed now."""
        before, self._down = self._down, down
        return frozenset() if before is None else down - before


@dataclass
class Deadman:
    """A deadman that comes as a topic of its own: let go when it is silent, as when it is lifted.

    timeout: s
    """

    timeout: float
    _held: bool = False
    _received: float = NEVER

    def __post_init__(self) -> None:
        _require_finite("deadman", timeout=self.timeout)

    def update(self, held: bool, now: float) -> None:
        self._held, self._received = held, now

    def held(self, now: float) -> bool:
        return self._held and self.live(now)

    def live(self, now: float) -> bool:
        return now - self._received <= self.timeout


@dataclass
class MotionGate:
    """Take-over by motion, for devices without a button: on above `on`, off below `off`.

    The distance between the thresholds keeps noise from flickering on and off.
    """

    on: float = 0.15
    off: float = 0.05
    engaged: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.off < self.on <= 1.0:
            raise ValueError(
                f"motion thresholds are on {self.on}, off {self.off}; expected 0 < off < on <= 1"
            )

    def update(self, action: Vector) -> bool:
        deflection = max((abs(v) for v in action), default=0.0)
        self.engaged = deflection >= (self.off if self.engaged else self.on)
        return self.engaged


@dataclass
class Device:
    """One operator device: its newest reading, when it came, whether it was ever moved.

    stale_after: s without a message after which its last position no longer counts
    idle_ok: silent while let go, it still counts as there; unplugged, it looks the same
    off_centre: deflections of the axes that do not count, by name (`AxisRest`)
    repeats: it repeats one message while engaged (`RepeatLimit`), and counts as gone
    """

    name: str
    priority: int = 100
    timeout: float = 0.5
    idle_ok: bool = False
    stale_after: float = math.inf
    reading: Reading | None = None
    received: float = NEVER
    moved: bool = False
    off_centre: Mapping[str, float] = field(default_factory=dict)
    repeats: bool = False

    def __post_init__(self) -> None:
        _require_finite(f"device {self.name}", timeout=self.timeout)

    def update(self, reading: Reading, now: float) -> None:
        self.reading, self.received = reading, now
        self.moved = self.moved or reading.engaged or any(reading.action)

    def live(self, now: float) -> bool:
        return now - self.received <= self.timeout and not self.repeats

    def stale(self, now: float) -> bool:
        """Whether the last position no longer counts: the arm brakes before the device is lost."""
        return now - self.received > self.stale_after

    def engaged(self, now: float) -> bool:
        return self.reading is not None and self.reading.engaged and self.live(now)

    def idle(self, now: float) -> bool:
        """Silent, and that is no failure: it is let go, and sends only when it is used."""
        resting = self.reading is not None and not self.reading.engaged
        return self.idle_ok and resting and not self.live(now)

    def problem(self, now: float) -> str | None:
        """Why a person could not take over with it; None: they could."""
        if self.reading is None:
            return f"no message from the operator device {self.name} yet"
        if self.repeats:
            return f"the operator device {self.name} repeats one message: is it out of range?"
        if not self.live(now) and not self.idle(now):
            return f"the operator device {self.name} is silent for more than {self.timeout} s"
        return None


@dataclass
class Lock:
    """While held, devices of this priority and below are masked. Silent: held, as in twist_mux."""

    name: str
    priority: int
    timeout: float = 0.0  # s; 0: never expires
    held: bool = False
    received: float = NEVER

    def __post_init__(self) -> None:
        _require_finite(f"lock {self.name}", timeout=self.timeout)

    def update(self, held: bool, now: float) -> None:
        self.held, self.received = held, now

    def active(self, now: float) -> bool:
        return self.held or (self.timeout > 0.0 and now - self.received > self.timeout)


@dataclass
class DeviceRack:
    """All devices, the most important one first; a locked device neither drives nor counts."""

    devices: list[Device]
    locks: list[Lock] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [d.name for d in self.devices]
        if len(set(names)) != len(names):
            raise ValueError(f"device names {names} are not unique")
        self.devices.sort(key=lambda d: -d.priority)

    def device(self, name: str) -> Device:
        found = [d for d in self.devices if d.name == name]
        if not found:
            raise KeyError(f"no device {name!r}; there are {[d.name for d in self.devices]}")
        return found[0]

    def driving(self, now: float) -> Device | None:
        """The engaged, live, unlocked device of the highest priority."""
        able = (d for d in self.devices if d.engaged(now) and self.lock_on(d, now) is None)
        return next(able, None)

    def lock_on(self, device: Device, now: float) -> Lock | None:
        """The lock that masks the device; None: none does."""
        masks = (k for k in self.locks if k.active(now) and device.priority <= k.priority)
        return next(masks, None)

    def effective(self, device: Device, pressed: frozenset[str], now: float) -> frozenset[str]:
        """Those of the buttons pressed on it that count: a locked device can only stop."""
        return pressed if self.lock_on(device, now) is None else pressed & {"stop"}

    def loss(self, device: Device, now: float) -> str | None:
        """What took control from a device that drove; None: nothing did."""
        lock = self.lock_on(device, now)
        if lock is None and device.live(now):
            return None
        went = "repeats one message (is it out of range?)" if device.repeats else "went silent"
        cause = f"was locked by {lock.name}" if lock else went
        return f"the operator device {device.name} {cause}"

    def _device_problem(self, device: Device, now: float) -> str | None:
        lock = self.lock_on(device, now)
        if lock is not None:
            return f"the operator device {device.name} is locked by {lock.name}"
        return device.problem(now)

    def problem(self, now: float) -> str | None:
        """Why no person could take over; None: at least one device is live and unlocked."""
        problems = [self._device_problem(d, now) for d in self.devices]
        if not problems:
            return "no operator device is configured"
        if None in problems:
            return None
        return "; ".join(p for p in problems if p is not None)
