# SPDX-License-Identifier: Apache-2.0
"""A robot configuration out of config/template and of what is known of a robot. No ROS.

`suggest` guesses from the topics of a running system, a person may change it, `render` fills it in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rlif_bringup.launch_file import LaunchFileError

JOINTS, POSE, WRENCH, JOY, TWIST = (
    "sensor_msgs/msg/JointState",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/WrenchStamped",
    "sensor_msgs/msg/Joy",
    "geometry_msgs/msg/TwistStamped",
)
IMAGES = {"sensor_msgs/msg/Image": "raw", "sensor_msgs/msg/CompressedImage": "compressed"}
NAME = re.compile(r"[a-z][a-z0-9_]*")
# Words of camera topics that tell no camera from another.
_COMMON = frozenset(
    [
        "camera",
        "cam",
        "image",
        "color",
        "rgb",
        "image_raw",
        "image_rect",
        "image_color",
        "compressed",
    ]
)
_ARM = re.compile(r"tcp|tool|ee_|end_?effector|current_pose|flange")
MARGIN = (0.15, 0.15, 0.1)  # m around the pose that was found
LEAST_HEIGHT = 0.02  # m, of the box above the base, where the arm is above it
COMMENT = 40  # column of comments


@dataclass(frozen=True)
class Camera:
    """width, height: pixels that it sends."""

    name: str
    topic: str
    width: int = 640
    height: int = 480
    transport: str = "raw"


@dataclass(frozen=True)
class Found:
    """What runs.

    topics: type by name; subscribed: topics with a subscriber
    joints: names, of the joint states; sizes: of images, by topic
    poses: frame and position in m, by topic
    """

    topics: Mapping[str, str] = field(default_factory=dict)
    subscribed: frozenset[str] = frozenset()
    joints: tuple[str, ...] = ()
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    poses: Mapping[str, tuple[str, tuple[float, float, float]]] = field(default_factory=dict)

    def of_type(self, kind: str) -> list[str]:
        return sorted(name for name, found in self.topics.items() if found == kind)


@dataclass(frozen=True)
class Robot:
    """What a configuration is filled in with; topics: empty where there is none.

    tf: base frame and frame of the end effector, if the pose comes from there
    position: of the end effector in m, to put the box around; None: not known
    """

    command: str = "/servo_node/delta_twist_cmds"
    ee_pose: str = "/ee_pose"
    tf: tuple[str, str] | tuple[()] = ()
    base_frame: str = "base_link"
    position: tuple[float, float, float] | None = None
    joint_states: str = "/joint_states"
    joints: tuple[str, ...] = ()
    wrench: str = ""
    joy: str = "/joy"
    preset: str = "xbox"
    cameras: tuple[Camera, ...] = ()


def suggest(found: Found) -> Robot:
    """The likeliest choice for each entry; the defaults where nothing was found."""
    robot = Robot(joints=found.joints, cameras=_cameras(found))
    commands = [t for t in found.of_type(TWIST) if t in found.subscribed]
    poses, joys = found.of_type(POSE), found.of_type(JOY)
    robot = replace(
        robot,
        command=_first(commands, re.compile("twist|cmd"), robot.command),
        joint_states=_first(
            found.of_type(JOINTS), re.compile("^/joint_states$"), robot.joint_states
        ),
        wrench=_first(found.of_type(WRENCH), _ARM, ""),
        joy=_first(joys, re.compile("spacenav"), robot.joy),
        ee_pose=_first(poses, _ARM, robot.ee_pose),
    )
    if "spacenav" in robot.joy:
        robot = replace(robot, preset="spacemouse")
    if robot.ee_pose in found.poses:
        frame, position = found.poses[robot.ee_pose]
        robot = replace(robot, base_frame=frame or robot.base_frame, position=position)
    return robot


def _first(names: Sequence[str], likely: re.Pattern[str], default: str) -> str:
    return next((n for n in names if likely.search(n)), names[0] if names else default)


def _cameras(found: Found) -> tuple[Camera, ...]:
    """Raw images where there are, and compressed ones of the cameras that send no others; no depth."""
    cameras: list[Camera] = []
    raw = set(found.of_type("sensor_msgs/msg/Image"))
    for kind, transport in IMAGES.items():
        for topic in found.of_type(kind):
            if (
                "depth" in topic
                or "infra" in topic
                or topic.removesuffix("/compressed") in raw - {topic}
            ):
                continue
            name = camera_name(topic, [c.name for c in cameras])
            width, height = found.sizes.get(topic, (640, 480))
            cameras.append(Camera(name, topic, width, height, transport))
    return tuple(cameras)


def camera_name(topic: str, taken: Sequence[str]) -> str:
    """A name for the camera of a topic, other than those taken."""
    words = [w for w in topic.lower().strip("/").split("/") if w not in _COMMON]
    name = re.sub(r"\W|_(camera|cam)$|^(camera|cam)_", "", words[0]) if words else "camera"
    name = name if NAME.fullmatch(name) else "camera"
    return next(n for n in (name, *(f"{name}{i}" for i in range(2, 99))) if n not in taken)


def check_name(name: str) -> None:
    """LaunchFileError for what cannot be the name of a configuration."""
    if not NAME.fullmatch(name) or name == "template":
        raise LaunchFileError(
            f"found the name {name!r}, expected lower-case letters, digits and _, such as my_robot"
        )


def topics_file(robot: Robot) -> str:
    """topics.launch.yaml."""
    ours = {
        "command": robot.command,
        "joint_states": robot.joint_states,
        "ee_pose": "" if robot.tf else robot.ee_pose,
        "wrench": robot.wrench,
        "joy": robot.joy,
    }
    for camera in robot.cameras:
        end = "/compressed" if camera.transport == "compressed" else ""
        ours[f"camera/{camera.name}/image{end}"] = camera.topic
    lines = [f"- set_remap: {{from: {k}, to: {v}}}" for k, v in ours.items() if v]
    head = "# Topics of the robot's drivers: `from` as in docs/architecture.md, `to` as theirs."
    return "\n".join([head, "launch:", *lines]) + "\n"


def robot_file(template: str, name: str, robot: Robot) -> str:
    """robot.yaml: the template's lines, comments included, with the values of `robot`."""
    text = template[template.index("/**:") :]
    text = _with_cameras(text, robot.cameras)
    device = "spacemouse" if robot.preset == "spacemouse" else "joy"
    text = text.replace("\n    joy:\n", f"\n    {device}:\n")
    features = ["ee_position", "ee_linear_velocity"] + ["wrench_force"] * bool(robot.wrench)
    values: dict[str, object] = {
        "base_frame": robot.base_frame,
        "command_frame": robot.base_frame,
        "devices": [device],
        "preset": robot.preset,
        "topic": robot.joy,
        "features": features,
    }
    if robot.position is not None:
        around = zip(robot.position, MARGIN, strict=True)
        low, high = zip(*((round(p - m, 3), round(p + m, 3)) for p, m in around), strict=True)
        floor = LEAST_HEIGHT if robot.position[2] > 2.0 * LEAST_HEIGHT else low[2]
        values["workspace_min"] = [low[0], low[1], max(low[2], floor)]
        values["workspace_max"] = list(high)
    for key, value in values.items():
        text = with_value(text, key, value)
    if robot.tf:
        frames = f"    ee_pose: {{tf: [{', '.join(robot.tf)}]}}"
        text = re.sub(
            r"    # ee_pose: .*", f"{frames.ljust(COMMENT)}# the pose comes from tf", text, count=1
        )
    if robot.joints:
        listed = (
            f"    joints: {_yaml(list(robot.joints))}  # for joint_positions and joint_velocities\n"
        )
        text = text.replace("    max_age:", f"{listed}    max_age:", 1)
    head = (
        f"# Robot configuration {name}, written by `rlif new-robot`. Given to all nodes, after their own\n"
        "# config/NODE.yaml. What is marked MEASURE is yours: docs/real_robot.md.\n"
    )
    return head + text


def _with_cameras(text: str, cameras: Sequence[Camera]) -> str:
    """The template's camera once for each; without any, no encoder."""
    block = re.search(r"(    camera\.wrist\..*\n)+", text)
    assert block is not None, "config/template/robot.yaml has a camera named wrist"
    blocks = []
    for camera in cameras:
        side = min(camera.width, camera.height)
        roi = [(camera.width - side) // 2, (camera.height - side) // 2, side, side]
        part = block[0].replace("camera.wrist.", f"camera.{camera.name}.")
        for key in ("width", "height", "transport"):
            part = with_value(part, f"camera.{camera.name}.{key}", getattr(camera, key))
        blocks.append(with_value(part, f"camera.{camera.name}.roi", roi))
    text = text.replace(block[0], "".join(blocks))
    if cameras:
        return with_value(text, "cameras", [c.name for c in cameras])
    text = re.sub(r"    (cameras|image_width|image_height):.*\n", "", text)
    return with_value(text, "encoder", "none")


def with_value(text: str, key: str, value: object) -> str:
    """The first line of `key` with another value; its comment stays in its column."""
    line = re.compile(rf"^(\s+{re.escape(key)}: )[^#\n]*(#.*)?$", re.MULTILINE)
    found = line.search(text)
    if found is None:
        raise ValueError(f"{key}: found no such line in the template")
    new = f"{found[1]}{_yaml(value)}"
    if found[2]:
        new = f"{new.ljust(COMMENT - 1)} {found[2]}"
    return text[: found.start()] + new + text[found.end() :]


def _yaml(value: object) -> str:
    """As rcl reads it: numbers with their point, texts in quotes where they might be something else."""
    if isinstance(value, list):
        return f"[{', '.join(_yaml(v) for v in value)}]"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z/][\w/.]{2,}", value):
        return json.dumps(value)
    return str(value)
