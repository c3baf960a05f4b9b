# SPDX-License-Identifier: Apache-2.0
"""`rlif new-robot` beside a robot's drivers: what it reads, asks and writes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
import yaml
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, JointState, Joy
from waiting import scaled

from rlif_bringup import cli
from rlif_bringup.doctor_files import check_files
from rlif_bringup.doctor_findings import Verdict
from rlif_bringup.launch_file import read
from rlif_bringup.new_robot import Camera, Found, Robot
from rlif_bringup.new_robot_command import ask

LAUNCH = Path(__file__).resolve().parents[3] / "launch"
DOMAIN = os.environ["ROS_DOMAIN_ID"]


@pytest.fixture
def drivers() -> Iterator[None]:
    """An arm, a camera with its info, one without, a gamepad, and Servo."""
    context = Context()
    rclpy.init(context=context, domain_id=int(DOMAIN))
    node = rclpy.create_node("drivers", context=context)
    pose = PoseStamped()
    pose.header.frame_id, pose.pose.position.x, pose.pose.position.z = "arm_base", 0.5, 0.3
    small = Image(width=320, height=240, encoding="rgb8", step=960, data=bytes(960 * 240))
    messages = {
        "/joint_states": JointState(name=["a", "b"], position=[0.0, 0.0]),
        "/arm/tcp_pose": pose,
        "/wrist/camera_info": CameraInfo(width=848, height=480),
        "/wrist/image_raw": None,  # advertised: its size is in its camera_info
        "/front/image_raw": small,
        "/joy": Joy(),
    }
    kinds = {"/wrist/image_raw": Image}
    publishers = {
        topic: node.create_publisher(kinds.get(topic, type(m)), topic, qos_profile_sensor_data)
        for topic, m in messages.items()
    }
    node.create_subscription(TwistStamped, "/servo/twist_cmds", lambda _: None, 1)

    def publish() -> None:
        for topic, message in messages.items():
            if message is not None:
                publishers[topic].publish(message)

    node.create_timer(0.1, publish)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield
    executor.shutdown()
    thread.join(scaled(10.0))
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.mark.ros
@pytest.mark.slow
def test_new_robot_beside_drivers_writes_a_configuration_that_passes_and_launches(
    drivers: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["-o", str(tmp_path), "--yes", "--domain-id", DOMAIN, "--seconds", str(scaled(20.0))]
    assert cli.main(["new-robot", "mine", *given]) == 0
    found = yaml.safe_load((tmp_path / "mine" / "robot.yaml").read_text())["/**"]["ros__parameters"]
    assert (found["base_frame"], found["joints"]) == ("arm_base", ["a", "b"])
    assert found["workspace_min"] == [0.35, -0.15, 0.2] and found["joy"]["topic"] == "/joy"
    assert found["cameras"] == ["front", "wrist"]
    assert (found["camera.front.width"], found["camera.wrist.width"]) == (320, 848)
    assert {f.verdict for f in check_files(tmp_path, "mine")} == {Verdict.PASS}
    robot = {
        "robot": "mine",
        "config_directory": str(tmp_path),
        "run_directory": str(tmp_path / "run"),
    }
    arbiter = next(
        p
        for p in read(LAUNCH / "robot.launch.yaml", robot, os.environ).processes
        if p.name == "arbiter"
    )
    assert {"command:=/servo/twist_cmds", "ee_pose:=/arm/tcp_pose"} <= set(arbiter.command)
    assert "rlif launch robot robot:=mine" in capsys.readouterr().out
    assert cli.main(["new-robot", "mine", *given]) == 2
    assert "is there already" in capsys.readouterr().err


def test_ask_with_answers_and_defaults() -> None:
    answers = iter(["", "base tool0", "", "-", "/pad", "ps5", "front", "-"])
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return next(answers)

    cameras = (Camera("wrist", "/a"), Camera("other", "/b"))
    robot = ask(Robot(wrench="/ft", cameras=cameras), Found(), answer)
    assert robot == Robot(
        tf=("base", "tool0"), ee_pose="", base_frame="base", joy="/pad", preset="ps5",
        cameras=(Camera("front", "/a"),),
    )  # fmt: skip
    assert asked[0] == "topic of the commands (TwistStamped) [/servo_node/delta_twist_cmds]: "


def test_new_robot_with_a_bad_name_has_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new-robot", "My-Robot"]) == 2
    assert "expected lower-case letters" in capsys.readouterr().err
