# SPDX-License-Identifier: Apache-2.0
"""How far an arm has moved since it was measured: extrapolated with the commands sent since.

A measured position is old when it is used: its sensor, its way to the arbiter and the way of a
command to the motors take up to `latency`, and the stream may pause for as long as its time-out.
The exact age is not known. So the result is a range: the arm is where it was measured, moved by
the commands since any moment that may have been that of the measurement.

That assumes an arm that follows its commands. One that is slower, or is held, gets a range that is
too wide and is slowed down too early; one that is pushed is where it is measured next.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .devices import NEVER
from .limits import Drift, Vector, shape_problem


@dataclass(frozen=True)
class _Sent:
    time: float  # s, from which on it is in force
    velocity: Vector
    travelled: Vector  # until then, since the beginning


class PoseExtrapolator:
    """Remembers what was sent. `now` in s of a clock that does not go back.

    size: entries of a position, and of its velocity
    latency: s between a measurement and its receipt, plus what a command needs to act, at most
    timeout: s after its receipt for which a measurement is used, at most
    """

    def __init__(self, size: int, latency: float, timeout: float) -> None:
        self._latency = latency
        self._kept = latency + timeout
        self._sent: deque[_Sent] = deque([_Sent(0.0, (0.0,) * size, (0.0,) * size)])

    def sent(self, velocity: Vector, now: float) -> None:
        """`velocity` (size,) per s is in force from `now` on, until the next one."""
        self._sent.append(_Sent(now, velocity, self._travelled(now)))
        while self._sent[1].time < now - self._kept:
            self._sent.popleft()

    def drift(self, received: float, now: float) -> Drift:
        """Movement until `now` of what was measured at most `latency` before `received`."""
        earliest = received - self._latency
        # Within one command the movement grows evenly: its extremes are where commands change.
        moments = [earliest, received]
        moments += [s.time for s in self._sent if earliest < s.time < received]
        end = self._travelled(now)
        moved = [
            tuple(b - a for a, b in zip(self._travelled(m), end, strict=True)) for m in moments
        ]
        columns = list(zip(*moved, strict=True))
        return Drift(tuple(map(min, columns)), tuple(map(max, columns)))

    def _travelled(self, time: float) -> Vector:
        for s in reversed(self._sent):
            if s.time <= time:
                since = time - s.time
                return tuple(x + v * since for x, v in zip(s.travelled, s.velocity, strict=True))
        return self._sent[0].travelled


class MeasuredPosition:
    """Of the end effector, or of the joints: where it was measured, and whether that can be used.

    needed: the topic; empty: no limit needs a measurement. needed_for: what it is needed for
    size, latency, timeout: as in `PoseExtrapolator`
    """

    def __init__(
        self, needed: str, needed_for: str, size: int, latency: float, timeout: float
    ) -> None:
        self.needed = needed
        self._needed_for = needed_for
        self._size = size
        self._latency = latency
        self._timeout = timeout
        self.forget()

    def forget(self) -> None:
        """As if nothing had come yet."""
        self.received = NEVER
        self._position: Vector | None = None
        self._oldest = ""
        self._refused, self._refusal = NEVER, ""
        self._extrapolator = PoseExtrapolator(self._size, self._latency, self._timeout)

    def put(self, position: Vector, received: float, oldest: str = "") -> None:
        """One measurement (size,), up to `latency` old when it was received.

        oldest: name of the entry that was received then, where the others are newer
        """
        problem = shape_problem(position, self._size)
        if problem:
            self.refuse(f"{self.needed} {problem}", received)
        else:
            self._position, self.received, self._oldest = position, received, oldest

    def refuse(self, reason: str, now: float) -> None:
        """A measurement that cannot be used. One is enough: two may be publishing."""
        self._refused, self._refusal = now, reason

    def problem(self, now: float) -> str | None:
        """Why a limit on it cannot be kept; None: it can, or there is none."""
        if not self.needed:
            return None
        if now - self._refused <= self._timeout:
            return self._refusal
        if now - self.received > self._timeout:
            of = f" of {self._oldest}" if self._oldest else ""
            return f"no {self.needed}{of} for more than {self._timeout} s: {self._needed_for}"
        return None

    def now(self, now: float) -> tuple[Vector | None, Drift]:
        """(size,) as measured and how far it has moved since; None: it cannot be used."""
        if self._position is None or self.problem(now):
            return None, Drift((0.0,) * self._size, (0.0,) * self._size)
        return self._position, self._extrapolator.drift(self.received, now)

    def sent(self, velocity: Vector, now: float) -> None:
        """The velocity (size,) per s that was commanded, in force from `now` on."""
        self._extrapolator.sent(velocity, now)
