# SPDX-License-Identifier: Apache-2.0
"""Nodes without shared memory: what their environment says then, and that they still hear all others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rlif_node.qos import RELIABLE
from rlif_node.transports import PROFILES, RANGE, udp_variables
from std_msgs.msg import String

from rlif_node import transports

FOLDER = Path(transports.__file__).parent
HERE, ANYWHERE = FOLDER / "fastdds_udp_localhost.xml", FOLDER / "fastdds_udp.xml"
SUITE = Path(__file__).parents[3] / "config" / "fastdds.xml"


@pytest.mark.parametrize(
    ("environment", "profile", "discovery"),
    [
        ({}, ANYWHERE, None),
        ({RANGE: "SUBNET", PROFILES[0]: str(SUITE), PROFILES[1]: str(SUITE)}, ANYWHERE, None),
        ({RANGE: "SYSTEM_DEFAULT"}, ANYWHERE, None),
        ({RANGE: "localhost"}, HERE, "SYSTEM_DEFAULT"),
        ({RANGE: "LOCALHOST", PROFILES[0]: str(SUITE)}, HERE, "SYSTEM_DEFAULT"),
        ({"ROS_LOCALHOST_ONLY": "1", "ROS_STATIC_PEERS": "10.0.0.5"}, HERE, "SYSTEM_DEFAULT"),
    ],
)
def test_udp_variables_name_the_profile_of_the_discovery_range(environment, profile, discovery):
    found = udp_variables(environment)
    assert {found[name] for name in PROFILES} == {str(profile)} and profile.exists()
    assert found.get(RANGE) == discovery
    assert found.get("ROS_LOCALHOST_ONLY") == ("0" if "ROS_LOCALHOST_ONLY" in environment else None)


@pytest.mark.parametrize(
    "environment",
    [
        {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"},
        {PROFILES[1]: "/nowhere.xml"},
        {RANGE: "OFF"},
        {RANGE: "LOCALHOST", "ROS_STATIC_PEERS": "10.0.0.5"},
    ],
)
def test_udp_variables_leave_alone_what_the_user_has_chosen(environment):
    assert udp_variables(environment) == {}


def test_udp_variables_leave_alone_a_profile_of_the_user(tmp_path):
    own = tmp_path / "own.xml"
    own.write_text(SUITE.read_text().replace('profile_name="rlif"', 'profile_name="lab"'))
    assert udp_variables({PROFILES[0]: str(own)}) == {}


NODE = """
import glob, sys
from rclpy.node import Node
from rlif_node.qos import RELIABLE
from rlif_node.running import run
from std_msgs.msg import String

class Echo(Node):
    def __init__(self):
        super().__init__("echo")
        names = [open(path).read().strip() for path in glob.glob("/proc/self/task/*/comm")]
        answer = self.create_publisher(String, "answer", RELIABLE)
        text = " ".join(sorted(names))
        self.create_subscription(String, "question", lambda m: answer.publish(String(data=text)), RELIABLE)

sys.exit(run("echo", Echo, shared_memory=sys.argv.pop() == "True"))
"""


@pytest.mark.ros
@pytest.mark.parametrize("shared", [False, True])
def test_node_without_shared_memory_has_no_thread_of_it_and_hears_those_that_have(
    shared, ros_node, spin_until
):
    """This process offers both, the other UDP alone."""
    answers: list[str] = []
    ask = ros_node.create_publisher(String, "question", RELIABLE)
    ros_node.create_subscription(String, "answer", lambda m: answers.append(m.data), RELIABLE)
    other = subprocess.Popen([sys.executable, "-c", NODE, str(shared)])

    def answered() -> bool:
        ask.publish(String(data="what have you?"))
        return bool(answers)

    try:
        spin_until(answered, "an answer")
    finally:
        other.terminate()
        other.wait(10)
    assert "dds.udp" in answers[0]
    assert ("dds.shm" in answers[0]) == shared
