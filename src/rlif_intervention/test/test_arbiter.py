# SPDX-License-Identifier: Apache-2.0
"""The arbiter's core in simulated time: take-overs, time-outs, faults, locks, the executed action."""

from __future__ import annotations

import math

import pytest
from arbiter_bench import (
    CONFIGS,
    HAPPENINGS,
    MS,
    PERIOD,
    POLICY,
    PUSH,
    REST,
    Bench,
    Rig,
    ids,
    make_config,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from rlif_node.states import ControlState, HoldReason

from rlif_intervention.devices import Lock, Reading
from rlif_intervention.limits import LimitConfig
from rlif_intervention.ticks import Source


def test_arbiter_at_start_is_disarmed_and_sends_zeros_until_a_human_arms():
    b = Bench()
    b.arbiter.begin_episode(1, 0, 0)
    b.run(500, hand=True)
    assert b.arbiter.state is ControlState.DISARMED
    assert all(not any(t) for _, t, _ in b.outputs)


def test_policy_has_control_in_an_episode_only():
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


def test_operator_takes_over_within_one_command_period():
    b = Bench().driving()
    b.run(20, hand=True)
    assert b.arbiter.state is ControlState.OPERATOR and b.arbiter.device == "joy"
    assert b.outputs[-1][1:] == ((0.0, 0.1, 0.0), Source.OPERATOR)


def test_operator_without_a_policy_has_control():
    b = Bench().driving()
    b.thinking = False
    b.run(600, hand=True)
    assert b.outputs[-1][2] is Source.OPERATOR
    assert b.decisions[-1].policy_action == ()


def test_release_leads_to_zeros_for_the_dwell_with_no_source():
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


def test_release_shorter_than_the_dwell_is_one_intervention():
    """Pitfall: one zero reading of the device ended an intervention, the next began another."""
    b = Bench(dwell=0.2).driving()
    b.run(600, hand=lambda ms: ms % 100 != 40)  # a jittering thumb
    b.run(400)
    assert [c.started for c in b.changes] == [True, False]
    assert ids(b) == {1} and sum(d.onset for d in b.decisions) == 1


def test_release_for_80_ms_is_one_intervention_and_for_300_ms_two():
    for gap, expected in ((80, 1), (300, 2)):
        b = Bench(dwell=0.2).driving()
        at = b.ms
        b.run(800, hand=lambda ms, at=at, gap=gap: not at + 200 <= ms < at + 200 + gap)
        b.run(500)
        assert sum(c.started for c in b.changes) == expected == sum(d.onset for d in b.decisions)


def test_minimum_length_after_a_tap_keeps_the_policy_out():
    b = Bench(dwell=0.0, minimum=0.3).driving()
    at = b.ms
    b.run(20, hand=True)
    b.run(500)
    back = next(ms for ms, _, source in b.outputs if ms > at and source is Source.POLICY)
    assert back - at == 300


def test_device_unplugged_while_driving_holds_until_it_is_back_and_released():
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


def test_device_silent_while_driving_brakes_before_it_is_given_up():
    """The stick was up when the cable came out: the arm went on until the time-out, 46 mm at 0.1 m/s."""
    bench = Bench().driving()
    bench.arbiter.rack.device("joy").stale_after = 0.2
    bench.run(300, hand=True)
    bench.run(160, hand=lambda _: None)
    assert any(bench.outputs[-1][1])
    bench.run(240, hand=lambda _: None)
    assert bench.arbiter.state is ControlState.OPERATOR
    assert not any(bench.outputs[-1][1]) and bench.outputs[-1][2] is Source.NONE, (
        "no expert's zeros"
    )
    bench.run(100, hand=True)
    assert any(bench.outputs[-1][1])


def test_device_unplugged_with_no_operator_required_holds_too():
    b = Bench(require_operator=False).driving()
    b.run(200, hand=True)
    b.run(3000, hand=lambda ms: None)
    assert b.arbiter.state is ControlState.HOLD


def test_policy_without_a_live_device_is_held():
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
def test_input_that_stops_leads_to_zeros_within_its_timeout_and_is_named(switch, words):
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
def test_policy_action_that_is_bad_is_a_fault_until_armed_again(bad):
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


def test_device_message_that_is_bad_is_a_fault():
    b = Bench().driving()
    b.arbiter.device_reading("joy", Reading(True, (math.nan, 0.0, 0.0)), b.now)
    b.run(20, hand=lambda ms: None)
    assert b.arbiter.state is ControlState.FAULT and "joy" in b.arbiter.reason


def test_stop_signal_is_a_fault_and_must_be_off_before_arming():
    b = Bench().driving()
    b.arbiter.stop(True)
    b.run(100)
    assert b.arbiter.state is ControlState.FAULT and not any(b.outputs[-1][1])
    assert not b.arbiter.arm(True)[0]
    b.arbiter.stop(False)
    b.run(100)
    assert b.arbiter.state is ControlState.FAULT
    assert b.arbiter.arm(True)[0]


def test_policy_version_that_goes_back_is_a_fault():
    """Pitfall: a resume that came back with a random actor, without an error."""
    b = Bench().driving()
    b.arbiter.policy_action(99, b.ms * MS, POLICY, 0, b.now)
    assert b.arbiter.state is ControlState.FAULT and "version 1 to 0" in b.arbiter.reason


def test_episode_at_its_time_limit_has_no_further_step():
    b = Bench()
    b.run(100)
    b.arbiter.arm(True)
    b.arbiter.begin_episode(1, b.ms * MS, 3)
    b.run(800, hand=lambda ms: ms > 300)
    assert [d.step_index for d in b.decisions] == [0, 1, 2]
    assert "time limit" in b.arbiter.reason and not any(b.outputs[-1][1])


def test_executed_action_is_the_mean_of_what_was_output_after_the_limits():
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


def test_tick_with_both_sources_is_the_operators():
    b = Bench(dwell=0.0).driving()
    at = b.ms
    b.run(200, hand=lambda ms: at + 40 <= ms < at + 60)
    b.run(100)
    tick = next(d for d in b.decisions if d.stamp == at * MS)
    assert tick.source is Source.OPERATOR and tick.onset
    assert tick.executed_action == pytest.approx((0.4, 0.2, 0.0))
    assert tick.policy_action == POLICY and tick.operator_action == PUSH


def test_label_only_marks_and_leaves_control_to_the_policy():
    b = Bench(label_only=True).driving()
    b.run(300, hand=True)
    b.run(400)
    assert {s for _, _, s in b.outputs[-35:]} == {Source.POLICY}
    marked = [d for d in b.decisions if d.intervention_id]
    assert len(marked) == 3 and [d.onset for d in marked] == [True, False, False]
    assert all(d.source is Source.POLICY and d.executed_action == POLICY for d in marked)
    assert all(d.operator_action == PUSH for d in marked)
    assert [c.started for c in b.changes] == [True, False]


def test_episode_that_ends_before_the_open_tick_takes_it_out():
    b = Bench().driving()
    count = len(b.decisions)
    b.run(20)
    b.arbiter.end_episode((b.ms - 20) * MS)  # the stamp of the open tick: it is the last Step
    b.run(280)
    assert len(b.decisions) == count + 1
    assert b.decisions[-1].stamp < (b.ms - 300) * MS


def test_workspace_box_without_a_pose_holds():
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
def test_arbiter_with_any_events_moves_only_armed_in_episodes_and_onsets_match_events(
    events, label
):
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


def halt(bench, code=HoldReason.NONE, reason=""):
    bench.arbiter.hold_policy("adapter", code, reason, bench.now)


def test_hold_policy_with_a_reason_holds_the_policy_and_not_the_operator():
    bench = Bench().driving()
    halt(bench, HoldReason.SERVO_STATUS, "Servo has halted at a singularity")
    bench.run(200)
    assert bench.arbiter.state is ControlState.HOLD
    assert "singularity" in bench.arbiter.reason
    assert bench.outputs[-1][1] == (0.0, 0.0, 0.0)
    bench.run(200, hand=True)
    assert bench.arbiter.state is ControlState.OPERATOR, "the way out of it"
    halt(bench)
    bench.run(600)
    assert bench.arbiter.state is ControlState.POLICY


def test_hold_policy_that_is_no_longer_repeated_holds_the_policy():
    """Whoever watches the robot has died: what it said last ("nothing") must not stand for ever."""
    bench = Bench(hold_timeout=0.5)
    halt(bench)
    bench.driving()
    halt(bench)
    bench.run(480)
    assert bench.arbiter.state is ControlState.POLICY
    bench.run(60)
    assert bench.arbiter.state is ControlState.HOLD
    assert "hold for more than 0.5 s" in bench.arbiter.reason
    bench.run(200, hand=True)
    assert bench.arbiter.state is ControlState.OPERATOR, "the operator sees the arm"


def test_hold_policy_with_a_timeout_holds_until_the_first_message():
    bench = Bench(hold_timeout=0.5)
    bench.arbiter.arm(True)
    bench.arbiter.begin_episode(1, 0, 0)
    bench.run(400)
    assert bench.arbiter.state is ControlState.HOLD and "servo_adapter" in bench.arbiter.reason


def test_hold_policy_of_a_paused_robot_holds_the_operator_too():
    """What is driven while nothing moves would be recorded as done."""
    bench = Bench().driving(hand=True)
    halt(bench, HoldReason.SERVO_PAUSED, "Servo is paused")
    bench.run(100, hand=True)
    assert bench.arbiter.state is ControlState.HOLD and "paused" in bench.arbiter.reason
    assert bench.arbiter.hold_reason is HoldReason.SERVO_PAUSED
    halt(bench)
    bench.run(100, hand=True)
    assert bench.arbiter.state is ControlState.OPERATOR


# ---- an arm that does not follow


def test_arm_that_does_not_follow_the_policy_is_held_until_it_moves_with_the_operator():
    bench = Bench()
    bench.action, bench.measured = (0.5, -0.4, 0.3), (0.4, 0.0, 0.3)
    bench.driving()
    bench.run(1200)
    assert bench.arbiter.state is ControlState.POLICY
    bench.run(300)
    assert bench.arbiter.state is ControlState.HOLD
    assert "does not follow" in bench.arbiter.reason
    assert bench.arbiter.hold_reason is HoldReason.NOT_MOVING
    bench.arbiter.begin_episode(2, bench.ms * MS, 0)
    bench.run(500)
    assert bench.arbiter.state is ControlState.HOLD, "another episode changes nothing"
    bench.run(100, hand=True)
    bench.measured = (0.4, 0.01, 0.3)
    bench.run(100, hand=True)
    bench.run(500)
    assert bench.arbiter.state is ControlState.POLICY


def test_arm_that_does_not_follow_and_is_pushed_by_hand_stays_held_after_a_tap_of_the_deadman():
    bench = Bench()
    bench.action, bench.measured = (0.5, -0.4, 0.3), (0.4, 0.0, 0.3)
    bench.driving()
    bench.run(1500)
    assert bench.arbiter.hold_reason is HoldReason.NOT_MOVING
    bench.measured = (0.4, 0.05, 0.3)
    bench.run(100)
    bench.run(100, hand=True)
    bench.run(500)
    assert bench.arbiter.hold_reason is HoldReason.NOT_MOVING
    assert bench.arbiter.state is ControlState.HOLD


def test_operator_who_drives_in_vain_is_held_until_the_device_is_released():
    bench = Bench()
    bench.measured = (0.4, 0.0, 0.3)
    bench.driving(hand=True)
    bench.run(5000, hand=True)
    assert bench.arbiter.state is ControlState.HOLD
    assert not any(bench.outputs[-1][1])
    assert [c.started for c in bench.changes] == [True, False]
    bench.run(500)
    assert bench.arbiter.state is ControlState.HOLD, "and not the policy's"
    bench.run(100, hand=True)
    assert bench.arbiter.state is ControlState.OPERATOR, "another try"
    bench.run(5000, hand=True)
    assert bench.arbiter.state is ControlState.HOLD
    bench.arbiter.arm(False)
    bench.arbiter.arm(True)
    bench.run(500)
    assert bench.arbiter.state is ControlState.POLICY


def test_arm_of_which_nothing_is_measured_is_not_held():
    bench = Bench()
    bench.action = (0.5, -0.4, 0.3)
    bench.driving()
    bench.run(5000)
    assert bench.arbiter.state is ControlState.POLICY


# ---- what others know


def test_missing_observation_is_explained_by_the_observer_while_it_is_alive():
    bench = Bench().driving()
    bench.observing = False
    bench.run(400)
    assert "is the observer alive?" in bench.arbiter.reason
    bench.arbiter.no_observation("camera/fixed/image: frozen", bench.now)
    bench.run(500)
    assert bench.arbiter.reason.endswith("s: camera/fixed/image: frozen")
    bench.run(1000)
    assert "is the observer alive?" in bench.arbiter.reason


def test_warning_is_read_with_the_reason_and_changes_no_state():
    bench = Bench().driving()
    bench.arbiter.warning = "node teleop publishes on command too"
    bench.run(100)
    assert bench.arbiter.state is ControlState.POLICY
    assert bench.arbiter.reason.endswith("; but node teleop publishes on command too")


def test_interventions_of_an_arbiter_that_was_restarted_count_on():
    bench = Bench()
    bench.arbiter.used_interventions(41)
    bench.driving(hand=True)
    bench.run(500)
    assert ids(bench) == {42} and sum(d.onset for d in bench.decisions) == 1


# ---- several devices, locks, and who ended it


@pytest.mark.parametrize("require_operator", [True, False])
def test_lock_in_a_take_over_holds_and_does_not_give_control_to_the_policy(require_operator):
    bench = Bench(require_operator=require_operator).driving()
    lock = Lock("pause", priority=200)
    bench.arbiter.rack.locks.append(lock)
    bench.run(200, hand=True)
    lock.update(True, bench.now)
    locked = bench.ms
    bench.run(3000, hand=True)
    assert bench.arbiter.state is ControlState.HOLD and "pause" in bench.arbiter.reason
    assert not any(any(twist) for ms, twist, _ in bench.outputs if ms >= locked)
    assert [c.started for c in bench.changes] == [True, False]
    lock.update(False, bench.now)
    bench.run(100, hand=True)
    assert bench.arbiter.state is ControlState.OPERATOR, "still held: the person has it again"
    bench.run(400)
    assert bench.arbiter.state is ControlState.POLICY


def test_lock_on_the_only_device_holds_the_policy():
    bench = Bench().driving()
    lock = Lock("pause", priority=200)
    bench.arbiter.rack.locks.append(lock)
    lock.update(True, bench.now)
    bench.run(200)
    assert bench.arbiter.state is ControlState.HOLD
    assert "joy is locked by pause" in bench.arbiter.reason
    lock.update(False, bench.now)
    bench.run(100)
    assert bench.arbiter.state is ControlState.POLICY


def two_devices():
    """`first` drives, then `second` does; both stay in the hand of a person."""
    bench = Bench(devices=("joy", "second", "first")).driving()
    for name, quiet in (("first", "second"), ("second", "first")):
        for _ in range(10):
            bench.arbiter.device_reading(name, Reading(True, PUSH), bench.now)
            bench.arbiter.device_reading(quiet, Reading(False, REST), bench.now)
            bench.run(20)
        assert bench.arbiter.device == name and name in bench.arbiter.reason
    return bench


def test_device_that_took_over_from_another_and_goes_silent_holds():
    bench = two_devices()
    for _ in range(100):
        bench.arbiter.device_reading("first", Reading(False, REST), bench.now)
        bench.run(20)
    assert bench.arbiter.state is ControlState.HOLD
    assert "second went silent" in bench.arbiter.reason
    assert not any(bench.outputs[-1][1])
    assert [(c.started, c.intervention.device) for c in bench.changes] == [
        (True, "first"),
        (False, "second"),
    ]
    assert ids(bench) == {1}, "handing over is no new intervention"


def test_device_that_goes_silent_while_another_drives_holds_after_its_release():
    bench = two_devices()
    for _ in range(100):  # both are held, and only one of them still speaks
        bench.arbiter.device_reading("first", Reading(True, PUSH), bench.now)
        bench.run(20)
    assert bench.arbiter.device == "first"
    for _ in range(50):
        bench.arbiter.device_reading("first", Reading(False, REST), bench.now)
        bench.run(20)
    assert bench.arbiter.state is ControlState.HOLD
    assert "second went silent" in bench.arbiter.reason
    bench.arbiter.device_reading("second", Reading(False, REST), bench.now)
    bench.run(100)
    assert bench.arbiter.state is ControlState.POLICY


@pytest.mark.parametrize(("lag", "drives"), [(100, True), (300, True), (400, False), (1400, False)])
def test_policy_that_answers_old_observations_is_held(lag, drives):
    bench = Bench(policy_timeout=0.3).driving()
    bench.run(1500)
    think = bench.arbiter.policy_action

    def late(tick, stamp, action, version, now):
        think(tick - lag // 100, stamp - lag * MS, action, version, now)

    bench.arbiter.policy_action = late
    bench.run(1000)
    assert (bench.arbiter.state is ControlState.POLICY) == drives
    assert drives or "lags by more than 0.3 s" in bench.arbiter.reason
    assert any(bench.outputs[-1][1]) == drives
    bench.arbiter.policy_action = think
    bench.run(200)
    assert bench.arbiter.state is ControlState.POLICY


HUMAN = {
    "disarm": lambda a: a.arm(False),
    "stop topic": lambda a: a.stop(True),
    "stop button": lambda a: a.fault("", "the stop button of joy was pressed", by_human=True),
}
MACHINE = {
    "not finite": lambda a: a.policy_action(1, 1, (math.nan,) * 3, 1, 0.0),
    "older weights": lambda a: a.policy_action(1, 1, PUSH, 0, 0.0),
    "device": lambda a: a.device_fault("joy", "too short"),
    "stood still": lambda a: a.fault("", "the arbiter itself stood still"),
    "end of the process": lambda a: a.leave(),
}


@pytest.mark.parametrize("cause", [*HUMAN, *MACHINE])
def test_by_human_is_true_for_what_a_human_did_only(cause):
    bench = Bench().driving()
    assert not bench.arbiter.by_human
    (HUMAN | MACHINE)[cause](bench.arbiter)
    assert not bench.arbiter.armed and bench.arbiter.by_human == (cause in HUMAN)
    bench.arbiter.stop(False)
    bench.arbiter.stop(True)  # of what is latched, the first cause counts
    assert bench.arbiter.by_human == (cause in HUMAN or cause == "end of the process")
    bench.arbiter.stop(False)
    bench.run(100)
    assert bench.arbiter.arm(True)[0] and not bench.arbiter.by_human


BOX = LimitConfig(workspace_min=(-1.0,) * 3, workspace_max=(1.0,) * 3)


def boxed(hand=False, **config):
    """A box, poses as they should be, and whoever `hand` says drives."""
    bench = Bench(limits=BOX, pose_timeout=0.3, **config)
    bench.pose = (0.0, 0.0, 0.0)
    return bench.driving(hand=hand)


def test_pose_lost_while_the_operator_drives_holds_and_leaves_no_expert_steps_of_zeros():
    """Pitfall: hold stored zero "expert" actions."""
    bench = boxed(hand=True)
    assert bench.arbiter.state is ControlState.OPERATOR and any(bench.outputs[-1][1])
    bench.pose, lost = None, bench.ms
    bench.run(1000, hand=True)
    assert bench.arbiter.state is ControlState.HOLD
    assert "no ee_pose for more than 0.3 s" in bench.arbiter.reason
    assert not any(bench.outputs[-1][1]) and bench.outputs[-1][2] is Source.NONE
    held = [d for d in bench.decisions if d.stamp >= (lost + 400) * MS]
    assert held and all(d.source is Source.NONE and d.blocked for d in held)
    assert all(not d.intervention_id and d.operator_action == () for d in held)
    bench.pose = (0.0, 0.0, 0.0)
    bench.run(200, hand=True)
    assert bench.arbiter.state is ControlState.OPERATOR
    driven = [d for d in bench.decisions if d.source is Source.OPERATOR]
    assert driven and all(any(d.executed_action) for d in driven)
    assert [c.started for c in bench.changes] == [True, False, True]


@pytest.mark.parametrize("hand", [False, True])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda a, now: a.refuse_pose("ee_pose is in frame 'world'", now), "frame 'world'"),
        (lambda a, now: a.pose((math.nan, 0.0, 0.0), now), "ee_pose is not finite"),
        (lambda a, now: a.pose((0.0, 0.0), now), "ee_pose has 2 entries"),
    ],
)
def test_pose_that_cannot_be_used_holds_although_good_ones_come_too(hand, spoil, words):
    bench = boxed(hand=hand)
    for _ in range(20):
        spoil(bench.arbiter, bench.now)
        bench.run(20, hand=hand)
        assert bench.arbiter.state is ControlState.HOLD and words in bench.arbiter.reason
        assert not any(bench.outputs[-1][1])
    bench.run(400, hand=hand)
    assert bench.arbiter.state in (ControlState.POLICY, ControlState.OPERATOR)


@pytest.mark.parametrize("hand", [False, True])
@pytest.mark.parametrize("before", ["disarmed", "fault"])
def test_arming_in_a_running_episode_leads_to_zeros_for_the_dwell(hand, before):
    bench = Bench(arm_dwell=0.5)
    bench.arbiter.begin_episode(1, 0, 0)
    if before == "fault":
        bench.arbiter.arm(True)
        bench.run(1000, hand=hand)
        assert any(bench.outputs[-1][1])
        bench.arbiter.fault("", "something")
    bench.run(200, hand=hand)
    assert bench.arbiter.arm(True)[0]
    armed = bench.ms
    bench.run(1000, hand=hand)
    motion = [ms for ms, twist, _ in bench.outputs if ms >= armed and any(twist)]
    assert motion[0] == armed + 500
    assert all(s is Source.NONE for ms, _, s in bench.outputs if armed <= ms < armed + 500)
    held = [d for d in bench.decisions if armed * MS <= d.stamp < (armed + 400) * MS]
    assert held and all(d.source is Source.NONE and not d.intervention_id for d in held)


def test_arming_what_is_armed_begins_no_other_dwell():
    bench = Bench(arm_dwell=0.5)
    bench.arbiter.begin_episode(1, 0, 0)
    bench.run(100)
    bench.arbiter.arm(True)
    bench.run(200)
    assert bench.arbiter.state is ControlState.HOLD and "0.5 s" in bench.arbiter.reason
    bench.run(400)
    bench.arbiter.arm(True)
    bench.run(20)
    assert bench.arbiter.state is ControlState.POLICY and any(bench.outputs[-1][1])


def test_arming_what_is_armed_clears_no_hold():
    """Regression: the policy went on at once, without the dwell."""
    bench = Bench(arm_dwell=0.5)
    bench.action, bench.measured = (0.5, -0.4, 0.3), (0.4, 0.0, 0.3)
    bench.arbiter.arm(True)
    bench.arbiter.begin_episode(1, 0, 0)
    bench.run(2500)
    assert bench.arbiter.hold_reason is HoldReason.NOT_MOVING
    success, message = bench.arbiter.arm(True)
    assert success and "disarm first" in message
    bench.run(100)
    assert bench.arbiter.hold_reason is HoldReason.NOT_MOVING
    assert bench.arbiter.state is ControlState.HOLD
    bench.arbiter.arm(False)
    bench.arbiter.arm(True)
    assert bench.arbiter.hold_reason is HoldReason.NONE


def test_stop_signal_of_several_publishers_is_taken_back_by_none():
    bench = Bench().driving()
    bench.arbiter.stop(True, "stop", publishers=2)
    bench.arbiter.stop(False, "stop", publishers=2)
    bench.run(100)
    success, words = bench.arbiter.arm(True)
    assert not success and "2 publish" in words and "stop_topics" in words
    assert bench.arbiter.state is ControlState.FAULT
    bench.arbiter.stop(False, "stop", publishers=1)  # the other one was ended
    assert bench.arbiter.state is ControlState.FAULT and bench.arbiter.arm(True)[0]


def test_stop_signal_of_each_topic_is_a_cause_of_its_own():
    bench = Bench().driving()
    bench.arbiter.stop(True, "stop")
    bench.arbiter.stop(True, "door/open")
    bench.arbiter.stop(False, "stop")
    success, words = bench.arbiter.arm(True)
    assert not success and "door/open" in words
    bench.arbiter.stop(False, "door/open")
    assert bench.arbiter.arm(True)[0]


@pytest.mark.parametrize("hand", [False, True])
def test_clock_that_goes_back_is_a_fault_and_makes_nothing_old_look_fresh(hand):
    bench = Bench().driving(hand=hand)
    bench.arbiter.output(bench.now - 0.02)  # stamps and their clock come in any order
    assert bench.arbiter.state in (ControlState.POLICY, ControlState.OPERATOR)
    command = bench.arbiter.output(bench.now - 0.25)
    assert bench.arbiter.state is ControlState.FAULT and not any(command.twist)
    assert "went back by 0.2" in bench.arbiter.reason
    ages = bench.arbiter.ages(bench.now)
    assert all(math.isinf(age) for age in ages.values())


def test_speed_scale_in_force_is_in_the_decision():
    bench = Bench().driving()
    bench.arbiter.limiter.speed_scale = 0.25
    bench.run(300)
    assert [d.speed_scale for d in bench.decisions][0] == 1.0
    assert bench.decisions[-1].speed_scale == 0.25
    assert bench.decisions[-1].executed_action == pytest.approx((0.125, 0.0, 0.0))


# ---- with all limits, whatever happens


@settings(deadline=None, max_examples=150)
@given(CONFIGS, HAPPENINGS)
def test_limits_with_any_events_hold_and_decisions_have_what_was_sent(config, happenings):
    rig = Rig(config)
    for event, action, number, count in happenings:
        rig.happen(event, action, number)
        for _ in range(count):
            rig.command()
    rig.restore()


STOPS = {
    "disarm": ControlState.DISARMED,
    "stop": ControlState.FAULT,
    "fault": ControlState.FAULT,
    "hold": ControlState.HOLD,
    "end": ControlState.HOLD,
    "bad": ControlState.FAULT,
    "broken": ControlState.FAULT,
    "unplug": ControlState.HOLD,
    "blind": ControlState.HOLD,
    "bad pose": ControlState.HOLD,
    "back": ControlState.FAULT,
    "forward": ControlState.HOLD,
}
POLICY_STOPS = {
    "halt": ControlState.HOLD,
    "no policy": ControlState.HOLD,
    "no observer": ControlState.HOLD,
}


STOPPED = [("policy", cause) for cause in STOPS | POLICY_STOPS] + [("operator", c) for c in STOPS]


@pytest.mark.parametrize(("driver", "cause"), STOPPED)
def test_cause_of_a_stop_ends_motion_within_its_timeout_and_the_deceleration(driver, cause):
    rig = Rig(make_config(10.0, 0.02, 0.0, False))
    rig.happen("begin", (), 0)
    rig.arbiter.arm(True)
    rig.action = (0.2, 0.0, 0.0, 1.0)
    if driver == "operator":
        rig.hand = (0.0, 0.2, 0.0, 1.0)
    for _ in range(20):
        rig.command()
    assert any(rig.before) and rig.arbiter.state.name == driver.upper()
    rig.happen(cause, (), 0)
    if cause == "forward":
        rig.plugged = rig.observing = rig.thinking = False
    timeouts = {"blind": 0.3, "unplug": 0.2, "no policy": 0.3, "no observer": 0.3}
    due = 5 if cause == "bad" else math.ceil(timeouts.get(cause, 0.0) / PERIOD) + 5
    for _ in range(due + rig.stops):
        rig.command()
    assert rig.arbiter.state is (STOPS | POLICY_STOPS)[cause]
    assert not any(rig.before)
