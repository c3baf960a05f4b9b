# SPDX-License-Identifier: Apache-2.0
"""The arbiter's twist as Servo wants it: frame, controlled point, units. No ROS, no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .twists import Array, at_point, rotate, rotation_matrix

Vector = tuple[float, ...]
UNITS = ("speed_units", "unitless")
NO_SPEED = 100.0  # m/s or rad/s; no arm's, so what asks for it is broken


@dataclass(frozen=True, kw_only=True)
class CommandConfig:
    """How Servo is set up, and what the arbiter's twists are about.

    base_frame, tool_frame: the two frames that a command may be in
    output_frame: the one of them that Servo gets commands in
    tool_offset: (3,) m, tool axes: the point that the arbiter moves, seen from the point that
        Servo moves (the origin of its ee_frame)
    command_in_type: Servo's parameter of this name; unitless divides by Servo's `scale.*`
    scale_linear, scale_rotational: Servo's scale.linear (m/s) and scale.rotational (rad/s)
    """

    base_frame: str = "base"
    tool_frame: str = "tool"
    output_frame: str = "base"
    tool_offset: Vector = (0.0, 0.0, 0.0)
    command_in_type: str = "speed_units"
    scale_linear: float = 0.4
    scale_rotational: float = 0.8

    def __post_init__(self) -> None:
        if not self.base_frame or not self.tool_frame or self.base_frame == self.tool_frame:
            raise ValueError(
                f"base_frame is {self.base_frame!r}, tool_frame is {self.tool_frame!r}; expected "
                "two different frames"
            )
        if self.output_frame not in (self.base_frame, self.tool_frame):
            raise ValueError(
                f"output_frame is {self.output_frame!r}; expected {self.base_frame!r} (base_frame) "
                f"or {self.tool_frame!r} (tool_frame)"
            )
        if self.command_in_type not in UNITS:
            raise ValueError(
                f"command_in_type is {self.command_in_type!r}; expected one of {list(UNITS)}"
            )
        if len(self.tool_offset) != 3 or not all(map(math.isfinite, self.tool_offset)):
            raise ValueError(f"tool_offset is {list(self.tool_offset)}; expected x, y, z in m")
        for name in ("scale_linear", "scale_rotational"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} is {value}; expected Servo's scale, above 0")


@dataclass(frozen=True)
class Converted:
    """`twist` [6] for Servo, in `frame`; zeros with a `problem` where it could not be made."""

    twist: Array
    frame: str
    problem: str = ""


class CommandConverter:
    """Tool or base in, tool or base out."""

    def __init__(self, config: CommandConfig) -> None:
        self.config = config
        self._offset = np.array(config.tool_offset, dtype=np.float64)

    def convert(self, twist: Array, frame: str, orientation: Vector | None) -> Converted:
        """The command [6] (m/s, rad/s) of `frame` for Servo.

        orientation: quaternion x, y, z, w of the tool in the base, fresh; None: not known
        """
        c = self.config
        if not np.isfinite(twist).all() or np.abs(twist).max() > NO_SPEED:
            return self._zero(f"the command is no twist in m/s and rad/s: {twist.tolist()}")
        if frame not in (c.base_frame, c.tool_frame):
            return self._zero(
                f"the command is in frame {frame!r}; expected {c.base_frame!r} or {c.tool_frame!r}"
            )
        if not twist.any():
            return Converted(twist, c.output_frame)
        levered = bool(self._offset.any() and twist[3:].any())
        if frame == c.output_frame and not (levered and frame == c.base_frame):
            # No pose is needed: the lever arm is known in the tool's axes.
            moved = at_point(twist, -self._offset) if levered else twist
            return Converted(self._in_units(moved), c.output_frame)
        if orientation is None:
            return self._zero("no fresh ee_pose: it is needed to turn commands into another frame")
        try:
            rotation = rotation_matrix(orientation)
        except ValueError as problem:
            return self._zero(f"ee_pose: {problem}")
        in_base = twist if frame == c.base_frame else rotate(rotation, twist)
        if levered:
            in_base = at_point(in_base, -rotation @ self._offset)
        out = in_base if c.output_frame == c.base_frame else rotate(rotation.T, in_base)
        return Converted(self._in_units(out), c.output_frame)

    def _zero(self, problem: str) -> Converted:
        return Converted(np.zeros(6), self.config.output_frame, problem)

    def _in_units(self, twist: Array) -> Array:
        """Unitless: fractions of Servo's scales, shortened to 1 along their direction."""
        c = self.config
        if c.command_in_type == "speed_units":
            return twist
        out = np.concatenate([twist[:3] / c.scale_linear, twist[3:] / c.scale_rotational])
        for half in (out[:3], out[3:]):
            largest = float(np.abs(half).max())
            if largest > 1.0:
                half /= largest
        return out
