# SPDX-License-Identifier: Apache-2.0
"""Pages, their operator, and what reaches the robot."""

from __future__ import annotations

from typing import Any

import pytest

from rlif_console.access import Role
from rlif_console.commands import COMMANDS
from rlif_console.hub import GONE, Hub
from rlif_console.inputs import DeadmanConfig, MessageError
from rlif_console.status import RobotStatus


class FakePort:
    def __init__(self) -> None:
        self.driven: list[tuple[bool, tuple[float, ...]]] = []
        self.commands: list[tuple[str, Any]] = []

    def drive(self, held, axes, gripper):
        self.driven.append((held, axes))

    def command(self, name, value, done):
        self.commands.append((name, value))
        done(True, "done")


class Bench:
    """A hub with a clock of its own; `page` opens one whose messages are kept."""

    def __init__(self) -> None:
        self.ports = {"/left": FakePort(), "/right": FakePort()}
        robots = {name: (port, RobotStatus()) for name, port in self.ports.items()}
        self.hub, self.now = Hub(robots, DeadmanConfig()), 100.0

    def page(self, role: Role = Role.OPERATOR, robot: str = "/left") -> Client:
        return Client(self, role, robot)

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.02)):
            self.now += 0.02
            self.hub.tick(self.now)


class Client:
    def __init__(self, bench: Bench, role: Role, robot: str) -> None:
        self.bench, self.received, self.sequence = bench, [], 0
        self.page = bench.hub.open(role, "", robot, self.received.append, bench.now)
        self.port = bench.ports[robot]

    @property
    def seen(self) -> int:
        return max((m["number"] for m in self.received if m["type"] == "beat"), default=0)

    def say(self, **message: Any) -> None:
        if message["type"] == "command":
            message = {"seen": self.seen} | message
        self.bench.hub.receive(self.page, message, self.bench.now)

    def take(self) -> Client:
        self.say(type="lease", action="take")
        self.bench.wait(0.1)
        self.push(held=False)
        return self

    def push(self, held: bool = True, **changes: Any) -> None:
        self.sequence += 1
        axes = [0.5, 0, 0, 0, 0, 0] if held else [0] * 6
        message = {
            "sequence": self.sequence,
            "seen": self.seen,
            "present": True,
            "held": held,
            "axes": axes,
        }
        self.say(type="input", **message | changes)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [m for m in self.received if m["type"] == kind]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_input_of_the_operator_drives_at_once(bench):
    page = bench.page().take()
    page.push()
    assert page.port.driven[-1] == (True, (0.5, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert not bench.ports["/right"].driven


def test_input_of_a_watching_page_is_refused(bench):
    bench.page().take()
    other = bench.page()
    other.push()
    assert not any(held for held, _ in other.port.driven)
    assert "another page" in other.of("refused")[-1]["text"]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"stop", "disarm"}))
def test_command_of_a_page_without_the_lease_does_nothing(bench, name):
    page = bench.page()
    page.say(type="command", id=1, name=name, value=0.5)
    assert not page.port.commands and page.of("answer")[0]["ok"] is False


@pytest.mark.parametrize("name", ["stop", "disarm"])
def test_stop_of_any_page_reaches_the_robot(bench, name):
    page = bench.page(Role.WATCHER)
    page.say(type="command", id=1, name=name)
    assert page.port.commands == [(name, None)]


def test_watcher_cannot_take_the_controls(bench):
    page = bench.page(Role.WATCHER)
    page.say(type="lease", action="take")
    assert page.of("refused") and bench.hub.robots["/left"].lease.holder is None


def test_take_while_another_console_publishes_the_device_is_refused(bench):
    page, robot = bench.page(), bench.hub.robots["/left"]
    robot.status.consoles = 2
    page.say(type="lease", action="take")
    assert "2 consoles" in page.of("refused")[-1]["text"] and robot.lease.holder is None
    robot.status.consoles = 1
    assert page.take().page.number == robot.lease.holder


def test_silence_while_held_releases_within_the_gap(bench):
    page = bench.page().take()
    page.push()
    bench.wait(0.2)
    assert page.port.driven[-1][0] is False
    assert page.of("beat")[-1]["reason"] == "no input for 150 ms"


def test_closed_connection_while_held_releases_and_frees_the_lease(bench):
    page = bench.page().take()
    page.push()
    bench.hub.close(page.page, bench.now)
    assert page.port.driven[-1][0] is False
    driven = len(page.port.driven)
    bench.wait(1.0)
    assert len(page.port.driven) == driven, "nobody can take over: the device must be silent"
    assert bench.page().take().page.number == bench.hub.robots["/left"].lease.holder


def test_hidden_page_releases_and_falls_silent(bench):
    page = bench.page().take()
    page.push()
    page.push(held=False, present=False)
    driven = len(page.port.driven)
    bench.wait(0.3)
    assert page.port.driven[-1][0] is False and len(page.port.driven) == driven


def test_idle_operator_keeps_the_device_alive(bench):
    page = bench.page().take()
    before = len(page.port.driven)
    for _ in range(5):
        bench.wait(0.1)
        page.push(held=False)
    assert len(page.port.driven) - before >= 8
    assert not any(held for held, _ in page.port.driven)


@pytest.mark.parametrize(
    "changes", [{"axes": [2.0, 0, 0, 0, 0, 0]}, {"sequence": 1}, {"held": "yes"}]
)
def test_bad_frame_while_held_releases(bench, changes):
    page = bench.page().take()
    page.push()
    page.push(**changes)
    assert page.port.driven[-1][0] is False and page.of("refused")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("checkpoint", "../000001"), ("checkpoint", "/etc"), ("checkpoint", ""), ("checkpoint", "٣"),
        ("speed", 0.0), ("speed", 1.5), ("speed", "1"), ("speed", True), ("evaluation", 1),
        ("note", ""), ("note", "x" * 501), ("note", "a\u0000b"), ("format_disk", None),
    ],
)  # fmt: skip
def test_command_with_a_bad_value_is_refused(bench, name, value):
    page = bench.page().take()
    page.say(type="command", id=1, name=name, value=value)
    assert page.of("refused") and not page.port.commands


@pytest.mark.parametrize("name", ["arm", "start", "stop", "disarm"])
def test_command_that_the_network_kept_back_is_carried_out_only_if_it_stops(bench, name):
    page = bench.page().take()
    late = page.seen
    page.say(type="command", id=1, name=name, seen=late)
    assert page.port.commands == [(name, None)]
    bench.wait(1.0)
    page.say(type="command", id=2, name=name, seen=late)
    stops = name in ("stop", "disarm")
    assert len(page.port.commands) == 1 + stops and page.of("answer")[-1]["ok"] is stops


def test_stop_while_held_releases_before_it_stops(bench):
    page = bench.page().take()
    page.push()
    page.say(type="command", id=7, name="stop")
    assert page.port.driven[-1][0] is False and page.port.commands == [("stop", None)]
    page.push()
    assert page.port.driven[-1][0] is False, "held on, it must not drive after arming"


def test_stops_of_a_page_that_floods_are_joined_and_none_is_lost(bench):
    operator, watcher = bench.page().take(), bench.page(Role.WATCHER)
    for number in range(100):
        watcher.say(type="command", id=number, name="stop")
    assert watcher.port.commands == [("stop", None)], "the first at once"
    operator.say(type="command", id=1, name="arm")
    bench.wait(0.12)
    assert watcher.port.commands == [("stop", None), ("arm", None), ("stop", None)]
    assert len(watcher.of("answer")) == 100
    bench.wait(0.5)
    assert len(watcher.port.commands) == 3


def test_hand_over_while_held_releases_and_moves_the_lease(bench):
    first = bench.page().take()
    second = bench.page()
    second.say(type="lease", action="take")
    first.push()
    first.say(type="lease", action="hand_over", to=second.page.number)
    assert first.port.driven[-1][0] is False
    first.push()
    assert first.port.driven[-1][0] is False
    bench.wait(0.1)
    second.push(held=False)
    second.push()
    assert second.port.driven[-1][0] is True


def test_silent_operator_loses_the_lease_to_who_asks(bench):
    bench.page().take()
    other = bench.page()
    other.say(type="lease", action="take")
    assert bench.hub.robots["/left"].lease.holder != other.page.number
    bench.wait(GONE + 0.1)
    other.say(type="lease", action="take")
    assert bench.hub.robots["/left"].lease.holder == other.page.number


def test_robots_have_operators_of_their_own(bench):
    left, right = bench.page().take(), bench.page(robot="/right").take()
    right.push()
    assert right.port.driven[-1][0] is True and not any(held for held, _ in left.port.driven)
    with pytest.raises(MessageError, match="expected one of"):
        bench.page(robot="/other")


def test_too_many_messages_end_the_connection(bench):
    page = bench.page()
    with pytest.raises(MessageError, match="messages a second"):
        for _ in range(1000):
            page.say(type="ping", t=1.0)


def test_ping_is_answered_with_its_time(bench):
    page = bench.page()
    page.say(type="ping", t=12.5)
    assert page.of("pong") == [{"type": "pong", "t": 12.5}]


def test_state_names_operator_and_who_asks(bench):
    bench.page().take()
    other = bench.page()
    other.say(type="lease", action="take")
    bench.wait(0.2)
    lease = other.of("state")[-1]["lease"]
    assert lease["holder"]["page"] == 1 and [a["page"] for a in lease["asking"]] == [2]
