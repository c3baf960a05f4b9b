# SPDX-License-Identifier: Apache-2.0
"""Joint states of several publishers on one topic are merged by name, each with its own age."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlif_node.joints import JointError, JointMerger

JOINTS = ("shoulder", "elbow", "finger")
ARM = (["elbow", "shoulder"], [2.0, 1.0], [])
GRIPPER = (["finger", "other"], [3.0, 9.0], [])


@pytest.mark.parametrize("order", list(itertools.permutations(["arm", "gripper", "wheels"])))
def test_joint_merger_with_two_drivers_has_all_joints_after_both_in_any_order(order):
    merger = JointMerger(JOINTS)
    messages = {"arm": ARM, "gripper": GRIPPER, "wheels": (["wheel"], [7.0], [])}
    complete = [
        merger.put(*messages[name], i, i) and not merger.missing()
        for i, name in enumerate(order, 1)
    ]
    assert complete.count(True) == 1 and merger.merged().positions == (1.0, 2.0, 3.0)


def test_joint_merger_two_publishers_are_merged_in_the_wanted_order():
    merger = JointMerger(["elbow", "finger", "wrist"])
    assert merger.put(["wrist", "base", "elbow"], [1.0, 9.0, 2.0], [0.1, 9.0, 0.2], 10, 11)
    assert merger.put(["finger", "finger_mimic"], [0.04, 0.04], [], 5, 12)
    merged = merger.merged()
    assert merged.positions == (2.0, 0.04, 1.0)
    assert merged.velocities[::2] == (0.2, 0.1) and math.isnan(merged.velocities[1])
    assert (merged.stamp, merged.received, merged.oldest) == (5, 11, "elbow")


@pytest.mark.parametrize("message", [(["wheel"], [1.0], []), ([], [], []), (["wheel"], [], [3, 4])])
def test_joint_merger_message_without_wanted_joints_is_no_fault_and_changes_nothing(message):
    """Nor need it be whole."""
    merger = JointMerger(JOINTS)
    merger.put(*ARM, 1, 1)
    merger.put(*GRIPPER, 1, 1)
    assert not merger.put(*message, 2, 2)
    merged = merger.merged()
    assert merged.positions == (1.0, 2.0, 3.0) and (merged.stamp, merged.received) == (1, 1)


def test_joint_merger_has_the_age_of_the_oldest_joint():
    merger = JointMerger(JOINTS)
    assert merger.missing() == "nothing received yet"
    with pytest.raises(JointError, match="nothing received yet"):
        merger.merged()
    assert merger.put(*ARM, 10, 11) and "joints ['finger'] are missing" in merger.missing()
    assert merger.put(*GRIPPER, 15, 16)
    for stamp in (20, 30):
        assert merger.put(*ARM, stamp, stamp + 1)
    merged = merger.merged()
    assert (merged.stamp, merged.received, merged.oldest) == (15, 16, "finger") and merged.several


def test_joint_merger_missing_joint_is_named_with_what_was_found():
    merger = JointMerger(["elbow", "finger"])
    assert merger.missing() == "nothing received yet"
    merger.put(["elbow", "base"], [0.0, 0.0], [], 1, 1)
    with pytest.raises(JointError, match=r"joints \['finger'\] are missing, found \['elbow', 'b"):
        merger.merged()


@pytest.mark.parametrize("positions, velocities", [([0.0, 1.0], []), ([], []), ([0.0], [1.0, 2.0])])
def test_joint_merger_message_of_wrong_length_drops_its_joints(positions, velocities):
    merger = JointMerger(["elbow", "finger"])
    merger.put(["elbow", "finger"], [0.0, 0.0], [], 1, 1)
    found = f"found {len(positions)} positions and {len(velocities)} velocities"
    reason = f"joints ['finger']: {found} for 1 joints"
    with pytest.raises(JointError, match=re.escape(reason)):
        merger.put(["finger"], positions, velocities, 2, 2)
    for stamp in (3, 4):
        merger.put(["elbow"], [0.0], [], stamp, stamp)
        assert merger.missing() == reason
    merger.put(["finger"], [5.0], [], 5, 5)
    assert merger.merged().positions == (0.0, 5.0)


def test_joint_merger_stamps_that_are_not_set_do_not_count():
    merger = JointMerger(["elbow", "finger"])
    merger.put(["elbow"], [0.0], [], 0, 7)
    merger.put(["finger"], [0.0], [], 0, 8)
    assert (merger.merged().stamp, merger.merged().received) == (0, 7)
    merger.put(["finger"], [0.0], [], 100, 9)
    assert merger.merged().stamp == 0, "one that is not set: the age is that since reception"


NAMES = ["a1", "a2", "finger", "other", "wheel"]


@given(st.lists(st.sets(st.sampled_from(NAMES), min_size=1), max_size=30))
def test_joint_merger_of_any_messages_has_the_newest_of_each_joint(messages: list[set[str]]):
    wanted = ("finger", "a1", "a2")
    merger, newest = JointMerger(wanted), dict[str, int]()
    for number, names in enumerate(messages, 1):
        order = sorted(names, reverse=number % 2 == 0)
        ours = names & set(wanted)
        newest |= dict.fromkeys(ours, number)
        assert merger.put(order, [float(number)] * len(order), [], number, number) == bool(ours)
        assert bool(merger.missing()) == (len(newest) < len(wanted))
    if len(newest) == len(wanted):
        merged = merger.merged()
        assert merged.positions == tuple(float(newest[name]) for name in wanted)
        assert merged.stamp == merged.received == newest[merged.oldest] == min(newest.values())
        assert merged.several == (len(set(newest.values())) > 1)
