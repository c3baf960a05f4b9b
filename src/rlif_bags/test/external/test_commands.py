# SPDX-License-Identifier: Apache-2.0
"""Actions in command messages: joint velocities and grippers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from external_sessions import (
    ARM,
    GRIPPER,
    GRIPPING,
    SOURCES,
    TYPES,
    array,
    feed,
    header,
    jog,
    joint_session,
    joint_state,
    mapping,
    number,
    point,
    session,
    sources_of,
    trajectory,
)

from rlif_bags.external.commands import command_values, gripper_asked


def as_the_arbiter(elbow: float, wrist: float) -> tuple[str, Any]:
    """On at the velocity, then to rest."""
    return trajectory(point(0.1, [wrist, elbow], [wrist, elbow]), point(0.3, [2, 1], [0, 0]))


def positions_only(elbow: float, wrist: float) -> tuple[str, Any]:
    return trajectory(point(0.5, [1, 1], []), point(1.0, [1 + wrist / 2, 1 + elbow / 2], []))


@pytest.mark.parametrize("make", [array, joint_state, as_the_arbiter, positions_only, jog])
def test_command_values_joint_velocities_of_any_message_are_actions(make: Any) -> None:
    steps, report = feed(joint_session(make), **ARM)
    assert sources_of(steps) == SOURCES and not report.refused and not report.clipped
    assert steps[0].action.tolist() == pytest.approx([0.1, -0.2]), "policy: 0.05 of 0.5 rad/s"
    assert steps[4].action.tolist() == pytest.approx([0.04, -0.08])
    assert steps[4].action.dtype == np.float32


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (trajectory(point(0.1, [1.0, 2.0], [])), "one point of positions"),
        (trajectory(point(0.5, [1, 1], []), point(0.5, [2, 2], [])), "more than 0"),
        (trajectory(point(0.1, [], [1.0, 1.0]), names=("wrist", "hip")), "'elbow'"),
        (trajectory(point(0.1, [], [1.0]), names=("wrist", "elbow")), "1 values for 2 joints"),
        (array(float("nan"), 0.0), "not finite"),
        (session()[0][2:], "found a geometry_msgs/msg/PoseStamped, expected a JointTrajectory"),
    ],
)
def test_command_values_without_velocity_are_refused(message: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        command_values(message[1], mapping(**ARM))


def test_command_values_jog_of_one_joint_stops_the_others() -> None:
    kind = TYPES["control_msgs/msg/JointJog"]

    def of(names: list[str], velocities: list[float], displacements: list[float]) -> Any:
        return kind(header=header(0), joint_names=names, displacements=np.array(displacements),
                    velocities=np.array(velocities), duration=0.0)  # fmt: skip

    assert command_values(of(["wrist"], [0.5], []), mapping(**ARM)).tolist() == [0.0, 1.0]
    assert command_values(trajectory()[1], mapping(**ARM)).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="displacements"):
        command_values(of(["wrist"], [], [0.1]), mapping(**ARM))
    with pytest.raises(ValueError, match="missing"):
        command_values(of(["hip"], [0.5], []), mapping(**ARM))


def finger_state(position: float) -> tuple[str, Any]:
    kind, empty = "sensor_msgs/msg/JointState", np.zeros(0)
    return kind, TYPES[kind](header=header(0), name=["other", "finger"], velocity=empty,
                             position=np.array([9.0, position]), effort=empty)  # fmt: skip


def finger_trajectory(position: float) -> tuple[str, Any]:
    return trajectory(point(0.1, [0.05], []), point(0.5, [position], []), names=("finger",))


def grip_command(position: float) -> tuple[str, Any]:
    kind = "control_msgs/msg/GripperCommand"
    return kind, TYPES[kind](position=position, max_effort=10.0)


@pytest.mark.parametrize(
    ("make", "joint"),
    [
        (lambda p: number("std_msgs/msg/Float64", p), ""),
        (lambda p: number("std_msgs/msg/Float32", p), ""),
        (grip_command, ""),
        (finger_state, "finger"),
        (finger_trajectory, "finger"),
    ],
)
def test_gripper_asked_positions_scale_between_closed_and_open(make: Any, joint: str) -> None:
    of = mapping(**{**GRIPPING, "gripper": {**GRIPPER, **({"joint": joint} if joint else {})}})
    asked = [gripper_asked(make(p)[1], of) for p in (0.0, 0.02, 0.08, 0.2)]
    assert asked == pytest.approx([-1.0, -0.5, 1.0, 1.0])
    with pytest.raises(ValueError, match="not finite"):
        gripper_asked(make(float("nan"))[1], of)


def test_gripper_asked_flag_may_mean_open_or_closed() -> None:
    closes = {"topic": "/grip", "open": 0, "closed": 1}
    of = mapping(**{**GRIPPING, "gripper": closes})
    bools = [number("std_msgs/msg/Bool", v)[1] for v in (False, True)]
    assert [gripper_asked(m, of) for m in bools] == [1.0, -1.0]
    for message in (number("std_msgs/msg/String", "open")[1], session()[0][3], array(1, 2)[1]):
        with pytest.raises(ValueError, match=r"gripper|text"):
            gripper_asked(message, of)
