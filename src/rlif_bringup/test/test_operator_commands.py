# SPDX-License-Identifier: Apache-2.0
"""`rlif arm` and its like: a service call, one line, an exit code."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import SetBool, Trigger
from waiting import scaled

from rlif_bringup import cli

pytestmark = pytest.mark.ros
WITHIN = ["--timeout", str(scaled(20.0)), "--domain-id", os.environ["ROS_DOMAIN_ID"]]


@pytest.fixture(scope="module")
def calls() -> Iterator[list[str]]:
    """What the services of an arbiter and an episode node were asked; a failure is refused."""
    context = Context()
    rclpy.init(context=context, domain_id=int(os.environ["ROS_DOMAIN_ID"]))
    node = rclpy.create_node("graph", namespace="left", context=context)
    asked: list[str] = []

    def arm(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        asked.append(f"arm {request.data}")
        response.success, response.message = True, "armed: HOLD" if request.data else "disarmed"
        return response

    def episode(name: str, response: Trigger.Response) -> Trigger.Response:
        asked.append(name)
        response.success = name != "end_episode_failure"
        response.message = "" if response.success else "no episode runs"
        return response

    node.create_service(SetBool, "arm", arm)
    names = ("start_episode", "end_episode_success", "end_episode_failure", "discard_episode")
    for name in names:
        node.create_service(Trigger, name, lambda _, response, name=name: episode(name, response))
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield asked
    executor.shutdown()
    thread.join(scaled(10.0))
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.mark.parametrize(
    ("command", "call", "line"),
    [
        ("arm", "arm True", "armed: HOLD"),
        ("disarm", "arm False", "disarmed"),
        ("start", "start_episode", "started"),
        ("success", "end_episode_success", "ended as a success"),
        ("discard", "discard_episode", "discarded"),
    ],
)
def test_command_that_is_done_prints_one_line(
    calls: list[str], capsys: pytest.CaptureFixture[str], command: str, call: str, line: str
) -> None:
    calls.clear()
    assert cli.main([command, "--namespace", "left", *WITHIN]) == 0
    assert calls == [call] and capsys.readouterr().out == line + "\n"


def test_command_that_is_refused_prints_the_reason(
    calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["failure", "--namespace", "left", *WITHIN]) == 1
    error = capsys.readouterr().err
    assert error == "rlif failure: /left/end_episode_failure refused: no episode runs\n"


def test_command_without_an_answer_names_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["arm", "--namespace", "nobody", "--timeout", "0.2"]) == 1
    assert "waiting for the service /nobody/arm" in capsys.readouterr().err


def test_command_asked_wrongly_has_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["arm", "--timeout", "0"])
    assert end.value.code == 2 and "seconds above 0" in capsys.readouterr().err
