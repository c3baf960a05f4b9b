# SPDX-License-Identifier: Apache-2.0
"""The table of control: complete, and safe in every pair."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlif_intervention.arbitration import (
    IGNORED,
    TABLE,
    ControlMachine,
    ControlState,
    Event,
    next_state,
    table_markdown,
    table_mermaid,
)

ALL = list(itertools.product(ControlState, Event))
S, E = ControlState, Event


@pytest.mark.parametrize(("state", "event"), ALL, ids=lambda v: v.name)
def test_table_has_every_pair_or_the_reason_why_it_is_ignored(state, event):
    assert ((state, event) in TABLE) != ((state, event) in IGNORED)
    if (state, event) in IGNORED:
        assert IGNORED[state, event]
        assert next_state(state, event) is state


def test_machine_at_start_is_disarmed():
    assert ControlMachine().state is S.DISARMED


@pytest.mark.parametrize("event", [e for e in Event if e is not E.ARM], ids=lambda e: e.name)
def test_fault_is_latched_until_a_human_arms(event):
    assert next_state(S.FAULT, event) is S.FAULT


@pytest.mark.parametrize("state", list(S), ids=lambda s: s.name)
def test_fault_is_reached_from_every_state(state):
    assert next_state(state, E.FAULT) is S.FAULT


@pytest.mark.parametrize("state", [S.HOLD, S.POLICY, S.OPERATOR], ids=lambda s: s.name)
def test_disarm_and_take_over_from_every_armed_state_move(state):
    assert next_state(state, E.DISARM) is S.DISARMED
    assert next_state(state, E.TAKE_OVER) is S.OPERATOR


def test_arming_alone_leaves_disarmed_and_fault_and_not_into_motion():
    for state, event in ALL:
        after = next_state(state, event)
        if state in (S.DISARMED, S.FAULT) and after not in (S.DISARMED, S.FAULT):
            assert event is E.ARM and after is S.HOLD


def test_policy_gets_control_from_hold_only():
    into = {state for (state, _), after in TABLE.items() if after is S.POLICY}
    assert into == {S.HOLD}


def test_operator_takes_over_from_policy_and_hold():
    for event in (E.INPUTS_LOST, E.INPUTS_BACK):
        assert next_state(S.OPERATOR, event) is S.OPERATOR


@pytest.mark.parametrize("state", [S.POLICY, S.OPERATOR], ids=lambda s: s.name)
def test_pose_lost_leads_to_hold_from_every_armed_state(state):
    assert next_state(state, E.POSE_LOST) is S.HOLD


@given(st.lists(st.sampled_from(Event), max_size=50))
def test_machine_with_any_events_drives_only_after_arming(events):
    machine, armed = ControlMachine(), False
    for event in events:
        was = machine.state
        machine.handle(event, event.value)
        if event is E.ARM and was in (S.DISARMED, S.FAULT):
            armed = True
        elif event is E.FAULT or machine.state is S.DISARMED:
            armed = False
        assert machine.armed == armed


def test_docs_draw_every_move():
    assert table_mermaid().count("-->") == len(TABLE) + 1
    assert len(table_markdown().splitlines()) == len(S) + 2


def test_docs_show_this_table():
    page = (Path(__file__).parents[3] / "docs" / "arbiter.md").read_text(encoding="utf-8")
    assert table_markdown() in page, "write rlif_intervention.arbitration.table_markdown() there"
    assert table_mermaid() in page, "write rlif_intervention.arbitration.table_mermaid() there"
