# SPDX-License-Identifier: Apache-2.0
"""Operator devices as ROS topics: parameters and subscriptions per device, and per lock.

A device NAME out of the parameter `devices` has the parameters NAME.kind, NAME.topic, and so on:

    kind           take-over                         message
    joy            while the deadman button is held  sensor_msgs/Joy
    motion         by motion beyond a threshold      sensor_msgs/Joy (spacenav/joy)
    twist          deadman_topic, or by motion       geometry_msgs/Twist (spacenav/twist)
    twist_stamped  deadman_topic, or by motion       geometry_msgs/TwistStamped

Joy is subscribed to reliably: a tap of the stop button must not be lost. docs/devices.md explains it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from geometry_msgs.msg import Twist, TwistStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rlif_node.parameters import Param, declare
from rlif_node.qos import LATCHED, SENSOR
from rlif_node.stamps import to_ns
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from .devices import (
    BUTTONS,
    GRIPPER_BUTTONS,
    NEVER,
    AxisRest,
    ButtonEdges,
    ButtonMemory,
    Deadman,
    Device,
    DeviceMessageError,
    DeviceRack,
    JoyLayout,
    Lock,
    MotionGate,
    Reading,
    RepeatLimit,
)
from .gripper import AXIS as GRIPPER
from .limits import AXES, Vector
from .presets import PRESETS, Preset

CONSOLE = "console"  # the device that the parameter `console` adds to `devices`
CONSOLE_PARAMETER = Param(CONSOLE, False, "add the device `console`, the page of rlif_console")
KINDS = ("joy", "motion", "twist", "twist_stamped")
# Share of a Joy's time-out after which its last position no longer counts: 0.1 s of 0.25 s, two
# messages at 20 Hz.
STALE_SHARE = 0.4
# Deep, so that no tap of a button is lost while the arbiter stands still for a moment: spacenav_node
# may send 1000 messages a second, and a button that went down is in only one of them.
DEPTH = 200


def device_qos(kind: str, best_effort: bool) -> QoSProfile:
    """Of the messages of a device: a tap must not be lost, and the next twist replaces a lost one."""
    loose = best_effort or kind.startswith("twist")
    policies = ReliabilityPolicy
    return QoSProfile(depth=DEPTH, reliability=policies.BEST_EFFORT if loose else policies.RELIABLE)


def device_parameters(
    name: str, preset: str, p: Preset, timeout: float, names: tuple[str, ...] = AXES
) -> tuple[Param, ...]:
    """The table of one device; `p` holds the defaults. names: of joints, instead of x y z and so on."""
    if names != AXES:
        more = len(names)
        p = replace(p, axes=(*p.axes, *(-1,) * more)[:more], scales=(1.0,) * more)
    kind = {"spacemouse": "motion", "twist": "twist_stamped"}.get(preset, "joy")
    rows = (
        Param("kind", kind, f"one of {', '.join(KINDS)}"),
        Param("topic", p.topic or name, "where its messages come from"),
        Param("priority", 100, "of several engaged devices the highest is in control", 0, 255),
        Param(
            "timeout", p.timeout or timeout, "s of silence until it is taken as gone", 0.01, 10.0
        ),
        Param(
            "axes", list(p.axes), "index of x y z roll pitch yaw, or joints, in Joy.axes; -1: none"
        ),
        Param(
            "triggers",
            list(p.triggers),
            "index in Joy.axes of those that rest at 1 and go to -1: read as 0 to 1",
            items=int,
        ),
        Param("scales", list(p.scales), "factor for each of them; the sign turns it around"),
        Param("deadzone", p.deadzone, "deflections up to this are 0", 0.0, 0.9),
        Param("slow", p.slow, "factor while the turbo button is up, if there is one", 0.01, 1.0),
        Param("motion_on", 0.15, "take-over by motion: deflection from which it begins", 0.01, 1.0),
        Param("motion_off", 0.05, "take-over by motion: deflection below which it ends", 0.0, 1.0),
        Param(
            "best_effort",
            False,
            "subscribe to Joy with best effort: taps may be lost; twists always so",
        ),
        Param(
            "repeat_limit",
            p.repeat_limit,
            "s of identical messages while engaged until it is taken as gone; 0: off",
            0.0,
            600.0,
        ),
        Param("idle_ok", False, "it sends only when it is used: silence at rest is no failure"),
        Param("deadman_topic", "", "std_msgs/Bool, true: held; empty: take-over by motion"),
        *(
            Param(f"{b}_button", getattr(p, b), "index in Joy.buttons; -1: none", -1, 63)
            for b in BUTTONS
        ),
    )
    return tuple(_prefixed(name, row) for row in rows)


def lock_parameters(name: str) -> tuple[Param, ...]:
    """The table of one lock."""
    rows = (
        Param("topic", name, "std_msgs/Bool; true masks devices up to its priority"),
        Param("priority", 200, "devices of this priority and below are masked", 0, 255),
        Param("timeout", 0.0, "s of silence until it holds by itself; 0: never", 0.0, 60.0),
    )
    return tuple(_prefixed(name, row) for row in rows)


def device_names(p: Mapping[str, Any]) -> list[str]:
    """Names of all operator devices, out of the parameters `devices` and `console`."""
    return [*p["devices"], *([CONSOLE] if p[CONSOLE] and CONSOLE not in p["devices"] else [])]


def _prefixed(name: str, row: Param) -> Param:
    return replace(row, name=f"{name}.{row.name}")


def preset_of(node: Node, name: str) -> tuple[str, Preset]:
    """Declare NAME.preset. Returns its name and its values."""
    default = CONSOLE if name == CONSOLE else "generic"
    found = declare(node, [Param(f"{name}.preset", default, f"of {list(PRESETS)}")])
    preset = next(iter(found.values()))
    if preset not in PRESETS:
        raise ValueError(f"{name}.preset is {preset!r}; expected one of {', '.join(PRESETS)}")
    return preset, PRESETS[preset]


@dataclass(frozen=True)
class Handlers:
    """What the arbiter does with what comes: all get the device's name first."""

    reading: Callable[[str, Reading], None]
    pressed: Callable[[str, frozenset[str], int], None]  # stamp of the message in ns
    problem: Callable[[str, str], None]
    arrived: Callable[[str, int], None]  # stamp in ns, after all of the above


class DeviceInput:
    """One device: its parameters, its subscriptions, its way of taking over."""

    def __init__(
        self,
        node: Node,
        name: str,
        axes: tuple[str, ...],
        timeout: float,
        now: Callable[[], float],
        handlers: Handlers,
    ) -> None:
        preset = preset_of(node, name)
        names = tuple(a for a in axes if a not in (*AXES, GRIPPER)) or AXES
        table = device_parameters(name, *preset, timeout, names)
        p = {k.split(".", 1)[1]: v for k, v in declare(node, table).items()}
        if p["kind"] not in KINDS:
            raise ValueError(f"{name}.kind is {p['kind']!r}; expected one of {', '.join(KINDS)}")
        self._axes, self._now, self._handlers = axes, now, handlers
        self._layout = _layout(p, names, with_gripper=GRIPPER in axes)
        # spacenav_node leaves buttons out; of a joystick that would be another than expected.
        highest = max(i for _, i in self._layout.buttons)
        self._buttons = ButtonMemory(highest + 1 if p["kind"] == "motion" else 0)
        self._edges = ButtonEdges()
        self._rest = AxisRest(max(0.1, p["deadzone"]))
        self._repeat_limit = RepeatLimit(p["repeat_limit"])
        self._deadman = Deadman(p["timeout"])
        by_motion = p["kind"] == "motion" or (p["kind"] != "joy" and not p["deadman_topic"])
        self._gate = MotionGate(p["motion_on"], p["motion_off"]) if by_motion else None
        self._by_button = p["kind"] == "joy"
        self._by_topic = not self._by_button and not by_motion
        # With a deadman topic that is the heartbeat: the twists may come and go.
        self._sparse = p["idle_ok"] and self._by_topic
        idle_ok = p["idle_ok"] and not self._by_topic
        # A twist has a rule of its own, below.
        stale_after = STALE_SHARE * p["timeout"] if p["kind"] in ("joy", "motion") else math.inf
        self.device = Device(name, p["priority"], p["timeout"], idle_ok, stale_after)
        self._twisted = NEVER
        self._broken = False
        if self._by_button and p["deadman_button"] < 0:
            raise ValueError(f"{name}.deadman_button is -1; a device of kind joy needs one")
        self._subscribe(node, p)

    def _subscribe(self, node: Node, p: dict[str, Any]) -> None:
        qos = device_qos(p["kind"], p["best_effort"])
        message, callback = {
            "joy": (Joy, self._on_joy),
            "motion": (Joy, self._on_joy),
            "twist": (Twist, self._on_twist),
            "twist_stamped": (TwistStamped, self._on_twist_stamped),
        }[p["kind"]]
        node.create_subscription(message, p["topic"], callback, qos)
        if p["deadman_topic"]:
            node.create_subscription(Bool, p["deadman_topic"], self._on_deadman, qos)

    def _on_joy(self, m: Joy) -> None:
        buttons, now = self._buttons.complete(m.buttons), self._now()
        try:
            engaged = self._by_button and "deadman" in self._layout.pressed(buttons)
            deflections = self._layout.deflections(m.axes, self._axes)
            # Of a device that takes over by motion any deflection is motion, at rest or not.
            ignored = self._rest.update(deflections, engaged or not self._by_button, now)
            reading = self._layout.read(m.axes, buttons, self._axes, ignored)
        except DeviceMessageError as problem:
            self._refuse(problem)
            return
        self.device.off_centre = {name: deflections[name] for name in sorted(ignored)}
        self.device.repeats = self._repeat_limit.exceeded(m.axes, buttons, engaged, now)
        self._take(reading, to_ns(m.header.stamp))

    def _on_twist_stamped(self, m: TwistStamped) -> None:
        self._on_twist(m.twist, to_ns(m.header.stamp))

    def _on_twist(self, m: Twist, stamp: int = 0) -> None:
        try:
            self._take(self._layout.read(_twist_axes(m), (), self._axes), stamp)
        except DeviceMessageError as problem:
            self._refuse(problem)

    def _on_deadman(self, m: Bool) -> None:
        now = self._now()
        self._deadman.update(m.data, now)
        if not self._by_topic or self._broken:
            return
        last = self.device.reading
        if self._sparse:
            changed = last is None or last.engaged != m.data
            # Half of the time-out, so that the zeros come before the last twist has lasted too long.
            counts = changed or now - self._twisted > self.device.timeout / 2
        else:
            # Let go at once: the next twist may be late, or never come.
            counts = not m.data and self.device.engaged(now)
        if counts:
            zeros = (0.0,) * len(self._axes)
            self._handlers.reading(self.device.name, Reading(m.data, zeros))

    def _refuse(self, problem: DeviceMessageError) -> None:
        self._broken = True
        self._handlers.problem(self.device.name, str(problem))

    def _take(self, reading: Reading, stamp: int) -> None:
        """One message: flag and action both out of it, then the buttons that went down."""
        name = self.device.name
        self._broken = False
        self._twisted = self._now()
        if not self._by_button:
            reading = self._with_take_over(reading)
        if not self._sparse or self._deadman.live(self._now()):
            self._handlers.reading(name, reading)
        pressed = self._edges.pressed(reading.pressed)
        if reading.engaged:
            pressed -= {"start"}  # a stick that is pressed while it drives begins nothing
        if pressed:
            self._handlers.pressed(name, pressed, stamp)
        self._handlers.arrived(name, stamp)

    def _with_take_over(self, reading: Reading) -> Reading:
        engaged = (
            self._gate.update(reading.action) if self._gate else self._deadman.held(self._now())
        )
        return Reading(engaged, reading.action, reading.pressed)


def _layout(p: dict[str, Any], names: tuple[str, ...], with_gripper: bool) -> JoyLayout:
    """Without a gripper its buttons are not looked at: the device need not have them."""
    buttons = [b for b in BUTTONS if with_gripper or b not in GRIPPER_BUTTONS]
    return JoyLayout(
        names=names,
        axes=tuple(p["axes"]),
        scales=tuple(p["scales"]),
        triggers=tuple(p["triggers"]),
        buttons=tuple((b, p[f"{b}_button"]) for b in buttons),
        deadzone=p["deadzone"],
        slow=p["slow"],
    )


def _twist_axes(t: Twist) -> Vector:
    return (t.linear.x, t.linear.y, t.linear.z, t.angular.x, t.angular.y, t.angular.z)


def subscribe_lock(node: Node, name: str, now: Callable[[], float]) -> Lock:
    """One lock: its parameters and its subscription."""
    p = {k.split(".", 1)[1]: v for k, v in declare(node, lock_parameters(name)).items()}
    lock = Lock(name, p["priority"], p["timeout"])

    def receive(m: Bool) -> None:
        lock.update(m.data, now())

    # Twice, as for `stop`: a lock that was latched before this node started, and a publisher of any
    # other quality of service. A message that is received twice changes nothing.
    for qos in (LATCHED, SENSOR):
        node.create_subscription(Bool, p["topic"], receive, qos)
    return lock


def make_rack(
    node: Node,
    names: list[str],
    locks: list[str],
    axes: tuple[str, ...],
    timeout: float,
    now: Callable[[], float],
    handlers: Handlers,
) -> DeviceRack:
    """All devices and locks that the parameters name."""

    def pressed(name: str, buttons: frozenset[str], stamp: int) -> None:
        device = rack.device(name)
        counts, lock = rack.effective(device, buttons, now()), rack.lock_on(device, now())
        ignored = buttons - counts - {"deadman", "turbo"}
        if ignored and lock:
            node.get_logger().warning(
                f"{name}: the button {', '.join(sorted(ignored))} does nothing: the device is "
                f"locked by {lock.name}"
            )
        if counts:
            handlers.pressed(name, counts, stamp)

    masked = replace(handlers, pressed=pressed)
    devices = [DeviceInput(node, name, axes, timeout, now, masked).device for name in names]
    rack = DeviceRack(devices, [subscribe_lock(node, name, now) for name in locks])
    return rack
