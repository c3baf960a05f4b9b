# SPDX-License-Identifier: Apache-2.0
"""Replays traces of operator devices through the real inputs and the arbiter's core.

A trace is a CSV under traces/: comments, then rows of time in s, topic, axes and buttons, each with
its own receipt time. `DeviceInput` subscribes at a stand-in for the node, so that its callbacks get
real messages at exactly these times; commands go out at 50 Hz, observations and actions of the policy
come at 10 Hz, neither in step with the device.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from geometry_msgs.msg import Twist
from rclpy.parameter import Parameter
from rlif_node.stamps import to_msg
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from rlif_intervention.arbiter import Arbiter, ArbiterConfig
from rlif_intervention.device_inputs import Handlers, make_rack
from rlif_intervention.interventions import InterventionConfig

TRACES = Path(__file__).with_name("traces")
COMMAND, TICK = 0.020, 0.100  # s
PHASE = 0.0031  # s: commands and ticks are out of step with the device
POLICY = (0.5, 0.0, 0.0)


@dataclass(frozen=True)
class Sample:
    """One message of a device."""

    time: float  # s since the trace began, of receipt
    topic: str
    axes: tuple[float, ...]
    buttons: tuple[int, ...]

    def message(self, kind: type) -> Any:
        if kind is Bool:
            return Bool(data=bool(self.axes[0]))
        if kind is Joy:
            joy = Joy(axes=list(self.axes), buttons=list(self.buttons))
            joy.header.stamp = to_msg(round(self.time * 1e9))
            return joy
        message = kind()
        twist = message if kind is Twist else message.twist
        for part, values in ((twist.linear, self.axes[:3]), (twist.angular, self.axes[3:6])):
            part.x, part.y, part.z = values
        return message


def load(name: str) -> list[Sample]:
    """The samples of traces/NAME.csv, in order of time."""
    lines = (TRACES / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.reader(line for line in lines if line and not line.startswith("#"))
    samples = [
        Sample(float(time), topic, tuple(map(float, axes.split())), tuple(map(int, buttons)))
        for time, topic, axes, buttons in rows
    ]
    assert all(a.time < b.time for a, b in zip(samples, samples[1:], strict=False)), name
    return samples


class StandIn:
    """What `make_rack` needs of a node: parameters out of a mapping, callbacks by topic."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self.callbacks: dict[str, tuple[type, Callable[[Any], None]]] = {}
        self.qos: dict[str, Any] = {}  # of the newest subscription of a topic

    def declare_parameter(self, name: str, default: Any, _: Any = None) -> Any:
        unset = None if isinstance(default, Parameter.Type) else default
        return SimpleNamespace(value=self._values.get(name, unset))

    def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> None:
        self.callbacks[topic], self.qos[topic] = (kind, callback), qos

    def get_logger(self) -> logging.Logger:
        return logging.getLogger("trace_rig")


class Replay:
    """The arbiter in virtual time with devices as a trace has them: armed, in episode 1."""

    def __init__(
        self,
        devices: Iterable[str] = ("pad",),
        locks: Iterable[str] = (),
        dwell: float = 0.2,
        **values: Any,
    ) -> None:
        self.now = 0.0
        self.node = StandIn({k.replace("__", "."): v for k, v in values.items()})
        config = ArbiterConfig(interventions=InterventionConfig(release_dwell=dwell))
        self.pressed: list[tuple[str, set[str]]] = []
        handlers = Handlers(
            reading=lambda name, reading: self.core.device_reading(name, reading, self.now),
            pressed=lambda name, buttons, _: self.pressed.append((name, set(buttons))),
            problem=lambda name, words: self.core.device_fault(name, words),
            arrived=lambda name, stamp: None,
        )
        rack = make_rack(
            self.node, list(devices), list(locks), ("x", "y", "z"), 0.5, lambda: self.now, handlers
        )
        self.core = Arbiter(config, rack)
        self.decisions, self.changes = [], []
        self.outputs: list[tuple[float, tuple[float, ...], str]] = []
        self._command = self._tick = PHASE
        self._number = 0

    def play(self, samples: Iterable[Sample], until: float | None = None, start: float = 0.2):
        """Feed the samples, each at its time; begins the episode at `start`."""
        last = 0.0
        for sample in samples:
            self._go(sample.time, start)
            self.now = last = sample.time
            kind, callback = self.node.callbacks[sample.topic]
            callback(sample.message(kind))
        self._go(last if until is None else until, start)
        self.core.end_episode(round(self.now * 1e9))
        decision = self.core.close_tick()
        self.decisions += [decision] if decision else []
        return self

    def _go(self, time: float, start: float) -> None:
        """Commands and ticks up to `time`."""
        while min(self._command, self._tick) < time:
            self.now = min(self._command, self._tick)
            if not self.core.armed and self.now >= start:
                assert self.core.arm(True)[0]
                self.core.begin_episode(1, round(self.now * 1e9), 0)
            if self._tick <= self._command:
                self._observe()
                self._tick += TICK
            else:
                command = self.core.output(self.now)
                self.outputs.append((self.now, command.twist, self.core.state.name))
                self.changes += command.changes
                self._command += COMMAND

    def _observe(self) -> None:
        self._number += 1
        stamp = round(self.now * 1e9)
        decision = self.core.observe(self._number, stamp, self.now)
        self.decisions += [decision] if decision else []
        self.core.policy_action(self._number, stamp, POLICY, 1, self.now)

    def events(self) -> list[str]:
        return ["STARTED" if c.started else "ENDED" for c in self.changes]

    def states(self, begin: float, end: float) -> set[str]:
        """States at the commands of [begin, end)."""
        return {state for t, _, state in self.outputs if begin <= t < end}

    def moved(self, begin: float, end: float) -> bool:
        return any(any(twist) for t, twist, _ in self.outputs if begin <= t < end)
