# SPDX-License-Identifier: Apache-2.0
"""Nodes without shared memory: what their environment is, and that they communicate with the others."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rlif_node.qos import RELIABLE
from rlif_node.transports import (
    BUILTIN,
    FIXED,
    PROFILES,
    RANGE,
    SHIPPED,
    UDP,
    UDP_LOCALHOST,
    disable_shared_memory,
    udp_variables,
)
from std_msgs.msg import String

SUITE = Path(__file__).parents[3] / "config" / "fastdds.xml"
NAMESPACE = "{http://www.eprosima.com}"


@pytest.mark.parametrize(
    ("environment", "profile", "discovery"),
    [
        ({}, UDP, None),
        ({RANGE: ""}, UDP, None),
        ({RANGE: "SUBNET", PROFILES[0]: str(SUITE), PROFILES[1]: str(SUITE)}, UDP, None),
        ({RANGE: "SYSTEM_DEFAULT", BUILTIN: "UDPv4"}, UDP, None),
        ({RANGE: "LOCALHOST"}, UDP_LOCALHOST, "SYSTEM_DEFAULT"),
        ({RANGE: "LOCALHOST", PROFILES[0]: str(SUITE)}, UDP_LOCALHOST, "SYSTEM_DEFAULT"),
        ({RANGE: "LOCALHOST", BUILTIN: "UDPv4"}, UDP_LOCALHOST, "SYSTEM_DEFAULT"),
        ({RANGE: "subnet"}, UDP_LOCALHOST, "SYSTEM_DEFAULT"),  # rcl takes it as LOCALHOST
        ({RANGE: "SUBNET", "ROS_STATIC_PEERS": "10.0.0.5"}, UDP, None),
        ({"ROS_LOCALHOST_ONLY": "0"}, UDP, None),
    ],
)
def test_udp_variables_name_the_profile_of_the_discovery_range(environment, profile, discovery):
    found, problem = udp_variables(environment)
    assert {found[name] for name in PROFILES} == {str(profile)} and not problem
    assert found.get(RANGE) == discovery
    assert udp_variables(environment | found) == ({}, ""), "a child process has them already"


@pytest.mark.parametrize(
    "environment",
    [
        {BUILTIN: "LARGE_DATA"},
        {PROFILES[1]: "/nowhere.xml"},
        {RANGE: "OFF"},
        {RANGE: "LOCALHOST", "ROS_STATIC_PEERS": "10.0.0.5"},
        *({name: "1"} for name in FIXED),
    ],
)
def test_udp_variables_leave_alone_what_the_user_has_configured_and_name_it(environment):
    variables, problem = udp_variables(environment)
    assert variables == {}
    assert all(name in problem for name in environment)


def test_udp_variables_leave_alone_an_edited_copy_of_the_profile(tmp_path):
    own = tmp_path / "fastdds.xml"
    own.write_text(SUITE.read_text().replace("16777216", "33554432"))
    assert udp_variables({PROFILES[0]: str(own)})[0] == {}
    own.write_bytes(SUITE.read_bytes())
    assert udp_variables({PROFILES[0]: str(own)})[0], (
        f"put the hash of {SUITE} into SHIPPED ({SHIPPED})"
    )


def test_other_middleware_is_left_alone(monkeypatch):
    monkeypatch.setattr("rclpy.get_rmw_implementation_identifier", lambda: "rmw_cyclonedds_cpp")
    monkeypatch.setattr("os.environ", environment := {})
    assert disable_shared_memory() == "" and environment == {}


def test_profiles_differ_in_discovery_alone():
    """The one for LOCALHOST is tried below; that for SUBNET would leave this host."""
    profiles = []
    for path in (UDP, UDP_LOCALHOST):
        root = ElementTree.parse(path).getroot()
        rtps = root.find(f".//{NAMESPACE}rtps")
        for builtin in rtps.findall(f"{NAMESPACE}builtin"):
            rtps.remove(builtin)
        profiles.append([(e.tag, (e.text or "").strip(), e.attrib) for e in root.iter()])
    assert profiles[0] == profiles[1]


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
def test_node_without_shared_memory_communicates_with_one_that_has_it(shared, ros_node, spin_until):
    """This process uses both."""
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
