# SPDX-License-Identifier: Apache-2.0
"""Joints of several drivers on one topic are merged by name, each with its own age."""

from __future__ import annotations

import itertools
import math

import pytest
from rlif_node.joints import JointMerger

JOINTS = ("shoulder", "elbow", "finger")
ARM = (["elbow", "shoulder"], [2.0, 1.0])
GRIPPER = (["finger", "other"], [3.0, 9.0])


@pytest.mark.parametrize("order", list(itertools.permutations(["arm", "gripper", "wheels"])))
def test_merger_with_two_drivers_has_all_joints_after_both_in_any_order(order):
    merger = JointMerger(JOINTS)
    messages = {"arm": ARM, "gripper": GRIPPER, "wheels": (["wheel"], [7.0])}
    complete = [merger.update(*messages[name], 1.0 + i) for i, name in enumerate(order)]
    assert complete.count(True) == 1 and merger.positions == (1.0, 2.0, 3.0)


def test_merger_has_the_age_of_the_oldest_joint():
    merger = JointMerger(JOINTS)
    assert merger.missing == list(JOINTS) and math.isinf(merger.oldest[1])
    assert not merger.update(*ARM, 1.0) and merger.missing == ["finger"]
    assert merger.update(*GRIPPER, 1.5)
    for now in (2.0, 3.0):
        assert merger.update(*ARM, now)
    assert merger.oldest == ("finger", 1.5)


@pytest.mark.parametrize("message", [(["wheel"], [1.0]), ([], []), (["elbow", "shoulder"], [1.0])])
def test_merger_with_a_message_of_other_joints_or_of_wrong_length_changes_nothing(message):
    merger = JointMerger(JOINTS)
    merger.update(*ARM, 1.0)
    merger.update(*GRIPPER, 1.0)
    assert not merger.update(*message, 2.0)
    assert merger.positions == (1.0, 2.0, 3.0) and merger.oldest[1] == 1.0
