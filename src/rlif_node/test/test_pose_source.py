# SPDX-License-Identifier: Apache-2.0
"""The pose of the end effector from tf, with a stand-in for tf2_ros."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from geometry_msgs.msg import PoseStamped
from rlif_node.pose_source import subscribe_pose
from rlif_node.qos import SENSOR
from rlif_node.stamps import to_ns
from stand_in_tf import transform

FRAMES = ("base", "tool0")


class StandInNode:
    """Records what is created."""

    def __init__(self):
        self.topics, self.timers, self.warnings = [], [], []

    def create_subscription(self, kind, topic, callback, qos):
        self.topics.append((kind, topic, callback))

    def create_timer(self, period, callback, clock):
        self.timers.append(callback)

    def get_logger(self):
        return SimpleNamespace(warning=self.warnings.append)


def test_subscribe_pose_without_frames_subscribes_to_the_topic():
    node, poses = StandInNode(), []
    assert subscribe_pose(node, [], poses.append, SENSOR) is None
    assert node.topics == [(PoseStamped, "ee_pose", poses.append)] and not node.timers


def test_pose_from_tf_is_handed_over_once_with_the_stamp_of_its_transform(tf):
    node, poses = StandInNode(), []
    subscribe_pose(node, FRAMES, poses.append, SENSOR)
    (poll,) = node.timers
    tf.transform = transform(7_000_000_001, z=0.2)
    poll()
    poll()  # the transforms have stopped: the pose must grow old
    assert tf.asked[0] == ("base", "tool0", 0), "the newest one"
    (pose,) = poses
    assert (pose.header.frame_id, to_ns(pose.header.stamp)) == ("base", 7_000_000_001)
    assert (pose.pose.position.x, pose.pose.position.z, pose.pose.orientation.x) == (0.5, 0.2, 1.0)
    tf.transform = transform(8_000_000_000)
    poll()
    assert len(poses) == 2


def test_pose_from_tf_without_a_transform_says_why(tf, monkeypatch):
    monkeypatch.setattr("rlif_node.pose_source.REMIND", 0.0)
    node, poses = StandInNode(), []
    source = subscribe_pose(node, FRAMES, poses.append, SENSOR)
    node.timers[0]()
    assert not poses and "from base to tool0" in source.problem
    assert "does not exist" in node.warnings[0]
    tf.transform = transform(1)
    node.timers[0]()
    assert source.problem == "" and len(poses) == 1


def test_pose_from_tf_without_tf2_ros_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(ValueError, match=r"tf2-ros-py.*leave ee_pose\.tf out"):
        subscribe_pose(StandInNode(), FRAMES, print, SENSOR)


def test_subscribe_pose_with_one_frame_is_refused():
    with pytest.raises(ValueError, match=r"found \['base'\], expected two frames"):
        subscribe_pose(StandInNode(), ["base"], print, SENSOR)
