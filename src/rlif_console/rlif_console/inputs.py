# SPDX-License-Identifier: Apache-2.0
"""Input frames of a page, checked as messages from a stranger, and the deadman over them. No ROS.

A page sends frames while it is open, at 30 Hz or more while its operator holds the deadman. All times
are seconds of one steady clock, that of the console: the clock of the page plays no part.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

AXES = 6  # x y z roll pitch yaw
MAX_SEQUENCE = 2**53 - 1  # the largest whole number that JavaScript counts to
REST = (0.0,) * AXES


class MessageError(ValueError):
    """A message of a page that cannot be used: what was found, what was expected."""


def parse(text: str) -> dict[str, Any]:
    """A message as an object with a text `type`. JSON has neither NaN nor Infinity: refused."""

    def refuse(constant: str) -> None:
        raise MessageError(f"found {constant}, expected finite numbers")

    try:
        found = json.loads(text, parse_constant=refuse)
    except (json.JSONDecodeError, RecursionError) as error:
        raise MessageError(f"expected JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise MessageError("expected a JSON object with a text `type`")
    return found


def number(message: Mapping[str, Any], name: str, low: float, high: float) -> float:
    """A finite number in a range, and no truth value, which Python counts as a number."""
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MessageError(f"{name}: found {value!r:.40}, expected a number")
    if not low <= value <= high:  # not true for NaN either
        raise MessageError(f"{name}: found {value!r:.40}, expected {low:g} to {high:g}")
    return float(value)


def text(message: Mapping[str, Any], name: str, longest: int) -> str:
    """A text of at most `longest` characters without control characters; absent: empty."""
    value = message.get(name, "")
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise MessageError(f"{name}: expected a printable text of at most {longest} characters")
    return value


@dataclass(frozen=True)
class Frame:
    """The state of a page's controls.

    sequence: grows with each frame of a connection
    seen: number of the newest beat that the page had received when it sent the frame
    present: the page is visible
    held: the deadman is pressed
    axes: (6,) x y z roll pitch yaw in [-1, 1]
    gripper: 1 opens, -1 closes, 0 neither
    """

    sequence: int
    seen: int
    present: bool
    held: bool
    axes: tuple[float, ...]
    gripper: int = 0

    @staticmethod
    def of(message: Mapping[str, Any]) -> Frame:
        """Raises MessageError for anything else than a whole, finite, normal frame."""
        for name in ("present", "held"):
            if not isinstance(message.get(name), bool):
                raise MessageError(
                    f"{name}: found {message.get(name)!r:.40}, expected true or false"
                )
        axes = message.get("axes")
        if not isinstance(axes, list) or len(axes) != AXES:
            raise MessageError(f"axes: expected a list of {AXES} numbers")
        return Frame(
            sequence=int(number(message, "sequence", 0, MAX_SEQUENCE)),
            seen=int(number(message, "seen", 0, MAX_SEQUENCE)),
            present=message["present"],
            held=message["held"],
            axes=tuple(number({"axes": value}, "axes", -1.0, 1.0) for value in axes),
            gripper=int(number({"gripper": 0, **message}, "gripper", -1, 1)),
        )


class Beats:
    """Numbered beats that go to the page; their echoes say how old what the page shows is."""

    def __init__(self, kept: int = 200) -> None:
        self._sent: deque[tuple[int, float]] = deque(maxlen=kept)
        self._number = 0

    def send(self, now: float) -> int:
        """The number of the next beat."""
        self._number += 1
        self._sent.append((self._number, now))
        return self._number

    def age(self, seen: int, now: float) -> float:
        """Seconds since the beat `seen` was sent; infinite: never, or too long ago."""
        return next((now - sent for n, sent in self._sent if n == seen), math.inf)


@dataclass(frozen=True, kw_only=True)
class DeadmanConfig:
    """Times in s.

    gap: without a frame while held, until a release
    max_age: of the newest beat that a page has seen; older: it drives by an old picture
    absent: without a frame until the operator counts as gone
    """

    gap: float = 0.15
    max_age: float = 0.3
    absent: float = 0.5

    def __post_init__(self) -> None:
        for name in ("gap", "max_age", "absent"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} is {value}; expected seconds above 0")


@dataclass
class Deadman:
    """What the operator's page asks for, and every way of letting go.

    After a release that the person did not make, the deadman must come up before it counts again.
    """

    config: DeadmanConfig
    beats: Beats = field(default_factory=Beats)
    held: bool = False
    axes: tuple[float, ...] = REST
    gripper: int = 0
    reason: str = ""  # of the last release that was not the person's
    age: float = math.inf  # of the picture, at the last frame
    _sequence: int = -1
    _received: float = -math.inf
    _present: bool = False
    _must_release: bool = True  # a page that connects with the deadman pressed does not drive

    def receive(self, frame: Frame, now: float) -> None:
        """Raises MessageError for a frame that was received before; it changes nothing but lets go."""
        if frame.sequence <= self._sequence:
            self.release("a frame came twice or out of order")
            raise MessageError(f"sequence {frame.sequence} after {self._sequence}: refused")
        late = self.held and now - self._received > self.config.gap
        self._sequence, self._received, self._present = frame.sequence, now, frame.present
        self.age = self.beats.age(frame.seen, now)
        if late:
            self.release(f"no input for {self.config.gap * 1e3:.0f} ms")
        elif frame.held and not frame.present:
            self.release("the page is hidden")
        elif frame.held and self.age > self.config.max_age:
            self.release(f"the connection is slower than {self.config.max_age * 1e3:.0f} ms")
        if not frame.held:
            self._must_release, self.reason = False, ""
        elif self._must_release and not self.reason:
            self.reason = "the deadman was down before the controls were taken"
        self.held = frame.held and not self._must_release
        self.axes = frame.axes if self.held else REST
        self.gripper = frame.gripper if self.held else 0

    def release(self, reason: str) -> None:
        """Let go, for another reason than the person's own."""
        self.reason = reason
        self.held, self.axes, self.gripper, self._must_release = False, REST, 0, True

    def check(self, now: float) -> bool:
        """Whether silence has just ended a hold."""
        if not self.held or now - self._received <= self.config.gap:
            return False
        self.release(f"no input for {self.config.gap * 1e3:.0f} ms")
        return True

    def present(self, now: float) -> bool:
        """Whether the operator sees the page, and it is not behind: only then could they take over."""
        if self.age > self.config.max_age:
            return False
        return self._present and now - self._received <= self.config.absent
