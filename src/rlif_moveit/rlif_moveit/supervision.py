# SPDX-License-Identifier: Apache-2.0
"""What is to be asked of Servo, and why the policy must hold because of it. No ROS, no clock.

Servo is selected (command type), paused and unpaused so that it follows the arbiter: it runs only
while the arbiter lives, is armed, and no pause is asked for, as a reset does. `now` is in s of a
steady clock. Feed what happens, then ask `next_request` and `reason`.

A pause ends the commanded deceleration: Servo then stops the joints within a cycle. So after a disarm
or a FAULT it is paused only when the commands have been zero for `pause_delay`.

An arbiter without a heartbeat for a while counts as disarmed, also when the next heartbeat comes: that
may be another arbiter's, and the watchdog may have paused Servo meanwhile. It has to be disarmed, or in
FAULT, and armed again.

Some things end only with a human: a halt (singularity, collision, joint limit), an arm that Servo slows
down to a standstill, and a Servo that was restarted. The policy would drive straight back into the
first two, and knows nothing of the third. They are latched until the operator has moved the arm while
Servo was well, or the arbiter was disarmed, or the arm was reset. Only motion counts: Servo answers a
zero command with "no warning", at a singularity and at a joint limit too.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from rlif_node.states import HoldReason

from rlif_intervention.diagnostics import Level, Status

from .heartbeat import Heartbeat
from .servo_status import Condition, Dialect, condition
from .standstill import Standstill, StandstillConfig, Vector


class Request(enum.Enum):
    """What can be asked of Servo; the value is the wording in logs."""

    SELECT = "select the command type"
    PAUSE = "pause"
    UNPAUSE = "unpause"


@dataclass(frozen=True, kw_only=True)
class SupervisorConfig:
    """Seconds.

    status_timeout: without a status from a Servo that should run, the policy holds
    halt_dwell: a halt counts when it has lasted so long; one cycle of Servo is no halt
    clear_after: the operator must have moved the arm for so long, with Servo well, to clear a latched halt
    call_timeout: until a service call is given up; retry: until it is made again
    arbiter_timeout: without a heartbeat of the arbiter, Servo is paused
    pause_delay: after a disarm, Servo is paused when the commands have been zero for so long
    pause_deadline: ... and at the latest so long after the disarm
    standstill: when a slowed-down arm counts as one that does not move
    """

    status_timeout: float = 0.5
    halt_dwell: float = 0.1
    clear_after: float = 0.5
    call_timeout: float = 2.0
    retry: float = 1.0
    arbiter_timeout: float = 0.5
    pause_delay: float = 0.15
    pause_deadline: float = 0.5
    standstill: StandstillConfig = StandstillConfig()

    def __post_init__(self) -> None:
        for name in ("status_timeout", "call_timeout", "retry", "arbiter_timeout"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} is {value}; expected seconds above 0")
        for name in ("halt_dwell", "clear_after", "pause_delay", "pause_deadline"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"{name} is {value}; expected seconds, 0 or more")


@dataclass
class _Call:
    request: Request
    sent: float


class ServoSupervisor:
    """Not thread-safe: one executor thread."""

    def __init__(self, config: SupervisorConfig, dialect: Dialect) -> None:
        self.config = config
        self.dialect = dialect
        self._instances: frozenset[str] = frozenset()
        self._generation = 0  # counts Servos
        self._ready = False
        self._heartbeat = Heartbeat(config.arbiter_timeout)
        self._armed = False
        self._lost = False  # no heartbeat for a while: disarmed, although its last state is armed
        self._operator = False
        self._inhibit = ""
        self._selected = False
        self._select_again = False  # before the next unpause
        self._paused: bool | None = None
        self._unpaused_at = math.inf
        self._call: _Call | None = None
        self._not_before = -math.inf
        self._failure = ""
        self._condition: Condition | None = None
        self._status_at = -math.inf
        self._since = -math.inf  # when `_condition.holds` became what it is
        self._standstill = Standstill(config.standstill)
        self._moves = False  # the last command was not zero
        self._moved_at = -math.inf  # when a command was last not zero
        self._disarmed_at = -math.inf
        self._latched, self._latched_code = "", HoldReason.NONE
        self._well_since = math.inf  # since when the operator has moved the arm with Servo well

    # ---- state

    def wants_pause(self, now: float) -> bool:
        """Servo should be paused now. False while the arm brakes after a disarm."""
        if self._inhibit or self._heartbeat.problem(now):
            return True
        return not self._armed and not self._brakes(now)

    def _brakes(self, now: float) -> bool:
        """The commanded deceleration after a disarm goes on."""
        return (
            not self._armed
            and self._paused is False
            and now - self._moved_at < self.config.pause_delay
            and now - self._disarmed_at < self.config.pause_deadline
        )

    @property
    def paused(self) -> bool | None:
        """As Servo has confirmed; None: not known."""
        return self._paused

    @property
    def selected(self) -> bool:
        """Servo has confirmed the command type, since it started."""
        return self._selected or self.dialect is Dialect.HUMBLE

    # ---- events

    def seen(self, instances: frozenset[str], services_ready: bool, now: float) -> None:
        """Ids of the Servos that publish a status, and whether its services are there.

        An id that was not there before is a new Servo: it knows nothing of what was asked of the old
        one. A dead Servo's id may stay for a while next to the new one's.
        """
        self._ready = services_ready
        if instances - self._instances:
            if self._generation and self._armed:
                self._latch("Servo was restarted while the arm was armed")
            self._generation += 1
            self._forget()
            self._not_before = now
        elif not instances:
            self._forget()
        self._instances = instances

    def _forget(self) -> None:
        self._selected, self._paused, self._call = False, None, None
        self._select_again = False
        self._condition, self._status_at, self._failure = None, -math.inf, ""
        self._standstill.clear()

    def control(self, armed: bool, operator: bool, now: float) -> None:
        """The arbiter's state, which is repeated. `operator`: an operator device drives."""
        if self._lost and armed:
            return  # as before the loss: nobody has armed since
        if not armed:
            self._clear()
        if self._armed and not armed:
            self._disarmed_at = now
        self._armed, self._operator, self._lost = armed, operator, False

    def alive(self, now: float, instance: bytes = b"") -> None:
        """A heartbeat of the arbiter, with the id of its process."""
        self.look(now)  # first: this one may be another arbiter's
        if self._heartbeat.received(now, instance):
            self._lost = False

    def look(self, now: float) -> None:
        """Call it often: an arbiter that has gone silent is no longer armed."""
        if self._armed and self._heartbeat.ever and self._heartbeat.problem(now):
            self._armed, self._operator, self._lost = False, False, True

    def command(self, moves: bool, now: float, speeds: tuple[float, float] = (0.0, 0.0)) -> None:
        """A command to Servo, and with twists its (m/s, rad/s) of the end effector."""
        self._moves = moves
        if moves:
            self._moved_at = now
        self._standstill.command(speeds, now)

    def pose(self, position: Vector, orientation: Vector) -> None:
        """The measured end effector: m, and the quaternion x, y, z, w."""
        self._standstill.pose(position, orientation)

    def inhibit(self, reason: str) -> None:
        """Keep Servo paused whatever the arbiter does; empty: no longer."""
        if self._inhibit and not reason:
            self._clear()  # the arm was moved by other means
        self._inhibit = reason

    def status(self, code: int, now: float) -> None:
        """One message of Servo's status."""
        found = condition(self.dialect, code)
        before = self._condition
        if before is None or found.holds != before.holds:
            self._since = now
        self._condition, self._status_at = found, now
        dwelt = now - self._since >= self.config.halt_dwell
        if found.holds and dwelt and self._running(now):
            self._latch(found.meaning)
        if not found.stuck or not self._running(now):
            self._standstill.clear()
        elif self._standstill.found(now):
            self._latch(found.stuck, HoldReason.NOT_MOVING)
        self._clear_if_well(found, now)

    def sent(self, request: Request, now: float) -> int:
        """A request goes out. Returns the ticket for `answered`."""
        self._call = _Call(request, now)
        if request is not Request.SELECT:
            self._paused = None  # it may be carried out although the answer is late, or lost
        return self._generation

    def answered(self, request: Request, ticket: int, problem: str, now: float) -> None:
        """Servo's answer; `problem` is the reason of a failure, empty: done. Answers of an earlier Servo are ignored."""
        if ticket != self._generation:
            return
        if self._call and self._call.request is request:
            self._call = None
        if problem:
            self._failure = f"Servo did not {request.value}: {problem}"
            self._not_before = now + self.config.retry
            return
        self._failure = ""
        if request is Request.SELECT:
            self._selected, self._select_again = True, self.wants_pause(now)
        elif request is Request.PAUSE:
            # Selected anew with each unpause: whoever moved the arm meanwhile may have changed it.
            self._paused, self._select_again = True, True
        else:
            self._paused, self._unpaused_at = False, now

    # ---- requests and reasons

    def next_request(self, now: float) -> Request | None:
        """What to ask of Servo now; None: nothing, or not yet."""
        if not self._ready or not self._instances or self._waits(now):
            return None
        if self._brakes(now) and not self.wants_pause(now):
            return None
        if self.wants_pause(now):
            if self._paused is not True:
                return Request.PAUSE
            # At once, and not only when it is armed: a type that Servo refuses is seen before.
            return None if self.selected else Request.SELECT
        again = self._select_again and self.dialect is not Dialect.HUMBLE
        if not self.selected or (again and self._paused is not False):
            return Request.SELECT
        return None if self._paused is False else Request.UNPAUSE

    def _waits(self, now: float) -> bool:
        stops = self.wants_pause(now) and self._paused is not True
        if self._call:
            # A call for the opposite is not worth waiting for: the stop comes first.
            outdated = stops and self._call.request is not Request.PAUSE
            if not outdated and now - self._call.sent <= self.config.call_timeout:
                return True
            if not outdated:
                self._failure = (
                    f"Servo did not answer the request to {self._call.request.value} within "
                    f"{self.config.call_timeout} s"
                )
            self._call = None
        return now < self._not_before and not stops

    def _running(self, now: float) -> bool:
        return self._armed and self._paused is False and not self.wants_pause(now)

    def reason(self, now: float) -> str:
        """Why the policy must hold, as a text; empty: nothing."""
        return self.hold(now)[1]

    def hold(self, now: float) -> tuple[HoldReason, str]:
        """Why the policy must hold; NONE: nothing. In the order in which a person has to act."""
        if not self._instances or not self._ready:
            missing = "Servo is not there: start servo_node, or check servo_node_name"
            return HoldReason.NOT_CONNECTED, missing
        if self._inhibit:
            return HoldReason.PLANNING, f"Servo is paused: {self._inhibit}"
        if self._failure:
            return HoldReason.NOT_CONNECTED, self._failure
        if paused := self._why_paused(now):
            return HoldReason.SERVO_PAUSED, paused
        if self._stale(now):
            return HoldReason.SERVO_STATUS, (
                f"no status from Servo for more than {self.config.status_timeout} s: it hangs, or "
                "another node has paused it; look at it, then disarm and arm"
            )
        if not self._latched:
            return HoldReason.NONE, ""
        return self._latched_code, (
            f"{self._latched} (cleared by a reset, by driving the arm out of it, or by disarm and arm)"
        )

    def _why_paused(self, now: float) -> str:
        """Why Servo does not run, with the arbiter or with itself; empty: it runs."""
        dead = self._heartbeat.problem(now)
        if dead:
            return f"Servo is paused: {dead}"
        if self._lost:
            return "Servo is paused: the arbiter's heartbeat was lost for a while; disarm and arm"
        if not self._armed:
            return "Servo is paused: the arbiter is not armed"
        if not self.selected:
            return "Servo's command type is not selected yet"
        return "" if self._paused is False else "Servo is paused, and is being started"

    def _stale(self, now: float) -> bool:
        return now - max(self._status_at, self._unpaused_at) > self.config.status_timeout

    def diagnostics(self, now: float) -> list[Status]:
        """One status on the connection, one on the status that Servo publishes."""
        reason = self.reason(now)
        state = {True: "paused", False: "running", None: "unknown"}[self._paused]
        values = {"state": state, "command_type_selected": str(self.selected).lower()}
        bad = self._armed or self._lost
        level = Level.ERROR if reason and bad else Level.WARN if reason else Level.OK
        found = [Status("servo", level, reason or "Servo follows the arbiter", values)]
        c = self._condition
        if c is None or (self._paused is not False and now - self._status_at > 1.0):
            return [*found, Status("servo status", Level.STALE, "none; a paused Servo sends none")]
        return [*found, Status("servo status", c.level, c.meaning, {"status": c.name})]

    # ---- reasons that end only with a human

    def _latch(self, reason: str, code: HoldReason = HoldReason.SERVO_STATUS) -> None:
        if not self._latched:
            self._latched, self._latched_code = reason, code
            self._well_since = math.inf

    def _clear(self) -> None:
        self._latched = ""

    def _clear_if_well(self, found: Condition, now: float) -> None:
        moved = self._operator and self._moves and self._running(now)
        self._well_since = min(self._well_since, now) if moved and found.well else math.inf
        if now - self._well_since >= self.config.clear_after:
            self._clear()
