# SPDX-License-Identifier: Apache-2.0
"""Diagnostics of the arbiter: one status for each concern."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rlif_node.states import ControlState

from .arbiter import Arbiter
from .devices import Device, DeviceRack

REPORT_PERIOD = 1.0  # s, of every node of the suite


class Level(enum.IntEnum):
    """Values are those of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Status:
    """One line of the report; `values` are what a plot would show."""

    name: str
    level: Level
    message: str
    values: Mapping[str, str] = field(default_factory=dict)


class PeriodMeter:
    """How regularly something happens, between two reports. `expected` in s."""

    def __init__(self, expected: float) -> None:
        self._expected = expected
        self._last: float | None = None
        self._periods: list[float] = []

    def tick(self, now: float) -> None:
        if self._last is not None:
            self._periods.append(now - self._last)
        self._last = now

    def status(self) -> Status:
        """The periods since the last call."""
        periods, self._periods = self._periods, []
        if not periods:
            return Status("commands", Level.ERROR, "no command was sent")
        worst = max(periods)
        missed = sum(p > 2.0 * self._expected for p in periods)
        level = Level.WARN if missed else Level.OK
        message = f"{missed} of {len(periods)} periods were missed" if missed else "regular"
        mean = sum(periods) / len(periods)
        values = {"period_ms": f"{1e3 * mean:.1f}", "worst_period_ms": f"{1e3 * worst:.1f}"}
        return Status("commands", level, message, values)


def arbiter_statuses(core: Arbiter, now: float) -> list[Status]:
    """One status per concern of the arbiter's core."""
    ages, c = core.ages(now), core.config
    found = [_control(core), _limits(core)]
    if core.warning:
        found.append(Status("command publishers", Level.ERROR, core.warning))
    found.append(_age("observation", ages["observation"], c.observation_timeout))
    found.append(_age("policy", ages["policy_action"], c.policy_timeout))
    if c.limits.needs:
        found.append(_age(c.limits.needs, ages[c.limits.needs], c.pose_timeout))
    return found + [_device(core.rack, d, now) for d in core.rack.devices]


def _control(core: Arbiter) -> Status:
    level = {ControlState.FAULT: Level.ERROR, ControlState.HOLD: Level.WARN}.get(
        core.state, Level.OK
    )
    return Status("control", level, f"{core.state.name}: {core.reason}", {"device": core.device})


def _limits(core: Arbiter) -> Status:
    """Which limits have acted on commands since the last report."""
    acted = core.take_limit_counts()
    values = {name: str(count) for name, count in acted.items()}
    values["speed_scale"] = f"{core.limiter.speed_scale:g}"
    message = "acted: " + ", ".join(acted) if acted else "none acted"
    return Status("limits", Level.OK, message, values)


def _age(name: str, age: float, timeout: float) -> Status:
    if math.isinf(age):
        return Status(name, Level.STALE, "never received")
    level = Level.OK if age <= timeout else Level.ERROR
    message = "fresh" if level is Level.OK else f"{age:.1f} s old, the limit is {timeout} s"
    return Status(name, level, message, {"age_s": f"{age:.3f}"})


def _device(rack: DeviceRack, device: Device, now: float) -> Status:
    name = f"device {device.name}"
    status = _age(name, now - device.received, device.timeout)
    lock = rack.lock_on(device, now)
    if lock is not None:
        return Status(name, Level.WARN, f"locked by {lock.name}: {status.message}", status.values)
    if device.repeats:
        return Status(name, Level.ERROR, device.problem(now) or "", status.values)
    if device.off_centre and status.level is Level.OK:
        axes = ", ".join(f"{axis} ({value:+.2f})" for axis, value in device.off_centre.items())
        message = (
            f"off centre and ignored until seen at rest: {axes}. Let go of the sticks; if it stays, "
            "the layout reads a trigger or another device (NAME.axes, NAME.triggers)"
        )
        return Status(name, Level.WARN, message, status.values)
    if device.idle(now):
        message = "silent and let go, taken as there (idle_ok): unplugged, it looks the same"
        return Status(name, Level.OK, message, status.values)
    if status.level is Level.OK and not device.moved:
        message = "alive, but never moved: move it once, and check its driver if this stays"
        return Status(name, Level.WARN, message, status.values)
    return status
