# SPDX-License-Identifier: Apache-2.0
"""Rotations, compared with matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlif_node.rotations import IDENTITY, relative, rotate, rotate_inverse, unit_quaternion

VECTORS = st.tuples(*[st.floats(-2, 2)] * 3)
QUATERNIONS = (
    st.tuples(*[st.floats(-1, 1)] * 4)
    .filter(lambda q: math.hypot(*q) > 0.1)
    .map(lambda q: tuple(v / math.hypot(*q) for v in q))
)


def matrix(quaternion):
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@given(QUATERNIONS, VECTORS)
def test_rotate_is_the_matrix_and_rotate_inverse_undoes_it(quaternion, vector):
    turned = rotate(quaternion, vector)
    assert turned == pytest.approx(matrix(quaternion) @ vector, abs=1e-9)
    assert rotate_inverse(quaternion, turned) == pytest.approx(vector, abs=1e-9)


@given(QUATERNIONS, QUATERNIONS)
def test_relative_is_the_rotation_from_one_to_the_other(start, now):
    found = relative(start, now)
    assert found[3] >= 0.0
    assert matrix(found) == pytest.approx(matrix(start).T @ matrix(now), abs=1e-9)
    assert relative(start, start) == pytest.approx(IDENTITY, abs=1e-9)


def test_unit_quaternion_of_one_orientation_is_one():
    assert unit_quaternion(0.0, 0.0, 0.0, -1.0) == IDENTITY
    with pytest.raises(ValueError, match="length 0"):
        unit_quaternion(0.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="expected a unit quaternion"):
        unit_quaternion(math.nan, 0.0, 0.0, 1.0)
