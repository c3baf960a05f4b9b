# SPDX-License-Identifier: Apache-2.0
"""`rlif echo`: messages as YAML, without the `ros2` command."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, Joy
from waiting import scaled

from rlif_bringup import cli
from rlif_bringup.echo_command import field_of, message_class, plain

ROOT = ["--namespace", "none"]  # where the graph of these tests is
WITHIN = ["--timeout", str(scaled(20.0)), "--domain-id", os.environ["ROS_DOMAIN_ID"]]


def test_plain_message_has_numbers_and_lengths_of_long_arrays() -> None:
    joy = plain(Joy(axes=[0.5, 1.0], buttons=[1]))
    assert joy["axes"] == [0.5, 1.0] and joy["buttons"] == [1]
    assert joy["header"]["stamp"] == {"sec": 0, "nanosec": 0}
    assert plain(Image(data=bytes(100)))["data"] == "<100 entries>"


def test_field_of_a_message_is_found_by_its_path() -> None:
    pose = PoseStamped()
    pose.header.frame_id = "base"
    assert field_of(pose, "header.frame_id") == "base"
    assert field_of(pose, "") is pose
    with pytest.raises(ValueError, match="no field 'frame'; there are: stamp, frame_id"):
        field_of(pose, "header.frame")


def test_message_class_of_a_type_that_is_not_installed_names_the_package() -> None:
    assert message_class("sensor_msgs/msg/Joy") is Joy
    with pytest.raises(ValueError, match="install no_such_msgs"):
        message_class("no_such_msgs/msg/A")


@pytest.mark.ros
def test_echo_of_a_latched_topic_prints_its_message(
    start_graph: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    start_graph()
    assert (
        cli.main(["echo", "control_state", "--count", "1", "--field", "state", *ROOT, *WITHIN]) == 0
    )
    assert capsys.readouterr().out == "1\n---\n"
    assert cli.main(["echo", "learner_status", "--count", "1", *ROOT, *WITHIN]) == 0
    assert "caught_up: true" in capsys.readouterr().out
    assert (
        cli.main(["echo", "control_state", "--count", "1", "--field", "modus", *ROOT, *WITHIN]) == 2
    )
    assert "no field 'modus'" in capsys.readouterr().err


@pytest.mark.ros
def test_echo_without_a_topic_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["echo", "nothing", "--timeout", "0.2", *WITHIN[2:]]) == 1
    assert "waiting for a publisher of /rlif/nothing" in capsys.readouterr().err
    assert cli.main(["echo", "nothing", "--count", "-1"]) == 2
