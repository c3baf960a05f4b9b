"""Who has control when devices are locked, handed over or silent, and when a person ends it."""

from __future__ import annotations

import math

import pytest
from arbiter_bench import MS, PUSH, REST, Bench, ids

from rlif_intervention.arbitration import ControlState
from rlif_intervention.devices import Lock, Reading
from rlif_intervention.limits import LimitConfig
from rlif_intervention.ticks import Source


@pytest.mark.parametrize("require_operator", [True, False])
def test_a_lock_in_mid_take_over_holds_and_does_not_give_control_to_the_policy(require_operator):
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


def test_the_policy_does_not_drive_while_no_device_may_take_over():
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


def test_the_device_that_took_over_from_another_is_the_one_that_must_not_go_silent():
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


def test_a_device_that_goes_silent_holds_although_another_drives_on():
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
def test_a_policy_that_answers_old_observations_is_stale_although_it_answers_now(lag, drives):
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
def test_it_is_known_whether_a_human_ended_it(cause):
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


def test_an_operator_whose_pose_is_lost_gets_hold_and_leaves_no_steps_of_zeros_behind():
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
def test_a_pose_that_cannot_be_used_holds_and_is_named_although_good_ones_come_too(
    hand, spoil, words
):
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
def test_after_arming_in_a_running_episode_nobody_drives_for_the_dwell(hand, before):
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


def test_the_dwell_is_named_and_arming_what_is_armed_begins_no_other():
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


def test_among_several_publishers_of_stop_none_takes_back_what_another_has_said():
    bench = Bench().driving()
    bench.arbiter.stop(True, "stop", publishers=2)
    bench.arbiter.stop(False, "stop", publishers=2)
    bench.run(100)
    success, words = bench.arbiter.arm(True)
    assert not success and "2 publish" in words and "stop_topics" in words
    assert bench.arbiter.state is ControlState.FAULT
    bench.arbiter.stop(False, "stop", publishers=1)  # the other one was ended
    assert bench.arbiter.state is ControlState.FAULT and bench.arbiter.arm(True)[0]


def test_each_topic_of_stop_is_a_cause_of_its_own():
    bench = Bench().driving()
    bench.arbiter.stop(True, "stop")
    bench.arbiter.stop(True, "door/open")
    bench.arbiter.stop(False, "stop")
    success, words = bench.arbiter.arm(True)
    assert not success and "door/open" in words
    bench.arbiter.stop(False, "door/open")
    assert bench.arbiter.arm(True)[0]


@pytest.mark.parametrize("hand", [False, True])
def test_a_clock_that_goes_back_is_a_fault_and_makes_nothing_old_look_fresh(hand):
    bench = Bench().driving(hand=hand)
    bench.arbiter.output(bench.now - 0.02)  # stamps and their clock come in any order
    assert bench.arbiter.state in (ControlState.POLICY, ControlState.OPERATOR)
    command = bench.arbiter.output(bench.now - 0.25)
    assert bench.arbiter.state is ControlState.FAULT and not any(command.twist)
    assert "went back by 0.2" in bench.arbiter.reason
    ages = bench.arbiter.ages(bench.now)
    assert all(math.isinf(age) for age in ages.values())


def test_the_speed_scale_in_force_is_in_the_decision():
    bench = Bench().driving()
    bench.arbiter.limiter.speed_scale = 0.25
    bench.run(300)
    assert [d.speed_scale for d in bench.decisions][0] == 1.0
    assert bench.decisions[-1].speed_scale == 0.25
    assert bench.decisions[-1].executed_action == pytest.approx((0.125, 0.0, 0.0))
