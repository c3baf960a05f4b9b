# SPDX-License-Identifier: Apache-2.0
"""Actions in the tool's frame: turned into the base frame before the limits, and back after them.

The limits and the workspace box know the base frame only, so all that they promise holds unchanged. What
was executed is turned back, since that is what is learned from.

Policy and operator give three linear entries, or three angular ones, of which the norm is at most 1: a
larger one is scaled down, along its direction, and reported as `clamp`. A limit on each entry would be
another in each orientation of the tool.
"""

from __future__ import annotations

from dataclasses import replace

from rlif_node.rotations import IDENTITY, Quaternion, rotate, rotate_inverse, unit_quaternion

from .limits import AXES, Limited, Vector, norm, shape_problem

BASE, TOOL = "base", "tool"
FRAMES = (BASE, TOOL)
_TRIADS = (AXES[:3], AXES[3:])


def check_tool_axes(axes: tuple[str, ...]) -> None:
    """ValueError for axes that a rotation would leave: x without y and z, yaw without roll and pitch."""
    for triad in _TRIADS:
        if 0 < sum(axis in axes for axis in triad) < 3:
            raise ValueError(
                f"axes is {list(axes)} with action_frame tool; expected all or none of {' '.join(triad)}: a "
                "turned tool moves along all of them"
            )


class BaseFrame:
    """Actions are in the base frame: nothing to do."""

    def turn(self, orientation: Vector) -> None:
        """Does not matter."""

    def to_base(self, action: Vector) -> tuple[Vector, bool]:
        return action, False

    def executed(self, limited: Limited, clamped: bool) -> Limited:
        return limited


class ToolFrame:
    """Actions of `axes` are in the tool's frame, whose orientation in the base is the one measured last."""

    def __init__(self, axes: tuple[str, ...]) -> None:
        check_tool_axes(axes)
        self._parts = [tuple(axes.index(a) for a in triad) for triad in _TRIADS if triad[0] in axes]
        self._size = len(axes)
        self._orientation: Quaternion = IDENTITY

    def turn(self, orientation: Vector) -> None:
        """The measured orientation of the tool. ValueError for what is none."""
        if len(orientation) != 4:
            raise ValueError(f"orientation has {len(orientation)} entries, expected x, y, z, w")
        self._orientation = unit_quaternion(*orientation)

    def to_base(self, action: Vector) -> tuple[Vector, bool]:
        """`action` (n,) in the base frame, and whether it was scaled down.

        One of another size, or not finite, comes back as it is: the limits refuse it.
        """
        if shape_problem(action, self._size):
            return action, False
        turned, clamped = list(action), False
        for part in self._parts:
            vector = [action[i] for i in part]
            length = norm(vector)
            if length > 1.0:
                vector, clamped = [v / length for v in vector], True
            for i, value in zip(part, rotate(self._orientation, vector), strict=True):
                turned[i] = value
        return tuple(turned), clamped

    def executed(self, limited: Limited, clamped: bool) -> Limited:
        """What came out of the limits, with its action in the tool's frame."""
        action = list(limited.action)
        for part in self._parts:
            vector = [action[i] for i in part]
            for i, value in zip(part, rotate_inverse(self._orientation, vector), strict=True):
                action[i] = value
        names = ("clamp", *(n for n in limited.names if n != "clamp")) if clamped else limited.names
        return replace(limited, action=tuple(action), names=names)
