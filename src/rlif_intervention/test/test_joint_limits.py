# SPDX-License-Identifier: Apache-2.0
"""The joint limits: what holds for any input, and what is refused at start."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlif_intervention.joint_limits import (
    JointLimitConfig,
    JointLimiter,
    stopping_trajectory,
)
from rlif_intervention.limits import Drift

JOINTS = ("shoulder", "elbow")
PERIOD = 0.02
GOOD = {
    "axes": JOINTS,
    "scale": 1.0,
    "period": PERIOD,
    "horizon": PERIOD,
    "max_velocity": (0.8, 0.5),
    "max_acceleration": (2.0, 4.0),
    "max_deceleration": (3.0, 5.0),
    "position_min": (-1.0, -0.5),
    "position_max": (1.0, 0.6),
    "latency": 0.0,
}
HORIZON = {"horizon": 0.1, "max_lead": 0.1}
ANY = st.floats(allow_nan=True, allow_infinity=True)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)), st.tuples(ANY, ANY), st.just(())
    ),
    min_size=1,
    max_size=150,
)


def config(**changes):
    return JointLimitConfig(**(GOOD | changes))


class Arm:
    """Joints that follow. `drive` takes one action; an empty one: nobody drives."""

    def __init__(self, position=(0.0, 0.0), **changes):
        self.limiter = JointLimiter(config(**changes))
        self.position = position
        self.velocities = [(0.0, 0.0)]
        self.limited = None

    def drive(self, action, measured=None):
        seen = self.position if measured is None else measured
        limiter = self.limiter
        self.limited = limiter.drive(action, seen) if action else limiter.brake()
        velocity = self.limited.twist
        self.velocities.append(velocity)
        self.position = tuple(p + v * PERIOD for p, v in zip(self.position, velocity, strict=True))
        return velocity


@given(ACTIONS, st.sampled_from([{}, HORIZON]), st.floats(0.01, 1.0))
@settings(max_examples=150, deadline=None)
def test_joint_limiter_with_any_actions_keeps_velocity_acceleration_and_positions(
    actions, more, speed_scale
):
    arm = Arm(**more)
    c = arm.limiter.config
    arm.limiter.speed_scale = speed_scale
    for action in actions:
        before = arm.velocities[-1]
        velocity = arm.drive(action)
        for i in range(2):
            assert math.isfinite(velocity[i])
            assert abs(velocity[i]) <= c.max_velocity[i] * (1.0 + 1e-9)
            change = max(c.max_acceleration[i], c.max_deceleration[i]) * PERIOD
            assert abs(velocity[i] - before[i]) <= change + 1e-9
            assert c.position_min[i] - 1e-9 <= arm.position[i] <= c.position_max[i] + 1e-9
        for point in trajectory_of(arm):
            for i, p in enumerate(point.positions):
                assert c.position_min[i] - 1e-9 <= p <= c.position_max[i] + 1e-9


def trajectory_of(arm):
    reference = arm.limited.reference
    return (
        stopping_trajectory(reference, arm.limited.twist, arm.limiter.config) if reference else ()
    )


@given(st.tuples(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0)), st.sampled_from([{}, HORIZON]))
def test_brake_from_any_velocity_is_over_in_time_and_goes_straight(action, more):
    arm = Arm(**more)
    for _ in range(30):
        start = arm.drive(action)
    longest = max(v / d for v, d in zip((0.8, 0.5), (3.0, 5.0), strict=True))
    for _ in range(math.ceil(longest / PERIOD) + 1):
        velocity = arm.drive(())
        assert abs(velocity[0] * start[1] - velocity[1] * start[0]) < 1e-9, "along the line"
    assert velocity == (0.0, 0.0)


@given(st.lists(st.tuples(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0)), max_size=40))
def test_joint_limiter_outside_of_the_positions_allows_the_way_back_only(places):
    """A measurement may jump; from outside no command leads further out."""
    arm = Arm()
    for place in places:
        arm.drive((1.0, -1.0), place)
    for _ in range(60):
        velocity = arm.drive((1.0, -1.0), (1.5, -0.7))
    assert velocity == (0.0, 0.0)
    for _ in range(60):
        velocity = arm.drive((-1.0, 1.0), (1.5, -0.7))
    assert velocity[0] < 0.0 < velocity[1]


@given(st.floats(0.0, 0.3), st.sampled_from([-1.0, 1.0]))
def test_joint_limiter_counts_what_may_have_moved_since_the_measurement(moved, sign):
    limiter = JointLimiter(config())
    drift = Drift((-moved, -moved), (moved, moved))
    for _ in range(100):
        limited = limiter.drive((sign, 0.0), (sign * (1.0 - moved), 0.0), drift)
    assert limited.twist[0] == pytest.approx(0.0, abs=1e-9) and "joint_limit" in limited.names


@pytest.mark.parametrize("position", [None, (0.0,), (math.nan, 0.0), (0.0, math.inf)])
def test_joint_limiter_without_positions_brakes(position):
    limiter = JointLimiter(config())
    limiter.drive((1.0, 1.0), (0.0, 0.0))
    limited = limiter.drive((1.0, 1.0), position)
    assert limited.names[0] == "joint_states"
    for _ in range(20):
        limited = limiter.drive((1.0, 1.0), position)
    assert limited.twist == (0.0, 0.0)


def test_joint_that_does_not_follow_stops_all_and_a_moved_one_does_not():
    arm = Arm(**HORIZON)
    for _ in range(100):
        arm.drive((0.5, 0.0), measured=(0.0, 0.0))
        if "lead" in arm.limited.names:
            break
    assert "lead" in arm.limited.names
    for _ in range(20):
        arm.drive(())
    arm.drive((0.5, 0.0), measured=(0.7, 0.0))  # put elsewhere, by a planner for one
    assert arm.limited.reference == (0.7, 0.0) and arm.limited.twist[0] > 0.0


@given(
    st.tuples(st.floats(-0.8, 0.8), st.floats(-0.5, 0.5)),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.3, 0.3)),
)
@example((0.0, 5.960464477539063e-08), (0.0, 0.25))  # a stop of 12 ns, all of it rounding
@example((3.1e-9, 0.0), (0.0, 0.25))  # one of 1 ns: two points at one time, which is refused
@example((0.0, 5.1e-6), (0.5, 0.3))
def test_stopping_trajectory_ends_at_rest_within_the_deceleration(velocity, reference):
    c = config(**HORIZON)
    points = stopping_trajectory(reference, velocity, c)
    assert points[-1].velocities == (0.0, 0.0)
    times = [round(p.time * 1e9) for p in points]  # ns, as in the message
    assert times == sorted(set(times)) and times[0] >= round(c.horizon * 1e9)
    if len(points) == 2:
        first, last = points
        braking = last.time - first.time
        for i in range(2):
            assert abs(velocity[i]) / braking <= c.max_deceleration[i] * (1.0 + 1e-9)
            mean = (last.positions[i] - first.positions[i]) / braking
            assert mean == pytest.approx(0.5 * velocity[i], abs=1e-9), "a parabola"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axes": ("x", "y")}, "Jacobian"),
        ({"axes": ("elbow", "elbow")}, "each once"),
        ({"max_velocity": (0.5,)}, "max_velocity is .*one finite number for each"),
        ({"max_velocity": (0.5, 0.0)}, "all above 0"),
        ({"max_velocity": (60.0, 60.0), "max_deceleration": (100.0, 100.0)}, "degrees"),
        ({"max_acceleration": (math.nan, 1.0)}, "max_acceleration is"),
        ({"max_deceleration": (0.1, 5.0)}, "a stop .* takes 8.0 s"),
        ({"position_min": (1.0, -0.5)}, "position_min is 1.0, position_max 1.0"),
        ({"position_max": (math.inf, 0.5)}, "position_max is"),
        ({"scale": 0.0}, "joint_scale"),
        ({"horizon": 0.01}, "period <= horizon"),
        ({"horizon": math.inf}, "period <= horizon"),
        ({"latency": math.nan}, "latency nan"),
        ({"max_lead": math.nan}, "max_lead nan"),
        ({"max_lead": 0.04, "latency": 0.05}, "max_joint_lead is 0.04.*0.040 rad"),
    ],
)
def test_config_with_limits_that_make_no_sense_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config(**changes)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, 1.5])
def test_speed_scale_that_is_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match="speed_scale is"):
        JointLimiter(config()).speed_scale = bad
