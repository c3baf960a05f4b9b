"""Made-up sessions of teleoperation that this suite did not record, and their bags: for the tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rlif_bags.external.mapping import TopicMapping
from rlif_bags.external.report import ForeignReport
from rlif_bags.external.steps import foreign_steps
from rlif_learner.data.steps import StepRecord

STORE = get_typestore(Stores.ROS2_HUMBLE)
for _name, _fields in {
    "JointJog": "std_msgs/Header header\nstring[] joint_names\nfloat64[] displacements\n"
    "float64[] velocities\nfloat64 duration\n",
    "GripperCommand": "float64 position\nfloat64 max_effort\n",
}.items():  # no distribution's common messages have them: they come out of the bag alone
    STORE.register(get_types_from_msg(_fields, f"control_msgs/msg/{_name}"))
TYPES = STORE.types
SECOND = 1_000_000_000
MAPPING: dict[str, Any] = {
    "control_rate": 10.0,
    "features": ["ee_position"],
    "base_frame": "world",
    "sources": {"ee_pose": "/arm/pose"},
    "command": "/arm/twist",
    "axes": ["x", "z"],
    "linear_scale": 0.1,
    "driver": {"joy": "/joy", "button": 4},
    "release_dwell": 0.15,
    "episode_gap": 1.0,
}
Message = tuple[str, int, str, Any]


def mapping(**changes: Any) -> TopicMapping:
    values = {**MAPPING, **changes}
    return TopicMapping(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def header(stamp: int, frame: str = "world") -> Any:
    time = TYPES["builtin_interfaces/msg/Time"](sec=stamp // SECOND, nanosec=stamp % SECOND)
    return TYPES["std_msgs/msg/Header"](stamp=time, frame_id=frame)


def pose(stamp: int, x: float, frame: str = "world") -> Message:
    point = TYPES["geometry_msgs/msg/Point"](x=x, y=0.0, z=0.5)
    turn = TYPES["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
    value = TYPES["geometry_msgs/msg/Pose"](position=point, orientation=turn)
    kind = "geometry_msgs/msg/PoseStamped"
    return "/arm/pose", stamp, kind, TYPES[kind](header=header(stamp, frame), pose=value)


def twist(stamp: int, x: float, topic: str = "/arm/twist") -> Message:
    vector = TYPES["geometry_msgs/msg/Vector3"]
    value = TYPES["geometry_msgs/msg/Twist"](
        linear=vector(x=x, y=9.0, z=-x), angular=vector(x=0.0, y=0.0, z=0.0)
    )
    kind = "geometry_msgs/msg/TwistStamped"
    return topic, stamp, kind, TYPES[kind](header=header(stamp), twist=value)


def moved(stamp: int, velocity: Sequence[float]) -> Message:
    """A command of x, y and z."""
    vector, kind = TYPES["geometry_msgs/msg/Vector3"], "geometry_msgs/msg/TwistStamped"
    linear = vector(**dict(zip("xyz", map(float, velocity), strict=True)))
    value = TYPES["geometry_msgs/msg/Twist"](linear=linear, angular=vector(x=0.0, y=0.0, z=0.0))
    return "/arm/twist", stamp, kind, TYPES[kind](header=header(stamp), twist=value)


def joy(stamp: int, pressed: bool) -> Message:
    kind = "sensor_msgs/msg/Joy"
    buttons = np.array([0, 0, 0, 0, int(pressed)], np.int32)
    message = TYPES[kind](header=header(stamp), axes=np.zeros(2, np.float32), buttons=buttons)
    return "/joy", stamp, kind, message


# Let go just before tick 7, which is within the dwell of 0.15 s; it ends in tick 8.
BY_HAND = BY_COMMAND = "ppppooo.pp|"


def session(ticks: int = 10, operator: range = range(4, 7)) -> list[Message]:
    """Poses and joystick at 100 Hz, commands at 50 Hz from 1 s on; x is the tick's number."""
    messages: list[Message] = []
    for centi in range((ticks + 20) * 10):
        stamp = SECOND + (centi - 50) * SECOND // 100
        tick = (centi - 50) // 10
        messages.append(pose(stamp - 2_000_000, tick))
        messages.append(joy(stamp - 1_000_000, tick in operator))
        if 0 <= tick < ticks and centi % 2 == 0:
            messages.append(twist(stamp, 0.02 if tick in operator else 0.05))
    return messages


def write(
    path: Path, messages: list[Message], plugin: StoragePlugin = StoragePlugin.MCAP,
    mode: CompressionMode = CompressionMode.NONE,
) -> Path:  # fmt: skip
    writer = Writer(path, version=8, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, stamp, kind, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            data = STORE.serialize_cdr(message, kind)
            writer.write(connections[topic], stamp, data)
    return path


def write_mcap(
    file: Path, messages: list[Message], strange: Callable[[McapWriter], None] | None = None,
    **options: Any,
) -> Path:  # fmt: skip
    """One file without a directory. strange: adds what the rosbags library would not write."""
    with file.open("wb") as stream:
        writer = McapWriter(stream, **options)
        writer.start(profile="ros2")
        if strange is not None:
            strange(writer)
        channels: dict[str, int] = {}
        for topic, stamp, kind, message in messages:
            if topic not in channels:
                text, _ = STORE.generate_msgdef(kind)
                schema = writer.register_schema(kind, "ros2msg", text.encode())
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            data = bytes(STORE.serialize_cdr(message, kind))
            writer.add_message(channels[topic], stamp, data, stamp)
        writer.finish()
    return file


def data_file(bag: Path) -> Path:
    """The one file of a bag with messages in it."""
    return next(f for f in bag.iterdir() if f.suffix != ".yaml")


def convert(path: Path, **changes: Any) -> tuple[list[StepRecord], ForeignReport]:
    report = ForeignReport()
    return [s for _, s in foreign_steps(path, mapping(**changes), report)], report


def drivers(steps: list[StepRecord]) -> str:
    return "".join(".po"[s.source] if not s.is_last else "|" for s in steps)
