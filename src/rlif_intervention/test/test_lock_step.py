# SPDX-License-Identifier: Apache-2.0
"""Which set of samples is complete, and which has its command already."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_intervention.lock_step import LockStep


def test_lock_step_is_ready_when_all_of_the_newest_set_is_there():
    for order in (("o", "p", "j"), ("j", "p", "o"), ("p", "o", "j")):
        step = LockStep()
        for name in order:
            assert not step.ready
            if name == "o":
                step.observe(1, 100)
            elif name == "p":
                step.answered_by_policy(1, "action")
            else:
                step.arrived("joy", 100)
        assert step.ready and step.policy == "action"
        step.answer(100)
        assert not step.ready and step.missing() == "observation"


def test_set_answered_by_an_idle_zero_is_not_driven():
    step = LockStep()
    step.answer(100)
    step.observe(1, 100)
    step.answered_by_policy(1, "action")
    step.arrived("joy", 100)
    assert not step.ready


def test_samples_repeated_with_one_stamp_count_once():
    step = LockStep()
    step.observe(1, 100)
    step.observe(2, 100)
    step.answered_by_policy(2, "second")
    step.answered_by_policy(1, "first")
    step.arrived("joy", 100)
    assert step.tick == 1 and step.policy == "first"


def test_missing_names_what_has_not_come():
    step = LockStep(needs=("joy", "ee_pose"))
    step.observe(1, 100)
    step.arrived("joy", 99)
    assert step.missing() == "policy_action, joy, ee_pose"
    step.arrived("nobody needs this", 5)


def test_overdue_counts_from_the_last_answer():
    step = LockStep(timeout=2.0)
    assert not step.overdue(10.0) and not step.overdue(12.0) and step.overdue(12.1)
    step.answer(1)
    assert not step.overdue(20.0) and step.overdue(22.5)
    with pytest.raises(ValueError, match="lock_step_timeout is 0"):
        LockStep(timeout=0.0)


@given(st.lists(st.tuples(st.sampled_from("opja"), st.integers(0, 6)), max_size=60))
def test_sets_with_any_messages_are_answered_once_and_in_order(messages):
    step, driven = LockStep(), []
    for kind, number in messages:
        if kind == "o":
            step.observe(number, number)
        elif kind == "p":
            step.answered_by_policy(number, number)
        elif kind == "j":
            step.arrived("joy", number)
        else:
            step.answer(number)
        if step.ready:
            assert step.policy == step.observed
            driven.append(step.observed)
            step.answer(step.observed)
    assert driven == sorted(set(driven))
