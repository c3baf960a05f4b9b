# SPDX-License-Identifier: Apache-2.0
"""The buttons of the operator devices, for a node that does not drive with them.

It reads the same parameters as the arbiter (`devices`, `locks`, NAME.*), so one table in a robot's
YAML, or one preset, defines the buttons for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from rclpy.node import Node
from rlif_node.parameters import Param, declare
from rlif_node.stamps import to_ns
from sensor_msgs.msg import Joy

from .device_inputs import CONSOLE_PARAMETER, device_parameters, device_qos, preset_of, subscribe_lock
from .devices import (
    ButtonEdges,
    ButtonMemory,
    Device,
    DeviceMessageError,
    DeviceRack,
    JoyLayout,
)

PARAMETERS = (
    Param("devices", ["joy"], "names of operator devices, with NAME.* as the arbiter's", items=str),
    CONSOLE_PARAMETER,
    Param("locks", [], "names of locks, with NAME.* as the arbiter's", items=str),
)
JOYSTICKS = ("joy", "motion")  # kinds that have buttons


class ButtonInputs:
    """Calls `pressed(device, buttons, stamp in ns)` for each message in which one goes down.

    wanted: names of the buttons out of `BUTTONS`; others are ignored
    problem: called with the reason for a message that cannot be used
    A locked device's buttons do nothing.
    """

    def __init__(
        self,
        node: Node,
        devices: Sequence[str],
        locks: Sequence[str],
        wanted: Sequence[str],
        now: Callable[[], float],
        pressed: Callable[[str, frozenset[str], int], None],
        problem: Callable[[str], None],
    ) -> None:
        self._node, self._wanted, self._now = node, tuple(wanted), now
        self._pressed, self._problem = pressed, problem
        found = [self._subscribe(name) for name in devices]
        self._rack = DeviceRack(found, [subscribe_lock(node, name, now) for name in locks])

    def _subscribe(self, name: str) -> Device:
        """Declare what is needed of the device's table, and subscribe where it has buttons."""
        preset = preset_of(self._node, name)
        rows = ("kind", "topic", "priority", "best_effort", *(f"{b}_button" for b in self._wanted))
        table = device_parameters(name, *preset, timeout=1.0)
        p = declare(self._node, [row for row in table if row.name.split(".", 1)[1] in rows])
        buttons = tuple((b, p[f"{name}.{b}_button"]) for b in self._wanted)
        highest = max((i for _, i in buttons), default=-1)
        kind = p[f"{name}.kind"]
        if kind in JOYSTICKS and highest >= 0:
            layout = JoyLayout(buttons=buttons)
            memory = ButtonMemory(highest + 1 if kind == "motion" else 0)
            receive = partial(self._on_joy, name, layout, memory, ButtonEdges())
            qos = device_qos(kind, p[f"{name}.best_effort"])
            self._node.create_subscription(Joy, p[f"{name}.topic"], receive, qos)
        return Device(name, p[f"{name}.priority"])

    def _on_joy(
        self, name: str, layout: JoyLayout, memory: ButtonMemory, edges: ButtonEdges, m: Joy
    ) -> None:
        try:
            down = edges.pressed(layout.pressed(memory.complete(m.buttons)))
        except DeviceMessageError as problem:
            self._problem(f"{name}: {problem}")
            return
        if down and self._rack.lock_on(self._rack.device(name), self._now()) is None:
            self._pressed(name, down, to_ns(m.header.stamp))
