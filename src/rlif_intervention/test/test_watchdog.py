# SPDX-License-Identifier: Apache-2.0
"""When the watchdog sends zeros, and how it asks for the pause of the robot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_intervention.watchdog import PauseCall, Watchdog


def test_watchdog_before_a_first_command_is_silent():
    assert Watchdog().check(100.0) == (False, False)


def test_watchdog_after_the_timeout_acts_until_the_arbiter_is_back_and_ignores_its_own_zeros():
    w = Watchdog(timeout=0.2)
    w.control(armed=True)
    w.command(1, 10.0)
    assert w.check(10.2) == (False, False)
    assert w.check(10.21) == (True, True)
    w.sent_zero(77)
    w.command(77, 10.22)
    assert w.check(10.23) == (True, False), "its own zero is no sign of life"
    assert w.check(1000.0) == (True, False)
    w.command(2, 1000.1)
    assert w.check(1000.2) == (False, False) and not w.tripped


def test_watchdog_after_a_graceful_shutdown_leaves_the_topic_to_others():
    w = Watchdog(timeout=0.2, linger=1.0)
    w.control(armed=False)
    w.command(1, 10.0)
    assert w.check(11.1)[0] and not w.check(11.3)[0]


@given(st.lists(st.floats(0.001, 0.5), max_size=50))
def test_watchdog_with_any_gaps_sends_exactly_while_the_last_command_is_too_old(gaps):
    w, now = Watchdog(timeout=0.2), 0.0
    w.control(armed=True)
    for number, gap in enumerate(gaps):
        w.command(number, now)
        now += gap
        assert w.check(now)[0] == (now - (now - gap) > 0.2) or abs(gap - 0.2) < 1e-6


@pytest.mark.parametrize(("timeout", "linger"), [(0.0, 1.0), (0.2, -1.0), (float("nan"), 0.0)])
def test_watchdog_with_times_that_make_no_sense_is_refused(timeout, linger):
    with pytest.raises(ValueError, match="timeout"):
        Watchdog(timeout, linger)


def test_watchdog_without_any_arbiter_reports_it_as_absent_and_sends_no_zeros():
    w = Watchdog(start_timeout=10.0)
    assert w.check(100.0) == (False, False) and not w.absent(109.9)
    assert w.absent(110.1) and w.check(110.1) == (False, False)
    w.command(1, 111.0)
    assert not w.absent(200.0), "silent is something else"
    assert not Watchdog(start_timeout=0.0).absent(1e9)


def test_pause_call_is_repeated_until_it_is_confirmed():
    call = PauseCall(answer=2.0, retry=1.0)
    assert call.due(True, 0.0) is None, "nobody wants one"
    call.want()
    assert call.due(False, 0.0) is None and "not there" in call.problem
    ticket = call.due(True, 0.1)
    assert ticket is not None and call.due(True, 2.0) is None
    call.answered(ticket, "it answered no", 2.0)
    assert call.problem == "it answered no" and call.due(True, 2.5) is None
    assert call.due(True, 3.1) is not None
    assert call.due(True, 5.2) is not None, "no answer: again"
    assert "no answer" in call.problem
    call.answered(ticket, "", 5.3)
    assert call.confirmed and not call.problem and call.due(True, 99.0) is None


def test_pause_call_of_an_arbiter_that_is_back_is_dropped():
    call = PauseCall()
    call.want()
    old = call.due(True, 0.0)
    call.forget()
    assert call.due(True, 9.0) is None and not call.problem
    call.want()
    call.answered(old, "", 9.1)  # of the loss before: undone since, for all we know
    assert not call.confirmed and call.due(True, 9.2) is not None
