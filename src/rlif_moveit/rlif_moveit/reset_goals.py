# SPDX-License-Identifier: Apache-2.0
"""Where the arm goes between episodes: a named state, joint values, or a pose. No ROS.

A pose may be scattered: episodes that all start at one point teach a policy only what happens there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Vector = tuple[float, ...]
KINDS = ("named", "joints", "pose")


@dataclass(frozen=True)
class NamedGoal:
    """A group state out of the SRDF; its joint values are asked of move_group's parameters."""

    name: str

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("goal_state is empty; expected the name of a group state of the SRDF")


@dataclass(frozen=True, kw_only=True)
class JointGoal:
    """positions: rad (m for linear joints), one for each of `joints`; tolerance: the same units

    spread: (len(joints),) or empty: uniform up to that far from each position
    """

    joints: tuple[str, ...]
    positions: Vector
    tolerance: float = 0.001
    spread: Vector = ()

    def __post_init__(self) -> None:
        if not self.joints or len(self.joints) != len(self.positions):
            raise ValueError(
                f"goal_joints has {len(self.joints)} names, goal_positions {len(self.positions)} "
                "values; expected one value for each joint, and at least one"
            )
        if len(set(self.joints)) != len(self.joints):
            raise ValueError(f"goal_joints is {list(self.joints)}; expected each joint once")
        if self.spread and len(self.spread) != len(self.joints):
            raise ValueError(
                f"goal_joint_spread has {len(self.spread)} values; expected {len(self.joints)}, or "
                "none"
            )
        _check_finite("goal_positions", self.positions)
        _check_not_negative("goal_joint_spread", self.spread)
        _check_positive("goal_joint_tolerance", self.tolerance)


@dataclass(frozen=True, kw_only=True)
class PoseGoal:
    """A pose of `link`, in `frame`.

    position: (3,) m; orientation: quaternion x, y, z, w
    position_spread: (3,) m; uniform up to that far along each axis of `frame`
    angle_spread: rad; a turn about a random axis, uniform up to that angle
    position_tolerance: m, radius of the goal; angle_tolerance: rad, about each axis
    """

    link: str
    frame: str
    position: Vector
    orientation: Vector
    position_spread: Vector = (0.0, 0.0, 0.0)
    angle_spread: float = 0.0
    position_tolerance: float = 0.002
    angle_tolerance: float = 0.01

    def __post_init__(self) -> None:
        for name, value in (("goal_link", self.link), ("goal_frame", self.frame)):
            if not value:
                raise ValueError(f"{name} is empty; expected the name of a link or frame")
        _check_length("goal_position", self.position, 3)
        _check_length("goal_orientation", self.orientation, 4)
        _check_length("goal_position_spread", self.position_spread, 3)
        _check_not_negative("goal_position_spread", self.position_spread)
        _check_not_negative("goal_angle_spread", (self.angle_spread,))
        _check_positive("goal_position_tolerance", self.position_tolerance)
        _check_positive("goal_angle_tolerance", self.angle_tolerance)
        length = math.hypot(*self.orientation)
        if abs(length - 1.0) > 0.01:
            raise ValueError(
                f"goal_orientation is {list(self.orientation)}, of length {length:.3f}; expected a "
                "quaternion x, y, z, w of length 1"
            )


Goal = NamedGoal | JointGoal | PoseGoal


def sample(goal: Goal, rng: random.Random) -> Goal:
    """The goal of one reset: the same with its spread drawn, and no spread left."""
    if isinstance(goal, JointGoal) and goal.spread:
        return JointGoal(
            joints=goal.joints,
            positions=_scatter(goal.positions, goal.spread, rng),
            tolerance=goal.tolerance,
        )
    if isinstance(goal, PoseGoal):
        return PoseGoal(
            link=goal.link,
            frame=goal.frame,
            position=_scatter(goal.position, goal.position_spread, rng),
            orientation=_turn(goal.orientation, goal.angle_spread, rng),
            position_tolerance=goal.position_tolerance,
            angle_tolerance=goal.angle_tolerance,
        )
    return goal


def goal_from(p: Mapping[str, Any]) -> Goal:
    """Out of the reset node's parameters. Raises ValueError with name, value, what was expected."""
    kind = p["goal"]
    if kind == "named":
        return NamedGoal(p["goal_state"])
    if kind == "joints":
        return JointGoal(
            joints=tuple(p["goal_joints"]),
            positions=tuple(p["goal_positions"]),
            tolerance=p["goal_joint_tolerance"],
            spread=tuple(p["goal_joint_spread"]),
        )
    if kind == "pose":
        return PoseGoal(
            link=p["goal_link"],
            frame=p["goal_frame"],
            position=tuple(p["goal_position"]),
            orientation=tuple(p["goal_orientation"]),
            position_spread=tuple(p["goal_position_spread"]),
            angle_spread=p["goal_angle_spread"],
            position_tolerance=p["goal_position_tolerance"],
            angle_tolerance=p["goal_angle_tolerance"],
        )
    raise ValueError(f"goal is {kind!r}; expected one of {', '.join(KINDS)}")


def describe(goal: Goal) -> str:
    """For logs and for people."""
    if isinstance(goal, NamedGoal):
        return f"state {goal.name!r}"
    if isinstance(goal, JointGoal):
        pairs = zip(goal.joints, goal.positions, strict=True)
        return "joints " + ", ".join(f"{j}={v:.3f}" for j, v in pairs)
    x, y, z = goal.position
    return f"{goal.link} at ({x:.3f}, {y:.3f}, {z:.3f}) m in {goal.frame}"


def _scatter(centre: Vector, spread: Vector, rng: random.Random) -> Vector:
    return tuple(c + rng.uniform(-s, s) for c, s in zip(centre, spread, strict=True))


def _turn(orientation: Vector, spread: float, rng: random.Random) -> Vector:
    """`orientation` turned about a random axis of the goal's frame, and normalised."""
    axis = [rng.gauss(0.0, 1.0) for _ in range(3)]
    length = math.hypot(*axis) or 1.0
    half = 0.5 * rng.uniform(-spread, spread)
    ax, ay, az = (math.sin(half) * a / length for a in axis)
    aw = math.cos(half)
    x, y, z, w = orientation
    turned = (
        aw * x + ax * w + ay * z - az * y,
        aw * y - ax * z + ay * w + az * x,
        aw * z + ax * y - ay * x + az * w,
        aw * w - ax * x - ay * y - az * z,
    )
    norm = math.hypot(*turned)
    return tuple(v / norm for v in turned)


def _check_length(name: str, values: Vector, length: int) -> None:
    if len(values) != length:
        raise ValueError(f"{name} is {list(values)}; expected {length} numbers")
    _check_finite(name, values)


def _check_finite(name: str, values: Vector) -> None:
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{name} is {list(values)}; expected finite numbers")


def _check_not_negative(name: str, values: Vector) -> None:
    if not all(math.isfinite(v) and v >= 0.0 for v in values):
        raise ValueError(f"{name} is {list(values)}; expected 0 or more")


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} is {value}; expected more than 0")
