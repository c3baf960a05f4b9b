# SPDX-License-Identifier: Apache-2.0
"""Why nothing is received although a topic is published."""

from __future__ import annotations

import pytest
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rlif_node.endpoints import mismatch, type_name, why_unmatched

POSE = "geometry_msgs/msg/PoseStamped"


@pytest.mark.parametrize(
    ("reliable", "publishers", "text"),
    [
        (False, [], ""),
        (False, [(POSE, False)], ""),
        (True, [(POSE, False), (POSE, True)], ""),
        (False, [("nav_msgs/msg/Odometry", True), (POSE, True)], ""),
        (False, [("nav_msgs/msg/Odometry", True)], f"as nav_msgs/msg/Odometry, expected {POSE}"),
        (True, [(POSE, False)], "published as best effort, expected reliable"),
    ],
)
def test_mismatch_of_publishers_names_type_or_reliability(reliable, publishers, text):
    found = mismatch("ee_pose", POSE, reliable, publishers)
    assert text in found and bool(text) == bool(found)


def test_type_name_of_a_message_is_that_of_the_graph():
    assert type_name(PoseStamped) == POSE


@pytest.mark.ros
def test_why_unmatched_with_a_publisher_of_another_type_names_both(graph):
    assert why_unmatched(graph.node, "ee_pose", PoseStamped) == ""
    graph.node.create_publisher(PoseWithCovarianceStamped, "ee_pose", 1)
    found = lambda: why_unmatched(graph.node, "ee_pose", PoseStamped)  # noqa: E731
    text = graph.until(found, "the publisher")
    assert f"as geometry_msgs/msg/PoseWithCovarianceStamped, expected {POSE}" in text


@pytest.mark.ros
def test_why_unmatched_with_a_best_effort_publisher_is_for_reliable_subscriptions_only(graph):
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    graph.node.create_publisher(PoseStamped, "ee_pose", qos)
    reliable = lambda: why_unmatched(graph.node, "ee_pose", PoseStamped, reliable=True)  # noqa: E731
    assert "best effort" in graph.until(reliable, "the publisher")
    assert why_unmatched(graph.node, "ee_pose", PoseStamped) == ""
