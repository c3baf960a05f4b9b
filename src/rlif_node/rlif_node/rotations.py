# SPDX-License-Identifier: Apache-2.0
"""Rotations by unit quaternions x, y, z, w, on plain floats: for control loops. No ROS."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector3 = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
IDENTITY: Quaternion = (0.0, 0.0, 0.0, 1.0)


def unit_quaternion(x: float, y: float, z: float, w: float) -> Quaternion:
    """Normalised and with w >= 0, so that one orientation has one quaternion.

    ValueError where the length is not near 1: an orientation that was never filled in is all zeros.
    """
    length = math.sqrt(x * x + y * y + z * z + w * w)
    if not abs(length - 1.0) < 0.01:
        raise ValueError(
            f"orientation ({x}, {y}, {z}, {w}) has length {length:.4g}, expected a unit quaternion"
        )
    sign = math.copysign(1.0 / length, w)
    return (x * sign, y * sign, z * sign, w * sign)


def rotate(quaternion: Sequence[float], vector: Sequence[float]) -> Vector3:
    """`vector` of the frame that `quaternion` rotates, in the outer frame."""
    x, y, z, w = quaternion
    return rotate_inverse((-x, -y, -z, w), vector)


def rotate_inverse(quaternion: Sequence[float], vector: Sequence[float]) -> Vector3:
    """`vector` of the outer frame, in the frame that `quaternion` rotates."""
    qx, qy, qz, qw = quaternion
    vx, vy, vz = vector
    # v + 2 u x (u x v + w v) with u = -(x, y, z): the rotation by the conjugate.
    cx, cy, cz = vy * qz - vz * qy, vz * qx - vx * qz, vx * qy - vy * qx
    return (
        vx + 2.0 * (qw * cx + cy * qz - cz * qy),
        vy + 2.0 * (qw * cy + cz * qx - cx * qz),
        vz + 2.0 * (qw * cz + cx * qy - cy * qx),
    )


def relative(start: Sequence[float], now: Sequence[float]) -> Quaternion:
    """Orientation `now`, in the frame of the orientation `start`; w >= 0."""
    ax, ay, az, aw = start
    bx, by, bz, bw = now
    return unit_quaternion(
        aw * bx - ax * bw - ay * bz + az * by,
        aw * by + ax * bz - ay * bw - az * bx,
        aw * bz - ax * by + ay * bx - az * bw,
        aw * bw + ax * bx + ay * by + az * bz,
    )
