# SPDX-License-Identifier: Apache-2.0
"""Episode bookkeeping without ROS: phases, counts, stamps, pacing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlif_node.states import ControlState, HoldReason

from rlif_intervention.episodes import (
    CONTROL_TIMEOUT,
    CountedDecision,
    EpisodeConfig,
    EpisodeKeeper,
    Outcome,
    Pacer,
    Phase,
)
from rlif_intervention.ticks import Source


def keeper(**values):
    k = EpisodeKeeper(EpisodeConfig(**({"auto_start": True, "reset": False} | values)))
    k.control(ControlState.HOLD, "armed", 0.0, 1)
    return k


def drive(k, stamps, source=Source.POLICY, onset=False, now=0.0):
    for stamp in stamps:
        k.decision(k.id, CountedDecision(stamp, source, onset), now)


def test_keeper_before_a_human_arms_starts_nothing():
    k = EpisodeKeeper(EpisodeConfig(auto_start=True, reset=True))
    assert k.begin_reset(0.0, 10) is None and k.start(0.0, 10) is None
    assert "arbiter" in k.waiting_for()
    k.control(ControlState.FAULT, "the stop signal is on", 0.0, 10)
    assert k.begin_reset(0.0, 10) is None and "stop signal" in k.waiting_for()
    k.control(ControlState.HOLD, "armed", 0.0, 10)
    assert k.begin_reset(0.0, 10).phase is Phase.RESETTING


@pytest.mark.parametrize("state", [ControlState.DISARMED, ControlState.FAULT])
def test_keeper_of_a_human_who_stops_forgets_the_request_and_the_reset_that_runs(state):
    """Regression: a request made before the stop moved the arm as soon as it was armed again."""
    k = keeper(auto_start=False, reset=True)
    k.request_start()
    assert k.begin_reset(0.0, 10).phase is Phase.RESETTING
    assert k.control(state, "stopped", 1.0, 20, by_human=True).phase is Phase.READY
    assert k.end_reset(30) is None, "an answer of the reset that was stopped"
    k.control(ControlState.HOLD, "armed", 2.0, 40)
    assert k.begin_reset(9.0, 50) is None and "start_episode" in k.waiting_for()
    k.request_start()
    assert k.begin_reset(9.0, 60).phase is Phase.RESETTING


def test_keeper_with_a_request_while_disarmed_keeps_it_when_the_state_is_repeated():
    k = keeper(auto_start=False, reset=True)
    k.control(ControlState.DISARMED, "disarmed", 1.0, 10, by_human=True)
    k.request_start()
    k.control(ControlState.DISARMED, "disarmed", 2.0, 20, by_human=True)
    k.control(ControlState.HOLD, "armed", 3.0, 30)
    assert k.begin_reset(3.0, 40).phase is Phase.RESETTING


def test_keeper_with_a_reset_that_lost_its_arbiter_begins_it_anew_once_armed():
    k = keeper(reset=True, arm_dwell=1.0)
    assert k.begin_reset(1.0, 10).phase is Phase.RESETTING
    assert k.check(CONTROL_TIMEOUT + 0.1, 20).phase is Phase.READY
    assert k.begin_reset(4.0, 30) is None
    k.control(ControlState.HOLD, "armed", 5.0, 40)
    assert k.begin_reset(6.0, 50).phase is Phase.RESETTING


def test_keeper_after_arming_resets_once_the_dwell_is_over_and_then_without_one():
    k = keeper(reset=True, arm_dwell=1.0)
    k.control(ControlState.HOLD, "armed", 0.9, 10)  # repeated
    assert k.begin_reset(0.99, 10) is None and k.phase is Phase.READY
    assert k.begin_reset(1.0, 20).phase is Phase.RESETTING
    k.control(ControlState.FAULT, "stalled", 2.0, 30)
    assert k.phase is Phase.READY
    k.control(ControlState.HOLD, "armed", 3.0, 40)
    assert k.begin_reset(3.5, 50) is None
    assert k.begin_reset(4.0, 60) and k.end_reset(70) and k.start(4.0, 80)
    k.end(Outcome.SUCCESS, "", 90)
    assert k.leave_ended(100) and k.begin_reset(4.1, 100), "episodes follow each other"


def test_keeper_without_a_recorder_waits_at_first_and_when_it_is_gone():
    k = keeper(wait_for_recorder=True)
    assert k.start(0.0, 10) is None and "wait_for_recorder" in k.waiting_for()
    k.recorder_seen = True
    assert k.start(0.0, 10).phase is Phase.RUNNING
    k.end(Outcome.SUCCESS, "", 20)
    k.leave_ended(20)
    k.recorder_seen = False
    assert k.start(0.0, 30) is None and "recorder" in k.waiting_for()


def test_keeper_without_auto_start_starts_when_asked():
    k = keeper(auto_start=False)
    assert k.start(0.0, 10) is None and "start_episode" in k.waiting_for()
    assert k.request_start()[0]
    assert k.start(0.0, 10).phase is Phase.RUNNING
    assert not k.request_start()[0]
    k.end(Outcome.FAILURE, "", 20)
    assert k.leave_ended(30) is None, "the arm is not moved before a human asks"
    k.request_start()
    assert k.leave_ended(30).id == 2


def test_keeper_before_the_first_policy_action_waits():
    k = keeper(wait_for_policy=True)
    assert k.start(0.0, 10) is None and "policy" in k.waiting_for()
    k.policy_seen = True
    assert k.start(0.0, 10).phase is Phase.RUNNING


@pytest.mark.parametrize("hold", [HoldReason.SERVO_PAUSED, HoldReason.NOT_MOVING])
def test_keeper_of_an_arm_that_cannot_be_driven_waits_and_names_the_cause(hold):
    k = keeper(reset=True)
    k.control(ControlState.HOLD, "paused by the watchdog", 0.0, 1, hold=hold)
    assert k.begin_reset(0.0, 10) and k.end_reset(20), "a planned reset pauses Servo itself"
    assert k.start(0.0, 30) is None and "paused by the watchdog" in k.waiting_for()
    k.control(ControlState.HOLD, "no episode", 0.0, 1)
    assert k.start(0.0, 40).phase is Phase.RUNNING


def test_keeper_with_the_last_state_of_an_arbiter_that_has_ended_waits_for_a_living_one():
    k = keeper()
    k.check(CONTROL_TIMEOUT + 0.1, 10)
    assert k.start(4.0, 20) is None and "is it running" in k.waiting_for()
    k.control(ControlState.HOLD, "armed", 4.0, 20)
    assert k.start(4.0, 30).phase is Phase.RUNNING


def test_keeper_that_was_restarted_counts_on_and_one_that_runs_does_not():
    k = keeper()
    k.used_episodes(7)
    assert k.start(0.0, 10).id == 8
    k.used_episodes(20)  # its own, by an arbiter that heard of them
    k.decision(8, CountedDecision(20, Source.OPERATOR, True, 5), 0.0)
    k.decision(8, CountedDecision(21, Source.POLICY, False, 0), 0.0)
    report = k.end(Outcome.SUCCESS, "", 30)
    assert (report.id, report.last_intervention) == (8, 5)
    assert k.leave_ended(40).id == 9


def test_keeper_of_an_episode_that_was_not_recorded_in_part_says_so_until_the_next():
    k = keeper()
    k.start(0.0, 10)
    k.recording_problem = "the disk is full"
    k.check(0.1, 20)
    k.recording_problem = ""
    k.check(0.2, 30)
    assert k.end(Outcome.SUCCESS, "", 40).unrecorded == "the disk is full"
    k.leave_ended(50)
    k.start(0.3, 60)
    assert k.end(Outcome.SUCCESS, "", 70).unrecorded == ""


@pytest.mark.parametrize("expected", [True, False])
def test_keeper_whose_recorder_ends_in_the_episode_says_so_if_one_is_expected(expected):
    k = keeper(wait_for_recorder=expected)
    k.recorder_seen = True
    k.start(0.0, 10)
    k.check(0.1, 20)
    k.recorder_seen = False
    k.check(0.2, 30)
    k.recorder_seen = True  # restarted: a part is missing
    k.check(0.3, 40)
    assert ("recorder ended" in k.end(Outcome.SUCCESS, "", 50).unrecorded) is expected


def test_keeper_without_a_clock_waits():
    assert keeper().start(0.0, 0) is None


def test_keeper_starts_after_every_stamp_that_is_known():
    k = keeper()
    k.start(0.0, 100)
    drive(k, [150, 250])
    k.end(Outcome.SUCCESS, "", 251)
    k.leave_ended(251)
    assert k.start(0.0, 180).stamp == 251


def test_keeper_counts_steps_and_ends_at_the_time_limit():
    k = keeper(max_steps=4)
    k.start(0.0, 100)
    drive(k, [101])
    drive(k, [102], Source.OPERATOR, onset=True)
    drive(k, [103], Source.OPERATOR)
    report = k.decision(1, CountedDecision(104, Source.POLICY, False), 0.0)
    assert (report.outcome, report.stamp) == (Outcome.TRUNCATED, 105)
    assert (report.steps, report.interventions, report.operator_steps) == (4, 1, 2)


def test_success_at_a_stamp_drops_the_decisions_from_there_on():
    k = keeper()
    k.start(0.0, 100)
    drive(k, [101, 102, 103])
    report = k.succeed(103, "in")
    assert report.steps == 2 and report.stamp == 103 and report.outcome is Outcome.SUCCESS


def test_discarded_episode_does_not_count_and_its_steps_are_waited_for():
    k = keeper(auto_start=True, max_episodes=1, pace=True)
    k.pacer.learner(0, 0, True)
    k.start(0.0, 100)
    drive(k, [101, 102])
    report = k.end(Outcome.DISCARDED, "discard button", 103)
    assert report.outcome is Outcome.DISCARDED and report.steps == 2
    assert k.wanted, "one more in its place"
    k.leave_ended(103)
    assert "2 of 3" not in (k.waiting_for() or "") and k.start(0.0, 200) is None
    k.pacer.learner(3, 0, True)
    assert k.start(0.0, 200).phase is Phase.RUNNING
    k.end(Outcome.SUCCESS, "", 300)
    assert not k.wanted


def test_success_from_before_the_start_is_ignored():
    k = keeper()
    k.start(0.0, 100)
    assert k.succeed(99, "late") is None and k.phase is Phase.RUNNING


def test_reset_waits_for_the_final_observation():
    k = keeper(settle_time=50)
    k.start(0.0, 100)
    k.end(Outcome.SUCCESS, "", 200)
    assert k.leave_ended(249) is None
    assert k.leave_ended(250) is not None


def test_control_lost_or_silence_truncates_and_disarming_does_so_at_once():
    k = keeper(control_lost_timeout=5.0)
    k.start(0.0, 100)
    k.control(ControlState.POLICY, "", 1.0, 100)
    drive(k, [101], now=4.0)
    assert k.check(6.0, 200) is None
    k.control(ControlState.HOLD, "no camera", 6.0, 200)
    drive(k, [102], now=10.9)
    assert k.check(11.0, 300) is None
    assert "no camera" in k.check(11.1, 300).reason
    k.leave_ended(300)
    k.start(20.0, 400)
    k.control(ControlState.POLICY, "", 20.0, 400)
    assert "no decision" in k.check(25.1, 500).reason
    k.leave_ended(500)
    assert k.start(26.0, 600) is None, "an arbiter that may be dead gets no episode"
    k.control(ControlState.HOLD, "no episode is running", 30.0, 600)
    k.start(30.0, 600)
    report = k.control(ControlState.DISARMED, "the arbiter has ended", 30.1, 650)
    assert report.outcome is Outcome.TRUNCATED


@pytest.mark.parametrize("state", [ControlState.DISARMED, ControlState.FAULT])
@pytest.mark.parametrize("driver", [ControlState.POLICY, ControlState.OPERATOR, ControlState.HOLD])
def test_human_who_disarms_or_stops_ends_the_episode_as_a_failure_at_once(state, driver):
    k = keeper()
    k.start(0.0, 100)
    k.control(driver, "", 1.0, 100)
    drive(k, [101, 102])
    report = k.control(state, "the stop signal is on", 1.1, 200, by_human=True)
    assert (report.outcome, report.stamp, report.steps) == (Outcome.FAILURE, 200, 2)
    assert report.reason == "aborted: the stop signal is on"
    assert k.control(state, "again", 1.2, 300, by_human=True) is None


def test_fault_that_no_human_caused_is_no_abort():
    k = keeper(control_lost_timeout=5.0)
    k.start(0.0, 100)
    k.control(ControlState.POLICY, "", 1.0, 100)
    drive(k, [101], now=1.0)
    assert k.control(ControlState.FAULT, "not finite", 2.0, 200) is None
    drive(k, [102], now=6.9)
    assert k.check(7.1, 300).outcome is Outcome.TRUNCATED


def test_max_episodes_counts_from_when_it_is_set():
    k = keeper(max_episodes=1)
    k.start(0.0, 100)
    k.end(Outcome.SUCCESS, "", 200)
    assert k.leave_ended(201).phase is Phase.READY and k.start(0.0, 300) is None
    k.configure(EpisodeConfig(auto_start=True, reset=False, max_episodes=2), restart_count=True)
    for number in (2, 3):
        assert k.start(0.0, 1000 * number).id == number
        k.end(Outcome.SUCCESS, "", 1000 * number + 1)
        k.leave_ended(1000 * number + 2)
    assert k.start(0.0, 9000) is None


def test_running_episode_keeps_the_parameters_it_began_with():
    k = keeper()
    k.start(0.0, 100)
    k.configure(EpisodeConfig(auto_start=True, evaluation=True, max_steps=1), restart_count=False)
    drive(k, [101, 102])
    report = k.end(Outcome.SUCCESS, "", 200)
    assert not report.evaluation and report.max_steps == 0 and report.steps == 2


def test_pacer_counts_final_steps_and_late_decisions_but_no_evaluation():
    k = keeper(pace=True)
    k.pacer.learner(0, 0, True)
    k.start(0.0, 100)
    drive(k, [101, 102])
    k.end(Outcome.SUCCESS, "", 104)
    k.decision(1, CountedDecision(103, Source.POLICY, False), 0.0)
    k.decision(1, CountedDecision(104, Source.POLICY, False), 0.0)  # at the end: not a step
    k.pacer.learner(3, 0, True)
    assert "3 of 4" in k.waiting_for()
    k.pacer.learner(4, 0, False)
    assert "working" in k.waiting_for()
    k.pacer.learner(4, 0, True)
    assert k.waiting_for() is None
    k.configure(EpisodeConfig(auto_start=True, reset=False, evaluation=True, pace=True), False)
    k.leave_ended(200)
    k.start(0.0, 200)
    drive(k, [201])
    k.end(Outcome.SUCCESS, "", 202)
    assert k.waiting_for() is None


def test_pacer_with_lost_steps_or_a_restarted_learner_does_not_block():
    p = Pacer()
    assert "no status" in p.waiting_for()
    p.add(10)
    p.learner(8, 2, True)
    assert p.waiting_for() is None
    assert p.learner(0, 0, True)
    assert p.waiting_for() is None
    p.begin()
    p.add(5)
    assert "0 of 5" in p.waiting_for()


def test_pacer_with_a_learner_restarted_in_an_episode_waits_from_the_next_one_on():
    """Regression: the steps that went to the learner before it were awaited for ever."""
    k = keeper(pace=True)
    k.pacer.learner(100, 3, True)
    k.start(0.0, 100)
    drive(k, [101, 102, 103])
    assert k.pacer.learner(1, 2, True)
    k.end(Outcome.SUCCESS, "", 105)
    k.decision(1, CountedDecision(104, Source.POLICY, False), 0.0)
    assert k.waiting_for() is None
    k.leave_ended(200)
    k.start(0.0, 200)
    drive(k, [201])
    k.end(Outcome.SUCCESS, "", 202)
    assert "0 of 2" in k.waiting_for()
    k.pacer.learner(3, 2, True)
    assert k.waiting_for() is None


def test_pacer_with_a_learner_first_received_in_an_episode_waits_from_the_next_one_on():
    p = Pacer()
    p.begin()
    p.learner(3, 0, True)
    p.add(6)
    assert p.waiting_for() is None
    p.learner(6, 0, True)
    p.begin()
    p.add(4)
    assert "of 7" in p.waiting_for()


def test_pacer_with_gaps_that_stand_for_no_step_does_not_add_them_up():
    """The recorder leaves a number out for a hole in time: pacing must not grow lax by it."""
    p = Pacer()
    p.learner(0, 0, True)
    p.begin()
    p.add(10)
    p.learner(10, 1, True)
    p.begin()
    p.add(10)
    p.learner(19, 1, True)
    assert "of 21" in p.waiting_for()


@pytest.mark.parametrize("name", ["max_steps", "max_episodes", "settle_time"])
def test_config_with_negative_numbers_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is -1"):
        EpisodeConfig(**{name: -1})


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_config_with_an_arm_dwell_that_is_no_time_is_refused(bad):
    with pytest.raises(ValueError, match="arm_dwell is"):
        EpisodeConfig(arm_dwell=bad)


OPS = st.sampled_from(
    ["decide", "late", "succeed", "fail", "lose", "abort", "hold", "policy", "go", "tick"]
)


def happen(k, op, now, ros):
    return {
        "decide": lambda: k.decision(k.id, CountedDecision(ros, Source.POLICY, False), now),
        "late": lambda: k.decision(k.id - 1, CountedDecision(ros - 5, Source.POLICY, True), now),
        "succeed": lambda: k.succeed(ros - 3, ""),
        "fail": lambda: k.end(Outcome.FAILURE, "", ros),
        "lose": lambda: k.control(ControlState.DISARMED, "", now, ros),
        "abort": lambda: k.control(ControlState.FAULT, "", now, ros, by_human=True),
        "hold": lambda: k.control(ControlState.HOLD, "", now, ros),
        "policy": lambda: k.control(ControlState.POLICY, "", now, ros),
        "go": lambda: k.leave_ended(ros) or k.start(now, ros),
        "tick": lambda: k.check(now, ros),
    }[op]()


@settings(deadline=None)
@given(st.lists(st.tuples(OPS, st.integers(1, 20)), max_size=60))
def test_keeper_with_any_events_reports_in_order_and_ends_each_episode_once(ops):
    k, ros, reports = keeper(max_steps=5), 1, []
    for op, amount in ops:
        ros += amount
        reports.append(happen(k, op, float(ros), ros))
    reports = [r for r in reports if r is not None]
    running = [r.id for r in reports if r.phase is Phase.RUNNING]
    ended = [r.id for r in reports if r.phase is Phase.ENDED]
    assert running == sorted(set(running)) and ended == sorted(set(ended))
    assert set(running) - set(ended) <= {k.id}
    starts = {r.id: r.stamp for r in reports if r.phase is Phase.RUNNING}
    for r in reports:
        if r.phase is Phase.ENDED:
            assert r.stamp >= starts[r.id] and r.outcome is not Outcome.RUNNING and r.steps <= 5


def test_pacer_with_a_resumed_learner_of_a_high_count_waits():
    pacer = Pacer()
    pacer.learner(steps=5000, lost=0, caught_up=True)
    pacer.add(37)
    assert "0 of 37" in pacer.waiting_for()
    pacer.learner(steps=5037, lost=0, caught_up=True)
    assert pacer.waiting_for() is None


def test_pacer_with_steps_from_before_the_first_status_waits_for_them():
    pacer = Pacer()
    pacer.add(37)
    pacer.learner(steps=0, lost=0, caught_up=True)
    assert "0 of 37" in pacer.waiting_for()
