# SPDX-License-Identifier: Apache-2.0
"""What ends a node: a wrong configuration, a failure, a signal; and with what status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from rclpy.node import Node
from rlif_node.parameters import Param, declare
from rlif_node.running import run
from std_msgs.msg import String
from waiting import scaled

pytestmark = pytest.mark.ros


@pytest.fixture(autouse=True)
def _own_signals():
    """`run` ignores further signals at its end: here other tests follow."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def raising(error):
    class Wrong(Node):
        def __init__(self):
            super().__init__("camera")
            raise error

    return Wrong


class WrongTopic(Node):
    def __init__(self):
        super().__init__("camera")
        self.create_subscription(String, "wrist-left/image", print, 1)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (WrongTopic, "wrist-left/image"),
        (raising(ValueError("cameras: found none")), "cameras: found none"),
        (raising(MemoryError("Unable to allocate 4 TiB")), "Unable to allocate 4 TiB"),
    ],
)
def test_run_of_a_wrong_configuration_logs_one_line_and_returns_2(node, text, capfd):
    """Regression: a traceback for a camera whose name makes no topic, or too large a buffer."""
    assert run("camera", node) == 2
    log = capfd.readouterr()
    assert "[FATAL]" in log.err and text in log.err
    assert "Traceback" not in log.err + log.out


class Camera(Node):
    def __init__(self):
        super().__init__("camera")
        self.create_timer(0.0, self.tick)
        self.failed, self.published = False, 0

    def tick(self):
        self.failed = True


def test_run_of_a_node_that_failed_shuts_down_and_returns_1():
    ended = []
    assert run("camera", Camera, lambda node: node.failed, ended.append, events=False) == 1
    assert len(ended) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_of_a_node_that_is_signalled_can_publish_once_more_and_returns_0(number):
    class Signalled(Camera):
        def tick(self):
            os.kill(os.getpid(), number)

    def at_end(node):
        node.create_publisher(String, "camera_state", 1).publish(String(data="ended"))
        node.published += 1
        ended.append(node.published)

    ended = []
    assert run("camera", Signalled, at_end=at_end, events=False) == 0
    assert ended == [1]


class Configured(Node):
    def __init__(self):
        super().__init__("observer")
        declare(self, [Param("control_rate", 10.0, "Hz", 0.1, 200.0)])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("axes: [x, y, z]", "robot.yaml:3: axes: entries of several types: y is a truth value"),
        (
            "state_scale: [1, 0.5]",
            "robot.yaml:3: state_scale: entries of several types: 1 is a whole",
        ),
        (
            "control_rate: 10",
            "robot.yaml:3: control_rate: found 10, expected 10.0: a number with a point",
        ),
        (
            "control_rat: 10.0",
            "robot.yaml:3: control_rat: unknown parameter; did you mean control_rate?",
        ),
        ("control_rate: [", "robot.yaml:4: is not YAML"),
    ],
)
def test_run_with_a_wrong_parameter_file_logs_one_line_and_returns_2(
    tmp_path, monkeypatch, capfd, line, text
):
    """Regression: rcl's error was a traceback, and a misspelled name was ignored."""
    path = tmp_path / "robot.yaml"
    path.write_text(f"/**:\n  ros__parameters:\n    {line}\n")
    monkeypatch.setattr("sys.argv", ["observer", "--ros-args", "--params-file", str(path)])
    assert run("observer", Configured) == 2
    log = capfd.readouterr().err.strip()
    assert "[FATAL]" in log and text in log and len(log.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-p", "control_rat:=1.0"], "command line: control_rat: unknown parameter; did you mean"),
        (["-p", "axes:=[x, y]"], "command line: axes: entries of several types"),
        (["--params-file", "/nowhere.yaml"], "/nowhere.yaml: cannot be read: No such file"),
    ],
)
def test_run_with_wrong_arguments_logs_one_line_and_returns_2(monkeypatch, capfd, arguments, text):
    monkeypatch.setattr("sys.argv", ["observer", "--ros-args", *arguments])
    assert run("observer", Configured) == 2
    log = capfd.readouterr().err.strip()
    assert "[FATAL]" in log and text in log and len(log.splitlines()) == 1


def test_run_with_arguments_that_rcl_refuses_logs_its_reason_and_returns_2(monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["observer", "--ros-args", "-r", "no rule"])
    assert run("observer", Configured) == 2
    (fatal,) = (line for line in capfd.readouterr().err.splitlines() if "[FATAL]" in line)
    assert "Couldn't parse remap rule: '-r no rule'" in fatal and " at /" not in fatal


def test_run_in_a_process_exits_with_the_status():
    script = """
import sys
from rlif_node.parameters import Param, declare
from rlif_node.running import run
def create():
    raise ValueError("cameras: found none")
sys.exit(run("camera", create))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=scaled(60), check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stdout
    assert "[FATAL]" in ended.stdout and "cameras: found none" in ended.stdout
    assert "Traceback" not in ended.stdout
