# SPDX-License-Identifier: Apache-2.0
"""Twists in other frames and of other points. Twists are [6]: linear m/s, then angular rad/s.

Two changes that are often confused:

    rotate       the same point of the arm, in the axes of another frame
    adjoint      the velocity of the point of the body that is at the other frame's origin

Servo means the first with `apply_twist_commands_about_ee_frame: true`, its default.
Quaternions are x, y, z, w. A pose of the tool in the base has the rotation R (columns: the tool's
axes in the base) and the position p of its origin, in m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def rotation_matrix(quaternion: ArrayLike) -> Array:
    """[3, 3] of a quaternion [4] (x, y, z, w), which is normalised.

    ValueError if it is not finite, or of length zero: an unset orientation is no rotation.
    """
    q = np.asarray(quaternion, dtype=np.float64)
    length = float(np.linalg.norm(q)) if q.shape == (4,) else float("nan")
    if not np.isfinite(length) or length < 1e-6:
        raise ValueError(f"quaternion is {q.tolist()}; expected four numbers x y z w of length 1")
    x, y, z, w = q / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def skew(vector: ArrayLike) -> Array:
    """[3, 3] with skew(p) @ v == p x v."""
    x, y, z = np.asarray(vector, dtype=np.float64)
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def rotate(rotation: Array, twist: Array) -> Array:
    """`twist` [6] with both halves turned by `rotation` [3, 3]."""
    return np.concatenate([rotation @ twist[:3], rotation @ twist[3:]])


def adjoint(rotation: Array, position: ArrayLike) -> Array:
    """[6, 6] that takes a tool-frame twist to the base frame: linear half first.

        v_base = R v + p x (R w)        [ R   [p]R ]
        w_base = R w                    [ 0    R   ]

    The block that couples stands right of R, in the rows of the linear half. In the textbook order
    (angular first) it stands left below; swapping one without the other is the usual mistake.
    """
    matrix = np.zeros((6, 6))
    matrix[:3, :3] = matrix[3:, 3:] = rotation
    matrix[:3, 3:] = skew(position) @ rotation
    return matrix


def at_point(twist: Array, lever: ArrayLike) -> Array:
    """The same rigid motion, as the twist of the point at `lever` (3,) from the twist's point.

    All in the same axes: v' = v + w x lever, w' = w.
    """
    return np.concatenate(
        [twist[:3] + np.cross(twist[3:], np.asarray(lever, dtype=np.float64)), twist[3:]]
    )
