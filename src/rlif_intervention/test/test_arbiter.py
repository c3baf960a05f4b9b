"""The arbiter's core in simulated time: take-overs, time-outs, faults, the executed action."""

from __future__ import annotations

import math

import pytest
from arbiter_bench import MS, POLICY, PUSH, Bench, ids
from hypothesis import given, settings
from hypothesis import strategies as st

from rlif_intervention.arbitration import ControlState
from rlif_intervention.devices import Reading
from rlif_intervention.limits import LimitConfig
from rlif_intervention.ticks import Source


def test_disarmed_at_start_and_zeros_until_a_human_arms():
    b = Bench()
    b.arbiter.begin_episode(1, 0, 0)
    b.run(500, hand=True)
    assert b.arbiter.state is ControlState.DISARMED
    assert all(not any(t) for _, t, _ in b.outputs)


def test_the_policy_drives_an_episode_and_nothing_outside_of_one():
    b = Bench()
    b.run(100)
    b.arbiter.arm(True)
    b.run(200)
    assert b.arbiter.state is ControlState.HOLD and "no episode" in b.arbiter.reason
    b.arbiter.begin_episode(1, b.ms * MS, 0)
    b.run(300)
    assert b.arbiter.state is ControlState.POLICY
    assert b.outputs[-1][1] == pytest.approx((0.05, 0.0, 0.0))
    b.arbiter.end_episode(b.ms * MS)
    b.run(20)
    assert b.arbiter.state is ControlState.HOLD and not any(b.outputs[-1][1])
    assert [d.step_index for d in b.decisions] == [0, 1, 2]


def test_the_operator_wins_within_one_command_period():
    b = Bench().driving()
    b.run(20, hand=True)
    assert b.arbiter.state is ControlState.OPERATOR and b.arbiter.device == "joy"
    assert b.outputs[-1][1:] == ((0.0, 0.1, 0.0), Source.OPERATOR)


def test_the_operator_drives_without_a_policy_too():
    b = Bench().driving()
    b.thinking = False
    b.run(600, hand=True)
    assert b.outputs[-1][2] is Source.OPERATOR
    assert b.decisions[-1].policy_action == ()


def test_after_a_release_zeros_for_the_dwell_and_these_steps_are_nobodys():
    """Pitfall: hold after release stored zero "expert" actions."""
    b = Bench(dwell=0.2).driving()
    b.run(200, hand=True)
    released = b.ms
    b.run(400)
    after = [(t, s) for ms, t, s in b.outputs if released <= ms < released + 200]
    assert all(not any(t) and s is Source.NONE for t, s in after)
    assert b.outputs[-1][2] is Source.POLICY
    b.run(100)
    sources = [d.source for d in b.decisions]
    assert sources == [1, 1, 2, 2, 0, 0, 1, 1]
    dwell = [d for d in b.decisions if d.source is Source.NONE]
    assert all(d.intervention_id == 0 and d.operator_action == () for d in dwell)
    assert all(not any(d.executed_action) and not d.blocked for d in dwell)


def test_flicker_inside_the_dwell_is_one_intervention():
    """Pitfall: one zero reading of the device ended an intervention, the next began another."""
    b = Bench(dwell=0.2).driving()
    b.run(600, hand=lambda ms: ms % 100 != 40)  # a jittering thumb
    b.run(400)
    assert [c.started for c in b.changes] == [True, False]
    assert ids(b) == {1} and sum(d.onset for d in b.decisions) == 1


def test_released_for_80_ms_is_one_and_for_300_ms_two_interventions():
    for gap, expected in ((80, 1), (300, 2)):
        b = Bench(dwell=0.2).driving()
        at = b.ms
        b.run(800, hand=lambda ms, at=at, gap=gap: not at + 200 <= ms < at + 200 + gap)
        b.run(500)
        assert sum(c.started for c in b.changes) == expected == sum(d.onset for d in b.decisions)


def test_minimum_length_keeps_the_policy_away_after_a_tap():
    b = Bench(dwell=0.0, minimum=0.3).driving()
    at = b.ms
    b.run(20, hand=True)
    b.run(500)
    back = next(ms for ms, _, source in b.outputs if ms > at and source is Source.POLICY)
    assert back - at == 300


def test_unplugged_in_mid_take_over_holds_until_the_device_is_back_and_released():
    b = Bench().driving()
    b.run(200, hand=True)
    b.run(1000, hand=lambda ms: None)
    assert b.arbiter.state is ControlState.HOLD and "went silent" in b.arbiter.reason
    assert not any(b.outputs[-1][1])
    assert [c.started for c in b.changes] == [True, False]
    b.run(100, hand=True)  # plugged in with the button down: the operator has control again
    assert b.arbiter.state is ControlState.OPERATOR
    b.run(400)
    assert b.arbiter.state is ControlState.POLICY
    assert [c.intervention.id for c in b.changes] == [1, 1, 2, 2]


def test_unplugged_and_no_operator_required_still_waits_for_the_device():
    b = Bench(require_operator=False).driving()
    b.run(200, hand=True)
    b.run(3000, hand=lambda ms: None)
    assert b.arbiter.state is ControlState.HOLD


def test_without_a_live_device_the_policy_does_not_drive():
    b = Bench().driving()
    b.run(1000, hand=lambda ms: None)
    assert b.arbiter.state is ControlState.HOLD and "silent" in b.arbiter.reason
    free = Bench(require_operator=False)
    free.run(100, hand=lambda ms: None)
    free.arbiter.arm(True)
    free.arbiter.begin_episode(1, free.ms * MS, 0)
    free.run(1000, hand=lambda ms: None)
    assert free.arbiter.state is ControlState.POLICY


@pytest.mark.parametrize(
    ("switch", "words"), [("thinking", "policy"), ("observing", "observation")]
)
def test_a_node_that_dies_leads_to_zeros_within_its_timeout_and_says_why(switch, words):
    """Pitfall: the sender died, the robot kept moving."""
    b = Bench().driving()
    last = b.ms - 100  # of the last tick
    setattr(b, switch, False)
    b.run(800)
    assert b.arbiter.state is ControlState.HOLD and words in b.arbiter.reason
    stopped = next(ms for ms, t, _ in b.outputs if ms > last and not any(t))
    assert stopped - last <= 320
    setattr(b, switch, True)
    b.run(200)
    assert b.arbiter.state is ControlState.POLICY


@pytest.mark.parametrize("bad", [(math.nan, 0.0, 0.0), (math.inf,) * 3, (0.0, 0.0), (0.0,) * 7, ()])
def test_a_bad_policy_action_is_a_fault_until_re_armed(bad):
    b = Bench().driving()
    b.action = bad
    b.run(200)
    assert b.arbiter.state is ControlState.FAULT and not any(b.outputs[-1][1])
    success, words = b.arbiter.arm(True)
    assert not success and "policy" in words, "its cause is still there"
    b.action = POLICY
    b.run(200)
    assert b.arbiter.state is ControlState.FAULT, "latched although the cause is gone"
    assert b.arbiter.arm(True)[0]
    b.run(200)
    assert b.arbiter.state is ControlState.POLICY


def test_a_bad_device_message_is_a_fault():
    b = Bench().driving()
    b.arbiter.device_reading("joy", Reading(True, (math.nan, 0.0, 0.0)), b.now)
    b.run(20, hand=lambda ms: None)
    assert b.arbiter.state is ControlState.FAULT and "joy" in b.arbiter.reason


def test_stop_latches_a_fault_and_must_be_off_before_arming():
    b = Bench().driving()
    b.arbiter.stop(True)
    b.run(100)
    assert b.arbiter.state is ControlState.FAULT and not any(b.outputs[-1][1])
    assert not b.arbiter.arm(True)[0]
    b.arbiter.stop(False)
    b.run(100)
    assert b.arbiter.state is ControlState.FAULT
    assert b.arbiter.arm(True)[0]


def test_weights_that_go_back_are_a_fault():
    """Pitfall: a resume that came back with a random actor, without an error."""
    b = Bench().driving()
    b.arbiter.policy_action(99, b.ms * MS, POLICY, 0, b.now)
    assert b.arbiter.state is ControlState.FAULT and "version 1 to 0" in b.arbiter.reason


def test_no_step_beyond_the_time_limit():
    b = Bench()
    b.run(100)
    b.arbiter.arm(True)
    b.arbiter.begin_episode(1, b.ms * MS, 3)
    b.run(800, hand=lambda ms: ms > 300)
    assert [d.step_index for d in b.decisions] == [0, 1, 2]
    assert "time limit" in b.arbiter.reason and not any(b.outputs[-1][1])


def test_executed_is_the_mean_of_what_was_output_after_the_limits():
    """Pitfall: the stored action was the one asked for, not the one executed after clipping."""
    limits = LimitConfig(max_linear_acceleration=1.0)  # 0.02 m/s per period of 20 ms
    b = Bench(limits=limits)
    b.action = (2.0, 0.0, 0.0)
    b.driving()
    first = b.decisions[0]
    outputs = [t[0] / 0.1 for ms, t, _ in b.outputs if 100 <= ms < 200]
    assert first.executed_action[0] == pytest.approx(sum(outputs) / 5) == pytest.approx(0.6)
    assert first.policy_action == (2.0, 0.0, 0.0)
    assert first.limited and first.limits == ("clamp", "acceleration") and not first.blocked


def test_a_tick_that_the_operator_drove_in_part_is_the_operators():
    b = Bench(dwell=0.0).driving()
    at = b.ms
    b.run(200, hand=lambda ms: at + 40 <= ms < at + 60)
    b.run(100)
    tick = next(d for d in b.decisions if d.stamp == at * MS)
    assert tick.source is Source.OPERATOR and tick.onset
    assert tick.executed_action == pytest.approx((0.4, 0.2, 0.0))
    assert tick.policy_action == POLICY and tick.operator_action == PUSH


def test_label_only_marks_and_the_policy_keeps_control():
    b = Bench(label_only=True).driving()
    b.run(300, hand=True)
    b.run(400)
    assert {s for _, _, s in b.outputs[-35:]} == {Source.POLICY}
    marked = [d for d in b.decisions if d.intervention_id]
    assert len(marked) == 3 and [d.onset for d in marked] == [True, False, False]
    assert all(d.source is Source.POLICY and d.executed_action == POLICY for d in marked)
    assert all(d.operator_action == PUSH for d in marked)
    assert [c.started for c in b.changes] == [True, False]


def test_an_episode_that_ends_before_the_open_tick_takes_it_out():
    b = Bench().driving()
    count = len(b.decisions)
    b.run(20)
    b.arbiter.end_episode((b.ms - 20) * MS)  # the stamp of the open tick: it is the last Step
    b.run(280)
    assert len(b.decisions) == count + 1
    assert b.decisions[-1].stamp < (b.ms - 300) * MS


def test_a_box_without_a_pose_holds():
    limits = LimitConfig(workspace_min=(-1.0,) * 3, workspace_max=(1.0,) * 3)
    b = Bench(limits=limits).driving()
    assert b.arbiter.state is ControlState.HOLD and "ee_pose" in b.arbiter.reason
    b.arbiter.pose((0.0, 0.0, 0.0), b.now)
    b.run(100)
    assert b.arbiter.state is ControlState.POLICY
    b.run(400)
    assert b.arbiter.state is ControlState.HOLD


EVENTS = st.sampled_from(
    ["arm", "disarm", "stop", "go", "nan", "good", "start", "end", "push", "rest", "unplug", "wait"]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(EVENTS, max_size=30), st.booleans())
def test_whatever_happens_only_the_armed_drive_in_episodes_and_onsets_match_events(events, label):
    b = Bench(dwell=0.1, label_only=label)
    hand: bool | None = False
    for number, event in enumerate(events, start=1):
        hand = {"push": True, "rest": False, "unplug": None}.get(event, hand)
        b.action = {"nan": (math.nan,) * 3, "good": POLICY}.get(event, b.action)
        happen = {
            "arm": lambda: b.arbiter.arm(True),
            "disarm": lambda: b.arbiter.arm(False),
            "stop": lambda: b.arbiter.stop(True),
            "go": lambda: b.arbiter.stop(False),
            "start": lambda number=number: b.arbiter.begin_episode(number, b.ms * MS, 0),
            "end": lambda: b.arbiter.end_episode(b.ms * MS),
        }
        happen.get(event, lambda: None)()
        count = len(b.outputs)
        b.run(100, hand=lambda ms, pressed=hand: pressed)
        if b.arbiter.state not in (ControlState.POLICY, ControlState.OPERATOR):
            assert not any(b.outputs[-1][1])
        for _, twist, source in b.outputs[count:]:
            assert all(math.isfinite(v) for v in twist)
            assert any(twist) == (source is not Source.NONE)
    b.arbiter.end_episode(b.ms * MS)
    b.run(200)
    onsets = [d.intervention_id for d in b.decisions if d.onset]
    started = [c.intervention.id for c in b.changes if c.started]
    ended = [c.intervention.id for c in b.changes if not c.started]
    assert onsets == sorted(set(onsets)) and started == ended == list(range(1, len(started) + 1))
    assert set(onsets) <= set(started)
    for d in b.decisions:
        assert not (d.source is Source.OPERATOR and label)
        assert (d.source is Source.OPERATOR) <= (d.intervention_id > 0)


def test_a_halted_servo_holds_the_policy_and_not_the_operator():
    bench = Bench().driving()
    bench.arbiter.hold_policy("Servo has halted at a singularity", bench.now)
    bench.run(200)
    assert bench.arbiter.state is ControlState.HOLD
    assert "singularity" in bench.arbiter.reason
    assert bench.outputs[-1][1] == (0.0, 0.0, 0.0)
    bench.run(200, hand=True)
    assert bench.arbiter.state is ControlState.OPERATOR, "the way out of it"
    bench.arbiter.hold_policy("", bench.now)
    bench.run(600)
    assert bench.arbiter.state is ControlState.POLICY


def test_a_hold_that_nobody_repeats_keeps_the_policy_from_driving():
    """Whoever watches the robot has died: what it said last ("nothing") must not stand for ever."""
    bench = Bench(hold_timeout=0.5)
    bench.arbiter.hold_policy("", bench.now)
    bench.driving()
    bench.arbiter.hold_policy("", bench.now)
    bench.run(480)
    assert bench.arbiter.state is ControlState.POLICY
    bench.run(60)
    assert bench.arbiter.state is ControlState.HOLD
    assert "hold for more than 0.5 s" in bench.arbiter.reason
    bench.run(200, hand=True)
    assert bench.arbiter.state is ControlState.OPERATOR, "the operator sees the arm"


def test_with_a_hold_timeout_the_policy_waits_for_the_first_word():
    bench = Bench(hold_timeout=0.5)
    bench.arbiter.arm(True)
    bench.arbiter.begin_episode(1, 0, 0)
    bench.run(400)
    assert bench.arbiter.state is ControlState.HOLD and "servo_adapter" in bench.arbiter.reason
