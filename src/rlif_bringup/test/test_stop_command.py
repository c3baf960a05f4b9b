# SPDX-License-Identifier: Apache-2.0
"""`rlif stop` with a real arbiter."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import SetBool
from waiting import scaled

from rlif_bringup import cli
from rlif_bringup.graph_client import GraphClient, GraphError
from rlif_intervention.arbiter_node import ArbiterNode

pytestmark = pytest.mark.ros
DOMAIN = os.environ["ROS_DOMAIN_ID"]
WITHIN = ["--namespace", "", "--timeout", str(scaled(20.0)), "--domain-id", DOMAIN]


@pytest.fixture
def arbiter() -> Iterator[ArbiterNode]:
    rclpy.init()
    node = ArbiterNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join(scaled(10.0))
    node.destroy_node()
    rclpy.try_shutdown()


def arm() -> str:
    with GraphClient("", int(DOMAIN), lambda: None, scaled(20.0)) as client:
        return client.call(SetBool, "arm", SetBool.Request(data=True))


def test_stop_is_fault_until_it_is_released(
    arbiter: ArbiterNode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["stop", *WITHIN]) == 0
    assert capsys.readouterr().out == "stopped: FAULT, the stop signal on stop is on\n"
    with pytest.raises(GraphError, match="the stop signal on stop is on"):
        arm()
    assert cli.main(["stop", "--release", *WITHIN]) == 0
    assert arm() == "armed"


def test_stop_without_an_arbiter_is_not_confirmed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stop", "--timeout", "0.2", "--namespace", "nobody"]) == 1
    assert "an arbiter on /nobody/stop" in capsys.readouterr().err
