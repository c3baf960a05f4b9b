# SPDX-License-Identifier: Apache-2.0
"""Writes the configuration of a new robot: reads what runs, asks, fills in config/template.

    rlif new-robot my_robot          # start the drivers, Servo, cameras and the joystick before
    rlif new-robot my_robot --yes    # takes what was found, and defaults, without asking

Listens only. Exit code: 0 written, 1 written and not complete, 2 asked wrongly.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlif_bringup.doctor import config_directory
from rlif_bringup.doctor_files import check_files
from rlif_bringup.doctor_findings import Verdict
from rlif_bringup.graph_command import positive
from rlif_bringup.launch_file import LaunchFileError
from rlif_bringup.new_robot import (
    IMAGES,
    JOINTS,
    POSE,
    Camera,
    Found,
    Robot,
    check_name,
    robot_file,
    suggest,
    topics_file,
)
from rlif_intervention import presets

DISCOVERY = 2.0  # s until all topics are known
PRESETS = tuple(name for name in presets.PRESETS if name != "console")  # which is no driver's
OURS = "/rlif/"  # topics of a suite that runs already
NONE = "-"  # the answer for: there is none


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `rlif new-robot`."""
    parser.add_argument("name", help="of the configuration: my_robot")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("config"),
        help="folder of configurations (%(default)s)",
    )
    parser.add_argument("--yes", action="store_true", help="take what was found, ask nothing")
    parser.add_argument("--seconds", type=positive, default=5.0, help="to listen (%(default)s)")
    parser.add_argument("--domain-id", type=int, help="of DDS (ROS_DOMAIN_ID)")


def listen(seconds: float, domain_id: int | None) -> Found:
    """Topics, and one message of each that says something: joints, poses, sizes of images."""
    from geometry_msgs.msg import PoseStamped
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo, Image, JointState

    from rlif_bringup.graph_client import GraphClient

    messages: dict[str, Any] = {}
    kinds = {JOINTS: JointState, POSE: PoseStamped, "sensor_msgs/msg/Image": Image}
    with GraphClient("", domain_id) as client:
        node = client.node
        client.spin(DISCOVERY)
        topics = {
            name: types[0]
            for name, types in node.get_topic_names_and_types()
            if not name.startswith(OURS)
            and node.count_publishers(name) + node.count_subscribers(name)
        }
        for name, kind in topics.items():
            source, message = name, kinds.get(kind)
            info = f"{_folder(name)}/camera_info"
            if kind in IMAGES and info in topics:  # smaller than an image
                source, message = info, CameraInfo
            if message is not None:
                take = lambda m, n=name: messages.setdefault(n, m)  # noqa: E731
                node.create_subscription(message, source, take, qos_profile_sensor_data)
        wanted = {n for n, k in topics.items() if k in kinds and node.count_publishers(n)}
        client.spin(seconds, lambda: wanted <= set(messages))
        subscribed = frozenset(n for n in topics if node.count_subscribers(n))
    joints = next((tuple(m.name) for n, m in sorted(messages.items()) if topics[n] == JOINTS), ())
    poses = {n: m for n, m in messages.items() if topics[n] == POSE}
    return Found(
        topics=topics,
        subscribed=subscribed,
        joints=joints,
        sizes={n: (m.width, m.height) for n, m in messages.items() if topics[n] in IMAGES},
        poses={
            n: (m.header.frame_id, (m.pose.position.x, m.pose.position.y, m.pose.position.z))
            for n, m in poses.items()
        },
    )


def _folder(topic: str) -> str:
    return topic.removesuffix("/compressed").rpartition("/")[0]


def ask(robot: Robot, found: Found, answer: Callable[[str], str]) -> Robot:
    """Each entry with what was found as the default. answer: `input`"""

    def choose(what: str, default: str) -> str:
        given = answer(f"{what} [{default or NONE}]: ").strip()
        return "" if given == NONE else given or default

    command = choose("topic of the commands (TwistStamped)", robot.command)
    pose = choose("topic of the end effector's pose, or two frames of tf", robot.ee_pose)
    frames = tuple(pose.replace(",", " ").split())
    frame, position = found.poses.get(pose, (robot.base_frame, None))
    if len(frames) == 2:
        robot = replace(robot, tf=(frames[0], frames[1]), ee_pose="")
        frame = frames[0]
    else:
        robot = replace(robot, tf=(), ee_pose=pose)
    robot = replace(
        robot,
        command=command,
        position=position,
        base_frame=choose("base frame", frame or robot.base_frame),
        wrench=choose("topic of the force-torque sensor", robot.wrench),
        joy=choose("topic of the joystick or 3D mouse", robot.joy),
    )
    preset = choose(f"its preset ({', '.join(PRESETS)})", robot.preset)
    if preset not in PRESETS:
        raise LaunchFileError(f"found the preset {preset!r}, expected one of {', '.join(PRESETS)}")
    cameras = [_ask_camera(camera, choose) for camera in robot.cameras]
    return replace(robot, preset=preset, cameras=tuple(c for c in cameras if c.name))


def _ask_camera(camera: Camera, choose: Callable[[str, str], str]) -> Camera:
    name = choose(
        f"name for {camera.topic}, {camera.width}x{camera.height}; - leaves it out", camera.name
    )
    if name:
        check_name(name)
    return replace(camera, name=name)


def write(output: Path, name: str, robot: Robot, installed: Path) -> Path:
    """The new folder of the configuration, in `output`, which gets the nodes' files where it has none."""
    folder = output / name
    template = (installed / "template" / "robot.yaml").read_text(encoding="utf-8")
    folder.mkdir(parents=True)
    (folder / "robot.yaml").write_text(robot_file(template, name, robot), encoding="utf-8")
    (folder / "topics.launch.yaml").write_text(topics_file(robot), encoding="utf-8")
    for file in installed.glob("*.yaml"):
        if not (output / file.name).exists():
            shutil.copy(file, output / file.name)
    return folder


def run(arguments: argparse.Namespace) -> int:
    """Run `rlif new-robot`."""
    name, output = arguments.name, arguments.output
    try:
        check_name(name)
        if (output / name).exists():
            raise LaunchFileError(
                f"{output / name} is there already: choose another name, or remove it"
            )
        print(f"listening for {DISCOVERY + arguments.seconds:.0f} s at most", flush=True)
        found = listen(arguments.seconds, arguments.domain_id)
        robot = suggest(found)
        for line in summary(found, robot):
            print(f"  {line}")
        if not arguments.yes:
            robot = ask(robot, found, input)
        folder = write(output, name, robot, config_directory(None))
    except EOFError:
        print("rlif new-robot: no answer; --yes asks nothing", file=sys.stderr)
        return 2
    except LaunchFileError as error:
        print(f"rlif new-robot: {error}", file=sys.stderr)
        return 2
    failed = [f for f in check_files(output, name) if f.verdict is Verdict.FAIL]
    for finding in failed:
        print(f"rlif new-robot: {finding.found}: {finding.advice}", file=sys.stderr)
    print(next_steps(folder, name, output.absolute(), bool(robot.cameras)))
    return 1 if failed or not (robot.position or robot.tf) else 0


def summary(found: Found, robot: Robot) -> list[str]:
    """What was found, a line each."""
    if not found.topics:
        return ["no topic: start the drivers first, or check ROS_DOMAIN_ID"]
    lines = [f"commands to {robot.command}, pose from {robot.ee_pose} in {robot.base_frame}"]
    lines.append(
        f"joints {', '.join(found.joints) or 'none'}; operator {robot.joy} ({robot.preset})"
    )
    if not found.of_type(POSE):
        lines.append("no PoseStamped was found: name two frames of tf instead, or set ee_pose.tf")
    lines += [f"camera {c.name}: {c.topic}, {c.width}x{c.height}" for c in robot.cameras]
    return lines


def next_steps(folder: Path, name: str, output: Path, cameras: bool) -> str:
    """What a person does next."""
    images = "" if cameras else " images:=false"
    given = f"robot:={name} config_directory:={output}"
    lines = (
        f"written: {folder}/robot.yaml, {folder}/topics.launch.yaml. Next:",
        "  1. set what is marked MEASURE in robot.yaml: the box around the task",
        f"  2. rlif launch robot {given} run_directory:=runs/{name}/1{images}",
        f"  3. rlif doctor --robot {name} --config-directory {output}",
        "  4. rlif arm, rlif start: the first ten episodes are demonstrations, hold the deadman throughout",
    )
    return "\n".join(lines)
