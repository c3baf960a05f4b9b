# SPDX-License-Identifier: Apache-2.0
"""Commands stay regular and settle shortly behind the policy's actions, whatever their phase."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_intervention.cadence import MARGIN, SLEW, Cadence

PERIOD = 0.01


def play(first_action, every, jitter=(), seconds=8.0):
    """The times of commands and, for each action, how long it waited for its command."""
    cadence, now, next_period = Cadence(PERIOD), 0.0, PERIOD
    actions = [first_action + i * every for i in range(int(seconds / every))]
    actions = [t + (jitter[i % len(jitter)] if jitter else 0.0) for i, t in enumerate(actions)]
    commands, waits = [], []
    while now < seconds:
        now, period = now + next_period, next_period
        while actions and actions[0] <= now:
            cadence.action_arrived(actions[0])
            waits.append(now - actions.pop(0))
        next_period = cadence.next_period(now)
        commands.append((now, period))
    return commands, waits


@given(
    first=st.floats(0.0, 0.1), every=st.sampled_from([0.1, 0.02, 0.033, 0.0101]),
    jitter=st.lists(st.floats(0.0, 0.002), min_size=1, max_size=7),
)  # fmt: skip
def test_cadence_with_any_actions_changes_a_period_by_at_most_the_slew(first, every, jitter):
    commands, _ = play(first, every, jitter)
    for _, period in commands:
        assert abs(period - PERIOD) <= SLEW * PERIOD + 1e-12


@given(phase=st.floats(0.0, PERIOD), every=st.sampled_from([0.1, 0.02]))
def test_cadence_with_regular_actions_lets_them_wait_for_the_margin_only(phase, every):
    _, waits = play(phase, every)
    settled = waits[len(waits) // 2 :]
    assert settled
    assert max(settled) == pytest.approx(MARGIN * PERIOD, abs=1.1 * SLEW * PERIOD)


def test_cadence_without_new_actions_keeps_the_period():
    cadence = Cadence(PERIOD)
    assert cadence.next_period(1.0) == PERIOD
    cadence.action_arrived(1.0)
    assert cadence.next_period(1.5) == PERIOD  # the arbiter stood still
    cadence.action_arrived(2.0)
    assert cadence.next_period(1.9) == PERIOD  # its clock was set back
