# SPDX-License-Identifier: Apache-2.0
"""Is the arbiter alive? Without its heartbeat the watchdog takes over. No ROS, no clock.

Only what an arbiter says of itself counts, its heartbeat with the id of its process: another
publisher on the command topic hides no dead arbiter. `now` in s of a steady clock.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

HANDOVER = 2.5  # s until another arbiter sends its own zeros: it listens first, see `instances`


@dataclass
class _Instance:
    first: float
    received: float
    armed: bool
    lost: bool = False  # armed and silent: acted on already


@dataclass
class Watchdog:
    """timeout: s without a heartbeat of an armed arbiter until it acts

    linger: s for which it sends zeros after an arbiter that was not armed has gone silent; it may
        have been braking. After one that was armed it sends zeros until an arbiter is back.
    start_timeout: s without any arbiter until the robot is paused, whoever else let it run, but
        without zeros, since the topic may not be the arbiter's; 0: never.
    """

    timeout: float = 0.3
    linger: float = 1.0
    start_timeout: float = 10.0
    _started: float | None = None
    _received: float = -math.inf
    _instances: dict[bytes, _Instance] = field(default_factory=dict)
    _lost: bytes = b""  # was armed when it went silent
    _lost_at: float = -math.inf

    def __post_init__(self) -> None:
        times = self.linger >= 0.0 and self.start_timeout >= 0.0
        if not (math.isfinite(self.timeout) and self.timeout > 0.0 and times):
            raise ValueError(
                f"timeout is {self.timeout}, linger is {self.linger}, start_timeout is "
                f"{self.start_timeout}; expected timeout above 0 s and the others 0 s or more"
            )

    @property
    def tripped(self) -> bool:
        """An arbiter has gone silent while it was armed, and none has taken its place."""
        return bool(self._lost)

    @property
    def ever(self) -> bool:
        """A heartbeat has been received."""
        return not math.isinf(self._received)

    def silent(self, now: float) -> bool:
        """No arbiter is alive."""
        return now - self._received > self.timeout

    def absent(self, now: float) -> bool:
        """No arbiter has been alive for `start_timeout`."""
        started = now if self._started is None else self._started
        return 0.0 < self.start_timeout < now - max(started, self._received)

    def heartbeat(self, instance: bytes, armed: bool, now: float) -> bool:
        """One heartbeat. Returns True when a human has just armed this arbiter.

        That is known only after a heartbeat that was not armed, not after a gap; or where the process is
        younger than the one that was lost: it began disarmed.
        """
        known = self._instances.get(instance)
        self._received = now
        if instance == self._lost:
            self._lost = b""
        if known is None:
            self._instances[instance] = _Instance(now, now, armed)
            return armed and bool(self._lost) and instance > self._lost
        edge = armed and not known.armed
        known.received, known.armed, known.lost = now, armed, False
        return edge

    def check(self, now: float) -> tuple[bool, bool]:
        """(send a zero now, an armed arbiter has been lost with this call)."""
        self._started = now if self._started is None else self._started
        lost = False
        for instance, one in list(self._instances.items()):
            if now - one.received <= self.timeout:
                waited = now - max(one.first, self._lost_at)
                if self._lost and (one.armed or waited > HANDOVER):
                    self._lost = b""
            elif one.armed and not one.lost:
                self._lost, self._lost_at, lost, one.lost = instance, now, True, True
            elif instance != self._lost and now - one.received > self.timeout + self.linger:
                del self._instances[instance]
        braking = (
            self.ever and self.silent(now) and now - self._received <= self.timeout + self.linger
        )
        return bool(self._lost) or braking, lost


class Stage(enum.Enum):
    """Of the pause that the watchdog asks for."""

    NONE = "there is none"
    PAUSING = "asked for, and not confirmed"
    PAUSED = "confirmed"
    RELEASING = "to be undone, and not confirmed"


@dataclass
class PauseCall:
    """The robot's pause: asked for until it is confirmed, and in force until it is undone.

    answer: s until a call is given up; retry: s from a refusal to the next call
    """

    answer: float = 2.0
    retry: float = 1.0
    stage: Stage = Stage.NONE
    problem: str = ""  # why what is asked for is not confirmed; empty: it is
    _round: int = 0  # counts what was asked for: answers of earlier rounds are ignored
    _sent: float | None = None
    _carried_out: bool = False  # possibly: a call went out, and was not refused
    _paused: bool = False  # a call was confirmed
    _not_before: float = -math.inf

    def want(self) -> None:
        """The robot has to be paused, once more if it is: somebody may have undone it."""
        self._begin(Stage.PAUSING)

    def release(self) -> None:
        """A human has armed: undo the pause, if it is in force."""
        if self.stage is not Stage.NONE:
            self._begin(Stage.RELEASING if self._carried_out else Stage.NONE)

    def forget(self) -> None:
        """Somebody else undoes it, or is asked to."""
        self._begin(Stage.NONE)
        self._carried_out = self._paused = False

    def arbiter_is_back(self) -> None:
        """A pause that was refused, or never asked for, is not needed any more."""
        if self.stage is Stage.PAUSING and not self._carried_out:
            self.forget()

    def _begin(self, stage: Stage) -> None:
        self.stage, self._round, self._sent = stage, self._round + 1, None
        self._not_before = -math.inf
        self.problem = "" if stage is Stage.NONE else "it was not asked yet"

    def due(self, ready: bool, now: float) -> tuple[int, bool] | None:
        """A call is to be made now: its ticket for `answered`, and whether to pause or to release.

        ready: the service is there
        """
        if self.stage not in (Stage.PAUSING, Stage.RELEASING):
            return None
        if self._sent is not None:
            if now - self._sent <= self.answer:
                return None
            self._sent, self.problem = None, f"no answer within {self.answer} s"
        if not ready:
            self.problem = "the service is not there"
            return None
        if now < self._not_before:
            return None
        self._sent, self._carried_out = now, True
        return self._round, self.stage is Stage.PAUSING

    def answered(self, ticket: int, problem: str, now: float) -> None:
        """problem: empty if the robot is paused, or released."""
        if ticket != self._round:
            return
        self._sent, self.problem, self._not_before = None, problem, now + self.retry
        if self.stage is Stage.PAUSING:
            self._carried_out = self._paused = self._paused or not problem
            self.stage = Stage.PAUSING if problem else Stage.PAUSED
        elif self.stage is Stage.RELEASING and not problem:
            self.forget()
