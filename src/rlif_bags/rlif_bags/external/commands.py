# SPDX-License-Identifier: Apache-2.0
"""The actions in the command messages of an external recording: twists, joint velocities, grippers. No ROS.

A message is known by its fields, so that any definition of it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlif_bags.external.mapping import TopicMapping
from rlif_bags.external.readings import wrong_type
from rlif_intervention.limits import AXES


class OtherJointsError(ValueError):
    """A message that names none of the wanted joints: of another publisher on the same topic."""


def command_values(message: Any, mapping: TopicMapping) -> np.ndarray:
    """The action of a command message, not yet clipped, without the gripper: float64 [motion_dim].

    ValueError where none can be made of it.
    """
    motion = mapping.motion
    read = _twist if mapping.output == "twist" else _joint_velocities
    values = np.atleast_1d(np.asarray(read(message, motion), np.float64))
    if values.shape != (len(motion),):
        raise ValueError(
            f"found {values.size} values, expected {len(motion)} ({', '.join(motion)})"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"not finite: {values.tolist()}")
    return values / mapping.scales


def _twist(message: Any, axes: Sequence[str]) -> Sequence[float]:
    """m/s and rad/s, of Twist, TwistStamped, or an array in the order of the axes."""
    twist = getattr(message, "twist", message)
    if hasattr(twist, "linear"):
        parts = (twist.linear, twist.angular)
        by_axis = dict(zip(AXES, [v for p in parts for v in (p.x, p.y, p.z)], strict=True))
        return [by_axis[axis] for axis in axes]
    if hasattr(message, "data"):
        return _numbers(message.data)
    raise wrong_type(message, "a twist or an array of numbers")


def _joint_velocities(message: Any, joints: Sequence[str]) -> Sequence[float]:
    """rad/s, of JointTrajectory, JointJog, JointState, or an array in the order of the joints."""
    if hasattr(message, "points"):
        return _trajectory_velocities(message, joints)
    if hasattr(message, "velocities"):
        names, values = list(message.joint_names), list(message.velocities)
        if names and not values:
            raise ValueError("found no velocities (displacements?), expected one for each joint")
        # A joint that a jog does not name stands, unless it is about other joints altogether.
        still = [j for j in joints if j not in names] if set(names) & set(joints) else []
        return _named([*names, *still], [*values, *[0.0] * len(still)], joints)
    if hasattr(message, "velocity"):
        return _named(message.name, message.velocity, joints)
    if hasattr(message, "data"):
        return _numbers(message.data)
    raise wrong_type(message, "a JointTrajectory, JointJog, JointState or an array")


def _trajectory_velocities(message: Any, joints: Sequence[str]) -> Sequence[float]:
    """Those of the first point, or of the way from it to the second. No points: stop."""
    points = message.points
    if not len(points):
        return [0.0] * len(joints)
    if len(points[0].velocities):
        return _named(message.joint_names, points[0].velocities, joints)
    if len(points) < 2 or not all(len(p.positions) for p in points[:2]):
        raise ValueError("found one point of positions, expected velocities or two points")
    passed = _seconds(points[1].time_from_start) - _seconds(points[0].time_from_start)
    if passed <= 0.0:
        raise ValueError(f"its second point is {passed} s after the first, expected more than 0")
    way = np.subtract(points[1].positions, points[0].positions)
    return _named(message.joint_names, way / passed, joints)


def _seconds(duration: Any) -> float:
    return float(duration.sec + duration.nanosec * 1e-9)


def _numbers(data: Any) -> Sequence[float]:
    if isinstance(data, str):
        raise ValueError("found text, expected numbers")
    return np.atleast_1d(np.asarray(data, np.float64))  # type: ignore[return-value]


def _named(names: Sequence[str], values: Any, wanted: Sequence[str]) -> list[float]:
    """The values of the wanted names. ValueError where one is missing."""
    if len(names) != len(values):
        raise ValueError(f"found {len(values)} values for {len(names)} joints")
    found = dict(zip(names, values, strict=True))
    missing = [name for name in wanted if name not in found]
    if missing:
        error = ValueError if len(missing) < len(wanted) else OtherJointsError
        raise error(f"joints {missing} are missing, found {list(names)}")
    return [float(found[name]) for name in wanted]


def gripper_asked(message: Any, mapping: TopicMapping) -> float:
    """What a message asks of the gripper: 1 open, -1 closed, in between as far. ValueError."""
    gripper = mapping.gripper
    value = _gripper_position(message, gripper.get("joint", ""))
    if not np.isfinite(value):
        raise ValueError(f"gripper: not finite: {value}")
    part = (value - gripper["closed"]) / (gripper["open"] - gripper["closed"])
    return float(np.clip(2.0 * part - 1.0, -1.0, 1.0))


def _gripper_position(message: Any, joint: str) -> float:
    """Of a named joint, of a GripperCommand or its goal, or of a number, flag or array."""
    if joint:
        if hasattr(message, "points"):
            if not len(message.points):
                raise ValueError("gripper: found no points, expected a position to go to")
            return _named(message.joint_names, message.points[-1].positions, [joint])[0]
        if hasattr(message, "position") and hasattr(message, "name"):
            return _named(message.name, message.position, [joint])[0]
        raise ValueError("gripper: neither a trajectory nor a joint state, expected by `joint`")
    message = getattr(message, "goal", message)
    message = getattr(message, "command", message)
    if hasattr(message, "max_effort"):
        return float(np.ravel(message.position)[0])
    if hasattr(message, "data"):
        numbers = _numbers(message.data)
        if len(numbers) == 1:
            return float(numbers[0])
        raise ValueError(f"gripper: found {len(numbers)} numbers, expected one")
    raise ValueError("gripper: neither a GripperCommand nor a number; name its `joint`?")
