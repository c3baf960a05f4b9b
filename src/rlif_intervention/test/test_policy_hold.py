# SPDX-License-Identifier: Apache-2.0
"""`policy_hold` has to be repeated: whoever says it may die."""

from __future__ import annotations

import pytest

from rlif_intervention.policy_hold import PolicyHold


def test_hold_without_a_timeout_keeps_the_last_message():
    hold = PolicyHold()
    assert hold.problem(1e9) == ""
    hold.update("Servo has halted", 0.0)
    assert hold.problem(1e9) == "Servo has halted"


def test_hold_with_a_timeout_holds_on_silence_too():
    hold = PolicyHold(0.5)
    assert "nothing on policy_hold" in hold.problem(0.0)
    hold.update("", 10.0)
    assert hold.problem(10.5) == "" and "0.5 s" in hold.problem(10.6)
    hold.update("Servo has halted", 11.0)
    assert hold.problem(99.0) == "Servo has halted"


def test_hold_with_a_timeout_that_makes_no_sense_is_refused_by_name():
    with pytest.raises(ValueError, match="hold_timeout"):
        PolicyHold(float("nan"))
