"""A mapping file to begin with, guessed from what is in a foreign bag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rosbags.highlevel import AnyReader

from rlif_bags.reading.open import STEP_TYPE, open_bag

_GUESSES = (
    ("ee_pose", "geometry_msgs/msg/PoseStamped"),
    ("joint_states", "sensor_msgs/msg/JointState"),
    ("wrench", "geometry_msgs/msg/WrenchStamped"),
)
_FEATURE_OF = {"ee_pose": "ee_position", "joint_states": "joint_positions",
               "wrench": "wrench_force"}  # fmt: skip


JOINT_COMMANDS = ("trajectory_msgs/msg/JointTrajectory", "control_msgs/msg/JointJog")


def starter(
    types: Mapping[str, str], joints: Sequence[str] = (), commanded: Sequence[str] = (),
    frame: str = "base",
) -> str:  # fmt: skip
    """A mapping file to begin with, guessed from the types of a bag's topics.

    joints: names in the bag's joint states, in their order; commanded: in its commands to joints;
    frame: of its poses
    """

    def first(*kinds: str) -> str:
        return next((t for t in sorted(types) if types[t] in kinds), "")

    sources = {name: first(kind) for name, kind in _GUESSES if first(kind)}
    joy, flag = first("sensor_msgs/msg/Joy"), first("std_msgs/msg/Bool")
    cameras = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
    images = [t for t in sorted(types) if types[t] in cameras]
    driver: dict[str, Any] = {"always": "operator"}
    if joy or flag:
        driver = {"joy": joy, "button": 0, "timeout": 0.5} if joy else {"flag": flag, "timeout": 0}
    twist = first("geometry_msgs/msg/TwistStamped", "geometry_msgs/msg/Twist")
    array = first("std_msgs/msg/Float64MultiArray", "std_msgs/msg/Float32MultiArray")
    motion: dict[str, Any] = {
        "command": twist or array, "axes": ["x", "y", "z"], "linear_scale": 0.1,
    }  # fmt: skip
    if not twist and first(*JOINT_COMMANDS):
        motion = {
            "command": first(*JOINT_COMMANDS),
            "output": "joint_velocity",
            "axes": list(commanded or joints) or ["joint1"],
            "joint_scale": 0.5,
        }
    content = {
        "control_rate": 10.0,
        "features": [_FEATURE_OF[name] for name in sources],
        "joints": list(joints),
        "base_frame": frame,
        "sources": sources,
        "cameras": {f"camera{i}": topic for i, topic in enumerate(images)},
        **motion,
        "driver": driver,
        "release_dwell": 0.2,
        "episode_gap": 2.0,
    }
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=96)


def starter_lines(bag: Path) -> list[str]:
    """A mapping for a bag without Steps."""
    with open_bag(bag) as reader:
        types = {c.topic: c.msgtype for c in reader.connections}
        joints = _names(_first(reader, "sensor_msgs/msg/JointState"))
        commanded = _names(_first(reader, *JOINT_COMMANDS))
        pose = _first(reader, "geometry_msgs/msg/PoseStamped")
    if STEP_TYPE in types.values():
        return []
    frame = "base" if pose is None else pose.header.frame_id
    guess = starter(types, joints, commanded, frame)
    return ["a mapping to start from, for --mapping:", "", guess]


def _first(reader: AnyReader, *kinds: str) -> Any:
    """The first message of these types; None where there is none, or it cannot be read."""
    found = sorted((c for c in reader.connections if c.msgtype in kinds), key=lambda c: c.topic)
    if not found:
        return None
    try:
        connection, _, data = next(reader.messages(found[:1]))
        return reader.deserialize(data, connection.msgtype)
    except Exception:  # noqa: BLE001 - whatever damage makes the library raise: it is said above
        return None


def _names(message: Any) -> list[str]:
    """Of joints, in a JointState or a command; none where there is no message."""
    if message is None:
        return []
    return list(message.name if hasattr(message, "name") else message.joint_names)
