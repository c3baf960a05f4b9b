# SPDX-License-Identifier: Apache-2.0
"""Features of the state: one table, each with its sources and its size. No ROS.

A feature is a function of the newest readings of its sources. All values are SI units in the base
frame unless the name says otherwise; quaternions are x, y, z, w. The reading of joint_states is a
`rlif_node.joints.MergedJoints`. `episode_start` is the pose where the episode began
(`rlif_policy.episode_start`), in which the features `…_from_start` are.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rlif_node.rotations import Quaternion, relative, rotate_inverse

from rlif_node import rotations

Vector = Sequence[float]
MAX_GAP = 3  # control periods between two poses beyond which no velocity is taken from them


class FeatureError(ValueError):
    """A reading that no feature can be made of; the message names it."""


@dataclass(frozen=True)
class Pose:
    """Position in m and orientation as quaternion x, y, z, w."""

    position: tuple[float, float, float]
    orientation: Quaternion
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m/s, see PoseTrack


@dataclass(frozen=True)
class Wrench:
    """Force in N and torque in N m."""

    force: tuple[float, float, float]
    torque: tuple[float, float, float]


@dataclass(frozen=True)
class Feature:
    """A part of the state. size: number of entries; None: one per configured joint.

    from_start: it needs `episode_start` among the values too
    """

    size: int | None
    sources: tuple[str, ...]
    about: str
    compute: Callable[[Mapping[str, Any]], Vector]
    from_start: bool = False


def _in_object(values: Mapping[str, Any]) -> Vector:
    tip, frame = values["ee_pose"].position, values["object_pose"]
    offset = [a - b for a, b in zip(tip, frame.position, strict=True)]
    return rotate_inverse(frame.orientation, offset)


def _position_from_start(values: Mapping[str, Any]) -> Vector:
    now, start = values["ee_pose"], values["episode_start"]
    offset = [a - b for a, b in zip(now.position, start.position, strict=True)]
    return rotate_inverse(start.orientation, offset)


def _orientation_from_start(values: Mapping[str, Any]) -> Vector:
    return relative(values["episode_start"].orientation, values["ee_pose"].orientation)


NEAR = 0.005  # m: the range that `ee_position_in_object_near` magnifies


def _near_object(values: Mapping[str, Any]) -> Vector:
    # A network resolves a millimetre badly beside ten centimetres: this magnifies the millimetres.
    return [math.tanh(offset / NEAR) for offset in _in_object(values)]


FEATURES: dict[str, Feature] = {
    "ee_position": Feature(3, ("ee_pose",), "m", lambda v: v["ee_pose"].position),
    "ee_orientation": Feature(
        4, ("ee_pose",), "quaternion x, y, z, w with w >= 0", lambda v: v["ee_pose"].orientation
    ),
    "ee_linear_velocity": Feature(
        3, ("ee_pose",), "m/s, over the last control period", lambda v: v["ee_pose"].velocity
    ),
    "ee_position_from_start": Feature(
        3, ("ee_pose",), "m, in the frame where the episode began", _position_from_start, True
    ),
    "ee_orientation_from_start": Feature(
        4, ("ee_pose",), "quaternion x, y, z, w with w >= 0, in that frame", _orientation_from_start, True
    ),
    "ee_position_in_object": Feature(
        3, ("ee_pose", "object_pose"), "m, in the object's frame", _in_object
    ),
    "ee_position_in_object_near": Feature(
        3, ("ee_pose", "object_pose"), "tanh of that over 5 mm, in (-1, 1)", _near_object
    ),
    "object_position": Feature(3, ("object_pose",), "m", lambda v: v["object_pose"].position),
    "object_orientation": Feature(
        4, ("object_pose",), "quaternion x, y, z, w", lambda v: v["object_pose"].orientation
    ),
    "joint_positions": Feature(
        None, ("joint_states",), "rad, of `joints` in their order", lambda v: v["joint_states"].positions
    ),
    "joint_velocities": Feature(
        None, ("joint_states",), "rad/s, as above", lambda v: v["joint_states"].velocities
    ),
    "wrench_force": Feature(3, ("wrench",), "N, in the sensor's frame", lambda v: v["wrench"].force),
    "wrench_torque": Feature(3, ("wrench",), "N m, as above", lambda v: v["wrench"].torque),
}  # fmt: skip


@dataclass(frozen=True)
class StateLayout:
    """The features of the state, in their order. ValueError names what does not exist."""

    features: tuple[str, ...]
    joints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.features if name not in FEATURES]
        if unknown or not self.features:
            raise ValueError(
                f"features: found {unknown or 'none'}, expected names out of {', '.join(FEATURES)}"
            )
        for what, names in (("features", self.features), ("joints", self.joints)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}: found {twice} more than once, expected each once")
        of_joints = [name for name in self.features if FEATURES[name].size is None]
        if of_joints and not self.joints:
            raise ValueError(
                f"joints: found none, expected the names and order for {', '.join(of_joints)}"
            )

    @property
    def sources(self) -> tuple[str, ...]:
        """The topics that the features need, each once."""
        return tuple(dict.fromkeys(s for name in self.features for s in FEATURES[name].sources))

    @property
    def from_start(self) -> bool:
        """Whether `episode_start` is needed."""
        return any(FEATURES[name].from_start for name in self.features)

    @property
    def state_dim(self) -> int:
        """Number of entries of the state."""
        return sum(FEATURES[name].size or len(self.joints) for name in self.features)

    def compute(self, values: Mapping[str, Any]) -> np.ndarray:
        """The state, float32 [state_dim], out of the newest reading of each source.

        FeatureError names the features that are not finite.
        """
        parts = [(name, FEATURES[name].compute(values)) for name in self.features]
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            state = np.array([v for _, part in parts for v in part], dtype=np.float32)
            if not np.isfinite(state).all():
                broken = [
                    (n, v) for n, v in parts if not np.isfinite(np.asarray(v, np.float32)).all()
                ]
                parts_text = "; ".join(f"{name} = {list(values)}" for name, values in broken)
                raise FeatureError(f"not finite: {parts_text}")
        return state


def finite(name: str, x: float, y: float, z: float) -> tuple[float, float, float]:
    """The vector; FeatureError where it is none."""
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
        raise FeatureError(f"{name} is not finite: {x:g}, {y:g}, {z:g}")
    return x, y, z


def unit_quaternion(x: float, y: float, z: float, w: float) -> Quaternion:
    """As that of rlif_node.rotations; FeatureError where it is none."""
    try:
        return rotations.unit_quaternion(x, y, z, w)
    except ValueError as problem:
        raise FeatureError(str(problem)) from problem


@dataclass
class PoseTrack:
    """Linear velocity as a difference of poses, over one control period (ns) where there is one.

    A shorter base would turn the jitter of the stamps into velocity.
    """

    period: int
    _poses: deque[tuple[int, tuple[float, float, float]]] = field(default_factory=deque)

    def velocity(
        self, stamp: int, position: tuple[float, float, float]
    ) -> tuple[float, float, float]:
        """m/s at `stamp` (ns); zero after a gap, or when time went back."""
        poses = self._poses
        if poses and (stamp < poses[-1][0] or stamp - poses[-1][0] > MAX_GAP * self.period):
            poses.clear()
        if not poses or stamp > poses[-1][0]:
            poses.append((stamp, position))
        # A twentieth less: stamps of a period are not exactly one apart.
        while len(poses) > 2 and poses[1][0] <= stamp - self.period * 19 // 20:
            poses.popleft()
        (first, start), (last, end) = poses[0], poses[-1]
        if last == first:
            return (0.0, 0.0, 0.0)
        scale = 1e9 / (last - first)
        x, y, z = ((b - a) * scale for a, b in zip(start, end, strict=True))
        return (x, y, z)
