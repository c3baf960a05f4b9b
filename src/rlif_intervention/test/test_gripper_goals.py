# SPDX-License-Identifier: Apache-2.0
"""The gripper's goals: nobody waits, the newest wins, a stop cancels, a grasp is kept."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_intervention.gripper import AS_IT_IS, CLOSED, OPEN
from rlif_intervention.gripper_goals import GoalConfig, GripperGoals

EVENTS = st.sampled_from(
    ["open", "close", "as it is", "nan", "arm", "stop", "done", "failed", "late", "wait"]
)


def goals(**changes):
    made = GripperGoals(GoalConfig(**changes))
    made.armed(True)
    made.command(AS_IT_IS, 0.0)
    return made


@given(st.lists(EVENTS, max_size=80), st.booleans())
def test_goals_with_any_events_are_sent_only_as_commanded_and_none_is_under_way_after_a_stop(
    events, ready
):
    g, now, ticket, armed, commanded = GripperGoals(GoalConfig()), 0.0, 0, False, AS_IT_IS
    values = {"open": OPEN, "close": CLOSED, "as it is": AS_IT_IS, "nan": math.nan}
    for event in events:
        now += 0.1
        if event in values:
            commanded = values[event] if event != "nan" else AS_IT_IS
            g.command(values[event], now)
        elif event in ("arm", "stop"):
            armed = event == "arm"
            g.armed(armed)
        elif event in ("done", "failed", "late"):
            g.finished(ticket - (event == "late"), "broken" if event == "failed" else "", now)
        before = g.under_way
        order = g.step(ready, now)
        if order is not None and order.send:
            assert armed and ready and order.target == commanded and order.ticket == ticket + 1
            ticket = order.ticket
        elif order is not None:
            assert before and order.ticket == ticket, "the newest, and only once"
        if not armed:
            assert not g.under_way
        assert order is None or g.step(ready, now) is None, "nothing is ordered twice"


def test_goals_with_a_new_command_replace_the_one_under_way():
    g = goals()
    g.command(CLOSED, 0.0)
    first = g.step(True, 0.0)
    g.command(CLOSED, 0.3)
    assert g.step(True, 0.3) is None and g.under_way
    g.command(OPEN, 0.4)
    second = g.step(True, 0.4)
    assert (second.ticket, second.target) == (first.ticket + 1, OPEN)
    g.finished(first.ticket, "preempted", 0.5)
    assert g.under_way and not g.problem, "what an older goal came to concerns nobody"


def test_goals_of_a_silent_arbiter_are_cancelled_and_a_grasp_that_is_done_is_not_touched():
    g = goals(command_timeout=0.5)
    g.command(CLOSED, 0.0)
    order = g.step(True, 0.0)
    assert g.step(True, 0.4) is None
    cancel = g.step(True, 0.6)
    assert not cancel.send and cancel.ticket == order.ticket
    g.command(CLOSED, 1.0)
    assert g.step(True, 1.0) is None, "of an arbiter that hung: nobody asked anew"
    g.command(AS_IT_IS, 1.0)
    g.command(CLOSED, 1.0)
    order = g.step(True, 1.0)
    g.finished(order.ticket, "", 1.1)
    assert g.step(True, 5.0) is None, "held"


@pytest.mark.parametrize("order", ["stop first", "command first"])
def test_goals_after_a_stop_need_a_new_command_in_whatever_order_messages_come(order):
    g = goals()
    g.command(CLOSED, 0.0)
    g.step(True, 0.0)
    if order == "command first":
        g.command(AS_IT_IS, 0.1)
    g.armed(False)
    assert not g.step(True, 0.1).send
    if order == "stop first":
        g.armed(True)
        g.command(CLOSED, 0.2)  # still on its way when the stop came
        assert g.step(True, 0.2) is None and "since the last stop" in g.summary()
    g.command(AS_IT_IS, 0.3)
    g.armed(True)
    g.command(CLOSED, 0.4)
    assert g.step(True, 0.4).send


def test_goals_without_a_result_in_time_are_reported_and_tried_again():
    g = goals(goal_timeout=2.0, retry=1.0, command_timeout=100.0)
    g.command(CLOSED, 0.0)
    g.step(True, 0.0)
    assert not g.step(True, 2.1).send and "no result within 2.0 s" in g.summary()
    assert g.step(True, 3.0) is None
    assert g.step(True, 3.2).send and not g.problem


def test_goals_without_a_server_are_reported_and_sent_as_soon_as_there_is_one():
    g = goals()
    g.command(OPEN, 0.0)
    assert g.step(False, 0.0) is None and "driver" in g.summary()
    assert g.step(True, 0.1).send


@pytest.mark.parametrize("bad", [{"retry": 0.0}, {"goal_timeout": math.nan}])
def test_goal_config_with_times_that_make_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match="gripper_"):
        GoalConfig(**bad)
