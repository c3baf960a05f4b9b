# SPDX-License-Identifier: Apache-2.0
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlif_sim.kinematics import damped_least_squares, rotation_error, stop_at_joint_limits

numbers = st.floats(-2.0, 2.0, allow_nan=False)


@given(arrays(float, (6, 7), elements=numbers), arrays(float, 6, elements=numbers))
def test_damped_least_squares_is_the_minimum(jacobian, twist):
    damping = 0.1
    velocity = damped_least_squares(jacobian, twist, damping)
    # The normal equations of min |J q' - v|^2 + damping^2 |q'|^2.
    gradient = jacobian.T @ (jacobian @ velocity - twist) + damping**2 * velocity
    np.testing.assert_allclose(gradient, 0.0, atol=1e-8)


def test_damped_least_squares_of_a_singular_jacobian_is_bounded():
    velocity = damped_least_squares(np.zeros((6, 7)), np.ones(6), 0.05)
    assert np.abs(velocity).max() == 0.0


@given(arrays(float, 7, elements=numbers), arrays(float, 7, elements=numbers))
def test_stop_at_joint_limits_leaves_no_velocity_into_a_limit(velocity, position):
    lower, upper, margin = np.full(7, -1.0), np.full(7, 1.0), 0.1
    result = stop_at_joint_limits(velocity, position, lower, upper, margin)
    assert (result[position < lower + margin] >= 0.0).all()
    assert (result[position > upper - margin] <= 0.0).all()
    free = (position >= lower + margin) & (position <= upper - margin)
    np.testing.assert_array_equal(result[free], velocity[free])


def test_rotation_error_is_the_rotation_vector_of_a_small_turn():
    angle = 0.01
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    np.testing.assert_allclose(rotation_error(np.eye(3), turn), [0, 0, angle], atol=1e-5)
