# SPDX-License-Identifier: Apache-2.0
"""The console between a page and a real arbiter."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rlif_node.qos import LATCHED, LATCHED_10, RELIABLE, SENSOR
from sensor_msgs.msg import Image
from stand_in_tf import transform
from std_msgs.msg import String
from waiting import scaled

from rlif_console.console_node import ConsoleNode, certificate_problem, make_certificate
from rlif_intervention.arbiter_node import ArbiterNode
from rlif_msgs.msg import ControlState, Episode, ObservationTick

pytestmark = pytest.mark.ros


class Page:
    """A page without a browser, in a thread; `last` holds the newest message of each type."""

    def __init__(self, port: int, robot: str = "") -> None:
        self.last: dict[str, Any] = {}
        self.answers: list[dict[str, Any]] = []
        self.refused: set[str] = set()
        self.picture = b""
        self.held = False
        self.silent = threading.Event()
        self._robot = robot
        self._loop = asyncio.new_event_loop()
        self._commands: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._main = self._loop.create_task(self._run(f"http://127.0.0.1:{port}"))
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            self._loop.run_until_complete(self._main)

    async def _run(self, base: str) -> None:
        async with aiohttp.ClientSession() as client:
            socket, pictures = [
                await client.ws_connect(base + path, headers={"Origin": base})
                for path in ("/ws", "/pictures")
            ]
            for each in (socket, pictures):
                await each.send_json({"type": "hello", "token": "", "robot": self._robot})
            tasks = [asyncio.create_task(f) for f in (self._read(socket), self._look(pictures))]
            await socket.send_json({"type": "lease", "action": "take"})
            for sequence in range(1_000_000):
                while not self._commands.empty():
                    await socket.send_json(self._commands.get_nowait())
                if not self.silent.is_set():
                    axes = [1.0, 0, 0, 0, 0, 0] if self.held else [0.0] * 6
                    seen = self.last.get("beat", {}).get("number", 0)
                    frame = {"sequence": sequence, "seen": seen, "present": True}
                    await socket.send_json(
                        {"type": "input", "held": self.held, "axes": axes, **frame}
                    )
                await asyncio.sleep(0.02)
            await asyncio.gather(*tasks)

    async def _read(self, socket: Any) -> None:
        async for message in socket:
            found = message.json()
            self.last[found["type"]] = found
            if found["type"] == "answer":
                self.answers.append(found)
            elif found["type"] == "refused":
                self.refused.add(found["text"])

    async def _look(self, socket: Any) -> None:
        await socket.send_json({"type": "look", "names": ["camera/wrist"]})
        async for message in socket:
            self.picture = message.data

    def command(self, name: str, **more: Any) -> None:
        seen = self.last.get("beat", {}).get("number", 0)
        message = {"type": "command", "id": 1, "name": name, "seen": seen, **more}
        self._loop.call_soon_threadsafe(self._commands.put_nowait, message)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(scaled(10.0))


@pytest.fixture
def console(graph) -> Iterator[tuple[Any, Page, Any]]:
    """An arbiter that only the console drives, the console, a page, and the commands of the arbiter."""
    arbiter = graph.add(
        ArbiterNode, devices=["console"], console=True, arm_dwell=0.0, stall_timeout=10.0
    )
    node = graph.add(ConsoleNode, port=0, max_picture_age=2.0, input_gap=1.0)
    commands = graph.collect(TwistStamped, "command", of=arbiter)
    page = Page(node.port)
    graph.until(lambda: "beat" in page.last, "a beat: the page operates")
    yield node, page, commands
    page.close()


def run_episode(graph: Any) -> None:
    """One that runs, with ticks at 20 Hz."""
    graph.publisher(Episode, "episode", LATCHED_10).publish(Episode(id=1, phase=Episode.RUNNING))
    ticks, count = (
        graph.publisher(ObservationTick, "observation_tick", RELIABLE),
        itertools.count(1),
    )

    def tick() -> None:
        message = ObservationTick(tick=next(count))
        message.header.stamp = graph.node.get_clock().now().to_msg()
        ticks.publish(message)

    graph.node.create_timer(0.05, tick)


def arm(graph: Any, page: Page) -> None:
    """Armed, with a device that the arbiter has seen at rest: else it would not count."""

    def at_rest() -> bool:
        problems = page.last.get("state", {}).get("problems", ())
        return any("alive, but never moved" in problem["message"] for problem in problems)

    graph.until(at_rest, "a console that the arbiter receives")
    answered = None

    def armed() -> bool:
        """Asked again after a refusal, as a person does: on a loaded machine the service is not
        discovered yet, or the device was silent for the 0.3 s that the arbiter allows."""
        nonlocal answered
        if answered is not None and len(page.answers) == answered:
            return False
        if answered is not None and page.answers[-1]["ok"]:
            return True
        answered = len(page.answers)
        page.command("arm")
        return False

    graph.until(armed, lambda: f"an answer of arm, found {page.answers[-3:]}")


def test_console_page_arms_drives_and_releases_the_arm(graph, console):
    _, page, commands = console
    states = graph.collect(ControlState, "control_state", LATCHED)
    run_episode(graph)
    arm(graph, page)
    page.held = True
    graph.until(lambda: commands and commands[-1].twist.linear.x > 0.05, "motion along +x")
    graph.until(lambda: states[-1].device == "console", "a state that names the device")
    page.silent.set()
    graph.until(lambda: commands[-1].twist.linear.x == 0.0, "zeros after silence of the page")
    graph.until(lambda: states[-1].state == ControlState.HOLD, "HOLD: nobody could take over")


@pytest.mark.slow
def test_console_that_is_killed_while_driving_releases_the_arm(graph, start_node):
    arbiter = graph.add(ArbiterNode, devices=["console"], arm_dwell=0.0, stall_timeout=10.0)
    commands = graph.collect(TwistStamped, "command", of=arbiter)
    states = graph.collect(ControlState, "control_state", LATCHED)
    process = start_node("rlif_console", "console", port=0, max_picture_age=2.0, input_gap=1.0)
    address = process.stdout.readline()
    page = Page(int(address.rpartition(":")[2].strip().rstrip("/")))
    run_episode(graph)
    arm(graph, page)
    page.held = True
    graph.until(lambda: commands and commands[-1].twist.linear.x > 0.05, "motion along +x")
    process.kill()
    graph.until(lambda: commands[-1].twist.linear.x == 0.0, "zeros")
    graph.until(lambda: states[-1].state == ControlState.HOLD, "HOLD")
    page.close()


def test_console_stop_of_a_page_latches_a_fault_and_arming_clears_it(graph, console):
    _, page, commands = console
    states = graph.collect(ControlState, "control_state", LATCHED)
    run_episode(graph)
    graph.until(lambda: page.last.get("state", {}).get("control"), "the state of the arbiter")
    page.command("arm")
    graph.until(lambda: states[-1].state == ControlState.HOLD, "armed")
    page.command("stop")
    graph.until(lambda: states[-1].state == ControlState.FAULT, "FAULT")
    assert states[-1].by_human and "stop button of console" in states[-1].reason
    page.command("arm")
    graph.until(lambda: states[-1].state == ControlState.HOLD, "armed again")


def test_console_that_does_not_operate_stops_and_leaves_the_device_to_another(graph, console):
    _, page, _ = console
    states = graph.collect(ControlState, "control_state", LATCHED)
    run_episode(graph)
    arm(graph, page)
    graph.until(lambda: states[-1].state == ControlState.HOLD, "armed")
    watcher = Page(graph.add(ConsoleNode, port=0, operate=False).port)
    graph.until(lambda: any("may only watch" in text for text in watcher.refused), "a refusal")
    assert graph.node.count_publishers("console/joy") == 1
    watcher.command("stop")
    graph.until(lambda: states[-1].state == ControlState.DISARMED, "DISARMED")
    watcher.close()


def test_console_take_while_another_console_operates_is_refused(graph, console):
    node, _, _ = console
    graph.add(ConsoleNode, port=0)
    status = next(iter(node._ports.values()))._status
    graph.until(lambda: status.consoles == 2, "the other console")
    page = Page(node.port)
    graph.until(lambda: any("2 consoles" in text for text in page.refused), "a refusal")
    page.close()


def test_console_commands_without_a_node_are_answered(graph, console):
    _, page, _ = console
    notes = graph.collect(String, "note")
    page.command("save")
    graph.until(lambda: page.answers, "an answer")
    assert page.answers[-1]["ok"] is False and "not there" in page.answers[-1]["text"]
    page.command("note", value="slips")
    graph.until(lambda: notes, "the note")
    assert notes[0].data == "slips"
    page.command("speed", value=0.5)
    graph.until(lambda: page.answers[-1]["name"] == "speed", "an answer of speed")
    assert page.answers[-1] == {
        "type": "answer",
        "id": 1,
        "name": "speed",
        "ok": True,
        "text": "speed_scale is 0.5",
    }


def test_console_subscribes_to_a_camera_only_while_somebody_looks(graph, console):
    node, page, _ = console
    port = next(iter(node._ports.values()))
    port._take_setting("observer", "cameras", ["wrist"])
    publisher = graph.node.create_publisher(Image, "camera/wrist/image", SENSOR)
    graph.until(publisher.get_subscription_count, "a subscription of the camera")
    image = Image(
        width=8, height=8, step=24, encoding="rgb8", data=np.full(192, 99, np.uint8).tobytes()
    )

    def shown() -> bytes:
        publisher.publish(image)
        return page.picture

    assert b"JFIF" in graph.until(shown, "a picture")
    page.close()
    graph.until(lambda: not publisher.get_subscription_count(), "the end of the subscription")


def test_console_shows_a_pose_that_the_observer_takes_from_tf(graph, tf):
    observer = Node("observer")
    observer.declare_parameter("ee_pose.tf", ["base", "tool0"])
    graph.nodes.append(observer)
    graph.executor.add_node(observer)
    status = next(iter(graph.add(ConsoleNode, port=0)._ports.values()))._status
    tf.transform = transform(1, z=0.2)
    graph.until(lambda: status.poses, "the pose")
    assert status.poses == {"ee_pose": [0.5, 0.0, 0.2]}
    assert tf.asked[-1][:2] == ("base", "tool0")


def test_console_without_tf2_ros_says_how_to_install_it(graph, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    port = next(iter(graph.add(ConsoleNode, port=0)._ports.values()))
    port._listen_to_tf(["base", "tool0"])
    found = graph.until(lambda: port._status._problems.get("console: ee_pose"), "a diagnostic")
    assert "tf2-ros-py" in found[2]


def test_console_of_two_robots_keeps_them_apart(graph):
    node = graph.add(ConsoleNode, port=0, namespaces=["left", "right"])
    for name, reason in (("left", "one"), ("right", "two")):
        graph.publisher(ControlState, f"/{name}/control_state", LATCHED).publish(
            ControlState(state=ControlState.HOLD, reason=reason)
        )
    for robot, reason in (("/left", "one"), ("/right", "two")):
        page = Page(node.port, robot)
        graph.until(
            lambda page=page: page.last.get("state", {}).get("control"), f"the state of {robot}"
        )
        assert page.last["state"]["control"]["reason"] == reason
        page.close()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"token_file": "/nowhere/token"}, "/nowhere/token"),
        ({"address": "192.0.2.1"}, "192.0.2.1 cannot be listened on"),
    ],
)
def test_console_misconfigured_names_what_is_wrong(graph, parameters, message):
    with pytest.raises((OSError, ValueError), match=message):
        graph.add(ConsoleNode, **parameters)


def test_console_beyond_this_machine_prints_its_tokens_on_the_terminal_alone(graph, capfd):
    node = graph.add(ConsoleNode, address="0.0.0.0", port=0)
    out, err = capfd.readouterr()
    operate, watch = (line.partition("#")[2] for line in out.splitlines() if "#" in line)
    assert len(operate) > 20 and operate != watch and operate not in err
    values = [str(parameter.value) for parameter in node._parameters.values()]
    assert not any(operate in value for value in values), "parameters are read by anybody"


def test_make_certificate_is_kept_and_readable_by_its_owner_alone(tmp_path):
    make_certificate(tmp_path, ["robot.lab"])
    key = (tmp_path / "key.pem").read_bytes()
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    make_certificate(tmp_path, [])
    assert (tmp_path / "key.pem").read_bytes() == key


def test_certificate_problem_names_what_a_kept_certificate_is_not_for(tmp_path):
    make_certificate(tmp_path, ["robot.lab", "10.0.0.2"])
    assert certificate_problem(tmp_path, ["robot.lab", "10.0.0.2"]) == ""
    problem = certificate_problem(tmp_path, ["robot.lab", "10.0.0.3", "arm.lab"])
    assert "not one of 10.0.0.3, it is not one of arm.lab; delete it" in problem
