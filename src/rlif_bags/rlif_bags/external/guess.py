# SPDX-License-Identifier: Apache-2.0
"""A mapping file to begin with, guessed from what is in an external recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlif_bags.reading.bag import OpenBag
from rlif_bags.reading.open import STEP_TYPE, open_bag

POSES = ("PoseStamped", "PoseWithCovarianceStamped", "TransformStamped")
_SOURCES = (
    ("ee_pose", tuple(f"geometry_msgs/msg/{name}" for name in POSES), "ee_position"),
    ("joint_states", ("sensor_msgs/msg/JointState",), "joint_positions"),
    ("wrench", ("geometry_msgs/msg/WrenchStamped",), "wrench_force"),
)
TWISTS = ("geometry_msgs/msg/TwistStamped", "geometry_msgs/msg/Twist")
ARRAYS = ("std_msgs/msg/Float64MultiArray", "std_msgs/msg/Float32MultiArray")
JOINT_COMMANDS = ("trajectory_msgs/msg/JointTrajectory", "control_msgs/msg/JointJog")
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
JOY, FLAG = "sensor_msgs/msg/Joy", "std_msgs/msg/Bool"
MODES = (
    "std_msgs/msg/String",
    *(f"std_msgs/msg/{u}Int{n}" for u in ("", "U") for n in (8, 16, 32)),
)


@dataclass
class Facts:
    """What was found in the messages of a recording.

    joints: names in its joint states, in their order; commanded: in its commands to joints
    frame: of its poses; pressed: how often each button of each Joy topic went down
    largest: of each topic of twists, the largest linear part, m/s
    """

    joints: Sequence[str] = ()
    commanded: Sequence[str] = ()
    frame: str = "base"
    pressed: dict[str, Counter[int]] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)


Entry = tuple[str, Any, str]  # name, value and a comment; without one the value is no guess


def starter(types: Mapping[str, str], facts: Facts) -> str:
    """A mapping file, guessed from the types of a bag's topics; a comment marks each guess."""

    def first(*kinds: str) -> str:
        return next((t for t in sorted(types) if types[t] in kinds), "")

    sources = {name: first(*kinds) for name, kinds, _ in _SOURCES if first(*kinds)}
    features = [feature for name, _, feature in _SOURCES if name in sources]
    images = [t for t in sorted(types) if types[t] in IMAGES]
    names = "guess: the names; a policy identifies cameras by them"
    entries: list[Entry] = [
        ("control_rate", 10.0, "guess: of the robot's policy, Hz"),
        ("features", features, "guess: those of the robot's observer"),
        ("joints", list(facts.joints), ""),
        ("base_frame", facts.frame, ""),
        ("sources", sources, ""),
        ("cameras", {f"camera{i}": t for i, t in enumerate(images)}, names if images else ""),
        *_motion(first, facts),
        ("driver", *_driver(types, facts, first(JOY), first(FLAG))),
        ("release_dwell", 0.2, "guess: those of the robot's arbiter, and a pause between episodes, s"),
        ("episode_gap", 2.0, ""),
    ]  # fmt: skip
    content = {name: value for name, value, _ in entries}
    comments = {name: comment for name, _, comment in entries}
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=96)
    lines = []
    for line in text.splitlines():
        if comment := comments.get(line.partition(":")[0]):
            lines.append(f"# {comment}")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _driver(
    types: Mapping[str, str], facts: Facts, joy: str, flag: str
) -> tuple[dict[str, Any], str]:
    """Where the control source is recorded, and why that was chosen."""
    if joy:
        pressed = facts.pressed.get(joy, Counter())
        if not pressed:
            why = f"WARNING: no button of {joy} is ever pressed; by motion: {{motion: {joy}}}"
            return {"joy": joy, "button": 0, "timeout": 0.5}, why
        button, count = pressed.most_common(1)[0]
        others = ", ".join(str(b) for b in sorted(pressed) if b != button) or "none"
        why = f"guess: the button that is pressed most, {count} times (others: {others})"
        return {"joy": joy, "button": button, "timeout": 0.5}, why
    if flag:
        return {"flag": flag, "timeout": 0}, "guess: true means that the operator is in control"
    why = "guess: found no Joy and no Bool for the control source"
    if modes := [topic for topic in sorted(types) if types[topic] in MODES]:
        why += f"; perhaps {{flag: {modes[0]}, operator_values: [...]}}"
    return {"always": "operator"}, why


def _motion(first: Any, facts: Facts) -> list[Entry]:
    """Where the commands are, and their scale."""
    executed = "guess: the topic of the commands that the robot executed"
    if not first(*TWISTS) and first(*JOINT_COMMANDS):
        axes = list(facts.commanded or facts.joints) or ["joint1"]
        return [
            ("command", first(*JOINT_COMMANDS), executed),
            ("output", "joint_velocity", ""),
            ("axes", axes, ""),
            ("joint_scale", 0.5, "guess: rad/s of an action of 1; beyond it actions are clipped"),
        ]
    topic = first(*TWISTS) or first(*ARRAYS)
    largest = facts.largest.get(topic, 0.0)
    why = "guess: m/s of an action of 1; beyond it actions are clipped"
    if largest:
        why = f"guess: the largest linear command in the recording, {largest:.6g} m/s"
    return [
        ("command", topic, executed),
        ("axes", ["x", "y", "z"], "guess: the axes that the policy commands"),
        ("linear_scale", float(f"{largest:.6g}") or 0.1, why),
    ]


def starter_lines(path: Path) -> list[str]:
    """A mapping for a bag without Steps, as lines of YAML."""
    with open_bag(path) as bag:
        types = {c.topic: c.msgtype for c in bag.connections}
        if STEP_TYPE in types.values():
            return []
        facts = _facts(bag)
    return ["# A mapping to start from, for --mapping:", starter(types, facts)]


def _facts(bag: OpenBag) -> Facts:
    pose = _first(bag, *_SOURCES[0][1])
    facts = Facts(
        _names(_first(bag, "sensor_msgs/msg/JointState")),
        _names(_first(bag, *JOINT_COMMANDS)),
        "base" if pose is None else pose.header.frame_id,
    )
    wanted = [c for c in bag.connections if c.msgtype in (JOY, *TWISTS)]
    down: dict[str, set[int]] = {}
    for connection, _, message in bag.decoded(wanted, _ignore):
        topic = connection.topic
        if connection.msgtype == JOY:
            now = {i for i, pressed in enumerate(message.buttons) if pressed}
            facts.pressed.setdefault(topic, Counter()).update(now - down.get(topic, set()))
            down[topic] = now
        else:
            linear = getattr(message, "twist", message).linear
            found = max(abs(linear.x), abs(linear.y), abs(linear.z))
            facts.largest[topic] = max(facts.largest.get(topic, 0.0), float(found))
    return facts


def _ignore(topic: str, stamp: int, reason: str) -> None:
    """A message that cannot be decoded: the description above the mapping has it."""


def _first(bag: OpenBag, *kinds: str) -> Any:
    """The first message of these types; None where there is none that can be read."""
    found = sorted((c for c in bag.connections if c.msgtype in kinds), key=lambda c: c.topic)
    return next((message for _, _, message in bag.decoded(found[:1], _ignore)), None)


def _names(message: Any) -> list[str]:
    """Of joints, in a JointState or a command; none where there is no message."""
    if message is None:
        return []
    return list(message.name if hasattr(message, "name") else message.joint_names)
