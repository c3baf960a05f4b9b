# SPDX-License-Identifier: Apache-2.0
"""Sensor messages of external recordings, read as the observer reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from external_sessions import SECOND, TYPES, Message, feed, header, mapping, session


def test_readings_depth_image_uses_byte_order_region_and_range() -> None:
    """Byte order, region and depth range count; one without its range is refused, by name."""
    depths = np.array([[0, 500], [1000, 2000]], ">u2")  # mm, of which the right column is used
    messages = session(5)
    for centi in range(0, 250, 5):
        stamp = SECOND + (centi - 50) * SECOND // 100 - 3_000_000
        kind = "sensor_msgs/msg/Image"
        image = TYPES[kind](
            header=header(stamp), height=2, width=2, encoding="16UC1", is_bigendian=1,
            step=4, data=np.frombuffer(depths.tobytes(), np.uint8),
        )  # fmt: skip
        messages.append(("/depth", stamp, kind, image))
    messages = messages
    settings = {"cameras": {"d": "/depth"}, "image_width": 1, "image_height": 2}
    steps, _ = feed(messages, **settings, rois={"d": [1, 0, 1, 2]}, depth_ranges={"d": [0.5, 2.0]})
    assert steps and all(s.images[0][:, 0, 0].tolist() == [1, 255] for s in steps)
    steps, report = feed(messages, **settings)
    assert not steps and any("depth_range" in note for note in report.notes)
    with pytest.raises(ValueError, match="rois: found \\['e'\\]"):
        mapping(**settings, rois={"e": [0, 0, 1, 1]})
    with pytest.raises(ValueError, match="expected 2 numbers"):
        mapping(**settings, depth_ranges={"d": [1.0]})


def poses_as(kind: str, frame: str | None = "world") -> list[Message]:
    """A session whose pose comes in a message of another type."""
    make, found = TYPES[kind], []
    for topic, stamp, old, m in session(5):
        if topic != "/arm/pose":
            found.append((topic, stamp, old, m))
            continue
        values: dict[str, Any] = {} if frame is None else {"header": header(stamp, frame)}
        pose, names = m.pose, make.__dataclass_fields__
        if "transform" in names or "translation" in names:
            vector = TYPES["geometry_msgs/msg/Vector3"](pose.position.x, 0.0, 0.5)
            part = {"translation": vector, "rotation": pose.orientation}
            transform = TYPES["geometry_msgs/msg/Transform"](**part)
            values |= {"transform": transform} if frame is not None else part
        elif "pose" in names:
            covariance = np.zeros(36)
            inner = TYPES["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=covariance)
            values["pose"] = inner
        else:
            values |= {"position": pose.position, "orientation": pose.orientation}
        if "child_frame_id" in names:
            values["child_frame_id"] = "tool"
        if "twist" in names:
            zero = TYPES["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
            values["twist"] = TYPES["geometry_msgs/msg/TwistWithCovariance"](
                TYPES["geometry_msgs/msg/Twist"](zero, zero), np.zeros(36)
            )
        found.append((topic, stamp, kind, make(**values)))
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "geometry_msgs/msg/PoseWithCovarianceStamped",
        "geometry_msgs/msg/TransformStamped",
        "nav_msgs/msg/Odometry",
    ],
)
def test_readings_pose_of_any_stamped_type_is_read(kind: str) -> None:
    """Regression: "object has no attribute 'position'"."""
    expected, _ = feed(session(5))
    steps, report = feed(poses_as(kind))
    assert not report.refused and len(steps) == 6
    assert [s.state.tolist() for s in steps] == [s.state.tolist() for s in expected]
    _, report = feed(poses_as(kind, "tool"))
    assert "frame_id is 'tool', expected 'world'" in report.notes[0]


@pytest.mark.parametrize("kind", ["Pose", "Transform"])
def test_readings_pose_without_a_frame_is_refused_unless_any_will_do(kind: str) -> None:
    messages = poses_as(f"geometry_msgs/msg/{kind}", None)
    steps, report = feed(messages)
    assert not steps and f"a geometry_msgs/msg/{kind}, which names no frame" in report.notes[0]
    steps, report = feed(messages, base_frame="")
    assert len(steps) == 6 and not report.refused


@pytest.mark.parametrize(
    ("topic", "changes", "expected"),
    [
        ("/arm/twist", {"sources": {"ee_pose": "/arm/twist"}}, "expected PoseStamped, PoseWith"),
        ("/joy", {"features": ["wrench_force"], "sources": {"wrench": "/joy"}}, "expected Wrench"),
        (
            "/joy",
            {"features": ["joint_positions"], "joints": ["a"], "sources": {"joint_states": "/joy"}},
            "expected JointState",
        ),
        ("/joy", {"cameras": {"wrist": "/joy"}}, "expected Image or CompressedImage"),
        ("/joy", {"command": "/joy"}, "expected a twist or an array"),
        ("/arm/pose", {"driver": {"joy": "/arm/pose", "button": 0}}, "expected a Joy"),
        ("/arm/pose", {"driver": {"motion": "/arm/pose"}}, "expected a Joy or twist"),
        ("/number", {"success": "/number"}, "expected a Bool, or a message without data"),
    ],
)
def test_readings_message_of_another_type_is_refused_by_its_name(
    topic: str, changes: dict[str, Any], expected: str
) -> None:
    kind = "std_msgs/msg/Int32"
    messages = [*session(3), ("/number", SECOND // 2 + 1, kind, TYPES[kind](data=0))]
    steps, report = feed(messages, **changes)
    assert report.refused[topic]
    note = next(n for n in report.notes if f"{topic} at" in n and "the first refused" in n)
    name = {"/arm/twist": "TwistStamped", "/joy": "Joy", "/number": "Int32"}.get(
        topic, "PoseStamped"
    )
    assert f"found a {kind.partition('/')[0] if topic == '/number' else ''}" in note
    assert f"/msg/{name}" in note and expected in note


def joints_of_two(finger: bool, stop: int = 10**12) -> list[Message]:
    """An arm and its gripper on one topic, each with its own joints and rate."""
    kind, found = "sensor_msgs/msg/JointState", [m for m in session(5) if m[0] != "/arm/pose"]
    for centi in range(250):
        stamp = SECOND + (centi - 50) * SECOND // 100 - 2_000_000
        names = ["arm2", "arm1"]
        parts = [(names, [centi * 1.0, 1.0])]
        if centi % 3 == 0 and finger and stamp < stop:
            parts.append((["finger", "mimic"], [0.04, 0.04]))
        for joints, positions in parts:
            found.append(("/joint_states", stamp, kind, TYPES[kind](
                header=header(stamp), name=joints, position=np.array(positions),
                velocity=np.zeros(0), effort=np.zeros(0),
            )))  # fmt: skip
    return found


JOINTS_OF_TWO = {
    "features": ["joint_positions"],
    "joints": ["arm1", "arm2", "finger"],
    "sources": {"joint_states": "/joint_states"},
}


def test_readings_joint_states_of_two_publishers_are_merged() -> None:
    """Regression: each message lacked the joints of the other, and no tick gave a step."""
    steps, report = feed(joints_of_two(True), **JOINTS_OF_TWO)
    assert len(steps) == 6 and not report.refused and not report.gaps
    assert steps[2].state.tolist() == pytest.approx([1.0, 70.0, 0.04])
    arm = {**JOINTS_OF_TWO, "joints": ["arm1", "arm2"]}
    steps, report = feed(joints_of_two(True), **arm)
    assert len(steps) == 6 and not report.refused and not report.gaps
    assert report.other_joints == {"/joint_states": 84}
    assert "84 messages of /joint_states name none of the joints" in "\n".join(report.lines())


def test_readings_joint_that_is_missing_or_stale_is_a_gap_and_named() -> None:
    _, report = feed(joints_of_two(False), **JOINTS_OF_TWO)
    assert not report.refused and "joints ['finger'] are missing" in "\n".join(report.notes)
    stops = SECOND + SECOND // 10
    steps, report = feed(joints_of_two(True, stops), **JOINTS_OF_TWO)
    assert [s.step_index for s in steps] == [0, 1, 2] and not report.refused
    assert any("finger: 0.2" in note and "s old, expected" in note for note in report.notes)
