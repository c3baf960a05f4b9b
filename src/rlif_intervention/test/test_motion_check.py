# SPDX-License-Identifier: Apache-2.0
"""An arm that does not follow is found, and one in contact is not mistaken for it."""

from __future__ import annotations

import math

import pytest

from rlif_intervention.motion_check import STEADY_FACTOR, MotionCheck, MotionCheckConfig

AXES = ("x", "y", "z", "yaw")
LEVEL = (0.0, 0.0, 0.0, 1.0)
ASKEW = (0.05, -0.04, -0.05, 0.0)  # m/s: in several directions
DOWN = (0.0, 0.0, -0.05, 0.0)
TIMEOUT = MotionCheckConfig().timeout


def found_after(command, pose=lambda t: ((0.0, 0.0, 0.0), LEVEL), limit=10.0, axes=AXES):
    """Seconds until the arm stands, with both as functions of time; None: not within `limit`."""
    check, now = MotionCheck(MotionCheckConfig(), axes), 0.0
    while now < limit:
        position, orientation = pose(now)
        check.measured(position, now, orientation)
        check.commanded(command(now), now)
        if check.problem(now):
            return now
        now += 0.01
    return None


def test_motion_check_of_an_arm_that_stands_finds_it_within_the_timeout():
    assert found_after(lambda t: ASKEW) == pytest.approx(TIMEOUT, abs=0.02)
    back_and_forth = found_after(lambda t: (0.05 * (-1) ** int(2 * t), 0.0, 0.0, 0.0))
    assert back_and_forth == pytest.approx(TIMEOUT, abs=0.6)


@pytest.mark.parametrize("command", [(0.0,) * 4, (0.0001, 0.0, -0.0001, 0.0)])
def test_motion_check_of_an_arm_that_is_not_asked_to_move_finds_nothing(command):
    assert found_after(lambda t: command) is None


@pytest.mark.parametrize("noise", [0.0, 0.0001])
def test_motion_check_of_a_slow_arm_finds_nothing_and_of_a_noisy_one_that_stands_does(noise):
    def pose(share):
        return lambda t: (
            (share * 0.05 * t + noise * math.sin(97.0 * t), 0.0, 0.0),
            LEVEL,
        )

    assert found_after(lambda t: ASKEW, pose(0.02)) is None
    assert found_after(lambda t: ASKEW, pose(0.0)) is not None


def test_motion_check_of_a_push_that_does_not_change_takes_longer_if_the_arm_has_moved_before():
    def meets_a_board(t):
        return (0.0, 0.0, -0.05 * min(t, 0.5)), LEVEL

    assert found_after(lambda t: DOWN) == pytest.approx(TIMEOUT, abs=0.02)
    found = found_after(lambda t: DOWN, meets_a_board, limit=20.0)
    assert found == pytest.approx(0.5 + STEADY_FACTOR * TIMEOUT, abs=0.1)


def test_motion_check_of_one_blocked_axis_finds_nothing_while_another_moves():
    def slides(t):
        return (0.002 * math.sin(3.0 * t), 0.0, 0.0), LEVEL

    assert found_after(lambda t: (0.01 * math.cos(3.0 * t), 0.0, -0.05, 0.0), slides) is None


def test_motion_check_of_a_turn_goes_by_the_orientation():
    def turns(t):
        return (0.0, 0.0, 0.0), (0.0, 0.0, math.sin(0.15 * t), math.cos(0.15 * t))

    spin = (0.0, 0.0, 0.0, 0.3)
    assert found_after(lambda t: spin, turns) is None
    assert found_after(lambda t: spin) is not None


@pytest.mark.parametrize("scale", [1.0 - 1e-6, 1.0 + 1e-6, 2.0])
def test_motion_check_of_a_quaternion_that_is_not_normalised_finds_an_arm_that_stands(scale):
    """Regression: of rounded numbers each pose was apart from itself, and the arm always moved."""
    half = (0.5 * scale,) * 4
    assert found_after(lambda t: ASKEW, lambda t: ((0.0,) * 3, half)) is not None
    nothing = (0.0,) * 4
    assert found_after(lambda t: ASKEW, lambda t: ((0.0,) * 3, nothing)) is not None


def test_motion_check_of_joints_goes_by_their_positions():
    def joints(rate):
        return lambda t: ((rate * t, 0.0), ())

    command = lambda t: (0.1, -0.1)  # noqa: E731
    assert found_after(command, joints(0.1), axes=("shoulder", "elbow")) is None
    assert found_after(command, joints(0.0), axes=("shoulder", "elbow")) is not None


def test_motion_check_without_a_fresh_measurement_does_not_know():
    check = MotionCheck(MotionCheckConfig(), AXES)
    check.measured((0.0, 0.0, 0.0), 0.0, LEVEL)
    for i in range(1000):
        check.commanded(ASKEW, i * 0.01)
        assert not check.problem(i * 0.01) or i * 0.01 < 0.2
    off = MotionCheck(MotionCheckConfig(timeout=0.0), AXES)
    for i in range(1000):
        off.measured((0.0, 0.0, 0.0), i * 0.01, LEVEL)
        off.commanded(ASKEW, i * 0.01)
    assert not off.problem(9.99)


def test_motion_check_reports_that_the_arm_moved_and_begins_anew():
    check = MotionCheck(MotionCheckConfig(), AXES)
    check.measured((0.0, 0.0, 0.0), 0.0, LEVEL)
    check.reset()
    check.measured((0.0002, 0.0, 0.0), 0.1, LEVEL)
    assert not check.moved
    check.measured((0.002, 0.0, 0.0), 0.2, LEVEL)
    assert check.moved


def test_motion_check_with_a_timeout_that_makes_no_sense_is_refused_by_name():
    with pytest.raises(ValueError, match="follow_timeout"):
        MotionCheckConfig(timeout=float("nan"))
