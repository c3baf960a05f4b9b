# SPDX-License-Identifier: Apache-2.0
"""The state: sizes, values, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlif_node.joints import MergedJoints
from rlif_node.rotations import rotate

from rlif_policy.features import (
    FEATURES,
    FeatureError,
    Pose,
    PoseTrack,
    StateLayout,
    Wrench,
    unit_quaternion,
)

VALUES = {
    "ee_pose": Pose((0.5, 0.1, 0.2), (0.0, 0.0, 0.0, 1.0), (0.01, 0.02, 0.03)),
    "object_pose": Pose((0.4, 0.1, 0.1), (0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5))),
    "joint_states": MergedJoints((0.1, 0.2), (0.3, 0.4), stamp=0, received=0, oldest="a"),
    "wrench": Wrench((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
}
VALUES["episode_start"] = VALUES["object_pose"]
PERIOD = 100_000_000


@pytest.mark.parametrize("name", FEATURES)
def test_features_each_have_their_size_and_sources(name):
    layout = StateLayout((name,), ("a", "b"))
    needed = FEATURES[name].sources + ("episode_start",) * layout.from_start
    state = layout.compute({source: VALUES[source] for source in needed})
    assert state.shape == (layout.state_dim,)
    assert state.dtype == np.float32


def test_state_layout_computes_the_features_in_order():
    layout = StateLayout(("wrench_force", "ee_position", "joint_velocities"), ("a", "b"))
    assert layout.state_dim == 8
    assert layout.sources == ("wrench", "ee_pose", "joint_states")
    expected = [1.0, 2.0, 3.0, 0.5, 0.1, 0.2, 0.3, 0.4]
    assert layout.compute(VALUES).tolist() == pytest.approx(expected)


def test_ee_position_in_object_is_rotated_into_its_frame():
    # The object is turned by 90 degrees about z: the base's x is the object's -y.
    state = StateLayout(("ee_position_in_object",)).compute(VALUES)
    assert state.tolist() == pytest.approx([0.0, -0.1, 0.1], abs=1e-7)


VECTORS = st.tuples(*[st.floats(-1, 1)] * 3)
QUATERNIONS = (
    st.tuples(*[st.floats(-1, 1)] * 4)
    .filter(lambda q: math.hypot(*q) > 0.1)
    .map(lambda q: tuple(v / math.hypot(*q) for v in q))
)
FROM_START = StateLayout(("ee_position_from_start", "ee_orientation_from_start"))


@given(VECTORS, QUATERNIONS, VECTORS, QUATERNIONS, VECTORS)
def test_features_from_start_and_the_start_give_the_pose_again(place, start, now, turned, point):
    values = {"episode_start": Pose(place, start), "ee_pose": Pose(now, turned)}
    *offset, x, y, z, w = FROM_START.compute(values).tolist()
    moved = rotate(start, offset)
    assert [p + m for p, m in zip(place, moved, strict=True)] == pytest.approx(now, abs=1e-5)
    assert rotate(start, rotate((x, y, z, w), point)) == pytest.approx(
        rotate(turned, point), abs=1e-5
    )


def test_features_from_start_at_the_start_are_zero_and_no_rotation():
    start = Pose((0.3, 0.2, 0.1), (0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5)))
    assert FROM_START.from_start and FROM_START.sources == ("ee_pose",)
    at_start = FROM_START.compute({"episode_start": start, "ee_pose": start}).tolist()
    assert at_start == pytest.approx([0.0] * 6 + [1.0], abs=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e60])
def test_state_layout_with_a_value_that_is_not_finite_names_it(bad):
    values = VALUES | {"wrench": Wrench((1.0, bad, 3.0), (0.0, 0.0, 0.0))}
    with pytest.raises(FeatureError, match=r"not finite: wrench_force"):
        StateLayout(("ee_position", "wrench_force")).compute(values)


@pytest.mark.parametrize(
    ("features", "joints", "words"),
    [
        (("ee_positon",), (), r"found \['ee_positon'\], expected names out of ee_position"),
        ((), (), "features: found none"),
        (("joint_positions",), (), "joints: found none"),
        (("ee_position", "ee_position"), (), "more than once"),
        (("joint_positions",), ("a", "a"), "joints: found .* more than once"),
    ],
)
def test_state_layout_that_cannot_be_names_what_is_wrong(features, joints, words):
    with pytest.raises(ValueError, match=words):
        StateLayout(features, joints)


def test_unit_quaternion_of_one_orientation_is_one():
    assert unit_quaternion(0.0, 0.0, 0.0, -1.0) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(FeatureError, match="length 0"):
        unit_quaternion(0.0, 0.0, 0.0, 0.0)
    with pytest.raises(FeatureError):
        unit_quaternion(math.nan, 0.0, 0.0, 1.0)


def test_pose_track_of_poses_one_period_apart_gives_the_velocity():
    track = PoseTrack(PERIOD)
    assert track.velocity(PERIOD, (0.0, 0.0, 0.0)) == (0.0, 0.0, 0.0)
    for i in range(2, 6):
        x = 0.01 * (i - 1)
        assert track.velocity(i * PERIOD, (x, 0.0, 0.0)) == pytest.approx((0.1, 0.0, 0.0))


def test_pose_track_of_faster_poses_takes_one_period():
    track, speeds = PoseTrack(PERIOD), []
    for i in range(1, 30):
        jitter = 1e-4 * (-1) ** i  # of the measured position
        speeds.append(track.velocity(i * PERIOD // 5, (0.002 * i + jitter, 0.0, 0.0))[0])
    assert speeds[10:] == pytest.approx([0.1] * len(speeds[10:]), abs=0.0025)


def test_pose_track_across_a_gap_or_back_in_time_gives_zero():
    track = PoseTrack(PERIOD)
    track.velocity(PERIOD, (0.0, 0.0, 0.0))
    assert track.velocity(10 * PERIOD, (1.0, 0.0, 0.0)) == (0.0, 0.0, 0.0)
    assert track.velocity(PERIOD, (0.0, 0.0, 0.0)) == (0.0, 0.0, 0.0)
    assert track.velocity(2 * PERIOD, (0.01, 0.0, 0.0)) == pytest.approx((0.1, 0.0, 0.0))
