# SPDX-License-Identifier: Apache-2.0
"""Frame changes of twists, against cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_moveit.twists import adjoint, at_point, rotate, rotation_matrix, skew

HALF = math.sqrt(0.5)
YAW_90 = (0.0, 0.0, HALF, HALF)  # the tool's x points along the base's y
ROLL_180 = (1.0, 0.0, 0.0, 0.0)  # a gripper that looks down

numbers = st.floats(-2.0, 2.0)
vectors = st.tuples(numbers, numbers, numbers)
quaternions = st.tuples(numbers, numbers, numbers, numbers).filter(lambda q: math.hypot(*q) > 0.1)


def test_rotate_by_90_degrees_turns_forward_into_sideways():
    twist = np.array([0.1, 0.0, 0.0, 0.0, 0.0, 0.5])
    turned = rotate(rotation_matrix(YAW_90), twist)
    assert turned == pytest.approx([0.0, 0.1, 0.0, 0.0, 0.0, 0.5])


def test_rotate_of_a_gripper_that_looks_down_turns_out_into_down():
    twist = np.array([0.0, 0.0, 0.1, 0.2, 0.3, 0.0])
    turned = rotate(rotation_matrix(ROLL_180), twist)
    assert turned == pytest.approx([0.0, 0.0, -0.1, 0.2, -0.3, 0.0])


def test_adjoint_by_hand_pure_spin_of_a_tool_one_metre_along_x():
    # The tool spins about its own z, 1 m ahead of the base. The point of that body which is at the
    # base's origin is 1 m behind the axis, and so it moves along -y: p x w = x1 x z1 = -y1.
    matrix = adjoint(np.eye(3), (1.0, 0.0, 0.0))
    assert matrix @ [0, 0, 0, 0, 0, 1.0] == pytest.approx([0, -1.0, 0, 0, 0, 1.0])


def test_adjoint_by_hand_turned_and_moved():
    # R: yaw of 90 degrees, p = (0, 0, 2). Tool twist: v = x, w = x. In the base both are y, and
    # p x (R w) = z2 x y1 = -x2.
    matrix = adjoint(rotation_matrix(YAW_90), (0.0, 0.0, 2.0))
    assert matrix @ [1.0, 0, 0, 1.0, 0, 0] == pytest.approx([-2.0, 1.0, 0, 0, 1.0, 0])


def test_adjoint_pitfall_blocks_in_the_wrong_order():
    # A pure translation has no angular part in any frame, whatever the lever arm.
    matrix = adjoint(rotation_matrix(YAW_90), (0.3, -0.2, 0.5))
    assert matrix @ [1.0, 2.0, 3.0, 0, 0, 0] == pytest.approx([-2.0, 1.0, 3.0, 0, 0, 0])
    assert np.array_equal(matrix[3:, :3], np.zeros((3, 3)))
    assert matrix[:3, 3:] == pytest.approx(skew((0.3, -0.2, 0.5)) @ rotation_matrix(YAW_90))


def test_at_point_by_hand():
    # Spin about z: a point 0.2 m further along x moves along y.
    twist = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 2.0])
    assert at_point(twist, (0.2, 0.0, 0.0)) == pytest.approx([0, 0.4, 0, 0, 0, 2.0])


@given(quaternions, vectors, vectors, vectors)
def test_adjoint_is_rotation_then_lever_arm_back_to_the_origin(q, p, v, w):
    rotation, twist = rotation_matrix(q), np.array([*v, *w])
    expected = at_point(rotate(rotation, twist), -np.array(p))
    assert adjoint(rotation, p) @ twist == pytest.approx(expected, abs=1e-9)


@given(quaternions, vectors)
def test_adjoint_there_and_back_is_the_identity(q, p):
    rotation = rotation_matrix(q)
    back = adjoint(rotation.T, -rotation.T @ np.array(p))
    assert back @ adjoint(rotation, p) == pytest.approx(np.eye(6), abs=1e-9)


@given(quaternions, vectors, vectors)
def test_rotate_keeps_speeds(q, v, w):
    twist = np.array([*v, *w])
    turned = rotate(rotation_matrix(q), twist)
    assert np.linalg.norm(turned[:3]) == pytest.approx(np.linalg.norm(twist[:3]))
    assert np.linalg.norm(turned[3:]) == pytest.approx(np.linalg.norm(twist[3:]))


@pytest.mark.parametrize("bad", [(0, 0, 0, 0), (math.nan, 0, 0, 1), (0, 0, 1)])
def test_rotation_matrix_of_an_unset_orientation_is_refused(bad):
    with pytest.raises(ValueError, match="quaternion"):
        rotation_matrix(bad)
