# SPDX-License-Identifier: Apache-2.0
"""The doctor on a live graph."""

from __future__ import annotations

import argparse
import json
import os
import threading

import pytest
import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from waiting import scaled

from rlif_bringup import doctor, doctor_listen
from rlif_bringup.simulation import reserve_domain
from rlif_intervention.arbiter_node import ArbiterNode
from rlif_intervention.watchdog_node import WatchdogNode

pytestmark = pytest.mark.ros

TOPICS = """launch:
- set_remap: {from: command, to: servo_node/delta_twist_cmds}
- set_remap: {from: ee_pose, to: tip}
"""
# A loaded machine is no fault of the graph here: slow commands, long time-outs.
ARBITER = {
    "workspace_min": [-1.0] * 3, "workspace_max": [1.0] * 3, "command_rate": 5.0,
    "stall_timeout": 10.0, "pose_timeout": 10.0,
}  # fmt: skip
REMAPPED = [
    "--ros-args", "-r", "command:=servo_node/delta_twist_cmds", "-r", "ee_pose:=tip",
]  # fmt: skip


def run_doctor(capsys, *given):
    """Exit code, and the findings by check."""
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    code = doctor.run(parser.parse_args([*given, "--json"]))
    return code, {row["check"]: row for row in json.loads(capsys.readouterr().out)}


def test_doctor_in_an_empty_domain_says_to_start_the_graph(capsys, monkeypatch):
    monkeypatch.setattr(doctor_listen, "DISCOVERY", 0.1)
    with reserve_domain() as domain:
        code, rows = run_doctor(capsys, "--seconds", "0.2", "--domain-id", str(domain.id))
    assert code == 1 and rows["nodes"]["found"].startswith("no answer from observer, policy")
    assert rows["nodes"]["verdict"] == rows["control"]["verdict"] == "FAIL"


@pytest.fixture
def graph():
    """An arbiter, a watchdog, the robot's pose, and nodes that only answer for their parameters."""
    rclpy.init(args=REMAPPED)
    values = [Parameter(name, value=value) for name, value in ARBITER.items()]
    nodes = [ArbiterNode(values), WatchdogNode([Parameter("timeout", value=10.0)])]
    nodes += [rclpy.create_node(name) for name in ("observer", "policy", "episode", "driver")]
    pose = PoseStamped()
    pose.header.frame_id = "base"
    publisher = nodes[-1].create_publisher(PoseStamped, "ee_pose", 10)
    nodes[-1].create_timer(0.1, lambda: publisher.publish(pose))
    nodes[-1].create_subscription(TwistStamped, "command", lambda _: None, 1)
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield
    executor.shutdown()
    thread.join(scaled(10.0))
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()


def test_doctor_beside_a_graph_with_remapped_topics_finds_them(
    graph, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(doctor_listen, "DISCOVERY", scaled(20.0))  # it goes on when all are there
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "topics.launch.yaml").write_text(TOPICS)
    code, rows = run_doctor(
        capsys, "--robot", "mine", "--config-directory", str(tmp_path), "--seconds", "2.5",
        "--domain-id", os.environ["ROS_DOMAIN_ID"], "--namespace", "none",
    )  # fmt: skip
    assert code == 1
    for name in ("nodes", "command", "robot", "frames", "workspace", "watchdog"):
        assert rows[name]["verdict"] == "pass", rows[name]
    assert rows["control"]["found"].startswith("DISARMED")
    assert rows["device joy"]["verdict"] == "FAIL"
