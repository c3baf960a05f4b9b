# SPDX-License-Identifier: Apache-2.0
"""The promises of the limits, for any sequence of inputs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_intervention.limits import AXES, LimitConfig, Limiter, norm
from rlif_intervention.pose_extrapolator import PoseExtrapolator

ANY = st.floats(allow_nan=True, allow_infinity=True)
USUAL = st.floats(-1.5, 1.5)
EPS = 1e-9


@st.composite
def configs(draw):
    """Configurations with every limit on, or off where 0 allows it."""
    axes = draw(st.permutations(AXES))[: draw(st.integers(1, 6))]
    return LimitConfig(
        axes=tuple(axes),
        linear_scale=draw(st.floats(0.01, 0.5)),
        angular_scale=draw(st.floats(0.01, 1.0)),
        period=draw(st.sampled_from([0.002, 0.02, 0.1])),
        max_linear_speed=draw(st.sampled_from([0.0, 0.05, 0.3])),
        max_angular_speed=draw(st.sampled_from([0.0, 0.2, 1.0])),
        max_linear_acceleration=draw(st.sampled_from([0.3, 1.0, 5.0])),
        max_angular_acceleration=draw(st.sampled_from([0.0, 0.5, 5.0])),
        max_linear_deceleration=draw(st.sampled_from([0.0, 0.5, 3.0])),
        max_angular_deceleration=draw(st.sampled_from([0.0, 0.5, 3.0])),
        max_linear_jerk=draw(st.sampled_from([0.0, 5.0, 100.0])),
    )


def steps(size):
    """Actions of the right size or not, of any numbers; None: brake."""
    usual = st.lists(USUAL, min_size=size, max_size=size)
    any_at_all = st.lists(ANY, min_size=0, max_size=8)
    return st.lists(st.one_of(usual, usual, any_at_all, st.none()), min_size=1, max_size=40)


def parts(config):
    linear = [i for i, a in enumerate(config.axes) if a in "xyz"]
    angular = [i for i, a in enumerate(config.axes) if a not in "xyz"]
    return linear, angular


def pick(vector, indices):
    return [vector[i] for i in indices]


@settings(deadline=None)
@given(st.data())
def test_limiter_with_any_input_keeps_speed_and_acceleration(data):
    config = data.draw(configs())
    limiter = Limiter(config, speed_scale=data.draw(st.sampled_from([0.1, 1.0])))
    before = (0.0,) * len(config.axes)
    linear, angular = parts(config)
    groups = (
        (linear, "linear", config.linear_scale),
        (angular, "angular", config.angular_scale),
    )
    for step in data.draw(steps(len(config.axes))):
        braking = step is None or len(step) != len(before) or not all(map(math.isfinite, step))
        out = limiter.brake() if step is None else limiter.drive(tuple(step))
        assert all(math.isfinite(v) for v in out.twist)
        assert all(-1.0 - EPS <= v <= 1.0 + EPS for v in out.action)
        for indices, name, scale in groups:
            speed = norm(pick(out.twist, indices))
            assert all(abs(v) <= scale * (1 + EPS) for v in pick(out.twist, indices))
            if top := getattr(config, f"max_{name}_speed"):
                assert speed <= top * (1 + EPS)
            change = norm([out.twist[i] - before[i] for i in indices])
            kind = "deceleration" if braking else "acceleration"
            if limit := getattr(config, f"max_{name}_{kind}"):
                assert change <= limit * config.period * (1 + 1e-6) + EPS
        before = out.twist


@settings(deadline=None)
@given(configs(), st.data())
def test_brake_reaches_zero_within_speed_over_deceleration(config, data):
    limiter = Limiter(config)
    size = len(config.axes)
    action = tuple(data.draw(st.lists(st.floats(-1, 1), min_size=size, max_size=size)))
    out = limiter.drive(action)
    for _ in range(200):
        out = limiter.drive(action)
    needed = 1
    for indices, name in zip(parts(config), ("linear", "angular"), strict=True):
        limit = getattr(config, f"max_{name}_deceleration")
        if limit:
            speed = norm(pick(out.twist, indices))
            needed = max(needed, math.ceil(speed / (limit * config.period) - EPS))
    for _ in range(needed):
        out = limiter.brake()
    assert not any(out.twist) and not limiter.moving


@settings(deadline=None)
@given(st.data())
def test_limiter_while_driving_keeps_the_jerk(data):
    config = LimitConfig(
        period=0.02, max_linear_acceleration=1.0, max_linear_jerk=data.draw(st.floats(5.0, 200.0))
    )
    limiter = Limiter(config)
    twists = [(0.0,) * 3] * 3
    actions = data.draw(st.lists(st.tuples(USUAL, USUAL, USUAL), min_size=1, max_size=60))
    for action in actions:
        twists.append(limiter.drive(action).twist)
        a, b, c = twists[-3:]
        jerk = norm([(w - 2 * v + u) / 0.02**2 for u, v, w in zip(a, b, c, strict=True)])
        assert jerk <= config.max_linear_jerk * (1 + 1e-6)


@settings(deadline=None)
@given(st.data())
def test_box_with_any_actions_and_stops_is_not_left(data):
    rate = data.draw(st.sampled_from([10.0, 50.0]))
    deceleration = data.draw(st.sampled_from([0.0, 0.2, 1.0]))
    low, high = (0.0, 0.0, 0.0), (0.1, 0.3, 0.02)
    config = LimitConfig(
        period=1.0 / rate,
        linear_scale=data.draw(st.floats(0.05, 0.5)),
        max_linear_acceleration=data.draw(st.sampled_from([0.0, 1.0])),
        max_linear_deceleration=deceleration,
        workspace_min=low,
        workspace_max=high,
    )
    limiter = Limiter(config)
    position, before = [0.05, 0.15, 0.01], (0.0, 0.0, 0.0)
    strong = st.sampled_from([-1.0, 1.0, 0.3])
    for action in data.draw(
        st.lists(st.one_of(st.tuples(strong, strong, strong), st.none()), max_size=60)
    ):
        repeat = data.draw(st.integers(1, 10))
        for _ in range(repeat):
            out = limiter.drive(action, tuple(position)) if action else limiter.brake()
            position = [p + v / rate for p, v in zip(position, out.twist, strict=True)]
            assert all(
                a - 1e-6 <= p <= b + 1e-6 for a, p, b in zip(low, position, high, strict=True)
            )
            hardest = max(deceleration, config.max_linear_acceleration)
            if deceleration and config.max_linear_acceleration:
                change = norm([v - u for u, v in zip(before, out.twist, strict=True)])
                assert change <= hardest / rate * (1 + 1e-6)
            before = out.twist


class Arm:
    """Does what it is told, `delay` s later; where it was at any time is known."""

    def __init__(self, start, delay=0.0):
        self.delay = delay
        self.ways = [(0.0, tuple(start), (0.0, 0.0, 0.0))]  # from when, from where, how fast

    def command(self, twist, now):
        begin = now + self.delay
        self.ways.append((begin, self.at(begin), twist))

    def at(self, time):
        begin, where, twist = next(w for w in reversed(self.ways) if w[0] <= max(0.0, time))
        return tuple(x + v * (max(0.0, time) - begin) for x, v in zip(where, twist, strict=True))


@st.composite
def boxes(draw):
    deceleration = draw(st.sampled_from([0.0, 0.2, 1.0]))
    acceleration = draw(st.sampled_from([0.0, 0.5, 2.0]))
    return LimitConfig(
        period=1.0 / draw(st.sampled_from([10.0, 50.0, 100.0])),
        linear_scale=draw(st.floats(0.05, 0.5)),
        max_linear_speed=draw(st.sampled_from([0.0, 0.1])),
        max_linear_acceleration=acceleration,
        max_linear_deceleration=deceleration,
        max_linear_jerk=draw(st.sampled_from([0.0, 10.0, 50.0])) if acceleration else 0.0,
        pose_latency=draw(st.sampled_from([0.0, 0.03, 0.05, 0.2])),
        workspace_min=(0.0, 0.0, 0.0),
        workspace_max=(0.1, 0.3, 0.02),
    )


STRONG = st.sampled_from([-1.0, 1.0, 0.3])
PUSHES = st.lists(
    st.tuples(st.one_of(st.tuples(STRONG, STRONG, STRONG), st.none()), st.integers(1, 15)),
    min_size=1,
    max_size=25,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(st.data(), boxes(), PUSHES, st.sampled_from([0.0, 0.1, 0.3]))
def test_box_with_poses_of_any_age_is_not_left(data, config, pushes, timeout):
    """A pose is up to pose_latency old when it arrives, and the next one up to `timeout` away."""
    share = st.floats(0.0, 1.0)
    delay = config.pose_latency * data.draw(share)
    arm, limiter = Arm((0.05, 0.15, 0.01), delay), Limiter(config)
    extrapolator = PoseExtrapolator(3, config.pose_latency, timeout)
    measured, received, due, now = arm.at(0.0), 0.0, 0.0, 0.0
    before, hardest = (
        (0.0, 0.0, 0.0),
        max(config.max_linear_deceleration, config.max_linear_acceleration),
    )
    ages = data.draw(st.lists(st.tuples(share, share), min_size=1, max_size=20))
    arrivals = 0
    for action in [a for a, count in pushes for _ in range(count)]:
        if due <= now:
            age, pause = ages[arrivals % len(ages)]
            arrivals += 1
            received = now - config.period * data.draw(share) if arrivals % 3 == 0 else now
            measured = arm.at(received - age * (config.pose_latency - delay))
            due = now + pause * timeout
        position = measured if now - received <= timeout + 1e-9 else None
        drift = extrapolator.drift(received, now)
        out = limiter.drive(action, position, drift) if action else limiter.brake()
        arm.command(out.twist, now)
        extrapolator.sent(out.twist, now)
        if config.max_linear_acceleration and config.max_linear_deceleration:
            change = norm([v - u for u, v in zip(before, out.twist, strict=True)])
            assert change <= hardest * config.period * (1 + 1e-6)
        before, now = out.twist, now + config.period
        where = arm.at(now + delay)
        for low, x, high in zip(config.workspace_min, where, config.workspace_max, strict=True):
            assert low - 1e-6 <= x <= high + 1e-6


@pytest.mark.parametrize("stale", [0.0, 0.1, 0.3])
def test_box_with_a_pose_that_ages_before_the_face_is_not_left(stale):
    """The limits of an FR3; the stream of poses stops 12 mm before a face."""
    config = LimitConfig(
        max_linear_speed=0.1,
        max_linear_acceleration=0.5,
        max_linear_deceleration=1.0,
        max_linear_jerk=10.0,
        workspace_min=(-1.0,) * 3,
        workspace_max=(0.2, 1.0, 1.0),
        pose_latency=0.05,
    )
    arm, limiter, extrapolator = Arm((0.0,) * 3), Limiter(config), PoseExtrapolator(3, 0.05, 0.3)
    now, received = 0.0, 0.0
    for _ in range(300):
        if arm.at(now)[0] < 0.188:
            received = now
        position = arm.at(received) if now - received <= stale else None
        out = limiter.drive((1.0, 0.0, 0.0), position, extrapolator.drift(received, now))
        arm.command(out.twist, now)
        extrapolator.sent(out.twist, now)
        now += config.period
        assert arm.at(now)[0] <= 0.2
    assert arm.at(now)[0] > 0.188


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -0.5, 1.5])
def test_speed_scale_that_is_out_of_range_is_refused_and_the_one_before_stays(bad):
    with pytest.raises(ValueError, match="speed_scale is"):
        Limiter(LimitConfig(), speed_scale=bad)
    limiter = Limiter(LimitConfig(), speed_scale=0.5)
    with pytest.raises(ValueError, match="speed_scale is"):
        limiter.speed_scale = bad
    assert limiter.drive((1.0, 0.0, 0.0)).twist == pytest.approx((0.05, 0.0, 0.0))


def test_speed_scale_that_is_not_finite_leads_to_no_motion():
    config = LimitConfig(workspace_min=(0.0,) * 3, workspace_max=(1.0,) * 3)
    limiter = Limiter(config)
    object.__setattr__(limiter, "speed_scale", math.nan)
    assert limiter.drive((1.0, 0.0, 0.0), (0.5, 0.5, 0.5)).twist == (0.0, 0.0, 0.0)


@settings(deadline=None)
@given(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1)), st.integers(0, 2))
def test_box_from_outside_allows_the_way_back_only(action, axis):
    """The pose may jump, e.g. when the box is set while the arm is outside of it."""
    config = LimitConfig(workspace_min=(0.0,) * 3, workspace_max=(1.0,) * 3)
    position = [0.5, 0.5, 0.5]
    position[axis] = 1.5
    out = Limiter(config).drive(action, tuple(position))
    assert out.twist[axis] == pytest.approx(min(0.0, action[axis] * 0.1))


def test_box_with_a_pose_that_jumps_is_left_by_the_braking_distance_at_most():
    config = LimitConfig(
        period=0.02,
        linear_scale=0.2,
        max_linear_deceleration=1.0,
        workspace_min=(-1.0,) * 3,
        workspace_max=(1.0,) * 3,
    )
    limiter, x = Limiter(config), 0.0
    speed = limiter.drive((1.0, 0.0, 0.0), (x, 0.0, 0.0)).twist[0]
    x = 1.0  # on the face, at full speed
    while (speed := limiter.drive((1.0, 0.0, 0.0), (x, 0.0, 0.0)).twist[0]) > 0.0:
        x += speed * 0.02
    assert x - 1.0 <= 0.2**2 / (2 * 1.0) + 0.2 * 0.02


def test_box_without_a_pose_lets_nothing_through():
    config = LimitConfig(workspace_min=(0.0,) * 3, workspace_max=(1.0,) * 3)
    out = Limiter(config).drive((1.0, 0.0, 0.0), None)
    assert out.twist == (0.0, 0.0, 0.0) and out.names == ("workspace",)


def test_limiter_names_what_acted_in_order():
    config = LimitConfig(max_linear_speed=0.05, max_linear_acceleration=0.1)
    out = Limiter(config, speed_scale=0.9).drive((2.0, 0.0, 0.0))
    assert out.names == ("clamp", "speed_scale", "speed", "acceleration")
    assert Limiter(LimitConfig()).drive((0.5, 0.0, 0.0)).names == ()


def test_limiter_returns_the_action_after_the_limits():
    """Pitfall: the stored action was the one asked for, not the one executed after clipping."""
    out = Limiter(LimitConfig(max_linear_speed=0.05)).drive((3.0, 0.0, 0.0))
    assert out.action == pytest.approx((0.5, 0.0, 0.0)) and out.twist[0] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"axes": ("x", "w")}, "w"),
        ({"axes": ()}, "axes"),
        ({"axes": ("x", "x")}, "at most once"),
        ({"linear_scale": 0.0}, "linear_scale is 0.0"),
        ({"max_linear_speed": -1.0}, "max_linear_speed is -1.0"),
        ({"max_linear_jerk": 1.0}, "max_linear_acceleration"),
        ({"workspace_min": (0.0, 0.0, 0.0)}, "workspace_max 0"),
        ({"workspace_min": (0.0,) * 3, "workspace_max": (1.0, 0.0, 1.0)}, "not below"),
        ({"period": math.nan}, "period is nan"),
    ],
)
def test_config_that_makes_no_sense_is_refused_by_name(values, words):
    with pytest.raises(ValueError, match=words):
        LimitConfig(**values)
