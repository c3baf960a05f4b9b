"""Joint states of several publishers, merged by name."""

from __future__ import annotations

import math

import pytest

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
    samples.put(["elbow"], [0.0], [], 3, 3)
    assert "['finger']" in samples.missing()


def test_joint_samples_stamps_that_are_not_set_do_not_count() -> None:
    samples = JointSamples(["elbow", "finger"])
    samples.put(["elbow"], [0.0], [], 0, 7)
    samples.put(["finger"], [0.0], [], 0, 8)
    assert (samples.merged().stamp, samples.merged().received) == (0, 7)
