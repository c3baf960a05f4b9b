# SPDX-License-Identifier: Apache-2.0
"""A robot configuration out of the template: what is guessed, and that what is written can be started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rlif_bringup.launch_file import LaunchFileError
from rlif_bringup.new_robot import (
    Camera,
    Found,
    Robot,
    camera_name,
    check_name,
    robot_file,
    suggest,
    topics_file,
    with_value,
)

TEMPLATE = (Path(__file__).resolve().parents[3] / "config" / "template" / "robot.yaml").read_text()
LAB = Found(
    topics={
        "/servo_node/delta_twist_cmds": "geometry_msgs/msg/TwistStamped",
        "/odom_twist": "geometry_msgs/msg/TwistStamped",
        "/goal": "geometry_msgs/msg/PoseStamped",
        "/tcp_pose_broadcaster/pose": "geometry_msgs/msg/PoseStamped",
        "/joint_states": "sensor_msgs/msg/JointState",
        "/ft/wrench": "geometry_msgs/msg/WrenchStamped",
        "/spacenav/joy": "sensor_msgs/msg/Joy",
        "/camera/wrist/color/image_raw": "sensor_msgs/msg/Image",
        "/camera/wrist/color/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
        "/camera/wrist/depth/image_rect_raw": "sensor_msgs/msg/Image",
        "/table_cam/image/compressed": "sensor_msgs/msg/CompressedImage",
    },
    subscribed=frozenset({"/servo_node/delta_twist_cmds", "/goal"}),
    joints=("j1", "j2"),
    sizes={"/camera/wrist/color/image_raw": (848, 480), "/table_cam/image/compressed": (640, 480)},
    poses={"/tcp_pose_broadcaster/pose": ("base", (0.5, 0.1, 0.06))},
)


def parameters(robot: Robot) -> dict:
    return yaml.safe_load(robot_file(TEMPLATE, "mine", robot))["/**"]["ros__parameters"]


def test_suggest_from_the_topics_of_a_lab_finds_each_source() -> None:
    robot = suggest(LAB)
    assert robot.command == "/servo_node/delta_twist_cmds", "somebody listens there"
    assert (robot.ee_pose, robot.base_frame) == ("/tcp_pose_broadcaster/pose", "base")
    assert (robot.wrench, robot.joy, robot.preset) == ("/ft/wrench", "/spacenav/joy", "spacemouse")
    assert robot.cameras == (
        Camera("wrist", "/camera/wrist/color/image_raw", 848, 480),
        Camera("table", "/table_cam/image/compressed", 640, 480, "compressed"),
    )


def test_suggest_without_a_system_gives_the_defaults_of_the_template() -> None:
    written = parameters(replace(suggest(Found()), cameras=(Camera("wrist", "/c"),)))
    assert written == yaml.safe_load(TEMPLATE)["/**"]["ros__parameters"]


def test_robot_file_has_what_was_found_and_the_comments_of_the_template() -> None:
    text, found = robot_file(TEMPLATE, "mine", suggest(LAB)), parameters(suggest(LAB))
    assert (found["base_frame"], found["command_frame"]) == ("base", "base")
    assert found["workspace_min"] == [0.35, -0.05, 0.02], "around the pose, above the base"
    assert found["workspace_max"] == [0.65, 0.25, 0.16]
    assert found["devices"] == ["spacemouse"] and found["spacemouse"]["topic"] == "/spacenav/joy"
    assert len(found["features"]) == 3 and found["joints"] == ["j1", "j2"]
    assert (
        found["cameras"] == ["wrist", "table"] and found["camera.table.transport"] == "compressed"
    )
    assert found["camera.wrist.roi"] == [184, 0, 480, 480]
    assert text.count("# pixels that the driver sends") == 2
    assert "MEASURE" in text and text.startswith("# Robot configuration mine")


def test_robot_file_without_cameras_has_no_encoder() -> None:
    found = parameters(replace(suggest(LAB), cameras=()))
    assert found["encoder"] == "none" and not [key for key in found if "camera" in key]


def test_robot_file_with_frames_of_tf_takes_the_pose_from_there() -> None:
    robot = Robot(tf=("base", "tool0"))
    assert parameters(robot)["ee_pose"] == {"tf": ["base", "tool0"]}
    assert "ee_pose" not in topics_file(robot)


def test_topics_file_remaps_each_topic_that_there_is() -> None:
    entries = yaml.safe_load(topics_file(suggest(LAB)))["launch"]
    pairs = {e["set_remap"]["from"]: e["set_remap"]["to"] for e in entries}
    assert pairs["camera/table/image/compressed"] == "/table_cam/image/compressed"
    assert pairs["camera/wrist/image"] == "/camera/wrist/color/image_raw"
    assert pairs["wrench"] == "/ft/wrench" and "object_pose" not in pairs


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("/camera/color/image_raw", "camera"),
        ("/zed2/rgb/image_rect_color", "zed2"),
        ("/3d/image", "camera"),
        ("/wrist/image", "wrist2"),
    ],
)
def test_camera_name_of_a_topic_is_the_word_that_tells_it_apart(topic: str, name: str) -> None:
    assert camera_name(topic, ["wrist"]) == name


@pytest.mark.parametrize("name", ["My-Robot", "template", "", "a/b", "9"])
def test_check_name_of_no_name_is_refused(name: str) -> None:
    with pytest.raises(LaunchFileError, match="such as my_robot"):
        check_name(name)


def test_with_value_keeps_the_comment_in_its_column() -> None:
    line = "    encoder: small                      # of the images"
    assert (
        with_value(line, "encoder", "none")
        == "    encoder: none                       # of the images"
    )
    assert with_value("    axes: [x]\n", "axes", ["y", "yaw"]) == '    axes: ["y", yaw]\n'
    with pytest.raises(ValueError, match="no such line"):
        with_value(line, "encode", 1)


def test_robot_file_of_an_arm_below_its_base_has_it_in_the_box() -> None:
    found = parameters(Robot(position=(0.5, 0.0, -0.3)))
    assert found["workspace_min"][2] == -0.4 and found["workspace_max"][2] == -0.2
