# SPDX-License-Identifier: Apache-2.0
"""When the watchdog sends zeros, and how it asks for the pause of the robot, and for its end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_intervention.watchdog import HANDOVER, PauseCall, Stage, Watchdog

A, B = b"a" * 16, b"b" * 16


def test_watchdog_before_a_first_heartbeat_is_silent():
    assert Watchdog().check(100.0) == (False, False)


def test_watchdog_after_the_timeout_acts_until_the_arbiter_is_back():
    w = Watchdog(timeout=0.2)
    w.heartbeat(A, True, 10.0)
    assert w.check(10.2) == (False, False)
    assert w.check(10.21) == (True, True)
    assert w.check(1000.0) == (True, False)
    w.heartbeat(A, True, 1000.1)
    assert w.check(1000.2) == (False, False) and not w.tripped


def test_watchdog_of_an_arbiter_that_was_not_armed_lingers_and_does_not_trip():
    """A stall during the start, when nothing moves, pauses nothing."""
    w = Watchdog(timeout=0.2, linger=1.0, start_timeout=10.0)
    w.check(10.0)
    w.heartbeat(A, False, 10.0)
    assert w.check(10.3) == (True, False) and not w.tripped
    assert w.check(11.1)[0] and not w.check(11.3)[0]
    assert not w.absent(19.9) and w.absent(20.1)


def test_watchdog_with_another_arbiter_alive_trips_and_hands_over():
    w = Watchdog(timeout=0.2)
    w.heartbeat(A, True, 10.0)
    w.heartbeat(B, False, 10.0)
    sent = {}
    for i in range(1, 400):
        now = 10.0 + 0.01 * i
        w.heartbeat(B, False, now)
        sent[i] = w.check(now)
    assert [i for i, (_, lost) in sent.items() if lost] == [21]
    until = 21 + round(100 * HANDOVER)
    assert all(sent[i][0] == (21 <= i <= until) for i in sent if abs(i - until) > 1)
    w.heartbeat(B, True, 15.0)
    assert not w.tripped


def test_watchdog_of_a_human_who_arms_knows_it_from_an_arbiter_that_was_armed_before():
    w = Watchdog()
    assert not w.heartbeat(A, True, 0.0), "this node was restarted"
    assert not w.heartbeat(A, False, 0.1)
    assert w.heartbeat(A, True, 0.2) and not w.heartbeat(A, True, 0.3)


def test_watchdog_of_a_new_arbiter_whose_first_heartbeat_is_armed_knows_that_a_human_has_armed():
    """Regression: armed within a second of its start, the robot stayed paused until it was armed again."""
    watchdog = Watchdog(0.3)
    watchdog.heartbeat(b"2", armed=True, now=0.0)
    assert watchdog.check(1.0) == (True, True)
    assert not watchdog.heartbeat(b"1", armed=True, now=1.1), "an older one was frozen"
    watchdog = Watchdog(0.3)
    watchdog.heartbeat(b"2", armed=True, now=0.0)
    assert watchdog.check(1.0) == (True, True)
    assert watchdog.heartbeat(b"3", armed=True, now=1.1)
    assert not watchdog.heartbeat(b"3", armed=True, now=1.2)


def test_watchdog_of_an_arbiter_that_is_back_still_armed_sees_no_human_arm():
    """Regression: the end of a gap in its heartbeats undid the pause."""
    w = Watchdog(timeout=0.2)
    w.heartbeat(A, True, 0.0)
    assert w.check(0.3) == (True, True) and w.check(0.4) == (True, False)
    assert not w.heartbeat(A, True, 0.5)
    assert w.check(0.8) == (True, True), "lost a second time"
    assert not w.heartbeat(A, False, 0.9) and w.heartbeat(A, True, 1.0)


@given(st.lists(st.floats(0.001, 0.5), max_size=50))
def test_watchdog_with_any_gaps_sends_exactly_while_the_last_heartbeat_is_too_old(gaps):
    w, now = Watchdog(timeout=0.2), 0.0
    for gap in gaps:
        w.heartbeat(A, True, now)
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
    w.heartbeat(A, False, 111.0)
    assert not w.absent(120.0)
    assert not Watchdog(start_timeout=0.0).absent(1e9)


def test_pause_call_is_repeated_until_it_is_confirmed():
    call = PauseCall(answer=2.0, retry=1.0)
    assert call.due(True, 0.0) is None, "nobody wants one"
    call.want()
    assert call.due(False, 0.0) is None and "not there" in call.problem
    due = call.due(True, 0.1)
    assert due is not None and due[1] and call.due(True, 2.0) is None
    call.answered(due[0], "it answered no", 2.0)
    assert call.problem == "it answered no" and call.due(True, 2.5) is None
    assert call.due(True, 3.1) is not None
    assert call.due(True, 5.2) is not None, "no answer: again"
    assert "no answer" in call.problem
    call.answered(due[0], "", 5.3)
    assert call.stage is Stage.PAUSED and not call.problem and call.due(True, 99.0) is None


def test_pause_call_that_is_confirmed_stays_in_force_until_its_end_is_confirmed():
    call = PauseCall()
    call.want()
    call.answered(call.due(True, 0.0)[0], "", 0.1)
    call.arbiter_is_back()
    assert call.stage is Stage.PAUSED
    call.release()
    ticket, pauses = call.due(True, 1.0)
    assert not pauses
    call.answered(ticket, "not now", 1.1)
    assert call.stage is Stage.RELEASING and call.problem == "not now"
    ticket, pauses = call.due(True, 9.0)
    assert not pauses
    call.answered(ticket, "", 9.1)
    assert call.stage is Stage.NONE and not call.problem


def test_pause_call_that_was_refused_or_never_made_is_dropped_when_the_arbiter_is_back():
    for ready in (True, False):
        call = PauseCall()
        call.want()
        due = call.due(ready, 0.0)
        if due:
            call.answered(due[0], "it answered no", 0.1)
        call.arbiter_is_back()
        assert call.stage is Stage.NONE and call.due(True, 9.0) is None
    late = PauseCall()
    late.want()
    ticket, _ = late.due(True, 0.0)
    late.arbiter_is_back()
    assert late.stage is Stage.PAUSING, "it may be carried out"
    late.forget()
    late.want()
    late.answered(ticket, "", 9.1)
    assert late.stage is Stage.PAUSING, "an answer to the call of before"
