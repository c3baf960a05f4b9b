"""Who has control when devices are locked, handed over or silent, and when a person ends it."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from rlif_intervention.arbitration import ControlState
from rlif_intervention.devices import Lock, Reading

_SPEC = importlib.util.spec_from_file_location(
    "arbiter_bench", Path(__file__).with_name("arbiter_bench.py")
)
_BENCH = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_BENCH)
Bench, ids, MS, PUSH, REST = (
    getattr(_BENCH, name) for name in ("Bench", "ids", "MS", "PUSH", "REST")
)


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
