# SPDX-License-Identifier: Apache-2.0
"""When the gripper opens and closes: hysteresis, the interval, whose wish counts, what is recorded."""

from __future__ import annotations

import math

import pytest
from arbiter_bench import MS, Bench
from hypothesis import given
from hypothesis import strategies as st

from rlif_intervention.devices import JoyLayout, Reading
from rlif_intervention.gripper import AS_IT_IS, CLOSED, OPEN, Gripper, GripperConfig
from rlif_intervention.ticks import Source

PERIOD = 0.02
CONFIG = GripperConfig(threshold=0.5, interval=0.5)
ASKED = st.one_of(st.floats(-1.2, 1.2), st.sampled_from([math.nan, math.inf, -math.inf]))
SOURCES = st.sampled_from([Source.POLICY, Source.OPERATOR, Source.NONE])


@given(st.lists(st.tuples(ASKED, SOURCES), max_size=200))
def test_gripper_with_any_actions_changes_as_asked_and_not_more_often_than_the_interval(inputs):
    gripper, now, before = Gripper(CONFIG), 0.0, AS_IT_IS
    changes = []
    for asked, source in inputs:
        now += PERIOD
        held = source is Source.NONE
        target = gripper.keep() if held else gripper.drive(asked, source, now)
        assert target in (OPEN, CLOSED, before)
        if target != before:
            assert not held, "without a driver it keeps its grasp"
            changes.append((now, source))
        before = target
    for (first, one), (second, other) in zip(changes, changes[1:], strict=False):
        in_turn = one is not Source.OPERATOR and other is Source.OPERATOR
        assert in_turn or second - first >= CONFIG.interval - 1e-9


@given(st.lists(st.floats(-0.49, 0.49), max_size=30), st.sampled_from([OPEN, CLOSED]))
def test_gripper_between_the_thresholds_stays_as_it_is(between, start):
    gripper = Gripper(CONFIG)
    gripper.drive(start, Source.POLICY, 0.0)
    for i, asked in enumerate(between):
        assert gripper.drive(asked, Source.POLICY, 1.0 + i) == start


def test_gripper_asked_within_the_interval_changes_when_it_is_over():
    gripper = Gripper(CONFIG)
    assert gripper.drive(1.0, Source.POLICY, 0.0) == OPEN
    assert gripper.drive(-1.0, Source.POLICY, 0.1) == OPEN
    assert gripper.drive(0.0, Source.POLICY, 0.51) == CLOSED
    gripper.drive(1.0, Source.POLICY, 0.6)
    gripper.drive(-1.0, Source.POLICY, 0.7)
    assert gripper.drive(0.0, Source.POLICY, 1.2) == CLOSED


def test_gripper_under_the_operator_does_not_wait_and_forgets_the_policy():
    gripper = Gripper(CONFIG)
    gripper.drive(-1.0, Source.POLICY, 0.0)
    gripper.drive(1.0, Source.POLICY, 0.1)
    assert gripper.drive(0.0, Source.OPERATOR, 0.9) == CLOSED
    gripper.drive(1.0, Source.POLICY, 1.0)
    gripper.drive(-1.0, Source.POLICY, 1.6)
    assert gripper.drive(1.0, Source.OPERATOR, 1.62) == OPEN


def test_gripper_after_a_stop_stays_until_it_is_asked_again():
    gripper = Gripper(CONFIG)
    gripper.drive(-1.0, Source.POLICY, 0.0)
    assert gripper.forget() == AS_IT_IS
    assert gripper.drive(0.0, Source.POLICY, 5.0) == AS_IT_IS
    assert gripper.drive(-1.0, Source.POLICY, 5.1) == CLOSED


@pytest.mark.parametrize("bad", [{"threshold": 0.0}, {"threshold": math.nan}, {"interval": -1.0}])
def test_config_with_numbers_that_make_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match="gripper_"):
        GripperConfig(**bad)


def test_layout_with_gripper_buttons_gives_the_entry_of_the_axis():
    layout = JoyLayout(buttons=(("deadman", 0), ("gripper_open", 1), ("gripper_close", 2)))
    for buttons, entry in (
        ([1, 1, 0], OPEN),
        ([1, 0, 1], CLOSED),
        ([1, 1, 1], 0.0),
        ([1, 0, 0], 0.0),
    ):
        reading = layout.read([0.5] * 6, buttons, ("x", "gripper"))
        assert reading.action == (0.5, entry) and reading.engaged


# ---- in the arbiter


@pytest.fixture
def bench():
    made = Bench(gripper=GripperConfig(interval=0.1))
    made.action = (0.5, 0.0, 0.0, -1.0)
    return made


def hand(bench, engaged, entry=0.0):
    bench.arbiter.device_reading("joy", Reading(engaged, (0.0, 1.0, 0.0, entry)), bench.now)


def further(bench, ms, engaged=False, entry=0.0):
    """As Bench.run, with the gripper's entry of the operator."""
    for _ in range(ms // 20):
        hand(bench, engaged, entry)
        bench.run(20, hand=lambda _: None)
    return bench


def test_arbiter_with_a_gripper_records_what_was_executed(bench):
    further(bench, 100)
    assert bench.arbiter.arm(True)[0]
    bench.arbiter.begin_episode(1, bench.ms * MS, 0)
    further(bench, 400)
    assert {d.executed_action[-1] for d in bench.decisions[1:]} == {CLOSED}
    bench.decisions.clear()
    further(bench, 160, engaged=True)
    hand(bench, True, OPEN)  # a tap that is over before the next command
    further(bench, 240, engaged=True)
    entries = [d.executed_action[-1] for d in bench.decisions]
    assert entries[0] == CLOSED and entries[-1] == OPEN
    assert set(entries) == {CLOSED, OPEN}, "latched, no mean of a tick in which it changed"
    assert all(len(d.executed_action) == 4 for d in bench.decisions)


def test_arbiter_in_hold_keeps_the_grasp_and_a_stop_forgets_it(bench):
    further(bench, 100)
    bench.arbiter.arm(True)
    bench.arbiter.begin_episode(1, bench.ms * MS, 0)
    further(bench, 400)
    bench.thinking = False
    further(bench, 600)
    assert bench.arbiter.state.name == "HOLD"
    assert bench.arbiter.output(bench.now).gripper == CLOSED
    assert bench.decisions[-1].blocked, "a latched grasp is no motion"
    bench.arbiter.stop(True)
    assert bench.arbiter.output(bench.now).gripper == AS_IT_IS
