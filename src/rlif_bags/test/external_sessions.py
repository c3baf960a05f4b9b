# SPDX-License-Identifier: Apache-2.0
"""Made-up teleoperation sessions of other systems and their bags: shared by the tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rlif_bags.external.convert import external_steps
from rlif_bags.external.mapping import TopicMapping
from rlif_bags.external.report import ConversionReport
from rlif_bags.external.steps import ExternalSteps
from rlif_bags.relabelling.relabel import read_labels
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
SOURCES = "ppppooo.pp|"


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


def write_session(
    path: Path, messages: list[Message], plugin: StoragePlugin = StoragePlugin.MCAP,
    mode: CompressionMode = CompressionMode.NONE,
) -> Path:  # fmt: skip
    writer = Writer(path, version=8, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, stamp, kind, message in in_order(messages):
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


def convert(path: Path, **changes: Any) -> tuple[list[StepRecord], ConversionReport]:
    report = ConversionReport()
    return [s for _, s in external_steps(path, mapping(**changes), report)], report


def in_order(messages: list[Message]) -> list[Message]:
    return sorted(messages, key=lambda message: message[1])


def feed(
    messages: list[Message], as_they_are: bool = False, **changes: Any
) -> tuple[list[StepRecord], ConversionReport]:
    """As convert(), of messages that are in no file: in the order of time unless as they are."""
    report = ConversionReport(bag="bag")
    converter = ExternalSteps(mapping(**changes), report)
    given = messages if as_they_are else in_order(messages)
    steps = [s for topic, stamp, _, m in given for _, s in converter.feed(topic, stamp, m)]
    return steps + [s for _, s in converter.finish()], report


def sources_of(steps: list[StepRecord]) -> str:
    return "".join(".po"[s.source] if not s.is_last else "|" for s in steps)


JOINTS = ["elbow", "wrist"]
ARM = {"output": "joint_velocity", "axes": JOINTS, "joint_scale": 0.5, "command": "/arm/joints"}
GRIPPER = {"topic": "/grip", "open": 0.08, "closed": 0.0}
GRIPPING = {**ARM, "axes": [*JOINTS, "gripper"], "gripper": GRIPPER}


def array(elbow: float, wrist: float) -> tuple[str, Any]:
    kind = "std_msgs/msg/Float64MultiArray"
    layout = TYPES["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    return kind, TYPES[kind](layout=layout, data=np.array([elbow, wrist]))


def joint_state(elbow: float, wrist: float) -> tuple[str, Any]:
    """With another joint first, and in another order."""
    kind, empty = "sensor_msgs/msg/JointState", np.zeros(0)
    return kind, TYPES[kind](header=header(0), name=["base", "wrist", "elbow"], position=empty,
                             velocity=np.array([9.0, wrist, elbow]), effort=empty)  # fmt: skip


def point(seconds: float, positions: list[float], velocities: list[float]) -> Any:
    duration = TYPES["builtin_interfaces/msg/Duration"](
        sec=int(seconds), nanosec=round(seconds % 1 * 1e9)
    )
    return TYPES["trajectory_msgs/msg/JointTrajectoryPoint"](
        positions=np.array(positions, float), velocities=np.array(velocities, float), accelerations=np.zeros(0),
        effort=np.zeros(0), time_from_start=duration,
    )  # fmt: skip


def trajectory(*points: Any, names: tuple[str, ...] = ("wrist", "elbow")) -> tuple[str, Any]:
    kind = "trajectory_msgs/msg/JointTrajectory"
    return kind, TYPES[kind](header=header(0), joint_names=list(names), points=list(points))


def jog(elbow: float, wrist: float) -> tuple[str, Any]:
    kind = "control_msgs/msg/JointJog"
    return kind, TYPES[kind](header=header(0), joint_names=["wrist", "elbow"],
                             displacements=np.zeros(0), velocities=np.array([wrist, elbow]),
                             duration=0.0)  # fmt: skip


def joint_session(make: Any, extra: list[Message] | None = None) -> list[Message]:
    """A session of twists in which each is a command to the joints instead."""
    messages = [
        ("/arm/joints", stamp, *make(m.twist.linear.x, -2.0 * m.twist.linear.x))
        if topic == "/arm/twist"
        else (topic, stamp, kind, m)
        for topic, stamp, kind, m in session()
    ]
    return [*messages, *(extra or [])]


def number(kind: str, value: Any) -> tuple[str, Any]:
    return kind, TYPES[kind](data=value)


def until(stamp: int, topic: str, messages: list[Message]) -> list[Message]:
    """Without what comes on `topic` after `stamp`."""
    return [m for m in messages if m[0] != topic or m[1] < stamp]


def write_sessions(tmp_path: Path, count: int = 3) -> list[Path]:
    return [write_session(tmp_path / f"s{n}", session(5 + n)) for n in range(count)]


def outcome(output: Path) -> tuple[dict[str, Any], list[Any]]:
    """All labels by name, and the report without the name of the output."""
    labels = {f.name: read_labels(f).columns for f in sorted(output.glob("*.labels.npz"))}
    text = (output / "report.json").read_text().replace(str(output), "OUT")
    return labels, json.loads(text)


def assert_same_labels(one: Path, two: Path) -> None:
    labels, report = outcome(one)
    others, other_report = outcome(two)
    assert list(labels) == list(others) and report == other_report
    for name, columns in labels.items():
        assert all(np.array_equal(columns[k], others[name][k]) for k in columns), name
