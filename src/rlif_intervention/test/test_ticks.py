# SPDX-License-Identifier: Apache-2.0
"""What one control tick adds up to."""

from __future__ import annotations

import pytest

from rlif_intervention.limits import Limited
from rlif_intervention.ticks import Source, Tick


def add(tick, action, source=Source.POLICY, asked=(1.0, 0.0), held=False, names=()):
    limited = Limited(twist=action, action=action, names=names)
    tick.add(limited, source, asked, held)


def test_tick_with_commands_of_both_sources_has_the_mean_and_is_the_operators():
    tick = Tick(1, 10)
    add(tick, (1.0, 0.0), names=("clamp",))
    add(tick, (0.0, 0.5), Source.OPERATOR, names=("speed",))
    add(tick, (0.0, 0.5), names=("clamp",))
    decision = tick.close((0.0, 0.0))
    assert decision.executed_action == pytest.approx((1 / 3, 1 / 3))
    assert decision.source is Source.OPERATOR and decision.limits == ("clamp", "speed")
    assert decision.limited and not decision.blocked


def test_tick_without_a_command_has_the_action_in_force():
    assert Tick(1, 10).close((0.3, 0.0)).executed_action == (0.3, 0.0)


@pytest.mark.parametrize(
    ("asked", "held", "blocked"), [((1.0, 0.0), False, True), ((), True, True), ((), False, False)]
)
def test_tick_that_does_not_move_is_blocked_if_motion_was_asked_for_or_held(asked, held, blocked):
    tick = Tick(1, 10)
    add(tick, (0.0, 0.0), Source.NONE, asked, held)
    assert tick.close(()).blocked is blocked


def test_tick_with_a_gripper_latches_its_entry_and_ignores_it_for_blocked():
    tick = Tick(1, 10, gripper=True)
    add(tick, (0.2, 1.0), asked=(0.2, 1.0))
    add(tick, (0.4, -1.0), asked=(0.4, -1.0))
    assert tick.close(()).executed_action == pytest.approx((0.3, -1.0))
    grasp = Tick(1, 10, gripper=True)
    add(grasp, (0.0, -1.0), asked=(0.0, -1.0))
    assert not grasp.close(()).blocked, "no motion was asked for"
