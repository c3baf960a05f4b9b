# SPDX-License-Identifier: Apache-2.0
"""From an end effector twist to joint velocities. No ROS, no physics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def damped_least_squares(jacobian: Array, twist: Array, damping: float) -> Array:
    """Joint velocities [n] (rad/s) that best give `twist` [6] (m/s, rad/s) through `jacobian` [6, n].

    Solves min |J q' - v|^2 + damping^2 |q'|^2, which stays bounded near a singularity
    (Wampler, 1986; Nakamura and Hanafusa, 1986).
    """
    gram = jacobian @ jacobian.T
    gram[np.diag_indices_from(gram)] += damping**2
    return np.asarray(jacobian.T @ np.linalg.solve(gram, twist))


def stop_at_joint_limits(
    velocity: Array, position: Array, lower: Array, upper: Array, margin: float
) -> Array:
    """Zero every joint velocity [n] that would go further into `margin` (rad) before a limit."""
    into_lower = (position < lower + margin) & (velocity < 0.0)
    into_upper = (position > upper - margin) & (velocity > 0.0)
    return np.where(into_lower | into_upper, 0.0, velocity)


def rotation_error(current: Array, target: Array) -> Array:
    """Rotation vector [3] (rad, base frame) from `current` to `target`, both [3, 3]; small angles."""
    return np.asarray(
        0.5
        * (
            np.cross(current[:, 0], target[:, 0])
            + np.cross(current[:, 1], target[:, 1])
            + np.cross(current[:, 2], target[:, 2])
        )
    )
