# SPDX-License-Identifier: Apache-2.0
"""`policy_hold` has to be repeated: its source may die. Each source has its own reason."""

from __future__ import annotations

import pytest
from rlif_node.states import HoldReason

from rlif_intervention.policy_hold import FORGOTTEN, PolicyHold

HALT, PAUSED, NONE = HoldReason.SERVO_STATUS, HoldReason.SERVO_PAUSED, HoldReason.NONE


def test_hold_without_a_timeout_keeps_the_last_message():
    hold = PolicyHold()
    assert hold.problem(1e9) == ""
    hold.update("adapter", HALT, "Servo has halted", 0.0)
    assert hold.problem(1e9) == "Servo has halted" and hold.code is HALT


def test_hold_with_a_timeout_holds_on_silence_too():
    hold = PolicyHold(0.5)
    assert "nothing on policy_hold" in hold.problem(0.0)
    hold.update("adapter", NONE, "", 10.0)
    assert hold.problem(10.5) == "" and "0.5 s" in hold.problem(10.6)
    hold.update("adapter", HALT, "Servo has halted", 11.0)
    assert hold.problem(99.0) == "Servo has halted"


def test_hold_of_two_sources_lasts_until_both_are_content_and_a_pause_comes_first():
    hold = PolicyHold()
    hold.update("adapter", HALT, "Servo has halted", 0.0)
    assert not hold.blocking(), "the operator may drive away"
    hold.update("watchdog", PAUSED, "", 0.0)
    assert hold.blocking() == hold.problem(0.0) == "watchdog: SERVO_PAUSED"
    assert hold.code is PAUSED
    hold.update("watchdog", NONE, "", 0.1)
    assert not hold.blocking() and hold.problem(0.1) == "Servo has halted"
    hold.update("adapter", NONE, "", 0.2)
    assert not hold.problem(0.2) and hold.code is NONE


def test_hold_of_a_source_that_has_died_is_overridden_by_a_human_who_arms():
    hold = PolicyHold()
    hold.update("watchdog", PAUSED, "paused", 0.0)
    hold.update("adapter", HALT, "Servo has halted", FORGOTTEN)
    hold.forget_silent(FORGOTTEN + 0.1)
    assert hold.problem(FORGOTTEN + 0.1) == "Servo has halted"


def test_hold_with_a_timeout_that_makes_no_sense_is_refused_by_name():
    with pytest.raises(ValueError, match="hold_timeout"):
        PolicyHold(float("nan"))
