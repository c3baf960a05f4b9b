# SPDX-License-Identifier: Apache-2.0
"""Joint states of several publishers, merged by name."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_policy.features import FeatureError
from rlif_policy.joint_samples import JointSamples


def test_joint_samples_two_publishers_are_merged_in_the_wanted_order() -> None:
    samples = JointSamples(["elbow", "finger", "wrist"])
    assert samples.put(["wrist", "base", "elbow"], [1.0, 9.0, 2.0], [0.1, 9.0, 0.2], 10, 11)
    assert samples.put(["finger", "finger_mimic"], [0.04, 0.04], [], 5, 12)
    merged = samples.merged()
    assert merged.joints.positions == (2.0, 0.04, 1.0)
    assert merged.joints.velocities[::2] == (0.2, 0.1) and math.isnan(merged.joints.velocities[1])
    assert (merged.stamp, merged.received, merged.oldest) == (5, 11, "elbow")


def test_joint_samples_message_without_wanted_joints_is_no_fault() -> None:
    samples = JointSamples(["elbow"])
    assert samples.put(["elbow"], [1.0], [], 1, 1)
    assert not samples.put(["finger"], [], [3.0, 4.0], 2, 2), "nor need it be whole"
    assert samples.merged().stamp == 1


def test_joint_samples_each_joint_keeps_its_own_age() -> None:
    samples = JointSamples(["elbow", "finger"])
    samples.put(["finger"], [0.0], [], 1, 1)
    for stamp in (2, 3, 4):
        samples.put(["elbow"], [0.0], [], stamp, stamp)
    merged = samples.merged()
    assert (merged.stamp, merged.received, merged.oldest) == (1, 1, "finger")


def test_joint_samples_missing_joint_is_named_with_what_was_found() -> None:
    samples = JointSamples(["elbow", "finger"])
    assert samples.missing() == "nothing received yet"
    samples.put(["elbow", "base"], [0.0, 0.0], [], 1, 1)
    with pytest.raises(FeatureError, match=r"joints \['finger'\] are missing, found \['elbow', 'b"):
        samples.merged()


def test_joint_samples_message_of_wrong_length_drops_its_joints() -> None:
    samples = JointSamples(["elbow", "finger"])
    samples.put(["elbow", "finger"], [0.0, 0.0], [], 1, 1)
    with pytest.raises(FeatureError, match="2 positions and 0 velocities for 1 joints"):
        samples.put(["finger"], [0.0, 1.0], [], 2, 2)
    for stamp in (3, 4):
        samples.put(["elbow"], [0.0], [], stamp, stamp)
        assert (
            samples.missing()
            == "joints ['finger']: found 2 positions and 0 velocities for 1 joints"
        )
    samples.put(["finger"], [5.0], [], 5, 5)
    assert samples.merged().joints.positions == (0.0, 5.0)


def test_joint_samples_stamps_that_are_not_set_do_not_count() -> None:
    samples = JointSamples(["elbow", "finger"])
    samples.put(["elbow"], [0.0], [], 0, 7)
    samples.put(["finger"], [0.0], [], 0, 8)
    assert (samples.merged().stamp, samples.merged().received) == (0, 7)
    samples.put(["finger"], [0.0], [], 100, 9)
    assert samples.merged().stamp == 0, "one that is not set: the age is that since reception"


NAMES = ["a1", "a2", "finger", "other", "wheel"]


@given(st.lists(st.sets(st.sampled_from(NAMES), min_size=1), max_size=30))
def test_joint_samples_of_any_messages_are_the_newest_of_each_joint(
    messages: list[set[str]],
) -> None:
    wanted = ("finger", "a1", "a2")
    samples, newest = JointSamples(wanted), dict[str, int]()
    for number, names in enumerate(messages, 1):
        order = sorted(names, reverse=number % 2 == 0)
        ours = names & set(wanted)
        newest |= dict.fromkeys(ours, number)
        assert samples.put(order, [float(number)] * len(order), [], number, number) == bool(ours)
        assert bool(samples.missing()) == (len(newest) < len(wanted))
    if len(newest) == len(wanted):
        merged = samples.merged()
        assert merged.joints.positions == tuple(float(newest[name]) for name in wanted)
        assert merged.stamp == merged.received == newest[merged.oldest] == min(newest.values())
        assert merged.several == (len(set(newest.values())) > 1)
