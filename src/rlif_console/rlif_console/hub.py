# SPDX-License-Identifier: Apache-2.0
"""The console without ROS and without a network: pages come and go, operate, command and watch.

Not thread-safe: one event loop calls it. What pages send are objects with a `type`:

    input    the state of the controls, of the operator only (rlif_console.inputs.Frame)
    ping     answered at once with the same `t`: the page's own round-trip time
    lease    `action`: take (or ask for), give_up, hand_over `to` another page
    command  `name` out of rlif_console.commands; answered with the same `id`; `seen` as in `input`:
             what a stalled connection kept back is not carried out

What they get: welcome, beat, state, history, answer, pong, refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .access import Bucket, Role
from .commands import COMMANDS
from .inputs import MAX_SEQUENCE, Deadman, DeadmanConfig, Frame, MessageError, number, text
from .lease import Lease, LeaseError
from .status import RobotStatus

IDLE_PERIOD = 0.05  # s between two messages of the device while the deadman is up
BEAT_PERIOD = 0.05  # s
STATE_PERIOD = 0.1  # s
STOP_PERIOD = 0.1  # s: stops of one robot that come closer together are carried out as one
GONE = 5.0  # s without a frame of the operator until another page may take the lease
MESSAGES = (200.0, 150.0)  # a second, and at once, from one page
COMMANDS_RATE = (5.0, 10.0)
Send = Callable[[dict[str, Any]], None]
Done = Callable[[bool, str], None]


class RobotPort(Protocol):
    """What the console does to one robot."""

    def drive(self, held: bool, axes: tuple[float, ...], gripper: int) -> None:
        """A message of the operator device."""

    def command(self, name: str, value: Any, done: Done) -> None:
        """Carry out a command; `done` gets the answer, from any thread."""


@dataclass
class Robot:
    """One namespace."""

    port: RobotPort
    status: RobotStatus
    deadman: Deadman
    lease: Lease = field(default_factory=Lease)
    heard: float = 0.0  # last frame of the operator
    driven: float = 0.0  # last message of the device
    stopped: float = -math.inf  # last stop that was carried out
    stops: list[Done] = field(default_factory=list)  # asked for since: who gets the answer


@dataclass(eq=False)
class Page:
    """One connection."""

    number: int
    name: str
    role: Role
    robot: str
    send: Send
    allowance: Bucket
    commands: Bucket


class Hub:
    """Pages and robots.

    call: runs a function in the event loop, from any thread
    """

    def __init__(
        self,
        robots: Mapping[str, tuple[RobotPort, RobotStatus]],
        config: DeadmanConfig,
        call: Callable[[Callable[[], None]], None] = lambda function: function(),
    ) -> None:
        self._config, self._call = config, call
        self.robots = {
            name: Robot(port, status, Deadman(config)) for name, (port, status) in robots.items()
        }
        self.pages: dict[int, Page] = {}
        self._last_number = 0
        self._beat, self._state = 0.0, 0.0

    # ---- pages

    def open(self, role: Role, name: str, robot: str, send: Send, now: float) -> Page:
        """A page has connected and shown who it is. MessageError: there is no such robot."""
        robot = robot or next(iter(self.robots))
        if robot not in self.robots:
            raise MessageError(f"robot: found {robot!r:.60}, expected one of {list(self.robots)}")
        status = self.robots[robot].status
        self._last_number += 1
        number_ = self._last_number
        page = Page(
            number_, name or f"page {number_}", role, robot, send,
            Bucket(*MESSAGES, 0.0, now), Bucket(*COMMANDS_RATE, 0.0, now),
        )  # fmt: skip
        self.pages[number_] = page
        send(
            {
                "type": "welcome",
                "page": number_,
                "role": role.name.lower(),
                "robot": robot,
                "robots": list(self.robots),
                "gap": self._config.gap,
                "max_age": self._config.max_age,
                "history": [*status.history, *status.values],
            }
        )
        return page

    def close(self, page: Page, now: float) -> None:
        """A page has gone, however: it holds nothing any more."""
        if self.pages.pop(page.number, None) is None:
            return
        robot = self.robots[page.robot]
        operated = robot.lease.holder == page.number
        robot.lease.give_up(page.number)
        if operated:
            self._let_go(robot, "the page has gone", now)

    def receive(self, page: Page, message: Mapping[str, Any], now: float) -> None:
        """One message. Raises MessageError: the connection is to be closed."""
        if not page.allowance.take(now):
            raise MessageError(f"more than {MESSAGES[0]:.0f} messages a second")
        handlers = {
            "input": self._on_input,
            "ping": self._on_ping,
            "lease": self._on_lease,
            "command": self._on_command,
        }
        handler = handlers.get(message["type"])
        if handler is None:
            raise MessageError(
                f"type: found {message['type']!r:.40}, expected one of {', '.join(handlers)}"
            )
        try:
            handler(page, message, now)
        except MessageError as problem:
            self._refuse(page, str(problem), now)
        except LeaseError as problem:
            page.send({"type": "refused", "text": str(problem)})

    def _refuse(self, page: Page, problem: str, now: float) -> None:
        """A bad message of the operator ends the hold: what it meant is not known."""
        robot = self.robots[page.robot]
        if robot.lease.holder == page.number:
            self._let_go(robot, f"a message was refused: {problem}", now)
        page.send({"type": "refused", "text": problem})

    # ---- driving

    def _on_input(self, page: Page, message: Mapping[str, Any], now: float) -> None:
        robot = self.robots[page.robot]
        if robot.lease.holder != page.number:
            page.send({"type": "refused", "text": "another page has the controls"})
            return
        frame = Frame.of(message)
        was_held, robot.heard = robot.deadman.held, now
        try:
            robot.deadman.receive(frame, now)
        finally:  # a refused frame has let go
            if robot.deadman.held or was_held:
                self._drive(robot, now)

    def _drive(self, robot: Robot, now: float) -> None:
        robot.driven = now
        robot.port.drive(robot.deadman.held, robot.deadman.axes, robot.deadman.gripper)

    def _let_go(self, robot: Robot, reason: str, now: float) -> None:
        if robot.deadman.held:
            robot.deadman.release(reason)
            self._drive(robot, now)

    def tick(self, now: float) -> None:
        """Every 20 ms: silence becomes a release, and what is due is sent."""
        for robot in self.robots.values():
            if robot.deadman.check(now):
                self._drive(robot, now)
            self._stop(robot, now)
            idle = not robot.deadman.held and robot.lease.holder is not None
            # Silent without an operator who sees the page: the arbiter then knows that nobody can
            # take over.
            due = now - robot.driven >= IDLE_PERIOD
            if idle and due and robot.deadman.present(now):
                self._drive(robot, now)
        if now - self._beat >= BEAT_PERIOD:
            self._beat = now
            self._send_beats(now)
        if now - self._state >= STATE_PERIOD:
            self._state = now
            self._send_states(now)

    def _send_beats(self, now: float) -> None:
        for robot in self.robots.values():
            page = self.pages.get(robot.lease.holder or 0)
            if page:
                deadman = robot.deadman
                page.send(
                    {
                        "type": "beat",
                        "number": deadman.beats.send(now),
                        "held": deadman.held,
                        "reason": deadman.reason,
                    }
                )

    def _send_states(self, now: float) -> None:
        for name, robot in self.robots.items():
            watching = [p for p in self.pages.values() if p.robot == name]
            new = robot.status.take_new()
            if not watching:
                continue
            state = {
                "type": "state",
                **robot.status.snapshot(now),
                "lease": self._lease(robot, now),
            }
            for page in watching:
                page.send(state)
                if new:
                    page.send({"type": "history", "entries": new})

    def _lease(self, robot: Robot, now: float) -> dict[str, Any]:
        def named(number_: int) -> dict[str, Any]:
            page = self.pages.get(number_)
            return {"page": number_, "name": page.name if page else ""}

        holder = robot.lease.holder
        return {
            "holder": named(holder) if holder is not None else None,
            "present": robot.deadman.present(now),
            "held": robot.deadman.held,
            "asking": [named(n) for n in robot.lease.asking],
            "watching": sum(p.robot == self._name(robot) for p in self.pages.values()),
        }

    def _name(self, robot: Robot) -> str:
        return next(name for name, found in self.robots.items() if found is robot)

    # ---- the rest

    def _on_ping(self, page: Page, message: Mapping[str, Any], now: float) -> None:
        page.send({"type": "pong", "t": number(message, "t", 0.0, 1e15)})

    def _on_lease(self, page: Page, message: Mapping[str, Any], now: float) -> None:
        robot = self.robots[page.robot]
        before = robot.lease.holder
        action = text(message, "action", 20)
        if action == "take":
            if page.role < Role.OPERATOR:
                raise LeaseError("this page may only watch: open it with the operator's token")
            if robot.status.consoles > 1:
                raise LeaseError(
                    f"{robot.status.consoles} consoles publish console/joy: end all but one, or set "
                    "operate to false there (one that was killed is counted for some seconds)"
                )
            robot.lease.take(page.number, holder_is_gone=now - robot.heard > GONE)
        elif action == "give_up":
            robot.lease.give_up(page.number)
        elif action == "hand_over":
            robot.lease.hand_over(page.number, int(number(message, "to", 1, 2**31)))
        else:
            raise MessageError(f"action: found {action!r}, expected take, give_up or hand_over")
        if robot.lease.holder != before:
            self._let_go(robot, "the controls were handed over", now)
            # Beats go on counting: none that a page saw under an earlier lease comes again.
            robot.deadman = Deadman(self._config, robot.deadman.beats)
            robot.heard = now

    def _on_command(self, page: Page, message: Mapping[str, Any], now: float) -> None:
        robot, name = self.robots[page.robot], text(message, "name", 20)
        command = COMMANDS.get(name)
        if command is None:
            raise MessageError(f"name: found {name!r}, expected one of {', '.join(COMMANDS)}")
        id_ = int(number(message, "id", 0, 2**53 - 1))

        def answer(ok: bool, words: str) -> None:
            page.send({"type": "answer", "id": id_, "name": name, "ok": ok, "text": words})

        if command.operator and robot.lease.holder != page.number:
            answer(False, "only the operator may: take the controls first")
        elif name != "stop" and not page.commands.take(now):
            answer(False, "too many commands: wait a moment")
        elif command.operator and not self._is_fresh(robot, message, now):
            answer(False, "the connection is too slow: not done")
        elif name == "stop":
            self._let_go(robot, "stop", now)
            robot.stops.append(answer)
            self._stop(robot, now)
        else:
            value = command.value(message)
            robot.port.command(name, value, lambda ok, words: self._call(lambda: answer(ok, words)))

    def _stop(self, robot: Robot, now: float) -> None:
        """Carry out the stops that are asked for, at once or a moment after the last: none is lost."""
        if not robot.stops or now - robot.stopped < STOP_PERIOD:
            return
        answers, robot.stops, robot.stopped = robot.stops, [], now

        def answer_all(ok: bool, words: str) -> None:
            for answer in answers:
                answer(ok, words)

        robot.port.command(
            "stop", None, lambda ok, words: self._call(lambda: answer_all(ok, words))
        )

    def _is_fresh(self, robot: Robot, message: Mapping[str, Any], now: float) -> bool:
        """Whether the page had seen a beat that is new enough to drive by when it sent a message."""
        seen = int(number(message, "seen", 0, MAX_SEQUENCE))
        return robot.deadman.beats.age(seen, now) <= self._config.max_age
