# SPDX-License-Identifier: Apache-2.0
"""The workspace box as something to look at, and as walls that a planner keeps out of. No ROS.

The box bounds the end effector, not the arm: a planner that took the whole box for a wall could never
reach into it. So only named faces become walls, as thin plates outside of the box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

Vector = tuple[float, ...]
# face: (axis, which end)
FACES = {
    "left": (1, 1), "right": (1, 0), "front": (0, 1), "back": (0, 0), "top": (2, 1), "bottom": (2, 0),
}  # fmt: skip


@dataclass(frozen=True)
class Plate:
    """A box: centre (3,) and size (3,), m, axes of the base frame."""

    name: str
    centre: Vector
    size: Vector


@dataclass(frozen=True)
class WorkspaceBox:
    """Corners (3,) m in the base frame, as the arbiter's workspace_min and workspace_max."""

    low: Vector
    high: Vector

    def __post_init__(self) -> None:
        for name, corner in (("workspace_min", self.low), ("workspace_max", self.high)):
            if len(corner) != 3 or not all(map(math.isfinite, corner)):
                raise ValueError(f"{name} is {list(corner)}; expected x, y, z in m")
        if any(a >= b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(
                f"workspace_min is {list(self.low)}, workspace_max is {list(self.high)}; expected "
                "the minimum below the maximum on every axis"
            )

    @property
    def centre(self) -> Vector:
        return tuple(0.5 * (a + b) for a, b in zip(self.low, self.high, strict=True))

    @property
    def size(self) -> Vector:
        return tuple(b - a for a, b in zip(self.low, self.high, strict=True))

    def edges(self) -> list[tuple[Vector, Vector]]:
        """The 12 edges, as pairs of corners."""
        found = []
        for axis in range(3):
            others = [i for i in range(3) if i != axis]
            for ends in product((self.low, self.high), repeat=2):
                start = [self.low[axis]] * 3
                for i, end in zip(others, ends, strict=True):
                    start[i] = end[i]
                stop = list(start)
                stop[axis] = self.high[axis]
                found.append((tuple(start), tuple(stop)))
        return found

    def walls(self, faces: tuple[str, ...], margin: float, thickness: float) -> list[Plate]:
        """Plates `margin` m outside of the named faces.

        margin: at least what of the gripper stands out beyond the end effector's origin
        """
        unknown = [f for f in faces if f not in FACES]
        if unknown:
            raise ValueError(f"walls has {unknown}; expected names out of {', '.join(FACES)}")
        plates = []
        for face in faces:
            axis, end = FACES[face]
            centre, size = list(self.centre), list(self.size)
            size[axis] = thickness
            away = margin + 0.5 * thickness
            centre[axis] = self.high[axis] + away if end else self.low[axis] - away
            plates.append(Plate(f"rlif_workspace_{face}", tuple(centre), tuple(size)))
        return plates
